//! Threads for what blocks: a bounded number, with a bounded queue.
//!
//! Threads are started when a closure finds none free, and end when they had
//! nothing to do for [`KEEP`]. A closure is a task without a color, polled
//! once. An operation on a file is carried out as a driver would do it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::contain::contain;
use crate::op::{self, InFlight};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::task::{JoinError, Reason, TaskRef};

/// How long a thread waits for more; tokio's figure.
const KEEP: Duration = Duration::from_secs(10);

/// Limits of the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) threads: usize,
    pub(crate) queue: usize,
}

#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    limits: Limits,
    state: Mutex<State>,
    /// Work, or the end.
    work: Condvar,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    /// Threads that will look at the queue: they wait, or have just started.
    idle: usize,
    closed: bool,
}

enum Work {
    /// A closure's live reference, queued once and not begun.
    Closure(TaskRef),
    Operation(InFlight),
}

impl Work {
    fn run(self) {
        match self {
            // SAFETY: its live reference came with it, and it is run once.
            Work::Closure(task) => unsafe { task.run_once() },
            Work::Operation(op) => op::carry_out(op),
        }
    }

    fn refuse(self, reason: Reason) {
        match (self, reason) {
            // SAFETY: it has not begun, and its live reference came with it.
            (Work::Closure(task), reason) => unsafe { task.refuse(reason) },
            // Dropped, and so finished with ECANCELED, as on every driver.
            (Work::Operation(_), Reason::ShutDown) => {}
            (Work::Operation(op), reason) => op.finish(Err(JoinError::new(reason).into())),
        }
    }
}

impl Pool {
    pub(crate) fn new(limits: Limits) -> Pool {
        Pool(Arc::new(Inner {
            limits,
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
        }))
    }

    /// Queues a closure, or refuses it.
    ///
    /// # Safety
    ///
    /// The live reference comes with it, and the task is queued nowhere else.
    pub(crate) unsafe fn run_once(&self, task: TaskRef) {
        self.push(Work::Closure(task));
    }

    /// Queues an operation. If there is no room it is finished with an error
    /// that says so, and its buffers go back to the asker.
    pub(crate) fn carry_out(&self, op: InFlight) {
        self.push(Work::Operation(op));
    }

    fn push(&self, work: Work) {
        if let Err((work, reason)) = self.try_push(work) {
            // Not under the lock: it may wake.
            work.refuse(reason);
        }
    }

    fn try_push(&self, work: Work) -> Result<(), (Work, Reason)> {
        let Inner { limits, .. } = *self.0;
        let mut state = self.0.lock();
        if state.closed {
            return Err((work, Reason::ShutDown));
        }
        if state.idle <= state.queue.len() && state.threads < limits.threads {
            state.threads += 1;
            state.idle += 1;
            let pool = self.0.clone();
            let name = String::from("isochrome-blocking");
            let started = thread::Builder::new().name(name).spawn(move || pool.run());
            if started.is_err() {
                state.threads -= 1;
                state.idle -= 1;
            }
        }
        let free = state.idle > state.queue.len();
        let waiting = state.queue.len().saturating_sub(state.idle);
        if state.threads == 0 || (!free && waiting >= limits.queue) {
            let reason = Reason::PoolFull {
                threads: state.threads,
                queue: state.queue.len(),
            };
            return Err((work, reason));
        }
        state.queue.push_back(work);
        drop(state);
        self.0.work.notify_one();
        Ok(())
    }

    /// Refuses what is queued, and waits for what runs, at most `grace`. A
    /// closure that takes longer goes on by itself: it cannot be interrupted,
    /// and holds nothing of the runtime.
    pub(crate) fn close(&self, grace: Duration) {
        let mut state = self.0.lock();
        state.closed = true;
        let queued = std::mem::take(&mut state.queue);
        drop(state);
        self.0.work.notify_all();
        for work in queued {
            work.refuse(Reason::ShutDown);
        }
        let begun = Instant::now();
        let mut state = self.0.lock();
        while state.threads > 0 {
            // No deadline: the clock may not reach so far.
            let left = grace.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.0.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under the lock.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn run(&self) {
        let mut state = self.lock();
        // Counted when it was started.
        state.idle -= 1;
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                // Closures do not unwind to here, but the waker of who waits
                // may: it can be foreign. The thread is counted, so it stays.
                contain(|| work.run());
                state = self.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, KEEP);
            let (woken, timeout) = waited.unwrap_or_else(|e| e.into_inner());
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        drop(state);
        self.ended.notify_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Pool")
            .field("limits", &self.0.limits)
            .field("threads", &state.threads)
            .field("queued", &state.queue.len())
            .finish_non_exhaustive()
    }
}
