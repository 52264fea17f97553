//! `rayon`: it has no tasks that wait, so it runs the fan-out alone. The
//! figures are those of `scope` with a spawn for each piece of work, as the
//! async runtimes have it; `rayon-iter` is what its docs would have one write.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use sched_common::cases::{BATCH, LONG, SHORT, work};
use sched_common::{Args, Cost, Meter, Sample};

fn main() {
    let args = Args::parse();
    let builder = ThreadPoolBuilder::new().num_threads(args.workers);
    let pool = builder.build().expect("rayon starts");
    let mut ran = false;
    for (case, steps, ops) in [
        ("fan-out-fan-in-1us", SHORT, 20_000),
        ("fan-out-fan-in-20us", LONG, 2_000),
    ] {
        if !sched_common::wanted(&args, case) {
            continue;
        }
        ran = true;
        let rounds = (sched_common::scaled(&args, ops) / BATCH).max(1);
        sched_common::measure("rayon", &args, case, Cost::Wall, || {
            repetition(&pool, rounds, || spawns(steps))
        });
        sched_common::measure("rayon-iter", &args, case, Cost::Wall, || {
            repetition(&pool, rounds, || iterator(steps))
        });
    }
    sched_common::finish(&args, ran)
}

fn repetition(pool: &ThreadPool, rounds: u64, round: impl Fn() -> u64 + Send + Sync) -> Sample {
    pool.install(|| {
        let meter = Meter::start();
        for _ in 0..rounds {
            std::hint::black_box(round());
        }
        meter.stop(rounds * BATCH)
    })
}

fn spawns(steps: u64) -> u64 {
    let sum = AtomicU64::new(0);
    rayon::scope(|scope| {
        for _ in 0..BATCH {
            scope.spawn(|_| {
                sum.fetch_xor(work(steps), Ordering::Relaxed);
            });
        }
    });
    sum.into_inner()
}

fn iterator(steps: u64) -> u64 {
    (0..BATCH)
        .into_par_iter()
        .map(|_| work(steps))
        .reduce(|| 0, |a, b| a ^ b)
}
