//! `tokio`: the multi-thread runtime.

#![forbid(unsafe_code)]

mod runtimes;

use runtimes::Tokio;
use sched_common::Args;
use tokio::runtime::Builder;

fn main() {
    let args = Args::parse();
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(args.workers).enable_all();
    let runtime = builder.build().expect("tokio starts");
    // The future of `block_on` would run outside of the workers.
    sched_common::run::<Tokio>("tokio", &args, |case| {
        runtime
            .block_on(runtime.spawn(case))
            .expect("the case does not panic")
    })
}
