//! The run queue of a worker: its owner pushes at the back, everyone takes
//! from the front.
//!
//! First in, first out for the owner too, so that no color waits behind later
//! ones, and so that owner and thieves need one index between them: whoever
//! moves `front` by a compare-exchange has what was there. It is the FIFO
//! flavour of the Chase-Lev deque (SPAA 2005), taking several at once.
//!
//! It grows without limit: a worker with more ready colors than slots keeps
//! its order. (A fixed ring that overflows into a shared queue loses it; tokio
//! shows 149 ms at p99 beyond 256 ready tasks.)
//!
//! # Rules
//!
//! 1. Indices only grow; slot `i` is `i` modulo the length of the buffer. What
//!    lies between `front` and `back` is in the queue.
//! 2. The owner writes slot `back`, then publishes it by storing `back`. It
//!    overwrites a slot only after it saw `front` move past what was there.
//! 3. A taker reads slots first and then moves `front`; if that fails, what it
//!    read means nothing.
//! 4. A buffer that is too small is copied and replaced, and kept until the
//!    queue is dropped, because a taker may still look at it. All of them
//!    together are at most as large as the last.

use std::fmt;
use std::ptr::{self, NonNull};

use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Slots at the start. Small in models, so that they grow and wrap.
#[cfg(not(all(test, loom)))]
const FIRST: usize = 256;
#[cfg(all(test, loom))]
const FIRST: usize = 2;

/// The most that one steal takes. A guess: enough that a thief does not come
/// back at once, little enough to fit on the stack.
pub(crate) const BATCH: usize = 32;

pub(crate) struct RunQueue<T> {
    front: AtomicUsize,
    back: AtomicUsize,
    buffer: AtomicPtr<Buffer<T>>,
    /// Rule 4; touched by the owner.
    old: UnsafeCell<Vec<NonNull<Buffer<T>>>>,
}

struct Buffer<T> {
    slots: Box<[AtomicPtr<T>]>,
}

impl<T> Buffer<T> {
    fn new(len: usize) -> NonNull<Buffer<T>> {
        debug_assert!(len.is_power_of_two());
        let slots = (0..len).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        NonNull::from(Box::leak(Box::new(Buffer { slots })))
    }

    fn slot(&self, index: usize) -> &AtomicPtr<T> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

// SAFETY: the queue moves pointers and never looks behind them; `old` is
// touched by the owner alone.
unsafe impl<T: Send> Send for RunQueue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for RunQueue<T> {}

impl<T> RunQueue<T> {
    pub(crate) fn new() -> RunQueue<T> {
        RunQueue {
            front: AtomicUsize::new(0),
            back: AtomicUsize::new(0),
            buffer: AtomicPtr::new(Buffer::new(FIRST).as_ptr()),
            old: UnsafeCell::new(Vec::new()),
        }
    }

    /// How many are there: exact for the owner if nobody takes.
    pub(crate) fn len(&self) -> usize {
        let front = self.front.load(Ordering::Acquire);
        // Acquire: at least as new as `front`, so never below it.
        self.back.load(Ordering::Acquire).wrapping_sub(front)
    }

    /// The end of what is there now, for [`is_past`](RunQueue::is_past).
    #[cfg(not(all(test, loom)))]
    pub(crate) fn end(&self) -> usize {
        self.back.load(Ordering::Relaxed)
    }

    /// Whether all that was there at `end` has been taken.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn is_past(&self, end: usize) -> bool {
        let front = self.front.load(Ordering::Relaxed);
        // Indices wrap.
        front.wrapping_sub(end) <= usize::MAX / 2
    }

    fn buffer(&self) -> &Buffer<T> {
        // SAFETY: buffers live as long as the queue (rule 4). Acquire: its
        // slots, written by the owner before it was published.
        unsafe { &*self.buffer.load(Ordering::Acquire) }
    }

    /// # Safety
    ///
    /// The caller is the owner: the one thread that pushes.
    #[inline]
    pub(crate) unsafe fn push(&self, item: NonNull<T>) {
        let back = self.back.load(Ordering::Relaxed);
        // Acquire: rule 2; the partner is the taker's compare-exchange.
        let front = self.front.load(Ordering::Acquire);
        let mut buffer = self.buffer();
        if back.wrapping_sub(front) == buffer.slots.len() {
            // SAFETY: the caller is the owner.
            unsafe { self.grow(front, back) };
            buffer = self.buffer();
        }
        buffer.slot(back).store(item.as_ptr(), Ordering::Relaxed);
        // Release: the slot, for takers.
        self.back.store(back.wrapping_add(1), Ordering::Release);
    }

    /// # Safety
    ///
    /// The caller is the owner.
    #[cold]
    unsafe fn grow(&self, front: usize, back: usize) {
        let small = self.buffer();
        let large = Buffer::new(small.slots.len() * 2);
        let mut index = front;
        while index != back {
            let item = small.slot(index).load(Ordering::Relaxed);
            // SAFETY: just made, and seen by nobody else.
            let slot = unsafe { large.as_ref() }.slot(index);
            slot.store(item, Ordering::Relaxed);
            index = index.wrapping_add(1);
        }
        let small = NonNull::from(small);
        // SAFETY: `old` is the owner's.
        self.old.with_mut(|old| unsafe { (*old).push(small) });
        // Release: its slots. The store of `back` that follows makes a taker
        // who sees later items see the larger buffer too.
        self.buffer.store(large.as_ptr(), Ordering::Release);
    }

    /// Takes the one that has waited longest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<NonNull<T>> {
        let mut one = [ptr::null_mut(); 1];
        match self.take(&mut one, |_| 1) {
            0 => None,
            _ => NonNull::new(one[0]),
        }
    }

    /// Takes half of what is there, the oldest first, rounded up and at most
    /// [`BATCH`]. Returns how many were written to `into`.
    pub(crate) fn steal(&self, into: &mut [*mut T; BATCH]) -> usize {
        self.take(into, |len| len.div_ceil(2))
    }

    #[inline]
    fn take(&self, into: &mut [*mut T], want: impl Fn(usize) -> usize) -> usize {
        loop {
            let front = self.front.load(Ordering::Acquire);
            // Acquire: the slots and the buffer they are in (rule 2).
            let back = self.back.load(Ordering::Acquire);
            if front == back {
                return 0;
            }
            let count = want(back.wrapping_sub(front)).min(into.len());
            let buffer = self.buffer();
            for (i, item) in into[..count].iter_mut().enumerate() {
                *item = buffer.slot(front.wrapping_add(i)).load(Ordering::Relaxed);
            }
            // Release: our reads come before the owner's next write there
            // (rule 3). Acquire: nothing more; `front` is read above.
            if self
                .front
                .compare_exchange(
                    front,
                    front.wrapping_add(count),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
            {
                return count;
            }
        }
    }
}

impl<T> Drop for RunQueue<T> {
    fn drop(&mut self) {
        let last = self.buffer.load(Ordering::Relaxed);
        let mut all = self.old.with_mut(|old| {
            // SAFETY: `&mut self`.
            std::mem::take(unsafe { &mut *old })
        });
        all.extend(NonNull::new(last));
        for buffer in all {
            // SAFETY: made by `Buffer::new`, and each is in the list once.
            drop(unsafe { Box::from_raw(buffer.as_ptr()) });
        }
    }
}

impl<T> fmt::Debug for RunQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunQueue")
            .field("len", &self.len())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn item(n: usize) -> NonNull<usize> {
        NonNull::new(ptr::without_provenance_mut(n + 1)).unwrap()
    }

    #[test]
    fn first_in_first_out_through_growth_and_wrap() {
        let q = RunQueue::new();
        let mut next = 0;
        let mut expected = 0;
        for round in 0..20 {
            for _ in 0..(FIRST / 3 * round) {
                // SAFETY: one thread.
                unsafe { q.push(item(next)) };
                next += 1;
            }
            for _ in 0..(FIRST / 4 * round) {
                assert_eq!(q.pop(), Some(item(expected)));
                expected += 1;
            }
        }
        assert_eq!(q.len(), next - expected);
    }

    #[test]
    fn a_steal_takes_the_older_half() {
        let q = RunQueue::new();
        for n in 0..5 {
            // SAFETY: one thread.
            unsafe { q.push(item(n)) };
        }
        let mut into = [ptr::null_mut(); BATCH];
        assert_eq!(q.steal(&mut into), 3);
        assert_eq!(into[..3], [item(0), item(1), item(2)].map(NonNull::as_ptr));
        assert_eq!(q.pop(), Some(item(3)));
    }
}
