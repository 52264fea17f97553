//! The ready queue of a color: many push, one runner takes.
//!
//! ```text
//!            push (schedules)            pop (takes all)
//!   IDLE ------------------> chain ----------------------> TAKEN
//!   ^  |                       ^          push             ^ |
//!   |  |                       +---------------------------|-+
//!   |  +------------------- try_take ----------------------+ |
//!   +--------------------- finish (nothing left) ------------+
//! ```
//!
//! One word: IDLE, TAKEN, or the newest of a chain of pushed nodes. A push
//! that finds IDLE has to schedule the color, so that it is scheduled exactly
//! once. The runner swaps the chain out, turns it round into its private list,
//! and takes from there in the order of the pushes.
//!
//! # Rules
//!
//! 1. Between the push or `try_take` that found IDLE and the `finish` that
//!    restored it the color is *scheduled*: it stands in one run queue, or
//!    has a runner, and never both. The runner is who took it from the queue,
//!    or by `try_take`, or who was handed the role by the runner before; the
//!    only one to call the `unsafe` methods.
//! 2. A runner hands over to the next through a run queue, through a lock
//!    (`color::grant`), or through IDLE: `finish` releases, and the push or
//!    `try_take` that finds IDLE acquires and passes on.
//! 3. The private list is older than the chain: the chain is taken only when
//!    the list is empty, or to be put behind it.

use std::fmt;
use std::ptr::{self, NonNull};

use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicPtr, Ordering};

/// Something with a link for one queue at a time.
pub(crate) trait Linked: Sized {
    fn link(&self) -> &AtomicPtr<Self>;
}

pub(crate) struct Ready<N> {
    word: AtomicPtr<N>,
    list: UnsafeCell<List<N>>,
}

/// A circle, so that it is one word: the last node leads to the first.
struct List<N> {
    tail: *mut N,
}

/// Nothing is ready and nobody runs the color.
const fn idle<N>() -> *mut N {
    ptr::null_mut()
}

/// Scheduled or running, and nothing new was pushed.
const fn taken<N>() -> *mut N {
    ptr::without_provenance_mut(1)
}

// SAFETY: nodes are reached by one thread at a time: the pusher, then the
// runner (rule 1). The list is the runner's.
unsafe impl<N: Send> Send for Ready<N> {}
// SAFETY: as above.
unsafe impl<N: Send> Sync for Ready<N> {}

impl<N: Linked> Ready<N> {
    pub(crate) fn new() -> Ready<N> {
        Ready {
            word: AtomicPtr::new(idle()),
            list: UnsafeCell::new(List {
                tail: ptr::null_mut(),
            }),
        }
    }

    /// Puts a node at the end. `true`: the color was idle, and the caller has
    /// to schedule it.
    ///
    /// # Safety
    ///
    /// The node stays valid until it is popped, and is in no other queue.
    #[must_use]
    pub(crate) unsafe fn push(&self, node: NonNull<N>) -> bool {
        let mut now = self.word.load(Ordering::Relaxed);
        loop {
            let next = if now == idle() || now == taken() {
                ptr::null_mut()
            } else {
                now
            };
            // SAFETY: valid by the contract; Relaxed: published by the CAS.
            unsafe { node.as_ref() }
                .link()
                .store(next, Ordering::Relaxed);
            // Release: the node, for `take_chain`. Acquire: the last run of
            // the color, if it was idle (rule 2; the partner is `finish`).
            match self.word.compare_exchange_weak(
                now,
                node.as_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return now == idle(),
                Err(other) => now = other,
            }
        }
    }

    /// Makes the caller the runner, if the color is idle.
    #[must_use]
    pub(crate) fn try_take(&self) -> bool {
        // Acquire: the last run of the color (rule 2; the partner is
        // `finish`). Nothing is published: there is no node.
        self.word
            .compare_exchange(idle(), taken(), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Puts a node at the end from within the run: no atomic step.
    ///
    /// # Safety
    ///
    /// As for `push`, and the caller is the runner.
    pub(crate) unsafe fn push_local(&self, node: NonNull<N>) {
        // Relaxed: only to keep the order (rule 3). A push that happened
        // before this one is seen; of others either order is right.
        if self.word.load(Ordering::Relaxed) != taken() {
            // SAFETY: the caller is the runner.
            unsafe { self.take_chain() };
        }
        self.list.with_mut(|list| {
            // SAFETY: the list is the runner's alone.
            let list = unsafe { &mut *list };
            // SAFETY: the node is valid by the contract, and those in the list
            // until they are popped.
            unsafe { list.append(node.as_ptr(), node.as_ptr()) };
        });
    }

    /// Takes the node that has waited longest.
    ///
    /// # Safety
    ///
    /// The caller is the runner.
    pub(crate) unsafe fn pop(&self) -> Option<NonNull<N>> {
        // SAFETY: the list is the runner's alone; its nodes are valid.
        let popped = self.list.with_mut(|list| unsafe { (*list).pop() });
        if popped.is_some() || self.word.load(Ordering::Relaxed) == taken() {
            return popped;
        }
        // Acquire: the pushed nodes. Nothing is published.
        let newest = self.word.swap(taken(), Ordering::Acquire);
        // SAFETY: a node, since the runner, who is the caller, has just seen
        // that the word is not TAKEN, and it is not IDLE during the run.
        // Nodes of the chain are valid until they are popped.
        let link = unsafe { &*newest }.link();
        if link.load(Ordering::Relaxed).is_null() {
            // One alone, as mostly, and the list is empty.
            return NonNull::new(newest);
        }
        // SAFETY: the caller is the runner, and has just taken the chain.
        unsafe { self.append_chain(newest) };
        // SAFETY: as above.
        self.list.with_mut(|list| unsafe { (*list).pop() })
    }

    /// Whether this node is the one that `pop` takes next. It may have been
    /// pushed from without the run: a hold's block wakes itself under another
    /// color.
    ///
    /// # Safety
    ///
    /// The caller is the runner.
    #[cfg(not(all(test, loom)))]
    // Asked when a task has yielded, and kept out of the loop of the others.
    #[inline(never)]
    pub(crate) unsafe fn is_next(&self, node: *const N) -> bool {
        // SAFETY: the list is the runner's alone, and its nodes are valid.
        let head = || self.list.with(|list| unsafe { (*list).head() });
        if head().is_null() {
            // SAFETY: the caller is the runner.
            unsafe { self.take_chain() };
        }
        ptr::eq(head(), node)
    }

    /// Ends the run. `true`: the color is idle, and the caller must not touch
    /// it any more. `false`: something is left, and the caller, still the
    /// runner, has to put the color back into a run queue.
    ///
    /// # Safety
    ///
    /// The caller is the runner.
    #[must_use]
    pub(crate) unsafe fn finish(&self) -> bool {
        // SAFETY: the list is the runner's alone.
        if !self.list.with(|list| unsafe { (*list).tail.is_null() }) {
            return false;
        }
        // Release: this run, for the next runner (rule 2).
        self.word
            .compare_exchange(taken(), idle(), Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Moves what was pushed behind the private list.
    ///
    /// # Safety
    ///
    /// The caller is the runner.
    unsafe fn take_chain(&self) {
        // Acquire: the pushed nodes. Nothing is published.
        let newest = self.word.swap(taken(), Ordering::Acquire);
        if newest != taken() {
            // SAFETY: the caller is the runner, and has just taken the chain.
            unsafe { self.append_chain(newest) };
        }
    }

    /// Puts a chain behind the private list, the oldest first.
    ///
    /// # Safety
    ///
    /// The caller is the runner, and took the chain that begins here.
    unsafe fn append_chain(&self, newest: *mut N) {
        let mut oldest = newest;
        let mut after = ptr::null_mut();
        loop {
            // SAFETY: nodes of the chain are valid until they are popped.
            let link = unsafe { &*oldest }.link();
            let before = link.load(Ordering::Relaxed);
            link.store(after, Ordering::Relaxed);
            if before.is_null() {
                break;
            }
            after = oldest;
            oldest = before;
        }
        self.list.with_mut(|list| {
            // SAFETY: the list is the runner's alone, and its nodes are valid.
            unsafe { (*list).append(oldest, newest) };
        });
    }
}

impl<N: Linked> List<N> {
    /// # Safety
    ///
    /// `first` to `last` is a chain of valid nodes, as is the list.
    unsafe fn append(&mut self, first: *mut N, last: *mut N) {
        let mut head = first;
        if !self.tail.is_null() {
            // SAFETY: the tail is a valid node.
            let link = unsafe { &*self.tail }.link();
            head = link.load(Ordering::Relaxed);
            link.store(first, Ordering::Relaxed);
        }
        // SAFETY: a valid node, by the contract.
        unsafe { &*last }.link().store(head, Ordering::Relaxed);
        self.tail = last;
    }

    /// The first, or null.
    ///
    /// # Safety
    ///
    /// The nodes of the list are valid.
    #[cfg(not(all(test, loom)))]
    unsafe fn head(&self) -> *mut N {
        match self.tail.is_null() {
            true => ptr::null_mut(),
            // SAFETY: the tail is a valid node.
            false => unsafe { &*self.tail }.link().load(Ordering::Relaxed),
        }
    }

    /// # Safety
    ///
    /// The nodes of the list are valid.
    unsafe fn pop(&mut self) -> Option<NonNull<N>> {
        let tail = NonNull::new(self.tail)?;
        // SAFETY: the tail is a valid node.
        let link = unsafe { tail.as_ref() }.link();
        let head = link.load(Ordering::Relaxed);
        if head == self.tail {
            self.tail = ptr::null_mut();
        } else {
            // SAFETY: so is the head.
            let next = unsafe { &*head }.link().load(Ordering::Relaxed);
            link.store(next, Ordering::Relaxed);
        }
        NonNull::new(head)
    }
}

impl<N> fmt::Debug for Ready<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("Ready")
            .field("idle", &(word == idle()))
            .finish_non_exhaustive()
    }
}
