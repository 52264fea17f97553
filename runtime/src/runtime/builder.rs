//! How a runtime is made, with its threads.

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::handle::Handle;
use super::shared::{DriverFacts, Shared};
use super::{Fatal, Runtime};
use crate::blocking::Limits;
use crate::driver::Driver;
use crate::op::LAST_WORKER;
use crate::report::{Report, Reports};
use crate::sync::atomic::Ordering;
use crate::worker::Worker;

/// On which worker new colors start that are made on one.
///
/// It is a beginning: an idle worker may steal a color, and a color that was
/// stolen twice in a row stays with the thief ([`Builder::stealing`]).
/// [`Color::pinned`](crate::Color::pinned) makes one that stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On the worker that makes them.
    #[default]
    Here,
    /// On one worker after the other: for a single task that accepts all
    /// connections and gives each a color of its own.
    RoundRobin,
}

/// How a runtime is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    workers: Option<usize>,
    blocking: Limits,
    grace: Duration,
    scheduling: Scheduling,
    reports: Reports,
}

/// Who runs new colors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scheduling {
    pub(crate) placement: Placement,
    pub(crate) stealing: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            workers: None,
            // tokio's limit of threads; the queue is a guess at what is still
            // worth waiting for.
            blocking: Limits {
                threads: 512,
                queue: 10_000,
            },
            grace: Duration::from_secs(1),
            scheduling: Scheduling {
                placement: Placement::Here,
                stealing: true,
            },
            reports: Reports::default(),
        }
    }
}

impl Builder {
    /// The defaults: as many workers as there are processors to use.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// How many workers there are, the thread in `block_on` counted in: 1 to
    /// 32,767, and what is beyond counts as the nearest.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers.clamp(1, usize::from(LAST_WORKER) + 1));
        self
    }

    /// The most threads of the blocking pool; 512 if not said. Zero counts
    /// as one.
    pub fn blocking_threads(mut self, threads: usize) -> Builder {
        self.blocking.threads = threads.max(1);
        self
    }

    /// The most closures that wait for a thread of the blocking pool; 10,000
    /// if not said.
    pub fn blocking_queue(mut self, closures: usize) -> Builder {
        self.blocking.queue = closures;
        self
    }

    /// How long the end of the runtime waits for what cannot be cut short:
    /// operations that the kernel has, and closures of the blocking pool. One
    /// second if not said. What takes longer is leaked, or goes on by itself.
    pub fn shutdown_grace(mut self, grace: Duration) -> Builder {
        self.grace = grace;
        self
    }

    /// Where colors start that are made on a worker; [`Placement::Here`] if not
    /// said. Colors made from other threads start on one worker after the
    /// other in any case.
    pub fn placement(mut self, placement: Placement) -> Builder {
        self.scheduling.placement = placement;
        self
    }

    /// Whether a worker with nothing to do takes ready colors from others; it
    /// does if not said. Without, every color stays with the worker that it
    /// started on, and work that is unevenly spread stays so.
    pub fn stealing(mut self, stealing: bool) -> Builder {
        self.scheduling.stealing = stealing;
        self
    }

    /// Who is told what the runtime notices: colors that take most of a core,
    /// polls that take too long ([`long_poll`](Builder::long_poll)), listeners
    /// that cannot accept. Called on a worker, after the turn of the color that
    /// it is about, with no lock held; what it does holds up that worker, so it
    /// should do little. [`Report`] says how often.
    ///
    /// A panic of it goes no further than its message: the worker goes on, and
    /// the next report is made.
    ///
    /// With the feature `tracing` reports are events too, at the level of
    /// warnings, with the target `isochrome`.
    pub fn on_report(mut self, report: impl Fn(&Report) + Send + Sync + 'static) -> Builder {
        self.reports.callback = Some(Arc::new(report));
        self
    }

    /// Reports polls that take longer than this ([`Report::LongPoll`]), and
    /// counts them ([`WorkerStats::long_polls`](crate::WorkerStats::long_polls)).
    /// If not said, no poll is timed.
    ///
    /// Timing a poll takes one look at the clock, and each turn of a color one
    /// more: two for a poll that is alone in its turn.
    pub fn long_poll(mut self, limit: Duration) -> Builder {
        self.reports.long_poll = Some(limit);
        self
    }

    /// Builds the runtime. `driver` is called once for each worker, on its
    /// thread, with its number; all have to be of one kind.
    ///
    /// # Errors
    ///
    /// What `driver` answers, or what the system answers when a thread cannot
    /// be started.
    pub fn build_with<D>(self, driver: D) -> io::Result<Runtime>
    where
        D: Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync + 'static,
    {
        let available = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let count = self.workers.unwrap_or_else(available);
        let handle = Shared::make(count, self.blocking, self.scheduling, self.reports);
        let first = driver(0)?;
        let _ = handle.shared().driver.set(DriverFacts {
            name: first.name(),
            by_readiness: first.by_readiness(),
        });
        let threads = start(&handle, driver, self.grace)?;
        Ok(Runtime {
            worker: Worker::new(handle, 0, first),
            threads,
            grace: self.grace,
            stays_here: PhantomData,
        })
    }
}

/// Starts workers 1 and up, and waits until each has its driver. They begin to
/// work when all have; if one has not, all end, and leave nothing behind.
fn start<D>(handle: &Handle, driver: D, grace: Duration) -> io::Result<Vec<thread::JoinHandle<()>>>
where
    D: Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync + 'static,
{
    let driver = Arc::new(driver);
    let mut threads = Vec::new();
    let mut begin = Vec::new();
    let mut all_ready = Ok(());
    for index in 1..handle.workers() {
        let (handle, driver) = (handle.clone(), driver.clone());
        let (report, ready) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let main = move || match driver(index) {
            Err(e) => drop(report.send(Err(e))),
            Ok(driver) => {
                let worker = Worker::new(handle, index, driver);
                let _ = report.send(Ok(()));
                if gone.recv().is_ok() {
                    work(&worker, grace);
                }
            }
        };
        let name = format!("isochrome-{index}");
        let started = thread::Builder::new().name(name).spawn(main);
        all_ready = started.and_then(|thread| {
            threads.push(thread);
            begin.push(go);
            ready.recv().map_err(io::Error::other)?
        });
        if all_ready.is_err() {
            break;
        }
    }
    if let Err(e) = all_ready {
        // Hanging up tells the others.
        drop(begin);
        threads.into_iter().for_each(|thread| drop(thread.join()));
        return Err(e);
    }
    for go in begin {
        let _ = go.send(());
    }
    Ok(threads)
}

/// What a worker's thread does.
fn work(worker: &Worker, grace: Duration) {
    let _fatal = Fatal::new();
    let _entered = worker.enter();
    let shared = worker.runtime().shared();
    worker.run(|| shared.is_closing());
    let leaked = worker.close(grace);
    shared.leaked.fetch_add(leaked, Ordering::Relaxed);
}
