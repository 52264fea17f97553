//! The state word of a task: its bits and their transitions.
//!
//! ```text
//!              wake, abort                      start_poll
//!   (waiting) ------------> NOTIFIED (queued) ------------> (polled)
//!       ^                       ^  wake during the poll        |
//!       |                       +------------------------------+
//!       +----------------- future is pending ------------------+
//!                                                              | complete
//!                                                              v
//!                                                           COMPLETE
//! ```
//!
//! There is no RUNNING bit. The runner of the color is the only one who polls
//! its tasks, so a wake during a poll simply queues the task again.
//!
//! # Rules
//!
//! 1. NOTIFIED is set by whoever queues the task in its color, and cleared by
//!    the runner just before the poll. Setting it, when it and COMPLETE were
//!    clear, is the duty to queue.
//! 2. A wake is an RMW with release also when it finds the task notified, and
//!    `start_poll` acquires: what was written before any wake is seen by the
//!    poll that follows.
//! 3. COMPLETE is set once, by the runner, after the future is dropped and the
//!    output is in place. After it nobody queues the task.
//! 4. The *live reference* belongs to the runtime. It is given up when the
//!    task is complete and not queued: by `complete` if NOTIFIED is clear, else
//!    by the runner that later takes the stale entry off the queue.
//! 5. JOIN is set as long as the `JoinHandle` exists. With JOIN and COMPLETE,
//!    the handle owns the output; with COMPLETE alone, the runner does.
//! 6. JOIN_WAKER clear: the handle alone may touch the waker field. Set: the
//!    runner alone, after COMPLETE. The handle sets and clears it only while
//!    COMPLETE is clear. Nobody leaves a waker behind in a task that is
//!    complete: it would keep who waited for as long as there are references.
//! 7. The rest of the word counts references: the live one, the handle, and
//!    every waker. The last frees the memory.

use crate::sync::atomic::{AtomicUsize, Ordering};

const NOTIFIED: usize = 1;
const COMPLETE: usize = 1 << 1;
const ABORTED: usize = 1 << 2;
const JOIN: usize = 1 << 3;
const JOIN_WAKER: usize = 1 << 4;
const REF: usize = 1 << 5;

pub(crate) struct State(AtomicUsize);

/// What a waker has to do next.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Queue the task in its color.
    Queue,
    Nothing,
    /// The reference given up was the last.
    Free,
}

/// What the runner has to do with a task that it took off the queue.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Poll,
    /// Drop the future instead.
    Cancel,
    /// It has completed since it was queued: give up the live reference.
    Stale,
}

/// What the runner has to do after a completion.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    /// The handle is there and owns the output; else drop it.
    pub(crate) joined: bool,
    /// The handle waits: wake it.
    pub(crate) wake: bool,
    /// Give the live reference up now; else the stale entry will (rule 4).
    pub(crate) release: bool,
}

impl State {
    /// Notified, with a handle: the live reference and the handle's.
    pub(crate) fn new() -> State {
        State(AtomicUsize::new(NOTIFIED | JOIN | (2 * REF)))
    }

    pub(crate) fn is_complete(&self) -> bool {
        // Acquire: the output is read next (rule 3).
        self.0.load(Ordering::Acquire) & COMPLETE != 0
    }

    pub(crate) fn wake(&self) -> Wake {
        // AcqRel: rule 2; its partner is start_poll.
        Self::queue_after(self.0.fetch_or(NOTIFIED, Ordering::AcqRel))
    }

    /// A wake that gives a reference up in the same step.
    pub(crate) fn wake_and_release(&self) -> Wake {
        let before = self.update(|now| Some((now | NOTIFIED) - REF));
        let before = before.expect("always updated");
        if before / REF == 1 {
            debug_assert!(before & COMPLETE != 0, "the live reference is gone");
            return Wake::Free;
        }
        Self::queue_after(before)
    }

    /// Marks the task for cancellation, which its color carries out.
    pub(crate) fn abort(&self) -> Wake {
        Self::queue_after(self.0.fetch_or(NOTIFIED | ABORTED, Ordering::AcqRel))
    }

    fn queue_after(before: usize) -> Wake {
        if before & (NOTIFIED | COMPLETE) == 0 {
            Wake::Queue
        } else {
            Wake::Nothing
        }
    }

    /// The runner took the task off the queue.
    pub(crate) fn start_poll(&self) -> Turn {
        // Acquire: rule 2. Release: the runner's former polls happen before
        // whoever queues the task next. A subtraction, since the bit is set
        // (rule 1): one step where clearing it, with the rest asked for, would
        // be a loop.
        let before = self.0.fetch_sub(NOTIFIED, Ordering::AcqRel);
        debug_assert!(before & NOTIFIED != 0);
        Self::turn(before)
    }

    /// As `start_poll`, for a closure that runs once: NOTIFIED stays, so that
    /// nobody ever queues it.
    pub(crate) fn start_once(&self) -> Turn {
        Self::turn(self.0.load(Ordering::Acquire))
    }

    fn turn(before: usize) -> Turn {
        if before & COMPLETE != 0 {
            Turn::Stale
        } else if before & ABORTED != 0 {
            Turn::Cancel
        } else {
            Turn::Poll
        }
    }

    /// The output is in place (rule 3).
    pub(crate) fn complete(&self) -> Completed {
        // Release: the output, for the handle. Acquire: the waker (rule 6).
        let before = self.0.fetch_or(COMPLETE, Ordering::AcqRel);
        debug_assert!(before & COMPLETE == 0);
        Completed {
            joined: before & JOIN != 0,
            wake: before & JOIN_WAKER != 0,
            release: before & NOTIFIED == 0,
        }
    }

    /// The handle put a waker in place. `false`: the task is complete.
    pub(crate) fn set_join_waker(&self) -> bool {
        self.update(|now| (now & COMPLETE == 0).then_some(now | JOIN_WAKER))
            .is_some()
    }

    /// The handle wants the waker field back. `false`: the task is complete.
    pub(crate) fn clear_join_waker(&self) -> bool {
        self.update(|now| (now & COMPLETE == 0).then_some(now & !JOIN_WAKER))
            .is_some()
    }

    /// Whether the handle left a waker there before.
    pub(crate) fn has_join_waker(&self) -> bool {
        self.0.load(Ordering::Relaxed) & JOIN_WAKER != 0
    }

    /// The handle goes away. `false`: the task is complete, and the output is
    /// the handle's to drop; else the waker field is.
    pub(crate) fn drop_join(&self) -> bool {
        self.update(|now| (now & COMPLETE == 0).then_some(now & !(JOIN | JOIN_WAKER)))
            .is_some()
    }

    pub(crate) fn add_ref(&self) {
        // Relaxed: who adds one has one.
        let before = self.0.fetch_add(REF, Ordering::Relaxed);
        if before > usize::MAX / 2 {
            // 2^58 wakers were leaked; freeing the task too early is worse.
            std::process::abort();
        }
    }

    /// `true`: that was the last one.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        // Release: our accesses come before the freeing. Acquire: and all
        // others', if it is we who free.
        self.0.fetch_sub(REF, Ordering::AcqRel) / REF == 1
    }

    fn update(&self, f: impl FnMut(usize) -> Option<usize>) -> Option<usize> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, f)
            .ok()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now = self.0.load(Ordering::Relaxed);
        f.debug_struct("State")
            .field("notified", &(now & NOTIFIED != 0))
            .field("complete", &(now & COMPLETE != 0))
            .field("aborted", &(now & ABORTED != 0))
            .field("references", &(now / REF))
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_wake_queues_and_the_next_does_not() {
        let s = State::new();
        assert_eq!(s.wake(), Wake::Nothing, "born queued");
        assert_eq!(s.start_poll(), Turn::Poll);
        assert_eq!(s.wake(), Wake::Queue);
        assert_eq!(s.wake(), Wake::Nothing);
    }

    #[test]
    fn a_wake_during_the_last_poll_keeps_the_live_reference() {
        let s = State::new();
        assert_eq!(s.start_poll(), Turn::Poll);
        assert_eq!(s.wake(), Wake::Queue);
        assert!(!s.complete().release);
        assert_eq!(s.start_poll(), Turn::Stale);
        assert_eq!(s.wake(), Wake::Nothing);
    }

    #[test]
    fn references_are_counted_to_the_last() {
        let s = State::new();
        s.add_ref();
        assert_eq!(s.start_poll(), Turn::Poll);
        assert!(s.complete().release);
        assert!(!s.release());
        assert!(!s.drop_join());
        assert!(!s.release());
        assert_eq!(s.wake_and_release(), Wake::Free);
    }

    #[test]
    fn abort_is_carried_out_by_the_runner() {
        let s = State::new();
        assert_eq!(s.abort(), Wake::Nothing);
        assert_eq!(s.start_poll(), Turn::Cancel);
        assert!(s.complete().joined);
        assert!(!s.set_join_waker());
    }
}
