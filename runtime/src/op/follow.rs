//! Subscriptions that follow the color of who waits for them.
//!
//! A subscription is with the driver of the worker that polled first. When the
//! color of who waits has a new home, or the socket was handed to a color of
//! another worker, each completion would cross workers from then on: a wake of
//! another thread for every message.
//!
//! # Rules
//!
//! 1. Who waits alone, in a color that has its home on this worker, for a
//!    subscription that is with another worker's driver, counts such waits;
//!    when they are enough ([`Away`]), the subscription is asked to follow. A
//!    color that was only stolen counts none, nor does a foreign executor.
//! 2. The driver that has it ends it without a word
//!    ([`Driver::hand_over`]), after everything that it had to tell. Who
//!    waits is woken, finds the slot idle, and begins it anew where they are:
//!    the slot has one operation at a time, as ever.
//! 3. Where the driver works by readiness, it is the registration that moves,
//!    with all subscriptions on it, and the new worker has made its own before
//!    it asks ([`Driver::adopt`]). So no want of memory in the kernel fails a
//!    connection that was fine where it was, and nothing is lost in between:
//!    who subscribes tries first, and edges are told by both for a while.
//! 4. A subscription is asked once. What has ended, was given up, or is
//!    recalled when the driver hears of it does not move; what was adopted for
//!    it is disowned ([`Driver::release`]).
//!
//! [`Driver::adopt`]: crate::driver::Driver::adopt
//! [`Driver::hand_over`]: crate::driver::Driver::hand_over
//! [`Driver::release`]: crate::driver::Driver::release

use super::slot::{Slot, State};
use crate::worker::{self, Worker};

/// Waits that found the subscription with another worker, since it last moved,
/// and how often it has: in one byte.
///
/// A move costs about what two or three such waits do, so it is made at the
/// second; and the number doubles with each move, up to 32, because users in
/// several colors could otherwise send a subscription to and fro between them.
/// So all its moves together cost little more than what made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away(u8);

/// The low bits are of the waits.
const MOVE: u8 = 1 << 5;
const MOST_MOVES: u8 = 4;

impl Away {
    pub(super) const NEVER: Away = Away(0);

    /// One more wait. `true`: now it is to move.
    #[must_use]
    fn waits(&mut self) -> bool {
        let (moves, waits) = (self.0 / MOVE, self.0 % MOVE + 1);
        let enough = waits >= 2 << moves;
        self.0 = match enough {
            true => (moves + 1).min(MOST_MOVES) * MOVE,
            false => moves * MOVE + waits,
        };
        enough
    }
}

impl State {
    /// Whether what is in flight may be with another driver than that of this
    /// thread's worker. For every wait, so it asks no more than this.
    #[inline(always)]
    pub(super) fn is_elsewhere(&self) -> bool {
        !self.life.is_with_number(worker::here())
    }
}

/// Somebody has just begun to wait at the slot for what may be elsewhere.
#[cold]
#[inline(never)]
pub(super) fn waits_elsewhere(slot: &Slot) {
    let runtime = slot.descriptor().runtime().shared();
    Worker::with(|worker| {
        let home = worker.filter(|w| w.is_of(runtime) && w.runs_at_home());
        let Some(worker) = home.filter(|_| !runtime.is_closing()) else {
            return;
        };
        let mut state = slot.lock();
        // Alone, and not woken meanwhile.
        if !state.one_waits() || !state.away.waits() {
            return;
        }
        let Some(from) = state.life.follow() else {
            return;
        };
        drop(state);
        worker.take_over(slot, from);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_move_takes_twice_the_waits_of_the_last_up_to_32() {
        let mut away = Away::NEVER;
        for expected in [2, 4, 8, 16, 32, 32, 32] {
            let waits = 1 + (0..).take_while(|_| !away.waits()).count();
            assert_eq!(waits, expected);
        }
    }
}
