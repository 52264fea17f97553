//! Wakers of tasks where they are many: one word, because the vtable is known.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::Waker;

use super::raw::{Header, TaskRef};
use super::waker;

/// A waker of a task in one word.
pub(crate) struct TaskWaker(NonNull<Header>);

// SAFETY: it is what `Waker` is, which is both.
unsafe impl Send for TaskWaker {}
// SAFETY: as above.
unsafe impl Sync for TaskWaker {}

impl TaskWaker {
    /// A copy of this one, if it is a task's.
    #[inline(always)]
    pub(crate) fn of(waker: &Waker) -> Option<TaskWaker> {
        let header = waker::task(waker)?;
        // SAFETY: a waker keeps the task alive.
        unsafe { header.as_ref() }.state.add_ref();
        Some(TaskWaker(header))
    }
}

impl TryFrom<Waker> for TaskWaker {
    type Error = Waker;

    fn try_from(waker: Waker) -> Result<TaskWaker, Waker> {
        let Some(header) = waker::task(&waker) else {
            return Err(waker);
        };
        // The reference goes over.
        std::mem::forget(waker);
        Ok(TaskWaker(header))
    }
}

impl From<TaskWaker> for Waker {
    #[inline(always)]
    fn from(waker: TaskWaker) -> Waker {
        let waker = ManuallyDrop::new(waker);
        // SAFETY: counted by `of`, or by the waker that it was; it goes over.
        unsafe { waker::counted(waker.0) }
    }
}

impl Drop for TaskWaker {
    #[inline]
    fn drop(&mut self) {
        TaskRef(self.0).release();
    }
}
