//! tokio, with its drivers on, as a server would have them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sched_common::Rt;
use tokio::task::JoinHandle;
use tokio::time;

/// tokio's tasks.
#[derive(Debug)]
pub struct Tokio;

/// Awaits a task that does not panic and that nobody aborts.
#[derive(Debug)]
pub struct Join<T>(JoinHandle<T>);

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|output| output.expect("the task ends"))
    }
}

impl Rt for Tokio {
    type Join<T: Send + 'static> = Join<T>;

    fn spawn<F>(future: F) -> Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Join(tokio::spawn(future))
    }

    fn detach<F>(future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(tokio::spawn(future));
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        time::sleep(duration)
    }

    async fn timeout<F>(duration: Duration, future: F)
    where
        F: Future<Output = ()> + Send,
    {
        let _ = time::timeout(duration, future).await;
    }
}
