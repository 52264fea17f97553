//! `smol`: async-executor with so many threads that run it, and async-io's
//! timers.

#![forbid(unsafe_code)]

use std::future::{Future, pending};
use std::thread;
use std::time::Duration;

use sched_common::{Args, Rt};
use smol::{Executor, Task, Timer, future};

static EXECUTOR: Executor<'static> = Executor::new();

#[derive(Debug)]
struct Smol;

impl Rt for Smol {
    type Join<T: Send + 'static> = Task<T>;

    fn spawn<F>(future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        EXECUTOR.spawn(future)
    }

    fn detach<F>(future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        EXECUTOR.spawn(future).detach();
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        future::yield_now()
    }

    async fn sleep(duration: Duration) {
        Timer::after(duration).await;
    }

    fn timeout<F>(duration: Duration, future: F) -> impl Future<Output = ()> + Send
    where
        F: Future<Output = ()> + Send,
    {
        future::or(future, Self::sleep(duration))
    }
}

fn main() {
    let args = Args::parse();
    for _ in 1..args.workers {
        thread::spawn(|| smol::block_on(EXECUTOR.run(pending::<()>())));
    }
    sched_common::run::<Smol>("smol", &args, |case| {
        smol::block_on(EXECUTOR.run(EXECUTOR.spawn(case)))
    })
}
