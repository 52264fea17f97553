//! How a worker ends.
//!
//! # Rules
//!
//! 1. When the runtime closes, nothing can be spawned any more, and every
//!    worker aborts the tasks in its own list. The colors then run as always,
//!    so that every future is dropped under its color, on a worker that may
//!    run it.
//! 2. A worker goes on running colors until *all* lists are empty: its help
//!    may be needed for tasks that another one spawned.
//! 3. Only then the drivers cancel and drain what is in flight: no task is
//!    left to start more.

use std::time::Duration;

use super::local::Worker;
use crate::runtime::Shared;
use crate::sync::atomic::Ordering;
use crate::task::abort;

impl Worker {
    /// Ends every task and operation of this worker, together with the other
    /// workers. Returns how many operations the kernel would not give back.
    pub(crate) fn close(&self, grace: Duration) -> usize {
        let shared = self.runtime().shared();
        let first = self.index() == 0;
        self.owned.borrow().for_each(abort);
        if first {
            let mut foreign = shared.foreign();
            foreign.closed = true;
            foreign.list.for_each(abort);
        }
        self.run(|| self.owned.borrow().is_empty() && (!first || shared.foreign().list.is_empty()));
        shared.worker_is_empty();
        self.run(|| shared.all_workers_are_empty());

        let leaked = self.driver().shutdown(grace);
        let index = self.index();
        // Finishes operations that were sent here and never submitted.
        drop(shared.workers[index].commands.close());
        shared.workers[index].timers.clear();
        shared.workers[index].figures.ends();
        leaked
    }
}

impl Shared {
    fn worker_is_empty(&self) {
        // AcqRel: the last worker's tasks are gone before anyone goes on.
        let before = self.empty_workers.fetch_add(1, Ordering::AcqRel);
        if before + 1 == self.workers.len() {
            self.notify_all();
        }
    }

    fn all_workers_are_empty(&self) -> bool {
        self.empty_workers.load(Ordering::Acquire) == self.workers.len()
    }
}
