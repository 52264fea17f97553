//! Which buffers nobody has: a stack of numbers, for any thread.
//!
//! Treiber's stack (IBM RJ 5118, 1986) with the links in an array of their own.
//!
//! # Rules
//!
//! 1. A number is in the stack once, or somebody has it. Its link is written
//!    by whoever has it, before the push.
//! 2. The head carries a count of its changes, so that a compare-exchange
//!    fails if the same number came back on top meanwhile, with another one
//!    below it. (The count has 48 bits: it comes round after years of nothing
//!    else.)

use std::fmt;

use crate::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// No number: the end of the stack.
const NONE: u16 = u16::MAX;

pub(crate) struct Free {
    /// The number on top in the low 16 bits, the count (rule 2) above.
    head: AtomicU64,
    /// What lies below each number.
    below: Box<[AtomicU16]>,
}

fn head(count: u64, top: u16) -> u64 {
    count << 16 | u64::from(top)
}

fn top(head: u64) -> u16 {
    head as u16
}

/// The head after the one given, with another number on top.
fn next(old: u64, top: u16) -> u64 {
    head((old >> 16) + 1, top)
}

impl Free {
    /// All numbers below `count`, the lowest on top.
    pub(crate) fn full(count: u16) -> Free {
        let link = |number: u16| match number + 1 {
            next if next == count => NONE,
            next => next,
        };
        Free {
            head: AtomicU64::new(head(0, if count == 0 { NONE } else { 0 })),
            below: (0..count).map(|n| AtomicU16::new(link(n))).collect(),
        }
    }

    /// Takes the number that was given back last.
    #[inline]
    pub(crate) fn pop(&self) -> Option<u16> {
        // Acquire: the link below, and what the last holder did to the buffer.
        let mut old = self.head.load(Ordering::Acquire);
        loop {
            let number = top(old);
            if number == NONE {
                return None;
            }
            // Relaxed: if it is stale, the exchange fails (rule 2).
            let below = self.below[usize::from(number)].load(Ordering::Relaxed);
            // Relaxed: nothing is published. The links of earlier pushes stay
            // published, because an RMW goes on with their release sequences.
            match self.head.compare_exchange_weak(
                old,
                next(old, below),
                Ordering::Relaxed,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(number),
                Err(other) => old = other,
            }
        }
    }

    /// Gives a number back that was taken.
    #[inline]
    pub(crate) fn push(&self, number: u16) {
        let mut old = self.head.load(Ordering::Relaxed);
        loop {
            self.below[usize::from(number)].store(top(old), Ordering::Relaxed);
            // Release: the link, and what we did to the buffer.
            match self.head.compare_exchange_weak(
                old,
                next(old, number),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => old = other,
            }
        }
    }

    /// Takes all, the one given back last first.
    pub(crate) fn take_all(&self, mut each: impl FnMut(u16)) {
        let mut old = self.head.load(Ordering::Relaxed);
        while top(old) != NONE {
            // Acquire: as for `pop`.
            match self.head.compare_exchange_weak(
                old,
                next(old, NONE),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(other) => old = other,
            }
        }
        let mut number = top(old);
        while number != NONE {
            // Before it is handed out: its new holder may push it again.
            let below = self.below[usize::from(number)].load(Ordering::Relaxed);
            each(number);
            number = below;
        }
    }

    /// How many there are, if nobody takes or gives meanwhile.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn count(&self) -> usize {
        let mut count = 0;
        let mut number = top(self.head.load(Ordering::Acquire));
        while number != NONE && count < self.below.len() {
            count += 1;
            number = self.below[usize::from(number)].load(Ordering::Relaxed);
        }
        count
    }
}

impl fmt::Debug for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Free")
            .field("of", &self.below.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_once_and_the_last_first() {
        let free = Free::full(3);
        assert_eq!(free.count(), 3);
        assert_eq!([free.pop(), free.pop()], [Some(0), Some(1)]);
        free.push(0);
        assert_eq!(free.pop(), Some(0));
        free.push(1);
        free.push(0);
        let mut all = Vec::new();
        free.take_all(|n| all.push(n));
        assert_eq!(all, [0, 1, 2]);
        assert_eq!((free.pop(), free.count()), (None, 0));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// Numbers with the buffers that they stand for: two holders at a time,
    /// or one who does not see what the last did, is a race for loom.
    struct Pool {
        free: Free,
        buffers: Vec<UnsafeCell<usize>>,
    }

    impl Pool {
        fn new(count: u16) -> Arc<Pool> {
            Arc::new(Pool {
                free: Free::full(count),
                buffers: (0..count).map(|_| UnsafeCell::new(0)).collect(),
            })
        }

        fn write(&self, number: u16) {
            // SAFETY: that the holder is alone is what the models prove.
            self.buffers[usize::from(number)].with_mut(|b| unsafe { *b += 1 });
        }

        fn take_and_give(&self) {
            if let Some(number) = self.free.pop() {
                self.write(number);
                self.free.push(number);
            }
        }

        fn ends_with(&self, count: usize) {
            let mut left = 0;
            self.free.take_all(|number| {
                self.write(number);
                left += 1;
            });
            assert_eq!(left, count, "a number was lost or doubled");
        }
    }

    fn model(f: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(f);
    }

    #[test]
    fn pop_against_pop_and_push() {
        model(|| {
            let pool = Pool::new(2);
            let other = pool.clone();
            let thread = thread::spawn(move || {
                other.take_and_give();
                other.take_and_give();
            });
            pool.take_and_give();
            thread.join().unwrap();
            pool.ends_with(2);
        });
    }

    /// Rule 2: one thread reads a head and its link, and meanwhile the other
    /// takes both numbers and gives the first one back.
    #[test]
    fn the_same_number_on_top_of_another() {
        model(|| {
            let pool = Pool::new(2);
            let other = pool.clone();
            let thread = thread::spawn(move || {
                let (a, b) = (other.free.pop(), other.free.pop());
                if let Some(a) = a {
                    other.write(a);
                    other.free.push(a);
                }
                if let Some(b) = b {
                    other.write(b);
                    other.free.push(b);
                }
            });
            let mine = pool.free.pop();
            if let Some(mine) = mine {
                pool.write(mine);
                pool.free.push(mine);
            }
            thread.join().unwrap();
            pool.ends_with(2);
        });
    }

    #[test]
    fn take_all_against_push() {
        model(|| {
            let pool = Pool::new(2);
            let held = pool.free.pop().unwrap();
            let other = pool.clone();
            let thread = thread::spawn(move || {
                other.write(held);
                other.free.push(held);
            });
            let mut got = Vec::new();
            pool.free.take_all(|number| got.push(number));
            got.iter().for_each(|&number| pool.write(number));
            thread.join().unwrap();
            pool.ends_with(2 - got.len());
        });
    }
}
