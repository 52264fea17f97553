//! Operations where the driver works by readiness: the asking side tries, on
//! whatever thread it is, and waits for an edge when there is nothing to do.
//!
//! The driver is asked for one thing only, and once in a socket's life: to
//! tell of edges ([`Op::Edges`]).
//!
//! # Rules
//!
//! 1. **Try first.** A descriptor is registered when one of its operations has
//!    to wait for the first time: a system call that would have succeeded
//!    tells more than a registration. Nothing is missed in between, because
//!    the registration itself reports what is ready at that moment.
//! 2. **Under the lock.** Attempts are made with the slot locked, so that
//!    nobody's bytes come between the two halves of another's, and edges are
//!    delivered under it (rule 4 in `op::readiness`).
//! 3. **Waiting owns no buffer.** One is taken from the pool for an attempt to
//!    receive, and leaves it only with data inside.
//! 4. **An attempt series is bounded.** Who has had a share of attempts and
//!    could go on keeps the place and yields.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, ready};

use super::attempt::Attempt;
use super::follow::waits_elsewhere;
use super::line::{For, Place, number};
use super::readiness::Readiness;
use super::slot::{Slot, SlotGuard, State};
use super::{Interest, Op};
use crate::budget;
use crate::worker::Worker;

/// Attempts of one operation before others have their turn. From thin air:
/// enough that the rest of a turn costs less than the calls.
const SHARE: usize = 32;

/// Carries an operation out by `attempt`, for a user with this place in the
/// line, or with none.
///
/// Nearly always nobody else is at the slot: then it comes to a system call, or
/// to waiting for an edge that is sure to come.
#[inline]
pub(super) fn poll<T>(
    slot: &Slot,
    place: Place<'_>,
    what: For,
    interest: Interest,
    cx: &mut Context<'_>,
    mut attempt: impl FnMut(RawFd) -> Attempt<T>,
) -> Poll<io::Result<T>> {
    // Before anything is written, so that the caller's look at it serves here.
    let descriptor = slot.descriptor();
    ready!(budget::poll_remaining(cx));
    let mut state = slot.lock();
    let armed = state.life.is_in_flight();
    // What is armed ends with the driver, which tells.
    let goes_on = armed || !descriptor.runtime().shared().is_closing();
    if goes_on && state.is_alone(interest, &place) {
        if state.readiness.is_ready() {
            // Not by `try_once`, which would ask twice what this was.
            match attempt(descriptor.as_raw_fd()) {
                Attempt::Done(result, left) => {
                    state.readiness.used(left, || descriptor.is_tcp());
                    state.clear_line(place);
                    drop(state);
                    budget::spend();
                    return Poll::Ready(result);
                }
                Attempt::Progress(left) => state.readiness.used(left, || descriptor.is_tcp()),
                Attempt::Blocked => state.readiness.blocked(),
            }
        }
        if armed && !state.readiness.is_ready() {
            state.wait_alone(place, what, cx.waker());
            let elsewhere = state.is_elsewhere();
            drop(state);
            if elsewhere {
                waits_elsewhere(slot);
            }
            return Poll::Pending;
        }
    }
    poll_among(slot, state, place, what, interest, cx, &mut attempt)
}

/// As `poll`, with others there, or with something to see to before one can
/// wait.
#[inline(never)]
fn poll_among<'a, T>(
    slot: &'a Slot,
    mut state: SlotGuard<'a>,
    mut place: Place<'_>,
    what: For,
    interest: Interest,
    cx: &mut Context<'_>,
    attempt: &mut impl FnMut(RawFd) -> Attempt<T>,
) -> Poll<io::Result<T>> {
    if slot.descriptor().runtime().shared().is_closing() {
        return Poll::Ready(Err(ended()));
    }
    let fd = slot.descriptor().as_raw_fd();
    let tcp = slot.descriptor().is_tcp();
    let mut left = None;
    // Who waits again for anything goes to the end of the line.
    if what == For::Any {
        left = state.leave_again(&mut place);
    }
    let mut yields = false;
    let done = loop {
        // The subscription ended: it could not be made, or the driver did.
        if let Some(Err(e)) = state.pop() {
            break Some(Err(e));
        }
        if !state.is_for(interest) {
            // The edges of the other direction end first.
            if state.life.disarm() {
                drop(state);
                slot.descriptor().runtime().cancel(slot);
                state = slot.lock();
                continue;
            }
            break None;
        }
        if what == For::Turn && !state.is_turn_of(number(&place)) {
            break None;
        }
        let tried = state.try_share(tcp, || attempt(fd));
        if tried.is_some() {
            break tried;
        }
        yields = state.readiness.is_ready();
        if yields || !state.is_idle() {
            // Rule 4; or armed: an edge will come.
            break None;
        }
        // In its place before the lock is given up: half of what it sends may
        // be sent.
        let old = match what {
            For::Any => None,
            For::Turn => state.wait(place.as_deref_mut(), what, cx.waker()),
        };
        state.start(Op::Edges(interest), false, slot.here());
        drop(state);
        drop(old);
        slot.descriptor().runtime().submit(slot);
        state = slot.lock();
    };
    let Some(result) = done else {
        let old = state.wait(place, what, cx.waker());
        let elsewhere = !yields && state.is_elsewhere();
        drop(state);
        drop((left, old));
        if elsewhere {
            waits_elsewhere(slot);
        }
        if yields {
            Worker::wake_after_driver(cx.waker());
        }
        return Poll::Pending;
    };
    let turn = match what {
        For::Any => None,
        For::Turn => Some((state.leave_again(&mut place), state.turn_in_line())),
    };
    drop(state);
    drop(left);
    if let Some((left, turn)) = turn {
        drop(left);
        if let Some(turn) = turn {
            turn.wake();
        }
    }
    budget::spend();
    Poll::Ready(result)
}

/// As where the driver works by completion, and has ended.
#[cold]
pub(super) fn ended() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

impl State {
    /// The direction that something is known of.
    #[inline]
    fn interest(&self) -> Interest {
        match self.readiness.is_of_writes() {
            true => Interest::Write,
            false => Interest::Read,
        }
    }

    /// Whether all that is known is of this direction, and nobody else is there.
    #[inline]
    fn is_alone(&mut self, interest: Interest, place: &Place<'_>) -> bool {
        self.interest() == interest && !self.has_completions() && self.is_free_for(place)
    }

    /// One attempt.
    #[inline]
    pub(super) fn try_once<T>(
        &mut self,
        tcp: bool,
        attempt: impl FnOnce() -> Attempt<T>,
    ) -> Option<io::Result<T>> {
        match attempt() {
            Attempt::Done(result, left) => {
                self.readiness.used(left, || tcp);
                return Some(result);
            }
            Attempt::Progress(left) => self.readiness.used(left, || tcp),
            Attempt::Blocked => self.readiness.blocked(),
        }
        None
    }

    /// Whether what is known is known of this direction. A slot that waits for
    /// nothing changes over.
    #[inline]
    pub(super) fn is_for(&mut self, interest: Interest) -> bool {
        if self.interest() != interest && self.is_idle() {
            self.readiness = match interest {
                Interest::Read => Readiness::UNKNOWN,
                Interest::Write => Readiness::UNKNOWN_WRITE,
            };
        }
        self.interest() == interest
    }

    /// A share of attempts, as long as the direction is ready.
    #[inline]
    fn try_share<T>(
        &mut self,
        tcp: bool,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Option<io::Result<T>> {
        for _ in 0..SHARE {
            if !self.readiness.is_ready() {
                return None;
            }
            let tried = self.try_once(tcp, &mut attempt);
            if tried.is_some() {
                return tried;
            }
        }
        None
    }
}
