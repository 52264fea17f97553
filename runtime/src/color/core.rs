//! The shared part of a color.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::ready::{Linked, Ready};
use crate::runtime::{Handle, Shared};
use crate::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
use crate::task::Header;
use crate::worker::Worker;

/// What a color is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The default color of its runtime: pinned to worker 0, and not counted
    /// among the owners of the runtime, which owns it.
    Default,
    /// Made by `Color::new`.
    Unnamed,
    /// The color with this number.
    Number(u64),
}

pub(crate) struct Core {
    pub(crate) ready: Ready<Header>,
    /// For run queues and inboxes.
    link: AtomicPtr<Core>,
    refs: AtomicU32,
    /// The worker that wakes send it to. Written by its runner.
    home: AtomicU32,
    /// Turns in a row on another worker than home. Written by its runner.
    away: AtomicU8,
    kind: Kind,
    runtime: NonNull<Shared>,
}

// SAFETY: `runtime` is an `Arc` taken apart, or the owner of this very color
// (`Kind::Default`); the rest is Sync by itself.
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
        self.kind == Kind::Default
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
            self.home.store(worker as u32, Ordering::Relaxed);
        }
        self.away.store(away % 2, Ordering::Relaxed);
    }

    pub(crate) fn shared(&self) -> &Shared {
        // SAFETY: an owned `Arc` keeps it alive. For the default color it is
        // the runtime that owns it: it is asked only on behalf of live tasks,
        // and those are gone before the runtime is.
        unsafe { self.runtime.as_ref() }
    }

    pub(super) fn count(&self) -> &AtomicU32 {
        &self.refs
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
        let shared = match kind {
            Kind::Default => NonNull::from(runtime.shared()),
            _ => {
                let owned = Arc::into_raw(runtime.clone().into_shared());
                NonNull::new(owned.cast_mut()).expect("an Arc is not null")
            }
        };
        let core = Box::new(Core {
            ready: Ready::new(),
            link: AtomicPtr::new(std::ptr::null_mut()),
            refs: AtomicU32::new(1),
            home: AtomicU32::new(home as u32),
            // The first run elsewhere moves home.
            away: AtomicU8::new(1),
            kind,
            runtime: shared,
        });
        ColorRef(NonNull::from(Box::leak(core)))
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
    /// It is alive, or the table's lock keeps it from being freed.
    pub(super) unsafe fn count_up(core: NonNull<Core>) -> ColorRef {
        // Relaxed: who counts up has a reference, or the table's lock.
        // SAFETY: alive by the contract.
        let before = unsafe { core.as_ref() }
            .refs
            .fetch_add(1, Ordering::Relaxed);
        if before > u32::MAX / 2 {
            // Two billion leaked references; freeing too early is worse.
            std::process::abort();
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
    let color = unsafe { core.as_ref() };
    let shared = color.shared();
    if Worker::runs_color(core) {
        // SAFETY: this thread is the runner; the rest is handed on.
        unsafe { color.ready.push_local(task) };
    // SAFETY: handed on.
    } else if unsafe { color.ready.push(task) } {
        shared.schedule(core);
    }
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
        if let Kind::Number(number) = core.kind {
            // The table may hand out a new reference until it forgot the
            // color: the last one goes under its lock.
            let table = &core.shared().colors;
            if !table.release(number, core) {
                return;
            }
        } else if core.refs.fetch_sub(1, Ordering::AcqRel) != 1 {
            // Release: our accesses come before the freeing. Acquire: and all
            // others', if it is we who free.
            return;
        }
        // SAFETY: no reference is left, and the table knows it no more. The
        // box was leaked by `new`.
        let core = unsafe { Box::from_raw(self.0.as_ptr()) };
        if core.kind != Kind::Default {
            // SAFETY: `new` took it from an `Arc` of its own.
            drop(unsafe { Arc::from_raw(core.runtime.as_ptr()) });
        }
    }
}

impl fmt::Debug for ColorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.core().kind {
            Kind::Default => f.write_str("Color(default)"),
            Kind::Unnamed => write!(f, "Color({:p})", self.0),
            Kind::Number(n) => write!(f, "Color({n})"),
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
