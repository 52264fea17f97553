//! A lock for what is held for a few instructions and hardly ever contended.
//!
//! It does what `std::sync::Mutex` does, but for poisoning: to look whether the
//! thread panics, before and after, takes more instructions than all the rest.
//! What is guarded must be in order whenever foreign code could panic, so none
//! that does may run under it.
//!
//! ```text
//!            lock              lock, in vain
//!   FREE ------------> HELD ------------------> AWAITED --+ lock, in vain
//!    ^ ^                |                         |  ^    | (sleeps)
//!    | |     unlock     |                         |  +----+
//!    | +----------------+                         |
//!    +--------------------------------------------+
//!                 unlock (wakes one)
//! ```
//!
//! # Rules
//!
//! 1. Who found the lock taken sleeps only while the word is `AWAITED`, and
//!    takes the lock by `AWAITED`, because there may be others who sleep.
//! 2. Who unlocks makes the word `FREE` and wakes one sleeper if it was
//!    `AWAITED`. (Ulrich Drepper, "Futexes Are Tricky", the second mutex.)

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const AWAITED: u32 = 2;

/// How often a taken lock is looked at before a thread sleeps for it: what it
/// guards takes a few hundred instructions at most (thin air).
#[cfg(not(all(test, loom)))]
const LOOKS: usize = 100;

/// What is `beside` the value needs no lock, because it never changes, and no
/// memory, if there is padding behind the word.
// The word first: beside what whoever locks looks at next.
#[repr(C)]
pub(crate) struct Lock<T, B = ()> {
    word: Word,
    beside: B,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time, the one that has the
// guard, and what one did the next one sees (Acquire and Release below).
unsafe impl<T: Send, B: Send> Send for Lock<T, B> {}
// SAFETY: as above.
unsafe impl<T: Send, B: Sync> Sync for Lock<T, B> {}

/// The right to the value. Dropping it unlocks.
pub(crate) struct Guard<'a, T, B = ()> {
    lock: &'a Lock<T, B>,
    /// Unlocked by the thread that locked, as `std`'s are: so `!Send`.
    _here: std::marker::PhantomData<*const ()>,
}

impl<T, B> Lock<T, B> {
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn beside(beside: B, value: T) -> Lock<T, B> {
        Lock {
            word: Word {
                state: AtomicU32::new(FREE),
            },
            beside,
            value: UnsafeCell::new(value),
        }
    }

    #[cfg(not(all(test, loom)))]
    #[inline(always)]
    pub(crate) fn what_is_beside(&self) -> &B {
        &self.beside
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> Guard<'_, T, B> {
        // Acquire: what the last holder did, published by its Release.
        let (word, order) = (&self.word.state, Ordering::Acquire);
        let taken = word.compare_exchange(FREE, HELD, order, Ordering::Relaxed);
        if taken.is_err() {
            self.word.wait_for();
        }
        Guard {
            lock: self,
            _here: std::marker::PhantomData,
        }
    }
}

impl<T, B> Drop for Guard<'_, T, B> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: what we did, for the next holder's Acquire.
        if self.lock.word.state.swap(FREE, Ordering::Release) == AWAITED {
            self.lock.word.wake_one();
        }
    }
}

impl<T, B> Deref for Guard<'_, T, B> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one there is.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T, B> DerefMut for Guard<'_, T, B> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and it is borrowed mutably.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T, B> fmt::Debug for Lock<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

struct Word {
    state: AtomicU32,
    #[cfg(all(test, loom))]
    bed: model::Bed,
}

impl Word {
    /// Takes the lock, which was taken.
    #[cold]
    fn wait_for(&self) {
        #[cfg(not(all(test, loom)))]
        for _ in 0..LOOKS {
            if self.state.load(Ordering::Relaxed) == FREE {
                break;
            }
            std::hint::spin_loop();
        }
        // Acquire: as for `lock`.
        while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
            self.sleep();
        }
    }

    /// Sleeps while the word is `AWAITED`, or not at all: the kernel looks at
    /// it and goes to sleep in one step, as far as `wake_one` can see.
    #[cfg(not(all(test, loom)))]
    fn sleep(&self) {
        let (op, time) = (
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            std::ptr::null::<libc::timespec>(),
        );
        // SAFETY: the word is there as long as `self` is, and no time is given.
        unsafe { libc::syscall(libc::SYS_futex, self.state.as_ptr(), op, AWAITED, time) };
    }

    #[cfg(not(all(test, loom)))]
    #[cold]
    fn wake_one(&self) {
        let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the address is only compared with those that are waited at.
        unsafe { libc::syscall(libc::SYS_futex, self.state.as_ptr(), op, 1) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn one_at_a_time_and_none_is_left_asleep() {
        let lock = Arc::new(Lock::beside((), 0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let lock = lock.clone();
                thread::spawn(move || {
                    for n in 0..20_000 {
                        let mut count = lock.lock();
                        *count += 1;
                        if n % 1000 == 0 {
                            // Long enough for the others to fall asleep.
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*lock.lock(), 80_000);
    }

    #[test]
    fn a_panic_unlocks() {
        let lock = Arc::new(Lock::beside((), 1));
        let other = lock.clone();
        let panicked = thread::spawn(move || {
            let _guard = other.lock();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(*lock.lock(), 1);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::Mutex;
    use loom::sync::{Arc, Condvar};
    use loom::thread;

    /// What the kernel does for a futex.
    #[derive(Default)]
    pub(super) struct Bed {
        kernel: Mutex<()>,
        sleepers: Condvar,
    }

    impl Word {
        pub(super) fn sleep(&self) {
            let kernel = self.bed.kernel.lock().unwrap();
            if self.state.load(Ordering::Relaxed) == AWAITED {
                drop(self.bed.sleepers.wait(kernel).unwrap());
            }
        }

        pub(super) fn wake_one(&self) {
            drop(self.bed.kernel.lock().unwrap());
            self.bed.sleepers.notify_one();
        }
    }

    impl<T> Lock<T> {
        fn beside(beside: (), value: T) -> Lock<T> {
            let (state, bed) = (AtomicU32::new(FREE), Bed::default());
            Lock {
                word: Word { state, bed },
                beside,
                value: UnsafeCell::new(value),
            }
        }
    }

    fn model(threads: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let lock = Arc::new(Lock::beside((), 0));
            let others: Vec<_> = (1..threads)
                .map(|_| {
                    let lock = lock.clone();
                    thread::spawn(move || *lock.lock() += 1)
                })
                .collect();
            *lock.lock() += 1;
            // Whoever sleeps for ever, or sees an old value, fails the model.
            // No join comes before the last look.
            let seen = *lock.lock();
            assert!((1..=threads).contains(&seen));
            others.into_iter().for_each(|t| t.join().unwrap());
            assert_eq!(*lock.lock(), threads);
        });
    }

    #[test]
    fn two_threads() {
        model(2);
    }

    #[test]
    fn three_threads() {
        model(3);
    }
}
