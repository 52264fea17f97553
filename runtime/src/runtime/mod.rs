//! The pieces put together.
//!
//! * `builder`: how a runtime is made.
//! * `shared`: what its threads share.
//! * `handle`: how it is reached from anywhere.
//! * `background`: a runtime with a thread for worker 0 too.
//! * this file: [`Runtime`] itself, and how it ends.

mod background;
mod builder;
mod handle;
mod shared;

pub use background::Background;
pub use builder::{Builder, Placement};
pub use handle::{Handle, spawn, spawn_apart, spawn_blocking, spawn_local, yield_now};
pub(crate) use {handle::spawn_on, shared::Shared};

use std::future::Future;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::panic::{Location, resume_unwind};
use std::pin::pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crate::stats::Stats;
use crate::sync::atomic::Ordering;
use crate::task::NewTask;
use crate::worker::Worker;

/// A worker that unwinds would leave futures and operations behind that nobody
/// may touch any more, and borrowed futures that are about to dangle. Tasks do
/// not unwind into it; what does is a driver that cannot wait, or a bug.
struct Fatal {
    /// The thread was unwinding before it came here: not our panic.
    unwinding: bool,
}

impl Fatal {
    fn new() -> Fatal {
        Fatal {
            unwinding: thread::panicking(),
        }
    }
}

impl Drop for Fatal {
    fn drop(&mut self) {
        if thread::panicking() && !self.unwinding {
            eprintln!("isochrome: a worker panicked outside of every task; aborting");
            std::process::abort();
        }
    }
}

/// An async runtime: workers with their drivers, colors, timers, and a
/// blocking pool.
///
/// It stays with the thread that built it, which is its worker 0 during
/// [`block_on`](Runtime::block_on); an io_uring belongs to one thread. A
/// [`Handle`] goes anywhere.
///
/// # The end
///
/// Dropping the runtime ends it, and waits: nothing can be spawned any more;
/// every task is dropped under its color; every operation is cancelled and
/// drained, and what the kernel still holds after the grace period is leaked,
/// never freed; threads are joined. Closures that the blocking pool has begun
/// are waited for, within the grace period.
#[derive(Debug)]
pub struct Runtime {
    worker: Worker,
    threads: Vec<thread::JoinHandle<()>>,
    grace: Duration,
    /// Neither `Send` nor `Sync`.
    stays_here: PhantomData<*const ()>,
}

impl Runtime {
    /// Runs a future to its end on this thread, in the default color. The
    /// thread is worker 0 for that time, and other tasks run on it too.
    ///
    /// The future may borrow, and need not be `Send`. Tasks go on when it has
    /// ended only on other workers, or in the next `block_on`.
    ///
    /// # Panics
    ///
    /// If the future panics, with its panic; and when called from within a
    /// task of this runtime.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let at = Location::caller();
        let shared = self.worker.runtime().shared();
        self.assert_outside("block_on");
        let fatal = Fatal::new();
        let _entered = self.worker.enter();
        let color = shared.default_color();
        // SAFETY: the default color runs on this thread alone, and the future
        // is dropped before we return: the loop ends when the task is
        // complete, and the process if the loop unwinds (`Fatal`).
        let mut new = unsafe { NewTask::new(future, Some(color), at) };
        shared.adopt(new.task);
        self.worker.run(|| new.handle.is_finished());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match pin!(&mut new.handle).poll(&mut cx) {
            Poll::Ready(Ok(output)) => output,
            Poll::Ready(Err(e)) => match e.into_panic() {
                Ok(payload) => {
                    // This unwinds through us by the user's will.
                    std::mem::forget(fatal);
                    resume_unwind(payload)
                }
                Err(e) => unreachable!("nobody else aborts it: {e}"),
            },
            Poll::Pending => unreachable!("the loop ends when the task is complete"),
        }
    }

    /// One turn of worker 0, for a thread that belongs to another event loop:
    /// runs what is ready, within a budget, and gives the driver and the
    /// timers their turn. If nothing is ready it sleeps for at most `limit`
    /// (`None`: without limit; zero: not at all).
    ///
    /// Between turns the host waits until [`as_fd`](Runtime::as_fd) is
    /// readable or [`next_deadline`](Runtime::next_deadline) has come. The
    /// first turn comes before the first wait.
    ///
    /// # Panics
    ///
    /// When called from within a task of this runtime.
    #[track_caller]
    pub fn turn(&self, limit: Option<Duration>) {
        self.assert_outside("turn");
        let _fatal = Fatal::new();
        let _entered = self.worker.enter();
        self.worker.turn(limit);
    }

    /// When the next [`turn`](Runtime::turn) is due, if `as_fd` does not become
    /// readable before: now, if something is ready; `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.worker.next_deadline()
    }

    /// The descriptor to wait for between [turns](Runtime::turn), with poll(2)
    /// or in an epoll set, level-triggered. `None`: the driver has none.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.worker.driver_fd()?;
        // SAFETY: the driver keeps it open, and stays as long as the runtime.
        Some(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    #[track_caller]
    fn assert_outside(&self, what: &str) {
        assert!(
            !self.worker.is_entered(),
            "{what} was called from within its own runtime: await instead"
        );
    }

    /// The runtime, to be reached from anywhere.
    pub fn handle(&self) -> &Handle {
        self.worker.runtime()
    }

    /// The name of the driver: `reactor`, `proactor`, or one of your own.
    pub fn driver(&self) -> &'static str {
        self.handle().driver()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.handle().workers()
    }

    /// What the workers and the named colors have done, and have to do; see
    /// [`Handle::stats`].
    pub fn stats(&self) -> Stats {
        self.handle().stats()
    }

    /// Ends the runtime as dropping it does, and says how many operations the
    /// kernel had not given back after the grace period. Their memory was
    /// leaked.
    ///
    /// Who awaits one of those from another executor gets ECANCELED, but for
    /// what has a buffer to hand back (a send; a read or a write of a file): the
    /// kernel may use that buffer still, so the future never completes. Give
    /// such an await a limit of its own if it may outlive the runtime.
    pub fn shutdown(mut self) -> usize {
        self.end();
        self.handle().shared().leaked.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        let _fatal = Fatal::new();
        let shared = self.worker.runtime().shared();
        if shared.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        shared.notify_all();
        let entered = self.worker.enter();
        let leaked = self.worker.close(self.grace);
        drop(entered);
        shared.leaked.fetch_add(leaked, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of a worker has aborted the process.
            let _ = thread.join();
        }
        shared.blocking.close(self.grace);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}
