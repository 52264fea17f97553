//! The tasks that a worker spawned, so that it can end them all.
//!
//! A list through the tasks, touched by its worker alone: spawning and
//! completing on one worker costs no atomic step and no lock. A task that
//! completes elsewhere is sent back through the worker's inbox of finished
//! tasks.

use std::cell::Cell;
use std::fmt;
use std::ptr::NonNull;

use super::raw::{Header, TaskRef};

/// Spawned by no worker: in the list of the runtime, under its lock.
pub(crate) const FOREIGN: u32 = u32::MAX;

pub(crate) struct Links {
    before: Cell<Option<NonNull<Header>>>,
    after: Cell<Option<NonNull<Header>>>,
    /// Which worker's list it is in. Written before the task is shared.
    owner: Cell<u32>,
}

impl Links {
    pub(crate) fn new() -> Links {
        Links {
            before: Cell::new(None),
            after: Cell::new(None),
            owner: Cell::new(FOREIGN),
        }
    }

    pub(crate) fn owner(&self) -> u32 {
        self.owner.get()
    }
}

/// A list of live tasks, each with its live reference.
pub(crate) struct Owned {
    first: Option<NonNull<Header>>,
    owner: u32,
}

// SAFETY: a list is touched under a lock or by one worker; see the module.
unsafe impl Send for Owned {}

impl Owned {
    pub(crate) fn new(owner: u32) -> Owned {
        Owned { first: None, owner }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds a task that nobody else has seen yet.
    pub(crate) fn add(&mut self, task: TaskRef) {
        let links = &task.header().links;
        links.owner.set(self.owner);
        links.after.set(self.first);
        if let Some(first) = self.first {
            // SAFETY: in the list, so its live reference is there.
            unsafe { first.as_ref() }.links.before.set(Some(task.0));
        }
        self.first = Some(task.0);
    }

    /// Takes a task out; its live reference is the caller's.
    ///
    /// # Safety
    ///
    /// It is in this list.
    pub(crate) unsafe fn remove(&mut self, task: TaskRef) {
        let links = &task.header().links;
        match links.before.get() {
            // SAFETY: in the list, as is the next.
            Some(before) => unsafe { before.as_ref() }
                .links
                .after
                .set(links.after.get()),
            None => self.first = links.after.get(),
        }
        if let Some(after) = links.after.get() {
            // SAFETY: as above.
            unsafe { after.as_ref() }
                .links
                .before
                .set(links.before.get());
        }
    }

    /// Calls `f` for every task in the list.
    pub(crate) fn for_each(&self, mut f: impl FnMut(NonNull<Header>)) {
        let mut next = self.first;
        while let Some(task) = next {
            // SAFETY: in the list, so its live reference is there.
            next = unsafe { task.as_ref() }.links.after.get();
            f(task);
        }
    }
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}
