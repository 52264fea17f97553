//! The futures: `sleep`, `timeout`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::wheel::Key;
use crate::runtime::Handle;
use crate::worker::Worker;

/// Waits for `duration`, at least: timers fire up to a millisecond late, or
/// more when the worker is busy, and never early.
///
/// Dropping the future removes the timer. It may move: it stays with the runtime
/// that it was first polled in, and if that ends, goes on in the one that polls
/// it next.
///
/// # Panics
///
/// When it is first polled, if the thread is in no runtime.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(later(Instant::now(), duration))
}

/// An end beyond what the clock can say is as good as never.
pub(super) fn later(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).unwrap_or_else(|| now + FOREVER)
}

/// Thirty years.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Waits until `deadline` has passed. See [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        runtime: None,
        timer: None,
    }
}

impl Handle {
    /// As [`sleep_until`], on this runtime: it can be polled on any thread, and
    /// ends when the runtime runs.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep {
            deadline,
            runtime: Some(self.clone()),
            timer: None,
        }
    }
}

/// The future of [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    deadline: Instant,
    /// The runtime to use; `None`: that of the thread that polls.
    runtime: Option<Handle>,
    timer: Option<Started>,
}

/// A timer on the wheel of a worker.
struct Started {
    runtime: Handle,
    worker: usize,
    key: Key,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it has ended, by the clock.
    pub fn is_elapsed(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Makes it end at another time, also when it has ended already: it is to
    /// be polled again then. A time limit that begins anew with each byte needs
    /// no new `Sleep` for each.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.timer = None;
    }

    fn start(&mut self, cx: &Context<'_>) {
        let (runtime, worker) = match &self.runtime {
            None => Worker::expect("time::sleep", |worker| {
                (worker.runtime().clone(), Some(worker.index()))
            }),
            Some(runtime) => (runtime.clone(), runtime.current_worker()),
        };
        let shared = runtime.shared();
        let index = worker.unwrap_or_else(|| shared.any_worker());
        let tick = shared.clock().tick_after(self.deadline);
        let key = shared.workers[index].timers.start(tick, cx.waker().clone());
        if worker.is_none() {
            // It may sleep for longer than until then.
            shared.notify(index);
        }
        self.timer = Some(Started {
            runtime,
            worker: index,
            key,
        });
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_elapsed() {
            self.timer = None;
            return Poll::Ready(());
        }
        let kept = self.timer.as_ref().is_some_and(|started| {
            let timers = &started.runtime.shared().workers[started.worker].timers;
            timers.set_waker(started.key, cx.waker())
        });
        if !kept {
            self.start(cx);
        }
        Poll::Pending
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.runtime.shared().workers[self.worker]
            .timers
            .remove(self.key);
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Gives `future` at most `duration`. When that is over the future is left
/// where it is, and dropped with the `Timeout`: what that loses is up to it.
///
/// The future is polled first, so that one that is ready wins also against a
/// timeout of zero.
///
/// # Panics
///
/// As for [`sleep`].
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep(duration),
    }
}

/// As [`timeout`], by a point in time.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep_until(deadline),
    }
}

pin_project! {
    /// The future of [`timeout`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll(cx).map(|()| Err(Elapsed(())))
    }
}

/// The time was over before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(e: Elapsed) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::TimedOut, e)
    }
}
