//! How many hold a descriptor, in 8 bytes where an `Arc` has 16.
//!
//! # Rules
//!
//! 1. Whoever gives up the last strong reference drops the value, and nobody
//!    else reaches it any more: a weak reference becomes a strong one only while
//!    there is one.
//! 2. The strong references together hold a weak one, which is given up after
//!    the value was dropped. Whoever gives up the last of these frees the memory.

use crate::sync::atomic::{AtomicU32, Ordering};

pub(super) struct Counts {
    strong: AtomicU32,
    weak: AtomicU32,
}

impl Counts {
    /// Of one strong reference.
    pub(super) fn new() -> Counts {
        Counts {
            strong: AtomicU32::new(1),
            weak: AtomicU32::new(1),
        }
    }

    /// One more, for who has one.
    #[inline]
    pub(super) fn up(&self) {
        up(&self.strong);
    }

    /// One less. `true`: it was the last, and the value is to be dropped.
    #[must_use]
    #[inline]
    pub(super) fn down(&self) -> bool {
        down(&self.strong)
    }

    /// One more weak one.
    pub(super) fn weak_up(&self) {
        up(&self.weak);
    }

    /// One less weak one. `true`: it was the last, and the memory is to be freed.
    #[must_use]
    pub(super) fn weak_down(&self) -> bool {
        down(&self.weak)
    }

    /// One more strong one, for who has a weak one. `false`: there is none.
    #[must_use]
    pub(super) fn up_if_any(&self) -> bool {
        let next = |count| (count > 0).then(|| checked(count) + 1);
        // Relaxed: as for `up`; who has a weak reference got it from one who
        // had the value.
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.strong.fetch_update(set, fetch, next).is_ok()
    }
}

#[inline]
fn up(count: &AtomicU32) {
    // Relaxed: who counts up has a reference.
    checked(count.fetch_add(1, Ordering::Relaxed));
}

#[inline]
fn checked(count: u32) -> u32 {
    if count > u32::MAX / 2 {
        // Two billion leaked references; freeing too early is worse.
        std::process::abort();
    }
    count
}

#[inline]
fn down(count: &AtomicU32) -> bool {
    // Release: our accesses come before the end. Acquire: and all others', if
    // it is we who end it.
    count.fetch_sub(1, Ordering::AcqRel) == 1
}

/// Both models fail with either half of `down`'s AcqRel taken out, the second
/// also with `up_if_any` counting up from zero.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Life {
        There,
        Dropped,
        Freed,
    }

    struct Block {
        counts: Counts,
        life: UnsafeCell<Life>,
    }

    impl Block {
        fn new() -> Arc<Block> {
            Arc::new(Block {
                counts: Counts::new(),
                life: UnsafeCell::new(Life::There),
            })
        }

        fn touch(&self) {
            // SAFETY: that nobody ends it meanwhile is what the model proves.
            let life = self.life.with(|life| unsafe { *life });
            assert_eq!(life, Life::There);
        }

        fn go_on(&self, from: Life, to: Life) {
            // SAFETY: as above.
            let was = self
                .life
                .with_mut(|life| unsafe { std::mem::replace(&mut *life, to) });
            assert_eq!(was, from);
        }

        fn release(&self) {
            if self.counts.down() {
                self.go_on(Life::There, Life::Dropped);
                self.release_weak();
            }
        }

        fn release_weak(&self) {
            if self.counts.weak_down() {
                self.go_on(Life::Dropped, Life::Freed);
            }
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: nobody else has it.
            let life = self.life.with(|life| unsafe { *life });
            assert!(life == Life::Freed || std::thread::panicking(), "leaked");
        }
    }

    #[test]
    fn the_last_of_two_drops_it() {
        loom::model(|| {
            let block = Block::new();
            block.counts.up();
            let other = block.clone();
            let thread = thread::spawn(move || {
                other.touch();
                other.release();
            });
            block.touch();
            block.release();
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_weak_one_comes_in_time_or_not_at_all() {
        loom::model(|| {
            let block = Block::new();
            block.counts.weak_up();
            let other = block.clone();
            let thread = thread::spawn(move || {
                if other.counts.up_if_any() {
                    other.touch();
                    other.release();
                }
                other.release_weak();
            });
            block.touch();
            block.release();
            thread.join().unwrap();
        });
    }
}
