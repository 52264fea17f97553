//! What all threads of a runtime share.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use super::builder::Scheduling;
use super::handle::Handle;
use crate::blocking::{self, Limits};
use crate::buf::Pool;
use crate::color::{ColorRef, Holds, Kind, Named, Table};
use crate::report::Reports;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::task::owned::{FOREIGN, Owned};
use crate::task::{self, Reason, TaskRef};
use crate::time::Clock;
use crate::worker::{Scout, Sleepers, Worker, WorkerShared};

/// What all threads of a runtime share.
pub(crate) struct Shared {
    this: Weak<Shared>,
    pub(crate) workers: Box<[Arc<WorkerShared>]>,
    pub(crate) scheduling: Scheduling,
    pub(crate) sleepers: Sleepers,
    pub(crate) scout: Scout,
    /// Work was offered while the scout napped.
    pub(crate) rung: AtomicBool,
    pub(crate) colors: Table,
    pub(crate) holds: Holds,
    pub(crate) named: Named,
    pub(crate) reports: Reports,
    default_color: OnceLock<ColorRef>,
    pub(crate) blocking: blocking::Pool,
    /// Tasks spawned by no worker.
    foreign: Mutex<Foreign>,
    clock: Clock,
    /// Where threads of other executors receive to; made when first asked for.
    pool: OnceLock<Arc<Pool>>,
    /// Nothing can be spawned any more.
    pub(super) closing: AtomicBool,
    /// Workers whose tasks are all gone; see `worker::close`.
    pub(crate) empty_workers: AtomicUsize,
    /// Operations that the kernel did not give back at the end.
    pub(super) leaked: AtomicUsize,
    /// Where colors begin that are placed in turn.
    next_home: AtomicUsize,
    /// What the driver of worker 0 said; all are of one kind.
    pub(super) driver: OnceLock<DriverFacts>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct DriverFacts {
    pub(super) name: &'static str,
    pub(super) by_readiness: bool,
}

pub(crate) struct Foreign {
    pub(crate) list: Owned,
    pub(crate) closed: bool,
}

impl Shared {
    /// Everything but the driver's facts, which the first driver brings.
    pub(super) fn make(
        workers: usize,
        blocking: Limits,
        scheduling: Scheduling,
        reports: Reports,
    ) -> Handle {
        let handle = Handle::from_shared(Arc::new_cyclic(|this| Shared {
            this: this.clone(),
            scheduling,
            workers: (0..workers)
                .map(|_| Arc::new(WorkerShared::new()))
                .collect(),
            sleepers: Sleepers::new(),
            scout: Scout::new(),
            rung: AtomicBool::new(false),
            colors: Table::new(),
            holds: Holds::new(),
            named: Named::new(),
            reports,
            default_color: OnceLock::new(),
            blocking: blocking::Pool::new(blocking),
            foreign: Mutex::new(Foreign {
                list: Owned::new(FOREIGN),
                closed: false,
            }),
            clock: Clock::new(),
            pool: OnceLock::new(),
            closing: AtomicBool::new(false),
            empty_workers: AtomicUsize::new(0),
            leaked: AtomicUsize::new(0),
            next_home: AtomicUsize::new(0),
            driver: OnceLock::new(),
        }));
        let default = ColorRef::new(&handle, Kind::Default, 0);
        let _ = handle.shared().default_color.set(default);
        handle
    }

    pub(crate) fn default_color(&self) -> ColorRef {
        let color = self.default_color.get();
        color.expect("set when the runtime was made").clone()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.pool.get_or_init(Pool::of_a_worker)
    }

    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn foreign(&self) -> MutexGuard<'_, Foreign> {
        self.foreign.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether workers take work from each other.
    #[inline]
    pub(crate) fn steals(&self) -> bool {
        self.scheduling.stealing && self.workers.len() > 1
    }

    /// One worker after the other.
    pub(crate) fn next_worker(&self) -> usize {
        self.next_home.fetch_add(1, Ordering::Relaxed) % self.workers.len()
    }

    /// A worker for what comes from outside: in turn, and not worker 0 if
    /// there are others, because it runs only during `block_on`.
    pub(crate) fn any_worker(&self) -> usize {
        match self.workers.len() {
            1 => 0,
            n => 1 + self.next_home.fetch_add(1, Ordering::Relaxed) % (n - 1),
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        // Borrowed from an owner, or on behalf of a live task, which the runtime
        // outlives.
        Handle::from_shared(self.this.upgrade().expect("alive"))
    }

    /// Puts the live reference of a new task where it will be found, and
    /// queues the task; or refuses it.
    pub(super) fn adopt(&self, task: TaskRef) {
        let refused = Worker::with(|worker| match worker.filter(|w| w.is_of(self)) {
            Some(worker) => {
                let closing = self.is_closing();
                if !closing {
                    worker.own(task);
                }
                closing
            }
            // Without the lock first: who spawns in a loop would keep it from
            // whoever is about to close the list.
            None if self.is_closing() => true,
            None => {
                let mut foreign = self.foreign();
                if !foreign.closed {
                    foreign.list.add(task);
                }
                foreign.closed
            }
        });
        if refused {
            // SAFETY: nobody has seen it but its handle, and the live
            // reference is ours.
            unsafe { task.refuse(Reason::ShutDown) };
        } else {
            task::queue(task.0);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("workers", &self.workers.len())
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}
