//! The shared part of a color.
//!
//! # Rules
//!
//! 1. What only few colors have lies right behind the color, in one block with
//!    it, so that the others have no room for it: the number of a color of
//!    `Kind::Numbered`, the figures of one of `Kind::Named`. No other color has
//!    these kinds, and a color keeps its kind.

use std::fmt;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::figures::Figures;
use super::ready::{Linked, Ready};
use super::refs::Refs;
use crate::runtime::{Handle, Shared};
use crate::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, Ordering};
use crate::task::{Header, TaskRef};
use crate::worker::Worker;

/// What a color is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The default color of its runtime: pinned to worker 0, and not counted
    /// among the owners of the runtime, which owns it.
    Default,
    /// Made by `Color::new`.
    Unnamed,
    /// Made by `Color::pinned`: stays with its home.
    Pinned,
    /// The color with a number, which is behind it.
    Numbered,
    /// Made by `Color::named`; its figures are behind it.
    Named,
    /// In the block of the task that it was made for.
    Apart,
    /// As `Apart`, and stays with its home.
    ApartPinned,
}

impl Kind {
    fn is_apart(self) -> bool {
        matches!(self, Kind::Apart | Kind::ApartPinned)
    }

    fn is_pinned(self) -> bool {
        matches!(self, Kind::Default | Kind::Pinned | Kind::ApartPinned)
    }
}

pub(crate) struct Core {
    pub(crate) ready: Ready<Header>,
    /// For run queues and inboxes.
    link: AtomicPtr<Core>,
    /// Counted among its owners as long as there is a reference, but by the
    /// default color.
    runtime: NonNull<Shared>,
    refs: Refs,
    /// The worker that wakes send it to. Written by its runner.
    home: AtomicU16,
    /// Turns in a row on another worker than home. Written by its runner.
    away: AtomicU8,
    kind: Kind,
}

/// A color with what only few have, by rule 1.
#[repr(C)]
struct Extended<E> {
    core: Core,
    extension: E,
}

// A promise to those who have millions of them.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Core>() <= 40);

// SAFETY: `Shared` is Sync, and see `Core::shared` for how long it lives; the
// rest is Sync by itself.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Linked for Core {
    fn link(&self) -> &AtomicPtr<Core> {
        &self.link
    }
}

impl Core {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.kind.is_pinned()
    }

    pub(crate) fn home(&self) -> usize {
        self.home.load(Ordering::Relaxed) as usize
    }

    /// The runner says where it runs the color. Home follows when that was
    /// elsewhere twice in a row, and at the first run: nothing is armed yet.
    pub(crate) fn runs_on(&self, worker: usize) {
        let away = if self.home() == worker {
            0
        } else {
            self.away.load(Ordering::Relaxed) + 1
        };
        if away >= 2 {
            self.home.store(worker as u16, Ordering::Relaxed);
            if let Some(figures) = self.figures() {
                figures.moved(worker);
            }
        }
        self.away.store(away % 2, Ordering::Relaxed);
    }

    pub(crate) fn shared(&self) -> &Shared {
        // SAFETY: a counted reference to the color keeps it alive. Otherwise
        // (the default color, or one that only its own task has) it is asked
        // on behalf of live tasks, and those are gone before the runtime is,
        // or by who has a `Handle`.
        unsafe { self.runtime.as_ref() }
    }

    pub(super) fn refs(&self) -> &Refs {
        &self.refs
    }

    pub(super) fn number(&self) -> Option<u64> {
        match self.kind {
            // SAFETY: rule 1.
            Kind::Numbered => Some(unsafe { *self.extension() }),
            _ => None,
        }
    }

    /// Those of a named color.
    #[inline]
    pub(crate) fn figures(&self) -> Option<&Figures> {
        match self.kind {
            // SAFETY: rule 1.
            Kind::Named => Some(unsafe { self.extension::<Arc<Figures>>() }),
            _ => None,
        }
    }

    /// What is behind the color.
    ///
    /// # Safety
    ///
    /// By rule 1 that is an `E`.
    #[inline]
    unsafe fn extension<E>(&self) -> &E {
        let addr = ptr::from_ref(self).addr();
        // SAFETY: the color is the first part of such a block, whose provenance
        // `ColorRef::extended` exposed.
        unsafe { &(*ptr::with_exposed_provenance::<Extended<E>>(addr)).extension }
    }

    /// Whoever has it is about to schedule it.
    #[inline]
    pub(super) fn becomes_ready(&self) {
        if let Some(figures) = self.figures() {
            figures.ready_at(self.shared().clock().nanos());
        }
    }

    /// A thief has it.
    #[inline]
    pub(crate) fn stolen(&self) {
        if let Some(figures) = self.figures() {
            figures.stolen();
        }
    }

    fn new(runtime: &Handle, kind: Kind, home: usize, refs: u32) -> Core {
        Core {
            ready: Ready::new(),
            link: AtomicPtr::new(std::ptr::null_mut()),
            runtime: runtime.as_ptr(),
            refs: Refs::new(refs),
            home: AtomicU16::new(home as u16),
            // The first run elsewhere moves home.
            away: AtomicU8::new(1),
            kind,
        }
    }

    /// A color for the block of a task.
    pub(crate) fn apart(runtime: &Handle, pinned: bool, home: usize) -> Core {
        let kind = if pinned {
            Kind::ApartPinned
        } else {
            Kind::Apart
        };
        Core::new(runtime, kind, home, 0)
    }
}

/// A counted reference to a color.
pub(crate) struct ColorRef(NonNull<Core>);

// SAFETY: `Core` is Sync, and the count is atomic.
unsafe impl Send for ColorRef {}
// SAFETY: as above.
unsafe impl Sync for ColorRef {}

impl ColorRef {
    pub(crate) fn new(runtime: &Handle, kind: Kind, home: usize) -> ColorRef {
        let core = Core::new(runtime, kind, home, 1);
        ColorRef::made(NonNull::from(Box::leak(Box::new(core))))
    }

    pub(super) fn numbered(runtime: &Handle, number: u64, home: usize) -> ColorRef {
        ColorRef::extended(Core::new(runtime, Kind::Numbered, home, 1), number)
    }

    pub(super) fn named(
        runtime: &Handle,
        name: Arc<str>,
        at: &'static Location<'static>,
        home: usize,
    ) -> ColorRef {
        let shared = runtime.shared();
        let figures = shared.named.add(name, at, home, shared.clock().nanos());
        ColorRef::extended(Core::new(runtime, Kind::Named, home, 1), figures)
    }

    /// Of a kind that has this extension.
    fn extended<E>(core: Core, extension: E) -> ColorRef {
        let block = Box::leak(Box::new(Extended { core, extension }));
        // `Core::extension` makes a pointer of this one from its address.
        ptr::from_mut(block).expose_provenance();
        ColorRef::made(NonNull::from(block).cast())
    }

    /// The first reference to a color that was leaked.
    fn made(core: NonNull<Core>) -> ColorRef {
        let color = ColorRef(core);
        let core = color.core();
        if core.kind != Kind::Default {
            // SAFETY: `Handle::as_ptr` is that of an `Arc`, alive in the handle
            // that the color was made with.
            unsafe { Arc::increment_strong_count(core.runtime.as_ptr()) };
        }
        color
    }

    /// Frees a color that lies by itself, with the extension of its kind.
    ///
    /// # Safety
    ///
    /// No reference is left, and the table knows it no more.
    unsafe fn free(core: NonNull<Core>, kind: Kind) {
        let core = core.as_ptr();
        // SAFETY: a box was leaked by `extended` or `new`, of this type by
        // rule 1.
        unsafe {
            match kind {
                Kind::Numbered => drop(Box::from_raw(core.cast::<Extended<u64>>())),
                Kind::Named => drop(Box::from_raw(core.cast::<Extended<Arc<Figures>>>())),
                _ => drop(Box::from_raw(core)),
            }
        }
    }

    pub(crate) fn core(&self) -> &Core {
        // SAFETY: the reference keeps it alive.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn as_ptr(&self) -> NonNull<Core> {
        self.0
    }

    /// Counts one more reference to `core`.
    ///
    /// # Safety
    ///
    /// There is one already, or the table's lock keeps the color from being
    /// freed, or the color's own task is running on this thread.
    pub(crate) unsafe fn count_up(core: NonNull<Core>) -> ColorRef {
        // SAFETY: alive by the contract.
        let color = unsafe { core.as_ref() };
        if color.refs.up() {
            debug_assert!(color.kind.is_apart(), "others are never without");
            // SAFETY: the color lies in the block of its task, which runs, and
            // so in a runtime that is alive; its pointer is that of an `Arc`.
            unsafe {
                TaskRef::around(core).header().state.add_ref();
                Arc::increment_strong_count(color.runtime.as_ptr());
            }
        }
        ColorRef(core)
    }
}

/// Queues a task in a color, and the color with a worker if it was idle.
///
/// By pointer: once the task is queued, another worker may complete it and
/// free the color, unless the push has still to be followed by the schedule.
///
/// # Safety
///
/// The task has this color, is alive, and is in no queue.
pub(crate) unsafe fn push(core: NonNull<Core>, task: NonNull<Header>) {
    // SAFETY: the task keeps its color alive until it is queued.
    match unsafe { core.as_ref() }.figures() {
        // SAFETY: handed on.
        None => unsafe { push_and(core, task, || {}) },
        // SAFETY: as above.
        Some(figures) => unsafe { push_counted(core, task, figures) },
    }
}

/// Apart, so that unnamed colors pay only for the look.
///
/// # Safety
///
/// As for `push`; the figures are the color's.
#[cold]
#[inline(never)]
unsafe fn push_counted(core: NonNull<Core>, task: NonNull<Header>, figures: &Figures) {
    figures.push();
    // SAFETY: handed on. The color is not freed before it is scheduled.
    unsafe { push_and(core, task, || core.as_ref().becomes_ready()) };
}

/// # Safety
///
/// As for `push`. `ready` is called before the color is scheduled, if it is.
#[inline(always)]
unsafe fn push_and(core: NonNull<Core>, task: NonNull<Header>, ready: impl FnOnce()) {
    // SAFETY: the task keeps its color alive until it is queued.
    let color = unsafe { core.as_ref() };
    let shared = color.shared();
    Worker::with(|worker| {
        if worker.is_some_and(|worker| worker.runs(core)) {
            // SAFETY: this thread is the runner; the rest is handed on.
            unsafe { color.ready.push_local(task) };
        // SAFETY: handed on.
        } else if unsafe { color.ready.push(task) } {
            ready();
            shared.schedule(worker, core);
        }
    });
}

impl Clone for ColorRef {
    fn clone(&self) -> ColorRef {
        // SAFETY: `self` keeps it alive.
        unsafe { ColorRef::count_up(self.0) }
    }
}

impl Drop for ColorRef {
    fn drop(&mut self) {
        let core = self.core();
        let last = match core.number() {
            // The table may hand out a new reference until it forgot the
            // color: the last one goes under its lock.
            Some(number) => core.shared().colors.release(number, core),
            None => core.refs.down(),
        };
        if !last {
            return;
        }
        if let Some(figures) = core.figures() {
            core.shared().named.forget(figures);
        }
        let (kind, runtime) = (core.kind, core.runtime);
        if kind.is_apart() {
            // SAFETY: the references together hold one to the task that the
            // color lies in, and this was the last.
            unsafe { TaskRef::around(self.0) }.release();
        } else {
            // SAFETY: no reference is left, and the table knows it no more.
            unsafe { ColorRef::free(self.0, kind) };
        }
        if kind != Kind::Default {
            // SAFETY: counted by `made`, or by the first reference.
            unsafe { Arc::decrement_strong_count(runtime.as_ptr()) };
        }
    }
}

impl fmt::Debug for ColorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.core().kind, self.core().number()) {
            (Kind::Default, _) => f.write_str("Color(default)"),
            (_, Some(number)) => write!(f, "Color({number})"),
            (_, None) => match self.core().figures() {
                Some(figures) => write!(f, "Color({:?})", figures.name),
                None => write!(f, "Color({:p})", self.0),
            },
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("kind", &self.kind)
            .field("home", &self.home)
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}
