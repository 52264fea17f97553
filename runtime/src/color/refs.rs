//! How many hold a color.
//!
//! A color that lies in the block of a task (`Kind::Apart`) begins with no
//! reference: its own task needs none. The references that there are hold one
//! reference to the task together: who makes the first takes it, who gives up
//! the last gives it back. The first is made by the color's own running task,
//! which is alive meanwhile, so that it does not matter in which order the
//! two reach the task's count.

use crate::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct Refs(AtomicU32);

impl Refs {
    pub(crate) fn new(count: u32) -> Refs {
        Refs(AtomicU32::new(count))
    }

    /// One more. `true`: it is the first.
    #[must_use]
    pub(crate) fn up(&self) -> bool {
        // Relaxed: who counts up has a reference, or runs the color's own
        // task, or has the table's lock.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if before > u32::MAX / 2 {
            // Two billion leaked references; freeing too early is worse.
            std::process::abort();
        }
        before == 0
    }

    /// One less. `true`: it was the last.
    #[must_use]
    pub(crate) fn down(&self) -> bool {
        // Release: our accesses come before the freeing. Acquire: and all
        // others', if it is we who free.
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// One less, unless it is the last. `false`: it is, and is still there.
    #[cfg(not(all(test, loom)))]
    #[must_use]
    pub(crate) fn down_unless_last(&self) -> bool {
        let mut count = self.0.load(Ordering::Relaxed);
        while count > 1 {
            // Release: as for `down`.
            match self.0.compare_exchange_weak(
                count,
                count - 1,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(other) => count = other,
            }
        }
        false
    }
}
