//! Random programs of socket operations on std, the reactor and the proactor:
//! what agrees, and what may differ, stands in `sockets`.
//!
//! A failure prints its program; `ISOCHROME_PROGRAM=1,2,3` runs one again, and
//! `ISOCHROME_SEED=n` all of a seed.

mod common;
mod sockets;

use std::time::{Duration, Instant};

use common::bytes::Random;
use common::everywhere;
use isochrome::Runtime;
use sockets::Program;

everywhere!(random_programs);

/// A bound for a busy machine; most of it is not needed.
const LIMIT: Duration = Duration::from_secs(3);

fn random_programs(runtime: Runtime) {
    if let Ok(program) = std::env::var("ISOCHROME_PROGRAM") {
        let bytes = program
            .split(',')
            .map(|byte| byte.trim().parse().expect("a byte"));
        return check(&runtime, &bytes.collect::<Vec<u8>>());
    }
    let mut random = Random::seeded();
    let begun = Instant::now();
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..random.below(120))
            .map(|_| random.next() as u8)
            .collect();
        check(&runtime, &bytes);
        if begun.elapsed() > LIMIT {
            break;
        }
    }
}

fn check(runtime: &Runtime, bytes: &[u8]) {
    let program = Program::decode(bytes);
    let print = Print(&program, bytes);
    let std = sockets::on_std(&program).expect("sockets");
    let ours = sockets::on(runtime, &program).expect("sockets");
    assert_eq!(ours, std);
    std::mem::forget(print);
}

/// Says which program it was when a test fails.
struct Print<'a>(&'a Program, &'a [u8]);

impl Drop for Print<'_> {
    fn drop(&mut self) {
        eprintln!("{:?}\n{:#?}", self.1, self.0);
    }
}
