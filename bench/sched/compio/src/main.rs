//! `compio`, on io_uring.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use compio::runtime::{JoinHandle, Runtime};
use compio::time;
use sched_common::{Args, Rt, Stays};

#[derive(Debug)]
struct Compio;

/// Awaits a task that does not panic and that nobody cancels.
struct Join<T>(JoinHandle<T>);

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx).map(|output| match output {
            Ok(output) => output,
            Err(_) => panic!("the task ends"),
        })
    }
}

impl Rt for Compio {
    type Join<T: Send + 'static> = Stays<Join<T>>;

    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // SAFETY: compio's tasks stay on the thread of their runtime, and
        // there is one.
        unsafe { Stays::new(Join(compio::runtime::spawn(future))) }
    }

    fn detach<F>(future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        compio::runtime::spawn(future).detach();
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
}

fn main() {
    let args = Args::parse().one_worker_only();
    let runtime = Runtime::new().expect("compio starts");
    sched_common::run::<Compio>("compio", &args, |case| {
        runtime.block_on(async { Join(compio::runtime::spawn(case)).await })
    })
}
