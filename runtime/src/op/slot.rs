//! The shared state of one operation.
//!
//! A lock guards it. It is taken to submit, by the driver to look and to
//! complete, and to take: by the worker that runs the color and by the driver
//! of the same worker, one thread in all but the stolen case, so it is not
//! contended. Nothing that can panic runs under it. That keeps this file, on
//! which the soundness of both drivers stands, free of `unsafe`.

mod fed;
mod in_flight;

pub use in_flight::{InFlight, Kept};

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::task::Waker;

use super::flight::{self, Flight, Loan};
use super::follow::Away;
use super::lifecycle::Lifecycle;
use super::line::{Mark, NOBODY};
use super::owner::Lies;
use super::readiness::Readiness;
use super::{Completion, Interest, Op, Yield};
use crate::buf::RecvBuf;
use crate::lock::{Guard, Lock};
use crate::task::TaskWaker;

/// Where operations are carried out, one at a time, on one descriptor: what a
/// [`Port`](super::Port) stands for, and [`Ports`](super::Ports) have two of.
pub struct Slot {
    state: Lock<State, Lies>,
}

pub(crate) type SlotGuard<'a> = Guard<'a, State, Lies>;

pub(crate) struct State {
    pub(crate) life: Lifecycle,
    /// What the operation in flight is, if its name says all there is; else it
    /// is in `flight`.
    named: Option<Named>,
    /// Where the driver works by readiness: what is known of which direction.
    pub(super) readiness: Readiness,
    /// Whether it should move to another worker.
    pub(super) away: Away,
    /// The completion that was not taken yet and came first: nearly always the
    /// only one.
    first: Option<Completion>,
    /// What few need, and nobody in between.
    pub(super) flight: Option<Box<Flight>>,
    /// Who waits for a completion of a subscription, or for a turn, first.
    pub(super) first_place: Mark,
    /// Their waker, if that is a task's of ours.
    pub(super) first_waker: Option<TaskWaker>,
}

/// The operations that own nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Accept,
    Recv,
    Edges(Interest),
}

impl Named {
    #[inline(always)]
    fn of(op: &Op) -> Option<Named> {
        match op {
            Op::Accept => Some(Named::Accept),
            Op::Recv => Some(Named::Recv),
            Op::Edges(interest) => Some(Named::Edges(*interest)),
            Op::Connect(_)
            | Op::Send { .. }
            | Op::SendZc { .. }
            | Op::SendVectored(_)
            | Op::File(_) => None,
        }
    }

    #[inline]
    fn op(self) -> Op {
        match self {
            Named::Accept => Op::Accept,
            Named::Recv => Op::Recv,
            Named::Edges(interest) => Op::Edges(interest),
        }
    }
}

impl Slot {
    /// One that lies there.
    pub(super) const fn that(lies: Lies) -> Slot {
        Slot {
            state: Lock::beside(lies, State::new()),
        }
    }

    #[inline(always)]
    pub(super) fn lies(&self) -> Lies {
        *self.state.what_is_beside()
    }

    /// The worker of this thread, whose driver is the first to be asked.
    /// (Another thread sends the operation to the descriptor's home, and says
    /// so then.)
    pub(super) fn here(&self) -> Option<usize> {
        self.descriptor().runtime().current_worker()
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> SlotGuard<'_> {
        self.state.lock()
    }
}

impl State {
    pub(super) const fn new() -> State {
        State {
            life: Lifecycle::new(),
            named: None,
            readiness: Readiness::UNKNOWN,
            away: Away::NEVER,
            first: None,
            flight: None,
            first_place: NOBODY,
            first_waker: None,
        }
    }

    #[inline]
    fn flight(&mut self) -> &mut Flight {
        flight::of(&mut self.flight)
    }

    /// Gives the flight up if nothing is in it.
    #[inline]
    fn shed(&mut self) {
        flight::shed(&mut self.flight);
    }

    /// Takes the flight out of the slot, with the operation in it.
    #[inline]
    fn take_flight(&mut self) -> Option<Box<Flight>> {
        match self.first_place == NOBODY {
            true => self.flight.take(),
            false => self.take_out_of_flight(),
        }
    }

    /// As `take_flight`: another one, because somebody waits, and may do so in
    /// that of the slot.
    #[inline(never)]
    fn take_out_of_flight(&mut self) -> Option<Box<Flight>> {
        let op = self.flight.as_mut()?.op.take();
        self.shed();
        let mut flight = Flight::take();
        flight.op = op;
        Some(flight)
    }

    /// Takes an operation in; `owned` by one `Run`, or anyone's. The driver
    /// of `worker` is the first to be asked.
    #[inline(always)]
    pub(super) fn start(&mut self, op: Op, owned: bool, worker: Option<usize>) {
        debug_assert!(self.is_idle() && !self.has_op());
        self.life.start(owned, worker);
        self.named = Named::of(&op);
        if self.named.is_none() {
            self.flight().op = Some(op);
        }
    }

    /// As `start`, for one `Run`, whose waker this is: so that there is nothing
    /// to look for after the submission. The few that end at once, mostly
    /// because all does, wake.
    #[inline(always)]
    pub(super) fn start_owned(
        &mut self,
        worker: Option<usize>,
        waker: &Waker,
        op: impl FnOnce() -> Op,
    ) {
        debug_assert!(self.is_idle() && !self.has_op());
        let flight = self.flight();
        debug_assert!(flight.owner.is_none() && flight.rest.is_empty());
        let owner = flight.owner.replace(waker.clone());
        // The operation is made last, when nothing can fail any more, and so
        // in its place.
        let op = op();
        let named = Named::of(&op);
        if named.is_none() {
            std::mem::forget(flight.op.replace(op));
        }
        std::mem::forget(owner);
        self.named = named;
        self.life.start(true, worker);
    }

    fn has_op(&self) -> bool {
        let lent = self.flight.as_ref().is_some_and(|f| f.op.is_some());
        self.named.is_some() || lent
    }

    /// Shows the operation in flight.
    #[inline]
    pub(super) fn with_op<R>(&mut self, f: impl FnOnce(&mut Op) -> R) -> R {
        if let Some(named) = self.named {
            return f(&mut named.op());
        }
        let flight = self.flight.as_mut();
        let op = flight.and_then(|flight| flight.op.as_mut());
        f(op.expect("an operation in flight is there"))
    }

    /// The operation, out of the slot.
    #[inline]
    fn land(&mut self) -> Option<Landed> {
        if let Some(named) = self.named.take() {
            return Some(Landed::Named(named));
        }
        let lent = self.flight.as_ref().is_some_and(|f| f.op.is_some());
        let flight = if lent { self.take_flight() } else { None };
        Some(Landed::Lent(Loan::new(flight?)))
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Completion> {
        let first = self.first.take();
        if first.is_some() {
            self.move_up();
        }
        first
    }

    /// As `pop`, for who receives. `None` in it: something of another operation,
    /// that was given up.
    #[inline(always)]
    pub(super) fn pop_lease(&mut self) -> Option<io::Result<Option<RecvBuf>>> {
        let lease = match self.first.take()? {
            Ok(Yield::Buf(lease)) => Ok(Some(lease)),
            Ok(Yield::Done(_) | Yield::Socket(_) | Yield::File(_)) => Ok(None),
            Err(e) => Err(e),
        };
        self.move_up();
        Some(lease)
    }

    /// What was first is taken.
    #[inline(always)]
    fn move_up(&mut self) {
        if self.flight.is_some() {
            self.next_of_many();
        }
    }

    #[inline(never)]
    fn next_of_many(&mut self) {
        self.first = self.flight().rest.pop_front();
        self.shed();
    }

    /// Returns how many there are now.
    #[inline]
    pub(super) fn push(&mut self, completion: Completion) -> usize {
        if self.first.is_none() {
            self.first = Some(completion);
            return 1;
        }
        self.push_back(completion)
    }

    fn push_back(&mut self, completion: Completion) -> usize {
        let rest = &mut self.flight().rest;
        rest.push_back(completion);
        1 + rest.len()
    }

    /// As `pop`, for a reader with this much room: of a lease that has more,
    /// only a part is taken, so that no other reader comes between.
    pub(super) fn take_into(&mut self, buf: &mut [u8]) -> Option<Taken> {
        match &mut self.first {
            Some(Ok(Yield::Buf(lease))) if lease.len() > buf.len() => {
                buf.copy_from_slice(&lease[..buf.len()]);
                lease.advance(buf.len());
                Some(Taken::Part(buf.len()))
            }
            _ => self.pop().map(Taken::Whole),
        }
    }

    /// As `take_into`, but what is received stays.
    pub(super) fn peek_into(&mut self, buf: &mut [u8]) -> Option<Taken> {
        match &self.first {
            Some(Ok(Yield::Buf(lease))) => {
                let n = lease.len().min(buf.len());
                buf[..n].copy_from_slice(&lease[..n]);
                Some(Taken::Part(n))
            }
            _ => self.pop().map(Taken::Whole),
        }
    }

    /// Something waits to be taken.
    #[inline]
    pub(super) fn has_completions(&self) -> bool {
        self.first.is_some()
    }

    /// What is there is one `Run`'s, or the end of a one-shot operation.
    #[inline]
    pub(super) fn is_owned_or_finished(&self) -> bool {
        self.life.is_owned_or_finished()
    }

    /// What is in flight is one `Run`'s, who waits for it, and lends something:
    /// so it is no subscription.
    #[inline]
    fn is_awaited(&self) -> bool {
        self.named.is_none() && self.life.is_owned() && !self.life.is_abandoned()
    }

    /// Nothing is in flight, and nothing waits to be taken.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.life.is_idle() && !self.has_completions()
    }

    /// What completes, or has completed, is not one `Run`'s.
    #[inline]
    pub(super) fn is_anyones(&self) -> bool {
        !self.life.is_owned() || self.life.is_idle()
    }

    /// Who awaits the operation in flight, which is one `Run`'s. Returns the
    /// waker that was there, to be dropped after unlocking.
    #[must_use]
    pub(super) fn set_owner(&mut self, waker: &Waker) -> Option<Waker> {
        self.flight().owner.replace(waker.clone())
    }

    /// Ends the finished phase, if that is where a one-shot operation is, and
    /// gives the operation back.
    #[inline]
    pub(super) fn take_finished(&mut self) -> Option<Landed> {
        if self.life.take_finished() {
            self.land()
        } else {
            None
        }
    }

    /// As `take_finished`, with the result: the only completion there is.
    #[inline]
    pub(super) fn take_result(&mut self) -> Option<(Completion, Landed)> {
        let landed = self.take_finished()?;
        let result = self.first.take();
        Some((result.expect("a finished operation has a result"), landed))
    }

    /// As `take_result`, of a send whose buffer was kept by who sends: what is
    /// left of it in the flight owns nothing.
    #[inline(always)]
    pub(super) fn take_sent(&mut self) -> Option<(io::Result<usize>, Sent)> {
        if !self.life.take_finished() {
            return None;
        }
        debug_assert!(self.named.is_none());
        let sent = Sent(self.take_flight());
        let result = match self.first {
            Some(Ok(Yield::Done(n))) => {
                std::mem::forget(self.first.take());
                Ok(n)
            }
            _ => self.not_sent(),
        };
        Some((result, sent))
    }

    #[cold]
    fn not_sent(&mut self) -> io::Result<usize> {
        let result = self.first.take();
        result
            .expect("a finished operation has a result")
            .map(|_| 0)
    }

    /// The waker of whose turn it is, if the slot is free for it, or has to tell
    /// of a failure.
    #[inline]
    pub(super) fn turn(&mut self) -> Option<Waker> {
        if self.is_idle() || self.life.has_failed() {
            self.next_in_line()
        } else {
            None
        }
    }

    /// Marks the operation as unwanted. What is returned has to be dropped
    /// after unlocking (rule 3).
    #[must_use]
    pub(super) fn abandon(&mut self) -> Leftover {
        let in_flight = self.life.abandon();
        let op = if in_flight { None } else { self.land() };
        let flight = self.flight.as_mut();
        let (rest, owner) = flight.map_or_else(Default::default, |flight| {
            (std::mem::take(&mut flight.rest), flight.owner.take())
        });
        self.shed();
        Leftover {
            in_flight,
            _op: op,
            _owner: owner,
            _first: self.first.take(),
            _rest: rest,
        }
    }
}

/// The flight of a send that is over, to be dropped after unlocking.
pub(super) struct Sent(Option<Box<Flight>>);

impl Drop for Sent {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut flight) = self.0.take() {
            // It owns nothing.
            std::mem::forget(flight.op.take());
            flight.free();
        }
    }
}

/// An operation that is over, to be used or dropped after unlocking.
pub(super) enum Landed {
    Named(Named),
    Lent(Loan),
}

impl Landed {
    #[inline]
    pub(super) fn into_op(self) -> Op {
        match self {
            Landed::Named(named) => named.op(),
            Landed::Lent(mut loan) => loan.take_op().expect("what has landed is there"),
        }
    }
}

/// What an abandoned operation leaves behind.
pub(super) struct Leftover {
    /// The operation is still in flight, and has to be cancelled.
    pub(super) in_flight: bool,
    _op: Option<Landed>,
    _owner: Option<Waker>,
    _first: Option<Completion>,
    _rest: VecDeque<Completion>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Slot")
            .field("descriptor", self.descriptor())
            .field("life", &state.life)
            .field("named", &state.named)
            .finish_non_exhaustive()
    }
}

/// What a reader took out of the slot.
pub(super) enum Taken {
    /// A part of a lease, copied.
    Part(usize),
    /// A completion; if it is a lease, the reader has room for all of it.
    Whole(Completion),
}
