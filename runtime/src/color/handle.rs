//! What users hold of a color.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::panic::Location;
use std::sync::Arc;

use super::core::{ColorRef, Kind};
use crate::runtime::{Handle, spawn_on};
use crate::stats::ColorStats;
use crate::task::JoinHandle;
use crate::worker::Worker;

/// A color: tasks of one color run one after another, tasks of different
/// colors run in parallel.
///
/// The idea is that of libasync-smp (Zeldovich et al., USENIX ATC 2003), with
/// the poll of a task in the place of the event.
///
/// # What it promises
///
/// 1. **Exclusion.** At most one task of a color is polled at any moment, on
///    any worker, and each poll happens after the one before: what is reached
///    only under one color needs no lock.
/// 2. **Order.** Ready tasks of a color run in the order in which they became
///    ready.
/// 3. **An await releases the color.** Exclusion lasts for one poll. Between
///    two awaits state is private; across an await other tasks of the color
///    may have run:
///
///    ```no_run
///    # use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///    # async fn fetch() -> u64 { 0 }
///    # static TOTAL: AtomicU64 = AtomicU64::new(0);
///    # async fn example() {
///    let before = TOTAL.load(Relaxed);
///    TOTAL.store(before + 1, Relaxed);  // same poll: nobody came between
///    let more = fetch().await;          // others of this color may run here
///    TOTAL.store(before + more, Relaxed); // wrong: `before` may be stale
///    # }
///    ```
///
/// A color is not a mutex that is held across awaits. What is:
/// [`hold`](Color::hold) keeps everybody else of the color waiting until a block
/// has ended. Seldom is that much needed; there is also
///
/// * [`run`](Color::run): an atomic step of the color, awaited from any other;
/// * [`cell`](Color::cell): data that only code of the color reaches, by such a
///   step ([`ColorCell::with`](crate::ColorCell::with)) or by a checked borrow
///   ([`ColorCell::get`](crate::ColorCell::get)).
///
/// # Which color a task has
///
/// The future given to `block_on` has the [default](Color::DEFAULT) color.
/// [`spawn`](crate::spawn) gives a task the color of its spawner;
/// [`Color::spawn`] gives it this one. A program that names no color is
/// serial, on the thread that called `block_on`.
///
/// Cloning is cheap, and so is a color: one small allocation, nothing is
/// registered, and nothing is left when the last clone and task are gone.
#[derive(Clone)]
pub struct Color(pub(super) Option<ColorRef>);

impl Color {
    /// The default color of the runtime that it is used in. It stays with the
    /// thread that calls `block_on`.
    pub const DEFAULT: Color = Color(None);

    /// A color of its own, parallel to every other. It starts on this worker,
    /// unless the runtime was built with another
    /// [`Placement`](crate::Placement).
    ///
    /// For a color with one task to begin with, [`spawn_apart`] makes both in
    /// one allocation.
    ///
    /// [`spawn_apart`]: crate::spawn_apart
    ///
    /// # Panics
    ///
    /// Outside a runtime; use [`Handle::color`] there.
    #[allow(
        clippy::new_without_default,
        reason = "the default color is another one"
    )]
    #[track_caller]
    pub fn new() -> Color {
        Worker::expect("Color::new", |worker| {
            Color(Some(ColorRef::new(
                worker.runtime(),
                Kind::Unnamed,
                worker.home_of_new(),
            )))
        })
    }

    /// A color of its own that stays with the worker it is made on: its tasks
    /// run on this thread and are never stolen. [`spawn_local`] gives its
    /// tasks futures that are not `Send`.
    ///
    /// [`spawn_local`]: crate::spawn_local
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    pub fn pinned() -> Color {
        Worker::expect("Color::pinned", |worker| {
            Color(Some(ColorRef::new(
                worker.runtime(),
                Kind::Pinned,
                worker.index(),
            )))
        })
    }

    /// *The* color with this number in this runtime: a user, a shard, a
    /// descriptor. Equal numbers are the same color, and different ones are
    /// never serialised with each other. It is forgotten when nobody holds it.
    ///
    /// # Panics
    ///
    /// Outside a runtime; use [`Handle::color_of`] there.
    #[track_caller]
    pub fn of(number: u64) -> Color {
        Worker::expect("Color::of", |worker| {
            let runtime = worker.runtime();
            Color(Some(runtime.shared().colors.get(
                number,
                runtime,
                worker.home_of_new(),
            )))
        })
    }

    /// A color of its own, as [`Color::new`], with a name and figures: how
    /// much it has run and waited, how often it was stolen, what is ready. See
    /// [`Color::stats`], [`Handle::stats`], and [`Report::HotColor`].
    ///
    /// A name is no identity: each call makes another color, and two may have
    /// the same name. Colors without a name keep no figures, which is what
    /// keeps them small.
    ///
    /// Give names to what is few and large (a cache, a shard, a log), not to
    /// each of a million connections: making one takes a lock and more memory
    /// (400 bytes), and each of its turns two looks at the clock, with a
    /// third when a wake makes it ready. Counted by callgrind, that is 330
    /// instructions a turn with one poll and 33 a poll when 32 share the turn;
    /// a color without a name pays about 20 a turn and 3 a wake for being
    /// counted with the others.
    ///
    /// [`Report::HotColor`]: crate::Report::HotColor
    ///
    /// # Panics
    ///
    /// Outside a runtime; use [`Handle::color_named`] there.
    #[track_caller]
    pub fn named(name: impl Into<Arc<str>>) -> Color {
        let at = Location::caller();
        Worker::expect("Color::named", |worker| {
            let (runtime, home) = (worker.runtime(), worker.home_of_new());
            Color(Some(ColorRef::named(runtime, name.into(), at, home)))
        })
    }

    /// The figures of a color that was made with a [name](Color::named);
    /// `None` for others. From any thread.
    pub fn stats(&self) -> Option<ColorStats> {
        let figures = self.0.as_ref()?.core().figures()?;
        Some(figures.stats())
    }

    /// The color of the code that runs on this thread: of its task, or of the
    /// step or the hold that it is in. `None` outside of these.
    pub fn current() -> Option<Color> {
        Worker::with(|worker| worker?.color().map(Color::from_ref))
    }

    pub(crate) fn in_runtime(runtime: &Handle) -> Color {
        let home = runtime.shared().any_worker();
        Color(Some(ColorRef::new(runtime, Kind::Unnamed, home)))
    }

    pub(crate) fn numbered_in(runtime: &Handle, number: u64) -> Color {
        let home = runtime.shared().any_worker();
        Color(Some(runtime.shared().colors.get(number, runtime, home)))
    }

    pub(crate) fn named_in(
        runtime: &Handle,
        name: Arc<str>,
        at: &'static Location<'static>,
    ) -> Color {
        let home = runtime.shared().any_worker();
        Color(Some(ColorRef::named(runtime, name, at, home)))
    }

    pub(super) fn from_ref(color: ColorRef) -> Color {
        if color.core().kind() == Kind::Default {
            Color::DEFAULT
        } else {
            Color(Some(color))
        }
    }

    /// Spawns a task of this color, from any thread.
    ///
    /// If the runtime is shutting down, the future is dropped and the handle
    /// gives an error that says so.
    ///
    /// # Panics
    ///
    /// If this is [`Color::DEFAULT`] and the thread is in no runtime.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let at = Location::caller();
        match &self.0 {
            Some(color) => spawn_on(color.core().shared(), color.clone(), future, at),
            None => Worker::expect("Color::DEFAULT.spawn", |worker| {
                let shared = worker.runtime().shared();
                spawn_on(shared, shared.default_color(), future, at)
            }),
        }
    }
}

impl PartialEq for Color {
    fn eq(&self, other: &Color) -> bool {
        self.0.as_ref().map(ColorRef::as_ptr) == other.0.as_ref().map(ColorRef::as_ptr)
    }
}

impl Eq for Color {}

impl Hash for Color {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ref().map(ColorRef::as_ptr).hash(state);
    }
}

impl fmt::Debug for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(color) => fmt::Debug::fmt(color, f),
            None => f.write_str("Color(default)"),
        }
    }
}
