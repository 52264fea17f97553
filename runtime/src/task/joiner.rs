//! Who awaits a task: a waker in one word.
//!
//! Nearly always that is another task, whose waker is the pointer to its
//! header and a vtable that is known. Any other waker, of an executor or a
//! combinator with wakers of its own, lies in a box.
//!
//! # Rules
//!
//! 1. With the mark the word is a box with a waker; without, it is the counted
//!    reference of a task's waker. Neither has the lowest bit set by itself.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::Waker;

use super::raw::Header;
use super::waker;

pub(crate) struct Joiner(NonNull<()>);

/// In the lowest bit.
const BOXED: usize = 1;

const _: () = assert!(align_of::<Waker>() > BOXED && align_of::<Header>() > BOXED);

impl Joiner {
    pub(super) fn new(waker: Waker) -> Joiner {
        let task = waker::task(&waker);
        match task {
            Some(task) => {
                std::mem::forget(waker);
                Joiner(task.cast())
            }
            None => Joiner::boxed(waker),
        }
    }

    #[cold]
    fn boxed(waker: Waker) -> Joiner {
        let waker = NonNull::from(Box::leak(Box::new(waker)));
        Joiner(waker.cast::<()>().map_addr(|addr| addr | BOXED))
    }

    /// The box, if there is one.
    fn in_box(&self) -> Option<NonNull<Waker>> {
        if self.0.addr().get() & BOXED == 0 {
            return None;
        }
        let waker = self.0.as_ptr().map_addr(|addr| addr & !BOXED);
        NonNull::new(waker.cast())
    }

    pub(super) fn will_wake(&self, other: &Waker) -> bool {
        match self.in_box() {
            // SAFETY: rule 1; the box is ours.
            Some(waker) => unsafe { waker.as_ref() }.will_wake(other),
            None => waker::task(other) == Some(self.0.cast()),
        }
    }

    pub(super) fn into_waker(self) -> Waker {
        let joiner = ManuallyDrop::new(self);
        match joiner.in_box() {
            // SAFETY: rule 1; the box goes, and what was in it comes out.
            Some(waker) => *unsafe { Box::from_raw(waker.as_ptr()) },
            // SAFETY: rule 1; the reference goes to the waker.
            None => unsafe { waker::counted(joiner.0.cast()) },
        }
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        // It is not used any more.
        drop(Joiner(self.0).into_waker());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Foreign(AtomicUsize);

    impl Wake for Foreign {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn another_executors_waker_comes_out_of_its_box_or_goes_with_it() {
        let foreign = Arc::new(Foreign::default());
        let waker = Waker::from(foreign.clone());
        let joiner = Joiner::new(waker.clone());
        assert_eq!(Arc::strong_count(&foreign), 3);
        assert!(joiner.will_wake(&waker));
        assert!(!joiner.will_wake(Waker::noop()));
        drop(joiner);
        assert_eq!(Arc::strong_count(&foreign), 2);
        Joiner::new(waker).into_waker().wake();
        assert_eq!(foreign.0.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&foreign), 1);
    }
}
