//! What a slot has of a send that nobody waits for: see `op::feed`.

use std::io;
use std::os::fd::AsRawFd;

use super::{InFlight, Slot, SlotGuard, State};
use crate::op::flight::Flight;
use crate::op::owner::SlotRef;
use crate::op::{Completion, Op, Yield, sys};

impl State {
    /// Takes in a send that nobody waits for. The driver of `worker` is the
    /// first to be asked.
    #[inline(always)]
    pub(in crate::op) fn start_fed(&mut self, worker: Option<usize>, op: impl FnOnce() -> Op) {
        debug_assert!(self.is_idle() && !self.has_op());
        let flight = self.flight();
        debug_assert!(flight.op.is_none() && flight.rest.is_empty());
        // In its place, and what was there is nothing.
        std::mem::forget(flight.op.replace(op()));
        self.named = None;
        self.life.start_fed(worker);
    }

    /// What is in flight is all sent by this.
    #[inline]
    fn sends_all(&mut self, sent: usize) -> bool {
        self.with_op(|op| matches!(op, Op::Send { data, .. } if data.len() == sent))
    }

    /// Leaves what is fed to the kernel, for ever, and goes on without.
    pub(super) fn leave_fed(&mut self) {
        std::mem::forget(self.land());
    }

    /// `true`.
    #[cold]
    fn keep_failure(&mut self, completion: Completion) -> bool {
        let failure = completion.and_then(|_| Err(io::ErrorKind::WriteZero.into()));
        self.first = Some(failure);
        true
    }

    /// That what was fed has failed, for whoever asks first.
    #[cold]
    pub(in crate::op) fn take_failure(&mut self) -> Option<io::Error> {
        if !self.life.has_failed() || !self.life.take_finished() {
            return None;
        }
        self.first.take().and_then(Result::err)
    }
}

impl InFlight {
    /// As [`finish`](InFlight::finish), of something
    /// [fed](crate::driver::Driver::feed) all of whose `n` bytes are sent.
    #[inline]
    pub fn sent(self, n: usize) {
        let slot = SlotRef::out_of(self);
        let mut state = slot.slot().lock();
        if !(state.life.is_only_fed() && state.is_line_empty()) {
            return Self::end_with(slot.slot(), state, Ok(Yield::Done(n)));
        }
        // Nearly always.
        let last = state.life.end_fed(false);
        debug_assert!(!last);
        let flight = state.flight.take();
        drop(state);
        free(flight);
    }
}

/// Gives the flight of what was fed up, and the buffer in it back to where it
/// is from.
#[inline]
fn free(flight: Option<Box<Flight>>) {
    if let Some(mut flight) = flight {
        // In place.
        flight.op = None;
        flight.free();
    }
}

impl Slot {
    /// The last completion of what is fed: rule 3 in `op::feed`.
    pub(super) fn end_fed(&self, mut state: SlotGuard<'_>, completion: Completion) {
        let failed = match completion {
            Ok(Yield::Done(n)) if state.sends_all(n) => {
                // Nothing to drop, and to say so spares the look.
                std::mem::forget(completion);
                false
            }
            _ => state.keep_failure(completion),
        };
        let last = state.life.end_fed(failed);
        let flight = state.take_flight();
        if last {
            // Under the lock, so that nobody's send comes between. That the
            // connection is gone is as good.
            let _ = sys::end_writing(self.descriptor().as_raw_fd());
        }
        let crowd = state.crowd();
        drop(state);
        free(flight);
        crowd.wake();
    }
}
