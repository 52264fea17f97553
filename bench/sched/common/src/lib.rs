//! What all scheduler benchmarks share, so that they differ in the runtime
//! alone.
//!
//! ```text
//! sched-tokio --workers 2 [--only CASE] [--scale F] [--repetitions N] [--once]
//! ```
//!
//! One line of JSON a case. A case is run once to warm up, N times (7, if not
//! said) for the time (the median counts, the extremes are given), and once
//! with the allocator counting. `--once` runs it just once, without any of
//! that: the difference of two such runs, of which one has twice the
//! operations, is what `counts` puts under callgrind.

#![warn(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod alloc;
pub mod cases;
pub mod channel;
mod meter;
pub mod rt;

use std::io::{self, Write};
use std::pin::Pin;
use std::process;

pub use cases::{Case, Cost};
pub use meter::{Meter, Sample};
pub use rt::{Rt, Stays};

/// The command line.
#[derive(Clone, Debug)]
pub struct Args {
    /// `--workers`
    pub workers: usize,
    only: Option<String>,
    scale: f64,
    /// How often a case is timed.
    repetitions: usize,
    once: bool,
}

impl Args {
    /// From the command line; ends the process if it makes no sense.
    pub fn parse() -> Args {
        let mut args = Args {
            workers: 1,
            only: None,
            scale: 1.0,
            repetitions: 7,
            once: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--once" {
                args.once = true;
                continue;
            }
            let value = words.next().unwrap_or_else(|| usage(&word));
            match word.as_str() {
                "--workers" => args.workers = value.parse().unwrap_or_else(|_| usage(&word)),
                "--only" => args.only = Some(value),
                "--repetitions" => {
                    args.repetitions = value.parse().unwrap_or_else(|_| usage(&word));
                }
                "--scale" => args.scale = value.parse().unwrap_or_else(|_| usage(&word)),
                _ => usage(&word),
            }
        }
        let is_scale = args.scale > 0.0 && args.scale.is_finite();
        if args.workers == 0 || args.repetitions == 0 || !is_scale {
            usage("a number that is not above zero");
        }
        args
    }

    /// Ends the process if there is more than one worker: for runtimes that
    /// have one thread.
    pub fn one_worker_only(self) -> Args {
        if self.workers != 1 {
            eprintln!("this runtime has one thread: --workers 1");
            process::exit(2);
        }
        self
    }

    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == case)
    }

    fn ops(&self, case: &Case) -> u64 {
        ((case.ops as f64 * self.scale) as u64).max(1)
    }
}

fn usage(word: &str) -> ! {
    eprintln!("what about `{word}`?");
    eprintln!("usage: --workers N [--only CASE] [--scale F] [--repetitions N] [--once]");
    process::exit(2)
}

/// Runs the cases of a runtime. `block_on` runs a future, as a task of the
/// runtime if there is a difference, to its end. Ends the process.
pub fn run<R: Rt>(
    runtime: &str,
    args: &Args,
    mut block_on: impl FnMut(Pin<Box<dyn Future<Output = Sample> + Send>>) -> Sample,
) -> ! {
    let mut ran = false;
    for case in cases::all::<R>() {
        if !args.wants(case.name) {
            continue;
        }
        ran = true;
        let alone = case.name == "ping-pong-cross" && args.workers < 2;
        let skipped = alone.then_some("needs two workers");
        if let Some(why) = skipped.or_else(|| R::skips(case.name, args.workers)) {
            say_skipped(runtime, case.name, args.workers, why);
            continue;
        }
        let ops = args.ops(&case);
        measure(runtime, args, case.name, case.cost, || {
            block_on((case.run)(ops))
        });
    }
    finish(args, ran)
}

/// Measures one case by what runs a repetition, and says so on stdout.
pub fn measure(
    runtime: &str,
    args: &Args,
    case: &str,
    cost: Cost,
    mut repetition: impl FnMut() -> Sample,
) {
    if args.once {
        let sample = repetition();
        say(&format!(
            r#"{{"runtime":"{runtime}","case":"{case}","workers":{},"ops":{},"once":true}}"#,
            args.workers, sample.ops
        ));
        return;
    }
    repetition();
    let mut costs = Vec::with_capacity(args.repetitions);
    for _ in 0..args.repetitions {
        let sample = repetition();
        let time = match cost {
            Cost::Cpu => sample.cpu,
            Cost::Wall | Cost::Held => sample.wall,
        };
        costs.push(time.as_nanos() as f64 / sample.ops as f64);
    }
    costs.sort_by(f64::total_cmp);
    alloc::count(true);
    let counted = repetition();
    alloc::count(false);
    let (blocks, bytes) = match cost {
        Cost::Held => (counted.counts.live_calls, counted.counts.live_bytes),
        Cost::Wall | Cost::Cpu => (counted.counts.calls, counted.counts.bytes),
    };
    let ops = counted.ops as f64;
    say(&format!(
        r#"{{"runtime":"{runtime}","case":"{case}","workers":{},"ns_per_op":{:.2},"min_ns_per_op":{:.2},"max_ns_per_op":{:.2},"clock":"{}","ops":{},"repetitions":{},"allocations_per_op":{:.3},"bytes_per_op":{:.1}}}"#,
        args.workers,
        costs[costs.len() / 2],
        costs[0],
        costs[costs.len() - 1],
        if cost == Cost::Cpu { "cpu" } else { "wall" },
        counted.ops,
        costs.len(),
        blocks as f64 / ops,
        bytes as f64 / ops,
    ));
}

/// Says that a case was left out, and why.
pub fn say_skipped(runtime: &str, case: &str, workers: usize, why: &str) {
    say(&format!(
        r#"{{"runtime":"{runtime}","case":"{case}","workers":{workers},"skipped":"{why}"}}"#
    ));
}

/// Whether `--only` lets a case through: for those that do not use [`run`].
pub fn wanted(args: &Args, case: &str) -> bool {
    args.wants(case)
}

/// The operations of a case that has so many at scale 1.
pub fn scaled(args: &Args, ops: u64) -> u64 {
    ((ops as f64 * args.scale) as u64).max(1)
}

/// Ends the process, with an error if no case has the name that `--only` has.
/// Idle tasks go with it.
pub fn finish(args: &Args, ran: bool) -> ! {
    if !ran {
        let only = args.only.as_deref().unwrap_or_default();
        eprintln!("no case is called `{only}`");
        process::exit(2);
    }
    process::exit(0)
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    if written.is_err() {
        // Nobody reads any more.
        process::exit(1);
    }
}
