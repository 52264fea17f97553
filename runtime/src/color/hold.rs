//! Exclusion across awaits: a block that keeps its color until it ends.
//!
//! ```text
//!   idle color:  Hold --try_take--> the block, a task of a color E of its own
//!   else:        Hold --queues a `Turn`--> the color's runner polls it, stops,
//!                      and grants its role to the block
//! ```
//!
//! # Rules
//!
//! 1. Who holds a color is its runner (rule 1 in `color::ready`): the word
//!    stays taken between the polls of the block, and what is pushed waits.
//! 2. The block is a task of E, which nobody else uses, so it is polled by one
//!    thread at a time; during the poll the thread runs the held color. If that
//!    is pinned, E is pinned to the same worker.
//! 3. A runner that has granted its role does not touch the color again.
//! 4. The role goes where its owner goes: whoever drops it ends the run. So a
//!    block that is dropped, or that has panicked, or that was refused, and a
//!    waiter that leaves just when it is granted, lose no color.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::iter::successors;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::core::{ColorRef, Core, Kind};
use super::cycle::Cycle;
use super::grant::Grant;
use super::handle::Color;
use super::run::{Anchor, Runner};
use crate::runtime::spawn_on;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::task::JoinHandle;
use crate::worker::Worker;

type Site = &'static Location<'static>;

/// One hold: what its `Hold`, its block, its turn, and the holds within know.
pub(crate) struct Held {
    grant: Grant<Runner<ColorRef>>,
    anchor: Anchor,
    pub(super) at: Site,
    /// The hold inside whose block this one was asked for.
    parent: Option<Arc<Held>>,
    /// Whether the block has begun and not ended.
    active: AtomicBool,
}

impl Held {
    pub(super) fn color(&self) -> &ColorRef {
        &self.anchor.color
    }

    /// The holds around this one, the nearest first.
    pub(super) fn around(&self) -> impl Iterator<Item = &Held> {
        successors(self.parent.as_deref(), |held| held.parent.as_deref())
    }

    /// Whether this is about `color` and has it.
    pub(super) fn has(&self, color: NonNull<Core>) -> bool {
        // Relaxed: it changes for holds around the caller only when a block
        // left one within behind, forgotten.
        self.color().as_ptr() == color && self.active.load(Ordering::Relaxed)
    }

    /// Grants the role of the color's runner. `false`: nobody waits any more.
    ///
    /// # Safety
    ///
    /// The caller has the role, and has it no more after `true` (rule 3).
    pub(crate) unsafe fn grant(&self) -> bool {
        self.grant.give(|| {
            // SAFETY: the caller gives it up.
            unsafe { Runner::assume(self.color().clone()) }
        })
    }

    /// It waits no more: forgotten as such, and a late grant is passed on.
    fn leave(&self) -> Option<Runner<ColorRef>> {
        self.waits_no_more();
        self.grant.leave()
    }

    fn waits_no_more(&self) {
        // Without a parent it is part of no cycle, and was not noted.
        if self.parent.is_some() {
            self.anchor.runtime.shared().holds.remove(self);
        }
    }
}

/// Where the hold was made that is around the code on this thread and has this
/// color.
pub(crate) fn held_around(color: NonNull<Core>) -> Option<Site> {
    Worker::with(|worker| {
        let hold = worker?.hold().borrow();
        let hold = hold.as_deref()?;
        let mut all = std::iter::once(hold).chain(hold.around());
        all.find(|held| held.has(color)).map(|held| held.at)
    })
}

/// Has its place in the queue of a color; when it comes, the role of the runner
/// goes to the hold.
async fn turn(held: Arc<Held>) {
    Worker::expect("a task", |worker| worker.hand_over(held));
}

/// The role of the color's runner while the block has it.
struct Role {
    runner: Runner<ColorRef>,
    held: Arc<Held>,
}

impl Role {
    fn new(runner: Runner<ColorRef>, held: Arc<Held>) -> Role {
        held.active.store(true, Ordering::Relaxed);
        Role { runner, held }
    }

    /// Runs `f` as code of the color, and of the block.
    fn enter<R>(&mut self, f: impl FnOnce() -> R) -> R {
        Worker::with(|worker| {
            let _within = worker.map(|worker| Within {
                worker: worker.hold(),
                outer: worker.hold().replace(Some(self.held.clone())),
            });
            self.runner.enter(worker, f)
        })
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.held.active.store(false, Ordering::Relaxed);
    }
}

/// Restores the hold that the thread polled before, also when it unwinds.
struct Within<'a> {
    worker: &'a RefCell<Option<Arc<Held>>>,
    outer: Option<Arc<Held>>,
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        let inner = self.worker.replace(self.outer.take());
        drop(inner);
    }
}

pin_project! {
    /// The task of a hold.
    struct Block<F> {
        #[pin]
        future: Option<F>,
        held: Arc<Held>,
        role: Option<Role>,
    }

    impl<F> PinnedDrop for Block<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let late = || Some(Role::new(this.held.leave()?, this.held.clone()));
            match this.role.take().or_else(late) {
                Some(mut role) => role.enter(|| this.future.set(None)),
                None => this.future.set(None),
            }
        }
    }
}

impl<F: Future> Future for Block<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if this.role.is_none() {
            let Poll::Ready(runner) = this.held.grant.poll_take(cx) else {
                return Poll::Pending;
            };
            this.held.waits_no_more();
            *this.role = Some(Role::new(runner, this.held.clone()));
        }
        let role = this.role.as_mut().expect("just looked");
        let polled = role.enter(|| {
            let future = this.future.as_mut().as_pin_mut();
            let polled = future.expect("polled after completion").poll(cx);
            if polled.is_ready() {
                this.future.set(None);
            }
            polled
        });
        if polled.is_ready() {
            *this.role = None;
        }
        polled
    }
}

/// Holds a color for the time of a block. Made by [`Color::hold`].
#[must_use = "a hold does nothing until it is awaited"]
pub struct Hold<F: Future>(State<F>);

enum State<F: Future> {
    Start(Anchor, F, Site),
    Asked {
        held: Arc<Held>,
        task: JoinHandle<F::Output>,
    },
    Done,
}

// Nothing inside is ever pinned: the block moves into its task before it begins.
impl<F: Future> Unpin for Hold<F> {}

impl Color {
    /// Keeps this color until the block ends: nothing else of the color runs
    /// meanwhile, also while the block awaits. Inside, [`Color::current`] is
    /// this color, [`spawn`](crate::spawn) inherits it (such a task begins when
    /// the hold has ended), and [`run`](Color::run) and cells of the color work
    /// at once.
    ///
    /// This is what a color otherwise is not: a mutex. Who holds one for long
    /// keeps everybody else of the color waiting. A hold has its place in the
    /// queue of the color, with the tasks and steps that wait there. It costs a
    /// task, and one more if the color is not idle.
    ///
    /// The block runs as a task of its own, on any worker (of a pinned color, on
    /// its worker), and goes on whether or not the future is polled.
    ///
    /// Dropping the future aborts the block: what it has is dropped under the
    /// color, which is then released. If it has not begun yet, it leaves the
    /// line, and what it has captured is dropped under no color that matters.
    ///
    /// ```no_run
    /// # use isochrome_runtime::Color;
    /// # async fn load() -> u64 { 0 }
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let color = Color::of(1);
    /// let cell = color.cell(0);
    /// let inside = cell.clone();
    /// color.hold(async move {
    ///     let before = *inside.get()?;
    ///     let more = load().await;            // nobody comes between
    ///     *inside.get()? = before + more;
    ///     Ok::<_, isochrome_runtime::CellError>(())
    /// }).await??;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`HoldError::is_deadlock`]: the future is polled inside another hold, and
    /// waiting would never end: the color is held further out, or by a hold that
    /// waits, inside, for a color that is held here. The one that would close
    /// the circle gets the error. It is taken for granted that a hold asked for
    /// inside a block is awaited there; circles through two runtimes, or through
    /// tasks and steps that are awaited, are not seen. (But a
    /// [`JoinHandle`] of a task of the held color is: see
    /// [`JoinError::is_deadlock`](crate::JoinError::is_deadlock).)
    ///
    /// [`HoldError::is_shutdown`]: the runtime was shut down.
    ///
    /// # Panics
    ///
    /// The future, with the panic of the block; the color is released. This
    /// method, outside of a runtime, if this is [`Color::DEFAULT`].
    #[track_caller]
    pub fn hold<F>(&self, block: F) -> Hold<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let anchor = Anchor::new(self, "Color::DEFAULT.hold");
        Hold(State::Start(anchor, block, Location::caller()))
    }
}

/// Takes the color, or gets in line for it, and spawns the block.
fn ask<F>(anchor: Anchor, future: F, at: Site) -> Result<State<F>, HoldError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let runtime = anchor.runtime.clone();
    let (color, shared) = (anchor.color.clone(), runtime.shared());
    let held = Arc::new(Held {
        grant: Grant::new(),
        anchor,
        at,
        parent: Worker::with(|worker| worker?.hold().borrow().clone()),
        active: AtomicBool::new(false),
    });
    let runner = Runner::try_take(color.clone());
    let waits = runner.is_none();
    if waits && held.parent.is_some() {
        shared.holds.add(&held)?;
    }
    let role = runner.map(|runner| Role::new(runner, held.clone()));
    if waits {
        drop(spawn_on(shared, color.clone(), turn(held.clone()), at));
    }
    let core = color.core();
    let own = if core.is_pinned() {
        ColorRef::new(&runtime, Kind::Pinned, core.home())
    } else {
        let home = runtime.current_worker();
        let home = home.unwrap_or_else(|| shared.any_worker());
        ColorRef::new(&runtime, Kind::Unnamed, home)
    };
    let block = Block {
        future: Some(future),
        held: held.clone(),
        role,
    };
    let task = spawn_on(shared, own, block, at);
    Ok(State::Asked { held, task })
}

impl<F> Future for Hold<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = Result<F::Output, HoldError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.0, State::Start(..)) {
            let start = std::mem::replace(&mut self.0, State::Done);
            let State::Start(anchor, future, at) = start else {
                unreachable!("just looked")
            };
            self.0 = ask(anchor, future, at)?;
        }
        let State::Asked { task, .. } = &mut self.0 else {
            panic!("a Hold was polled after it had ended")
        };
        let Poll::Ready(output) = Pin::new(task).poll(cx) else {
            return Poll::Pending;
        };
        self.0 = State::Done;
        Poll::Ready(output.map_err(|e| match e.into_panic() {
            Ok(payload) => resume_unwind(payload),
            // Nobody else can abort it.
            Err(_) => HoldError(Why::ShutDown),
        }))
    }
}

impl<F: Future> Drop for Hold<F> {
    fn drop(&mut self) {
        if let State::Asked { held, task } = &self.0 {
            // A block that has begun has the role by itself.
            drop(held.leave());
            task.abort();
        }
    }
}

impl<F: Future> fmt::Debug for Hold<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (color, at) = match &self.0 {
            State::Start(anchor, _, at) => (&anchor.color, at),
            State::Asked { held, .. } => (held.color(), &held.at),
            State::Done => return f.write_str("Hold(done)"),
        };
        f.debug_struct("Hold")
            .field("color", color)
            .field("at", &format_args!("{at}"))
            .finish()
    }
}

/// Why a color could not be held.
pub struct HoldError(Why);

enum Why {
    Deadlock(Cycle),
    ShutDown,
}

impl HoldError {
    /// It would wait for ever; the text names the holds that take part.
    pub fn is_deadlock(&self) -> bool {
        matches!(self.0, Why::Deadlock(_))
    }

    /// The runtime was shut down before the block ended.
    pub fn is_shutdown(&self) -> bool {
        matches!(self.0, Why::ShutDown)
    }
}

impl From<Cycle> for HoldError {
    fn from(cycle: Cycle) -> HoldError {
        HoldError(Why::Deadlock(cycle))
    }
}

impl fmt::Display for HoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Deadlock(cycle) => write!(f, "deadlock: {cycle}"),
            Why::ShutDown => f.write_str("the runtime was shut down before the hold ended"),
        }
    }
}

impl fmt::Debug for HoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HoldError({self})")
    }
}

impl std::error::Error for HoldError {}

impl From<HoldError> for std::io::Error {
    fn from(e: HoldError) -> std::io::Error {
        std::io::Error::other(e)
    }
}
