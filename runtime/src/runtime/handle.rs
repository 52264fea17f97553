//! A runtime as it is reached from anywhere, and the free functions.

use std::future::Future;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::shared::{DriverFacts, Shared};
use crate::buf::RecvBuf;
use crate::color::{Color, ColorRef, Core};
use crate::report::Report;
use crate::stats::Stats;
use crate::task::{JoinHandle, NewTask};
use crate::worker::Worker;

/// A runtime, reached from anywhere: it can be cloned and sent, and does not
/// keep the runtime running.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The runtime that this thread works for; `None` outside of one.
    pub fn current() -> Option<Handle> {
        Worker::with(|worker| worker.map(|worker| worker.runtime().clone()))
    }

    /// Which worker of this runtime the thread is just now, if any.
    pub(crate) fn current_worker(&self) -> Option<usize> {
        Worker::with(|worker| {
            let worker = worker.filter(|worker| worker.is_of(&self.0))?;
            Some(worker.index())
        })
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    pub(super) fn from_shared(shared: Arc<Shared>) -> Handle {
        Handle(shared)
    }

    /// The pointer of the `Arc`.
    pub(crate) fn as_ptr(&self) -> NonNull<Shared> {
        NonNull::new(Arc::as_ptr(&self.0).cast_mut()).expect("an Arc is not null")
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

    /// Spawns a task with a color of its own, from any thread. See
    /// [`spawn_apart`].
    ///
    /// If the runtime is shutting down, the future is dropped and the handle
    /// gives an error that says so.
    #[track_caller]
    pub fn spawn_apart<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let color = Core::apart(self, false, self.0.any_worker());
        // SAFETY: the future and its output are `Send` and `'static`.
        let new = unsafe { NewTask::apart(future, color, Location::caller()) };
        self.0.adopt(new.task);
        new.handle
    }

    /// As the free function [`spawn_apart`] on this runtime, from any thread,
    /// for what spawns tasks on behalf of somebody else: the task is said to be
    /// spawned `at` that place ([`Report::LongPoll`](crate::Report::LongPoll),
    /// errors of holds), and not where this is called.
    ///
    /// If the runtime is shutting down, the future is dropped and the handle
    /// gives an error that says so.
    pub fn spawn_apart_at<F>(
        &self,
        at: &'static Location<'static>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let home = Worker::with(|worker| {
            let worker = worker.filter(|worker| worker.is_of(&self.0));
            worker.map_or_else(|| self.0.any_worker(), Worker::home_of_new)
        });
        let color = Core::apart(self, false, home);
        // SAFETY: the future and its output are `Send` and `'static`.
        let new = unsafe { NewTask::apart(future, color, at) };
        self.0.adopt(new.task);
        new.handle
    }

    /// Spawns a task that stays on this worker, with a color of its own, from
    /// any thread: an accept loop for each worker, say. What it makes without a
    /// word about the place begins there too ([`Placement::Here`]).
    ///
    /// Worker 0 is the thread that owns the runtime, and runs in `block_on`.
    ///
    /// If the runtime is shutting down, the future is dropped and the handle
    /// gives an error that says so.
    ///
    /// [`Placement::Here`]: crate::Placement::Here
    ///
    /// # Panics
    ///
    /// If there are not so many workers.
    #[track_caller]
    pub fn spawn_pinned<F>(&self, worker: usize, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let workers = self.workers();
        assert!(
            worker < workers,
            "there is no worker {worker}: the runtime has {workers}, counted from 0"
        );
        let color = Core::apart(self, true, worker);
        // SAFETY: the future and its output are `Send` and `'static`.
        let new = unsafe { NewTask::apart(future, color, Location::caller()) };
        self.0.adopt(new.task);
        new.handle
    }

    /// Tells what was noticed to those who asked for reports
    /// ([`Builder::on_report`]), in a task of its own, so that nothing of the
    /// caller's is borrowed or locked then. Once the runtime is shutting down,
    /// nobody is told.
    ///
    /// [`Builder::on_report`]: crate::Builder::on_report
    pub fn report(&self, report: Report) {
        let runtime = self.clone();
        drop(self.spawn_apart(async move { runtime.shared().reports.tell(&report) }));
    }

    /// Makes a color of its own, from any thread. See [`Color::new`].
    pub fn color(&self) -> Color {
        Color::in_runtime(self)
    }

    /// The color with this number, from any thread. See [`Color::of`].
    pub fn color_of(&self, number: u64) -> Color {
        Color::numbered_in(self, number)
    }

    /// Makes a color with a name, from any thread. See [`Color::named`].
    #[track_caller]
    pub fn color_named(&self, name: impl Into<Arc<str>>) -> Color {
        Color::named_in(self, name.into(), Location::caller())
    }

    /// What the workers and the named colors have done, and have to do, from
    /// any thread. It costs a few atomic loads and a system call a worker, and
    /// an allocation or two; nobody is stopped for it.
    pub fn stats(&self) -> Stats {
        self.0.stats()
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
        // SAFETY: its live reference is ours, and it was queued nowhere.
        unsafe { self.0.blocking.run_once(new.task) };
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

    /// Whether the driver works by readiness: descriptors of this runtime have
    /// to be non-blocking then, and blocking if it works by completion.
    pub fn by_readiness(&self) -> bool {
        self.facts().by_readiness
    }

    fn facts(&self) -> DriverFacts {
        *self.0.driver.get().expect("set when the runtime was made")
    }

    /// A lease to be filled, on a buffer of [`OF_A_WORKER`](crate::buf::OF_A_WORKER)
    /// bytes: of this thread's worker, or of those that all threads of others
    /// share.
    #[inline]
    pub(crate) fn blank(&self) -> Option<RecvBuf> {
        Worker::with(|worker| match worker.filter(|w| w.is_of(&self.0)) {
            Some(worker) => worker.kept().blank(),
            None => self.0.pool().blank(),
        })
    }
}

/// Spawns a task with the color of the spawner: one after another with it, and
/// in parallel with what has another color. Use [`spawn_apart`] for a color of
/// its own.
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
        let (shared, color) = worker.inherited();
        spawn_on(shared, color, future, at)
    })
}

/// Spawns a task with a color of its own, parallel with everything.
///
/// It does what `Color::new().spawn(future)` does, in one allocation instead of
/// two: the color lies beside the task, and lives as long as either is held.
/// What the task spawns inherits the color, as always.
///
/// # Panics
///
/// Outside a runtime; use [`Handle::spawn_apart`] there.
#[track_caller]
pub fn spawn_apart<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let at = Location::caller();
    Worker::expect("spawn_apart", |worker| {
        let color = Core::apart(worker.runtime(), false, worker.home_of_new());
        // SAFETY: the future and its output are `Send` and `'static`.
        let new = unsafe { NewTask::apart(future, color, at) };
        worker.runtime().shared().adopt(new.task);
        new.handle
    })
}

/// Spawns a task that stays on this worker's thread, so that its future and
/// its output need not be `Send`.
///
/// It has the color of the spawner if that is one that stays here (the default
/// color in `block_on`, [`Color::pinned`]); else a color of its own that does.
/// The future is polled and dropped on this thread, also when it is aborted
/// from another and when the runtime ends.
///
/// A handle to an output that is not `Send` stays here too:
///
/// ```compile_fail,E0277
/// # use std::rc::Rc;
/// async fn example() {
///     let handle = isochrome_runtime::spawn_local(async { Rc::new(1) });
///     std::thread::spawn(move || drop(handle));
/// }
/// ```
///
/// and so does what waits for it:
///
/// ```compile_fail
/// # use std::rc::Rc;
/// async fn example() {
///     isochrome_runtime::spawn(async {
///         let handle = isochrome_runtime::spawn_local(async { Rc::new(1) });
///         drop(handle.await);
///     });
/// }
/// ```
///
/// # Panics
///
/// Outside a runtime.
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let at = Location::caller();
    Worker::expect("spawn_local", |worker| {
        let pinned = (worker.color()).filter(|color| color.core().is_pinned());
        // SAFETY: the color runs on this thread alone, which polls and drops
        // the future, and the output if the handle is gone; the handle stays
        // on this thread by its type if the output has to.
        let new = unsafe {
            match pinned {
                Some(color) => NewTask::new(future, Some(color), at),
                None => {
                    let color = Core::apart(worker.runtime(), true, worker.index());
                    NewTask::apart(future, color, at)
                }
            }
        };
        worker.runtime().shared().adopt(new.task);
        new.handle
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

/// Lets others run: the task goes to the end of its color's queue, and runs
/// again after the driver of this worker has had its turn, as does what its
/// color has to do after it; or earlier on another worker that has nothing
/// better to do.
pub fn yield_now() -> impl Future<Output = ()> + Send {
    let mut yielded = false;
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        Worker::wake_after_driver(cx.waker());
        Poll::Pending
    })
}
