//! The tasks that a worker spawned, so that it can end them all.
//!
//! A dense array of the worker's alone: spawning and completing on one worker
//! costs no atomic step and no lock. A task knows its place in it; the last
//! takes the place of one that leaves. A task that completes elsewhere is sent
//! back through the worker's inbox of finished tasks.

use std::fmt;
use std::ptr::NonNull;

use super::raw::{Header, TaskRef};

/// Spawned by no worker: in the list of the runtime, under its lock.
pub(crate) const FOREIGN: u16 = u16::MAX;

/// Memory for so many is kept for ever.
const KEPT: usize = 1024;

/// Live tasks, each with its live reference.
pub(crate) struct Owned {
    tasks: Vec<NonNull<Header>>,
    owner: u16,
}

// SAFETY: a list is touched under a lock or by one worker; see the module.
unsafe impl Send for Owned {}

impl Owned {
    pub(crate) fn new(owner: u16) -> Owned {
        Owned {
            tasks: Vec::new(),
            owner,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Adds a task that nobody else has seen yet.
    ///
    /// # Panics
    ///
    /// With four billion of them.
    #[inline]
    pub(crate) fn add(&mut self, task: TaskRef) {
        let index = u32::try_from(self.tasks.len());
        let header = task.header();
        header.index.set(index.expect("fewer than 2^32 tasks"));
        header.owner.set(self.owner);
        self.tasks.push(task.0);
    }

    /// Takes a task out; its live reference is the caller's.
    ///
    /// # Safety
    ///
    /// It is in this list.
    #[inline]
    pub(crate) unsafe fn remove(&mut self, task: TaskRef) {
        let index = task.header().index.get();
        let removed = self.tasks.swap_remove(index as usize);
        debug_assert!(removed == task.0, "a task is where it says");
        if let Some(moved) = self.tasks.get(index as usize) {
            // SAFETY: in the list, so its live reference is there.
            unsafe { moved.as_ref() }.index.set(index);
        }
        if self.tasks.capacity() > KEPT && self.tasks.len() < self.tasks.capacity() / 4 {
            self.tasks.shrink_to(KEPT.max(self.tasks.capacity() / 2));
        }
    }

    /// Calls `f` for every task in the list.
    pub(crate) fn for_each(&self, f: impl FnMut(NonNull<Header>)) {
        self.tasks.iter().copied().for_each(f);
    }
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned")
            .field("owner", &self.owner)
            .field("tasks", &self.tasks.len())
            .finish()
    }
}
