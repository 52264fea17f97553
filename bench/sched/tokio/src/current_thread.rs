//! `tokio-current`: the current-thread runtime.

#![forbid(unsafe_code)]

mod runtimes;

use runtimes::Tokio;
use sched_common::Args;
use tokio::runtime::Builder;

fn main() {
    let args = Args::parse().one_worker_only();
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("tokio starts");
    sched_common::run::<Tokio>("tokio-current", &args, |case| {
        runtime
            .block_on(runtime.spawn(case))
            .expect("the case does not panic")
    })
}
