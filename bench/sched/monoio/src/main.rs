//! `monoio`, on io_uring, and `monoio-sync`: the same with the feature `sync`,
//! without which its wakers panic on other threads.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

use std::future::Future;
use std::time::Duration;

use monoio::{IoUringDriver, RuntimeBuilder, time};
use sched_common::{Args, Rt, Stays};

const NAME: &str = if cfg!(feature = "sync") {
    "monoio-sync"
} else {
    "monoio"
};

#[derive(Debug)]
struct Monoio;

impl Rt for Monoio {
    type Join<T: Send + 'static> = Stays<monoio::task::JoinHandle<T>>;

    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // SAFETY: monoio has one thread, and all tasks stay on it.
        unsafe { Stays::new(monoio::spawn(future)) }
    }

    fn detach<F>(future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(monoio::spawn(future));
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        // SAFETY: as above.
        unsafe { Stays::new(time::sleep(duration)) }
    }

    fn timeout<F>(duration: Duration, future: F) -> impl Future<Output = ()> + Send
    where
        F: Future<Output = ()> + Send,
    {
        let limited = async move {
            let _ = time::timeout(duration, future).await;
        };
        // SAFETY: as above.
        unsafe { Stays::new(limited) }
    }

    fn skips(case: &str, _: usize) -> Option<&'static str> {
        match (case, cfg!(feature = "sync")) {
            ("wake-cross", false) => Some("wakers panic on other threads without its feature sync"),
            _ => None,
        }
    }
}

fn main() {
    let args = Args::parse().one_worker_only();
    let builder = RuntimeBuilder::<IoUringDriver>::new().enable_timer();
    let mut runtime = builder.build().expect("monoio starts");
    sched_common::run::<Monoio>(NAME, &args, |case| {
        runtime.block_on(async { monoio::spawn(case).await })
    })
}
