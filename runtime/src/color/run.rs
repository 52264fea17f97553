//! Atomic steps: a closure that runs under a color, at once if that is idle.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::core::{ColorRef, Core};
use super::handle::Color;
use crate::runtime::{Handle, spawn_on};
use crate::task::{JoinError, JoinHandle};
use crate::worker::Worker;

/// The role of a color's runner (rule 1 in `color::ready`), outside of the
/// worker's loop. Dropping it ends the run.
pub(crate) struct Runner<C: Borrow<ColorRef>>(C);

impl<C: Borrow<ColorRef>> Runner<C> {
    pub(super) fn try_take(color: C) -> Option<Runner<C>> {
        let taken = color.borrow().core().ready.try_take();
        taken.then(|| Runner(color))
    }

    /// Takes the role over.
    ///
    /// # Safety
    ///
    /// The caller has it, and gives it up.
    pub(super) unsafe fn assume(color: C) -> Runner<C> {
        Runner(color)
    }

    /// Runs `f` as code of the color, if `worker` is this thread's and may run
    /// it; else as code of none.
    #[inline]
    pub(super) fn enter<T>(&mut self, worker: Option<&Worker>, f: impl FnOnce() -> T) -> T {
        let color = self.0.borrow();
        let worker = worker.filter(|_| may_run_on(color.core(), worker));
        let _within = worker.map(|worker| Within {
            worker,
            outer: worker.run_as(color.as_ptr().as_ptr()),
        });
        f()
    }
}

impl<C: Borrow<ColorRef>> Drop for Runner<C> {
    #[inline]
    fn drop(&mut self) {
        let color = self.0.borrow();
        // SAFETY: the role is ours, and ends here; if something is left, it
        // goes on to the run queue.
        if !unsafe { color.core().ready.finish() } {
            color.core().becomes_ready();
            let (shared, color) = (color.core().shared(), color.as_ptr());
            Worker::with(|worker| shared.schedule(worker, color));
        }
    }
}

/// Restores the color that the thread ran before, also when it unwinds.
struct Within<'a> {
    worker: &'a Worker,
    outer: *const Core,
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        self.worker.run_as(self.outer);
    }
}

/// Whether code of this color may run here: a pinned one on its worker only.
fn may_run_on(color: &Core, worker: Option<&Worker>) -> bool {
    !color.is_pinned()
        || worker.is_some_and(|w| w.index() == color.home() && w.is_of(color.shared()))
}

/// Runs `f` at once, if this thread runs the color already, or if the color is
/// idle and may run here; else gives `f` back.
#[inline]
pub(super) fn try_run<F, R>(color: &ColorRef, f: F) -> Result<R, F>
where
    F: FnOnce() -> R,
{
    Worker::with(|worker| {
        if worker.is_some_and(|w| w.runs(color.as_ptr())) {
            return Ok(f());
        }
        if !may_run_on(color.core(), worker) {
            return Err(f);
        }
        match Runner::try_take(color) {
            Some(mut runner) => Ok(runner.enter(worker, f)),
            None => Err(f),
        }
    })
}

/// A color, and the runtime that it needs: the default color does not keep it.
pub(super) struct Anchor {
    pub(super) color: ColorRef,
    pub(super) runtime: Handle,
}

impl Anchor {
    #[track_caller]
    pub(super) fn new(color: &Color, what: &str) -> Anchor {
        match &color.0 {
            Some(color) => Anchor {
                color: color.clone(),
                runtime: color.core().shared().handle(),
            },
            None => Worker::expect(what, |worker| Anchor {
                color: worker.runtime().shared().default_color(),
                runtime: worker.runtime().clone(),
            }),
        }
    }
}

/// What a step does, at once or queued.
pub(super) trait Work {
    type Output;

    /// # Safety
    ///
    /// The caller runs the color.
    unsafe fn run(self) -> Self::Output;

    /// Spawns it as a task of the color.
    fn queue(self, color: &ColorRef, at: &'static Location<'static>) -> JoinHandle<Self::Output>;
}

impl<F, R> Work for F
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = R;

    #[inline]
    unsafe fn run(self) -> R {
        self()
    }

    fn queue(self, color: &ColorRef, at: &'static Location<'static>) -> JoinHandle<R> {
        spawn_on(
            color.core().shared(),
            color.clone(),
            async move { self() },
            at,
        )
    }
}

/// The future of an atomic step.
#[must_use = "a step does nothing until it is awaited"]
pub(super) struct Step<'a, W: Work> {
    state: State<'a, W>,
    at: &'static Location<'static>,
}

enum State<'a, W: Work> {
    /// `None`: the default color of the runtime that it is polled in.
    Start(Option<&'a ColorRef>, W),
    Queued(Queued<W::Output>),
    /// The runtime ends, and with it whoever awaits this.
    Refused,
    Done,
}

/// A queued step that ends if nobody waits for it, unless it has begun.
struct Queued<R>(JoinHandle<R>);

impl<R> Drop for Queued<R> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// Nothing inside is ever pinned: the work moves out before it begins.
impl<W: Work> Unpin for Step<'_, W> {}

impl<'a, W: Work> Step<'a, W> {
    #[inline]
    pub(super) fn new(
        color: Option<&'a ColorRef>,
        work: W,
        at: &'static Location<'static>,
    ) -> Step<'a, W> {
        let state = State::Start(color, work);
        Step { state, at }
    }

    #[cold]
    fn queue(&mut self, color: &ColorRef, work: W, cx: &mut Context<'_>) -> Poll<W::Output> {
        self.poll_queued(Queued(work.queue(color, self.at)), cx)
    }

    fn poll_queued(
        &mut self,
        mut step: Queued<W::Output>,
        cx: &mut Context<'_>,
    ) -> Poll<W::Output> {
        match Pin::new(&mut step.0).poll(cx) {
            Poll::Pending => self.state = State::Queued(step),
            Poll::Ready(Ok(output)) => return Poll::Ready(output),
            Poll::Ready(Err(e)) => {
                fail(e);
                self.state = State::Refused;
            }
        }
        Poll::Pending
    }
}

/// Panics, unless the runtime ends and takes whoever awaits the step with it.
fn fail(error: JoinError) {
    assert!(!error.is_deadlock(), "a step of a held color: {error}");
    match error.into_panic() {
        Ok(payload) => resume_unwind(payload),
        Err(_) => assert!(
            Worker::with(|w| w.is_some_and(|w| w.runtime().shared().is_closing())),
            "a step cannot run: the runtime of its color was shut down"
        ),
    }
}

impl<W: Work> Future for Step<'_, W> {
    type Output = W::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<W::Output> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Start(color, work) => {
                let default;
                let color = match color {
                    Some(color) => color,
                    None => {
                        default = Anchor::new(&Color::DEFAULT, "a step of Color::DEFAULT").color;
                        &default
                    }
                };
                let mut work = Some(work);
                let ran = try_run(color, || {
                    let work = work.take().expect("run once");
                    // SAFETY: `try_run` runs it under the color.
                    unsafe { work.run() }
                });
                match ran {
                    Ok(output) => Poll::Ready(output),
                    Err(_) => {
                        let work = work.expect("not run");
                        self.queue(color, work, cx)
                    }
                }
            }
            State::Queued(step) => self.poll_queued(step, cx),
            State::Refused => {
                self.state = State::Refused;
                Poll::Pending
            }
            State::Done => panic!("a step was polled after it had ended"),
        }
    }
}

impl<W: Work> fmt::Debug for Step<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Color {
    /// Runs a closure as an atomic step of this color: nothing else of the
    /// color runs meanwhile, and what it did before happens before.
    ///
    /// If the caller's own color is this one, or if the color is idle, the
    /// closure runs at once, on this thread, and nothing is allocated.
    /// Otherwise it is queued, in order with everything else of the color, and
    /// the await waits for it; no thread is ever blocked. Which of the two is
    /// decided when the future is first polled. Steps of a
    /// [pinned](Color::DEFAULT) color run on its worker only.
    ///
    /// Inside the closure [`Color::current`] is this color, and so is the color
    /// of what it [spawns](crate::spawn). It can be awaited from every color,
    /// and on the executors of others. (A thread that works for no runtime has
    /// no current color, but the step is atomic there too.)
    ///
    /// Dropping the future before the step has begun drops the closure: the
    /// step does not happen. A step that has begun is finished.
    ///
    /// ```no_run
    /// # use isochrome_runtime::Color;
    /// # async fn example() {
    /// let cache = Color::of(1);
    /// let size = cache.run(|| 1 + 1).await;
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// With the panic of the closure, which harms nobody else of the color.
    /// Outside of a runtime, if this is [`Color::DEFAULT`]. When the step had
    /// to be queued and its runtime was shut down, if it is awaited from
    /// outside of that runtime (within, the awaiting task ends). When it had to
    /// be queued behind a [hold](Color::hold) further out, which waits for this
    /// very step.
    #[track_caller]
    pub fn run<F, R>(&self, f: F) -> impl Future<Output = R> + Send
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Step::new(self.0.as_ref(), f, Location::caller())
    }
}
