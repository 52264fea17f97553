//! The pieces put together: how a runtime is built, reached, and ended.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::panic::{Location, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use crate::blocking::{Limits, Pool};
use crate::color::{Color, ColorRef, Kind, Table};
use crate::descriptor::Descriptor;
use crate::driver::Driver;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::task::owned::{FOREIGN, Owned};
use crate::task::{self, JoinHandle, NewTask, Reason, TaskRef};
use crate::time::Clock;
use crate::worker::{Sleepers, Worker, WorkerShared};

/// What all threads of a runtime share.
pub(crate) struct Shared {
    pub(crate) workers: Box<[WorkerShared]>,
    pub(crate) sleepers: Sleepers,
    pub(crate) colors: Table,
    default_color: OnceLock<ColorRef>,
    blocking: Pool,
    /// Tasks spawned by no worker.
    foreign: Mutex<Foreign>,
    clock: Clock,
    /// Nothing can be spawned any more.
    closing: AtomicBool,
    /// Workers whose tasks are all gone; see `worker::close`.
    pub(crate) empty_workers: AtomicUsize,
    /// Operations that the kernel did not give back at the end.
    leaked: AtomicUsize,
    /// Where colors made outside begin, in turn.
    next_home: AtomicUsize,
    /// What the driver of worker 0 said; all are of one kind.
    driver: OnceLock<DriverFacts>,
}

#[derive(Clone, Copy, Debug)]
struct DriverFacts {
    name: &'static str,
    nonblocking: bool,
}

pub(crate) struct Foreign {
    pub(crate) list: Owned,
    pub(crate) closed: bool,
}

impl Shared {
    pub(crate) fn default_color(&self) -> ColorRef {
        let color = self.default_color.get();
        color.expect("set when the runtime was made").clone()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn foreign(&self) -> MutexGuard<'_, Foreign> {
        self.foreign.lock().unwrap_or_else(|e| e.into_inner())
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
        // SAFETY: a `Shared` is made by `Builder::build_with` alone, in an
        // `Arc`, and someone keeps it alive for `&self`.
        unsafe {
            Arc::increment_strong_count(self);
            Handle(Arc::from_raw(self))
        }
    }

    /// Puts the live reference of a new task where it will be found, and
    /// queues the task; or refuses it.
    fn adopt(&self, task: TaskRef) {
        let refused = Worker::with(|worker| match worker.filter(|w| w.is_of(self)) {
            Some(worker) => {
                let closing = self.is_closing();
                if !closing {
                    worker.own(task);
                }
                closing
            }
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

/// A runtime, reached from anywhere: it can be cloned and sent, and does not
/// keep the runtime running.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The runtime that this thread works for; `None` outside of one.
    pub fn current() -> Option<Handle> {
        Worker::with(|worker| worker.map(|worker| worker.runtime().clone()))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    pub(crate) fn into_shared(self) -> Arc<Shared> {
        self.0
    }

    /// Spawns a task of the default color. It runs when the thread that owns
    /// the runtime is in `block_on`.
    ///
    /// If the runtime is shutting down, the future is dropped and the handle
    /// gives an error that says so.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn_on(&self.0, self.0.default_color(), future, Location::caller())
    }

    /// Makes a color of its own, from any thread. See [`Color::new`].
    pub fn color(&self) -> Color {
        Color::in_runtime(self)
    }

    /// The color with this number, from any thread. See [`Color::of`].
    pub fn color_of(&self, number: u64) -> Color {
        Color::numbered_in(self, number)
    }

    /// Runs a closure on the blocking pool, from any thread. See
    /// [`spawn_blocking`].
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let mut f = Some(f);
        let once = std::future::poll_fn(move |_| {
            let f = f.take().expect("a closure is polled once");
            Poll::Ready(f())
        });
        // SAFETY: the closure and its output are `Send` and `'static`.
        let new = unsafe { NewTask::new(once, None, Location::caller()) };
        if let Err((task, reason)) = self.0.blocking.push(new.task) {
            // SAFETY: it was queued nowhere; its live reference came back.
            unsafe { task.refuse(reason) };
        }
        new.handle
    }

    /// The name of the driver: `reactor`, `proactor`, or one of your own.
    pub fn driver(&self) -> &'static str {
        self.facts().name
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.0.workers.len()
    }

    /// Whether descriptors of this runtime have to be non-blocking.
    pub fn nonblocking(&self) -> bool {
        self.facts().nonblocking
    }

    fn facts(&self) -> DriverFacts {
        *self.0.driver.get().expect("set when the runtime was made")
    }

    /// `Driver::recv_now` of this thread's worker; `None` on other threads.
    pub(crate) fn recv_now(
        &self,
        descriptor: &Descriptor,
        buf: &mut [u8],
    ) -> Option<Poll<io::Result<usize>>> {
        Worker::with(|worker| {
            let worker = worker.filter(|worker| worker.is_of(&self.0))?;
            worker.recv_now(descriptor, buf)
        })
    }
}

/// Spawns a task with the color of the spawner: one after another with it, and
/// in parallel with what has another color. Use
/// [`Color::new().spawn`](Color::spawn) for a color of its own.
///
/// # Panics
///
/// Outside a runtime; use [`Handle::spawn`] there.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let at = Location::caller();
    Worker::expect("spawn", |worker| {
        let shared = worker.runtime().shared();
        let color = worker.task_color();
        let color = color.unwrap_or_else(|| shared.default_color());
        spawn_on(shared, color, future, at)
    })
}

pub(crate) fn spawn_on<F>(
    shared: &Shared,
    color: ColorRef,
    future: F,
    at: &'static Location<'static>,
) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    // SAFETY: the future and its output are `Send` and `'static`.
    let new = unsafe { NewTask::new(future, Some(color), at) };
    shared.adopt(new.task);
    new.handle
}

/// Runs a closure on the blocking pool, outside every color. The result comes
/// back into the color of whoever awaits the handle.
///
/// The pool is bounded: if all its threads are busy and its queue is full, the
/// closure is dropped and the handle gives an error that says so
/// ([`JoinError::is_pool_full`](crate::JoinError::is_pool_full)).
///
/// # Panics
///
/// Outside a runtime; use [`Handle::spawn_blocking`] there.
#[track_caller]
pub fn spawn_blocking<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Worker::expect("spawn_blocking", |worker| {
        worker.runtime().spawn_blocking(f)
    })
}

/// Lets others run: the task becomes ready again after the driver has had its
/// turn, at the end of its color's queue.
pub fn yield_now() -> impl Future<Output = ()> + Send {
    let mut yielded = false;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        let waker = cx.waker();
        Worker::with(|worker| match worker {
            Some(worker) => worker.wake_later(waker.clone()),
            None => waker.wake_by_ref(),
        });
        Poll::Pending
    })
}

/// How a runtime is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    workers: Option<usize>,
    blocking: Limits,
    grace: Duration,
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
        }
    }
}

impl Builder {
    /// The defaults: as many workers as there are processors to use.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// How many workers there are, the thread in `block_on` counted in. At
    /// least one.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers.max(1));
        self
    }

    /// The most threads of the blocking pool; 512 if not said. At least one.
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
        let handle = Handle(Arc::new(Shared {
            workers: (0..count).map(|_| WorkerShared::new()).collect(),
            sleepers: Sleepers::new(),
            colors: Table::new(),
            default_color: OnceLock::new(),
            blocking: Pool::new(self.blocking),
            foreign: Mutex::new(Foreign {
                list: Owned::new(FOREIGN),
                closed: false,
            }),
            clock: Clock::new(),
            closing: AtomicBool::new(false),
            empty_workers: AtomicUsize::new(0),
            leaked: AtomicUsize::new(0),
            next_home: AtomicUsize::new(0),
            driver: OnceLock::new(),
        }));
        let default = ColorRef::new(&handle, Kind::Default, 0);
        let _ = handle.0.default_color.set(default);

        let first = driver(0)?;
        let _ = handle.0.driver.set(DriverFacts {
            name: first.name(),
            nonblocking: first.nonblocking(),
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
/// work when all have.
fn start<D>(handle: &Handle, driver: D, grace: Duration) -> io::Result<Vec<thread::JoinHandle<()>>>
where
    D: Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync + 'static,
{
    let driver = Arc::new(driver);
    let (report, reports) = mpsc::channel();
    let mut threads = Vec::new();
    let mut go = Vec::new();
    for index in 1..handle.workers() {
        let (handle, driver, report) = (handle.clone(), driver.clone(), report.clone());
        let (start, started) = mpsc::channel::<()>();
        let name = format!("isochrome-{index}");
        threads.push(thread::Builder::new().name(name).spawn(move || {
            let driver = match driver(index) {
                Ok(driver) => driver,
                Err(e) => return drop(report.send(Err(e))),
            };
            let worker = Worker::new(handle, index, driver);
            let _ = report.send(Ok(()));
            // An error means that another worker has failed to start.
            if started.recv().is_ok() {
                work(&worker, grace);
            }
        })?);
        go.push(start);
    }
    drop(report);
    reports.iter().take(go.len()).collect::<io::Result<()>>()?;
    for start in go {
        let _ = start.send(());
    }
    Ok(threads)
}

/// What a worker's thread does.
fn work(worker: &Worker, grace: Duration) {
    let _fatal = Fatal;
    let _entered = worker.enter();
    let shared = worker.runtime().shared();
    worker.run(|| shared.is_closing());
    let leaked = worker.close(grace);
    shared.leaked.fetch_add(leaked, Ordering::Relaxed);
}

/// A worker that unwinds would leave futures and operations behind that nobody
/// may touch any more, and borrowed futures that are about to dangle. Tasks do
/// not unwind into it; what does is a driver that cannot wait, or a bug.
struct Fatal;

impl Drop for Fatal {
    fn drop(&mut self) {
        if thread::panicking() {
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
        Worker::with(|outer| {
            let nested = outer.is_some_and(|outer| outer.is_of(shared));
            assert!(
                !nested,
                "block_on was called from within its own runtime: await instead"
            );
        });
        let _fatal = Fatal;
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
                    std::mem::forget(_fatal);
                    resume_unwind(payload)
                }
                Err(e) => unreachable!("nobody else aborts it: {e}"),
            },
            Poll::Pending => unreachable!("the loop ends when the task is complete"),
        }
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

    /// Ends the runtime as dropping it does, and says how many operations the
    /// kernel had not given back after the grace period. Their memory was
    /// leaked.
    pub fn shutdown(mut self) -> usize {
        self.end();
        self.handle().shared().leaked.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        let _fatal = (!thread::panicking()).then_some(Fatal);
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
