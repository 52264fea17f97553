//! What a runtime has to offer to be measured.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A runtime. Its functions are called from within it, so none takes a handle.
pub trait Rt: Send + Sync + 'static {
    /// What a spawn gives back.
    type Join<T: Send + 'static>: Future<Output = T> + Send + 'static;

    /// Spawns a task.
    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Spawns a task that nobody awaits.
    fn detach<F>(future: F)
    where
        F: Future<Output = ()> + Send + 'static;

    /// Spawns two tasks on workers apart, if the runtime has a way to say so.
    fn spawn_apart<A, B>(a: A, b: B) -> (Self::Join<A::Output>, Self::Join<B::Output>)
    where
        A: Future + Send + 'static,
        A::Output: Send + 'static,
        B: Future + Send + 'static,
        B::Output: Send + 'static,
    {
        (Self::spawn(a), Self::spawn(b))
    }

    /// Lets others run.
    fn yield_now() -> impl Future<Output = ()> + Send {
        YieldNow(false)
    }

    /// A timer.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send;

    /// A future with a limit of time.
    fn timeout<F>(duration: Duration, future: F) -> impl Future<Output = ()> + Send
    where
        F: Future<Output = ()> + Send;

    /// Why it cannot do a case.
    fn skips(_case: &str, _workers: usize) -> Option<&'static str> {
        None
    }
}

/// Wakes itself once: for runtimes that have no yield of their own.
#[derive(Debug)]
struct YieldNow(bool);

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A future of a runtime whose tasks never leave their thread, for the cases,
/// which are written for those whose tasks do.
#[derive(Debug)]
pub struct Stays<F>(F);

impl<F> Stays<F> {
    /// Takes the word for it.
    ///
    /// # Safety
    ///
    /// The future is polled and dropped on the thread that it was made on.
    pub unsafe fn new(future: F) -> Stays<F> {
        Stays(future)
    }
}

// SAFETY: it does not leave its thread, by the promise given to `new`.
unsafe impl<F> Send for Stays<F> {}

impl<F: Future> Future for Stays<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the field is never moved out, and is pinned as we are.
        unsafe { self.map_unchecked_mut(|this| &mut this.0) }.poll(cx)
    }
}
