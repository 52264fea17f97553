//! The driver's side of an operation.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::task::Waker;

use super::{Landed, Slot, SlotGuard};
use crate::descriptor::Descriptor;
use crate::op::lifecycle::Ended;
use crate::op::owner::SlotRef;
use crate::op::{Completion, Op};

/// The driver's side of an operation in flight.
///
/// Whoever holds it keeps alive the descriptor and the memory that the
/// operation lends; it must not be dropped while the kernel may still touch
/// that memory. Dropping it otherwise finishes the operation with ECANCELED.
pub struct InFlight(pub(in crate::op) SlotRef);

impl InFlight {
    #[inline(always)]
    pub(crate) fn new(slot: &Slot) -> InFlight {
        InFlight(SlotRef::to(slot))
    }

    #[inline]
    pub(crate) fn slot(&self) -> &Slot {
        self.0.slot()
    }

    /// The descriptor to operate on.
    #[inline]
    pub fn descriptor(&self) -> &Descriptor {
        self.slot().descriptor()
    }

    /// Its number, which stays valid for as long as this value lives.
    #[inline]
    pub fn fd(&self) -> RawFd {
        self.descriptor().as_raw_fd()
    }

    /// Looks at the operation. The memory that it lends stays where it is
    /// until [`finish`](InFlight::finish). `f` must not wake or drop anything,
    /// and moves nothing out that is lent (rule 7 in [`driver`](crate::driver)).
    #[inline]
    pub fn with_op<R>(&self, f: impl FnOnce(&mut Op) -> R) -> R {
        self.slot().lock().with_op(f)
    }

    /// Gives the operation the name by which [`Driver::cancel`] calls it, any
    /// number but `u64::MAX`, and looks at it as [`with_op`](InFlight::with_op) does, in one step.
    ///
    /// [`Driver::cancel`]: crate::driver::Driver::cancel
    #[inline(always)]
    pub fn begin<R>(&self, key: u64, f: impl FnOnce(&mut Op) -> R) -> R {
        let mut state = self.slot().lock();
        state.life.begin(key);
        state.with_op(f)
    }

    /// Gives the operation the name by which [`Driver::cancel`] calls it.
    ///
    /// [`Driver::cancel`]: crate::driver::Driver::cancel
    #[inline]
    pub fn set_key(&self, key: u64) {
        self.slot().lock().life.begin(key);
    }

    /// Nobody wants it any more, nor will.
    pub fn is_abandoned(&self) -> bool {
        self.slot().lock().life.is_abandoned()
    }

    /// The operation is sent to another worker's driver.
    pub(crate) fn moves_to(&self, worker: usize) {
        self.slot().lock().life.sent_to(worker);
    }

    /// Hands over a completion of a subscription that more will follow.
    /// Returns how many now wait to be taken (0 if nobody wants them): the
    /// driver's reason to pause.
    #[inline(always)]
    pub fn deliver(&self, completion: Completion) -> usize {
        let mut state = self.slot().lock();
        if state.life.is_abandoned() {
            drop(state);
            drop(completion);
            return 0;
        }
        if state.has_completions() || !state.nobody_behind() {
            return deliver_more(state, completion);
        }
        // Nearly always.
        std::mem::forget(state.first.replace(completion));
        let waker = state.take_waker();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        1
    }

    /// Tells of an edge of a subscription to [`Op::Edges`]. `exceptional`: of
    /// more than data or room, as an end, an error or urgent data are.
    #[inline]
    pub fn edge(&self, exceptional: bool) {
        let mut state = self.slot().lock();
        state.readiness.event(exceptional);
        let crowd = state.crowd();
        drop(state);
        crowd.wake();
    }

    /// Hands over the last completion: the kernel touches nothing any more.
    #[inline(always)]
    pub fn finish(self, completion: Completion) {
        let slot = SlotRef::out_of(self);
        let mut state = slot.slot().lock();
        if !state.is_awaited() {
            return Self::end_with(slot.slot(), state, completion);
        }
        // What nearly every send comes to.
        let ended = state.life.end(false);
        debug_assert_eq!(ended, Ended::Finished);
        debug_assert!(state.first.is_none());
        state.first = Some(completion);
        let owner = state.flight.as_mut().and_then(|f| f.owner.take());
        drop(state);
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    /// Ends a subscription that has nothing more to say, so that the next
    /// poll submits it again.
    pub fn pause(self) {
        let slot = SlotRef::out_of(self);
        debug_assert!(slot.slot().lock().with_op(|op| op.is_subscription()));
        Self::end(slot.slot().lock(), None);
    }

    /// Ends an abandoned one-shot operation that is over but for its memory,
    /// which the kernel still reads: that is returned, to be kept as long. The
    /// slot is free, and the descriptor is not held any more.
    pub fn part(self) -> Kept {
        let slot = SlotRef::out_of(self);
        let mut state = slot.slot().lock();
        let ended = state.life.end(false);
        debug_assert_eq!(ended, Ended::Unwanted);
        let kept = Kept(state.land());
        let turn = state.turn();
        drop(state);
        if let Some(turn) = turn {
            turn.wake();
        }
        kept
    }

    #[inline(never)]
    pub(super) fn end_with(slot: &Slot, state: SlotGuard<'_>, completion: Completion) {
        match state.life.is_fed() {
            true => slot.end_fed(state, completion),
            false => Self::end(state, Some(completion)),
        }
    }

    /// Of all but what is fed.
    fn end(mut state: SlotGuard<'_>, completion: Option<Completion>) {
        let subscription = state.with_op(|op| op.is_subscription());
        let ended = state.life.end(subscription);
        let mut unwanted = None;
        if ended == Ended::Unwanted {
            unwanted = completion;
        } else if let Some(completion) = completion {
            state.push(completion);
        }
        let op = match ended {
            Ended::Unwanted | Ended::Idle => state.land(),
            // The operation stays: its buffers go back to the asker.
            Ended::Finished => None,
        };
        // One Run has its owner to be told; anything else is anyone's. If
        // nobody wants it, the slot is free for the first in line.
        let owner = state.flight.as_mut().and_then(|f| f.owner.take());
        state.shed();
        let crowd = (!state.life.is_owned()).then(|| state.crowd());
        let turn = state.turn();
        drop(state);
        drop((op, unwanted));
        owner.into_iter().chain(turn).for_each(Waker::wake);
        if let Some(crowd) = crowd {
            crowd.wake();
        }
    }

    /// Gives up on an operation whose memory the kernel may touch for ever
    /// after: nothing of it is freed, nor is the descriptor closed. Who awaits
    /// it gets ECANCELED, but for an operation that lends a buffer: that could
    /// only end by giving the buffer back, so it never does. For
    /// [`Driver::shutdown`] alone.
    ///
    /// [`Driver::shutdown`]: crate::driver::Driver::shutdown
    pub fn leak(self) {
        let slot = ManuallyDrop::new(SlotRef::out_of(self));
        let slot = slot.slot();
        let mut state = slot.lock();
        let fed = state.life.is_fed();
        if fed {
            state.leave_fed();
        } else if !state.with_op(Op::leave_memory) {
            return;
        }
        Self::end_with(slot, state, Err(cancelled()));
    }
}

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

#[inline(never)]
fn deliver_more(mut state: SlotGuard<'_>, completion: Completion) -> usize {
    let waiting = state.push(completion);
    let crowd = state.crowd();
    drop(state);
    crowd.wake();
    waiting
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        drop_unfinished(self.slot());
    }
}

#[cold]
fn drop_unfinished(slot: &Slot) {
    InFlight::end_with(slot, slot.lock(), Err(cancelled()));
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(self.slot()).finish()
    }
}

/// The memory that an operation left to the kernel ([`InFlight::part`]). Not to
/// be dropped before the kernel is done with it.
#[must_use]
pub struct Kept(#[allow(dead_code, reason = "dropped")] Option<Landed>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}
