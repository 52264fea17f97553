//! What a slot needs while an operation is in flight, and an idle one does
//! not: kept out of it, so that an idle socket is small.
//!
//! A slot has a flight from when it first has something to put there until
//! there is nothing left in it. Flights that are free are kept by the worker
//! that gave them up last, so that an operation allocates nothing; what it has
//! too many of goes to those who have too few, because an operation may begin
//! on one worker and end on another.

use std::cell::Cell;
use std::collections::VecDeque;
use std::task::Waker;

use super::line::Crowded;
use super::{Completion, Op};
use crate::sync::Mutex;
use crate::worker::Worker;

/// Free flights that a worker keeps which is not the only one: few, because
/// those who end more operations than they begin have that many more in the end,
/// and others must make them.
const KEPT: usize = 16;

/// How many the only worker keeps: as many as there are polls in a turn, each of
/// which may begin an operation that ends before the next turn.
const KEPT_ALONE: usize = 128;

/// How many go from a worker to the others, or come from there, at a time.
const MOVED: usize = KEPT / 2;

/// Free flights that nobody keeps; more are freed. From thin air: some
/// 160 KiB.
const SPARE: usize = 1024;

/// What the workers of all runtimes have too many of.
#[allow(clippy::vec_box, reason = "they go in and out as boxes")]
static SPARES: Mutex<Vec<Box<Flight>>> = Mutex::new(Vec::new());

#[derive(Default)]
pub(super) struct Flight {
    /// An operation with something to own: the others are told by their names.
    pub(super) op: Option<Op>,
    /// Completions not taken yet, after the first.
    pub(super) rest: VecDeque<Completion>,
    /// Who awaits the operation in flight, if that is one `Run`.
    pub(super) owner: Option<Waker>,
    /// Who waits, if that is not one task of ours.
    pub(super) line: Crowded,
    /// The next of a worker's free ones.
    next: Option<Box<Flight>>,
}

impl Flight {
    /// A flight with nothing in it.
    #[inline(always)]
    pub(super) fn take() -> Box<Flight> {
        let kept = Worker::with(|worker| worker?.flights.take());
        kept.unwrap_or_else(Flight::more)
    }

    /// Of what others have too many of, or new ones.
    #[cold]
    fn more() -> Box<Flight> {
        Worker::with(|worker| match worker {
            Some(worker) => worker.flights.more(),
            None => spares(|spares| spares.pop()).unwrap_or_default(),
        })
    }

    /// Gives a flight up, for the next who needs one. What is still in it is
    /// dropped.
    #[inline(always)]
    pub(super) fn free(mut self: Box<Flight>) {
        if !self.is_empty() {
            self.clear();
        }
        let nobodys = Worker::with(|worker| match worker {
            Some(worker) => {
                worker.flights.put(self);
                None
            }
            None => Some(self),
        });
        if let Some(flight) = nobodys {
            spares(|spares| spare(spares, flight));
        }
    }

    #[cold]
    fn clear(&mut self) {
        *self = Flight::default();
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        let done = self.op.is_none() && self.rest.is_empty() && self.owner.is_none();
        done && self.line.is_empty()
    }
}

/// The flight of a slot, which has one from now on.
#[inline]
pub(super) fn of(slots: &mut Option<Box<Flight>>) -> &mut Flight {
    slots.get_or_insert_with(Flight::take)
}

/// Gives the flight of a slot up if nothing is in it.
#[inline]
pub(super) fn shed(slots: &mut Option<Box<Flight>>) {
    if slots.as_ref().is_some_and(|flight| flight.is_empty()) {
        if let Some(flight) = slots.take() {
            flight.free();
        }
    }
}

/// The free flights of a worker: a list, the last given up first.
pub(crate) struct Flights {
    first: Cell<Option<Box<Flight>>>,
    count: Cell<usize>,
    /// How many it has at most.
    most: usize,
}

impl Flights {
    /// Of one of so many workers.
    pub(crate) fn new(workers: usize) -> Flights {
        Flights {
            first: Cell::new(None),
            count: Cell::new(0),
            most: if workers > 1 { KEPT } else { KEPT_ALONE },
        }
    }

    #[inline(always)]
    fn take(&self) -> Option<Box<Flight>> {
        let mut flight = self.first.take()?;
        self.link(flight.next.take());
        self.count.set(self.count.get() - 1);
        Some(flight)
    }

    /// There is none.
    fn more(&self) -> Box<Flight> {
        spares(|spares| {
            let more = (0..MOVED).map_while(|_| spares.pop());
            more.for_each(|flight| self.put(flight));
        });
        self.take().unwrap_or_else(|| {
            // Several, so that all workers are soon warm.
            (1..KEPT).for_each(|_| self.put(Box::default()));
            Box::default()
        })
    }

    #[inline(always)]
    fn put(&self, mut flight: Box<Flight>) {
        if self.count.get() >= self.most {
            self.pass_some_on();
        }
        std::mem::forget(std::mem::replace(&mut flight.next, self.first.take()));
        self.link(Some(flight));
        self.count.set(self.count.get() + 1);
    }

    /// The list was taken out: there is nothing to drop, and to say so spares
    /// the look.
    #[inline(always)]
    fn link(&self, first: Option<Box<Flight>>) {
        std::mem::forget(self.first.replace(first));
    }

    #[cold]
    fn pass_some_on(&self) {
        spares(|spares| {
            let moved = (0..MOVED).map_while(|_| self.take());
            moved.for_each(|flight| spare(spares, flight));
        });
    }
}

#[cold]
#[inline(never)]
fn spares<R>(f: impl FnOnce(&mut Vec<Box<Flight>>) -> R) -> R {
    f(&mut SPARES.lock().unwrap_or_else(|e| e.into_inner()))
}

#[allow(clippy::vec_box, reason = "they go in and out as boxes")]
fn spare(spares: &mut Vec<Box<Flight>>, flight: Box<Flight>) {
    if spares.len() < SPARE {
        spares.push(flight);
    }
}

/// A flight that was taken out of its slot. Dropping it frees it.
pub(super) struct Loan(Option<Box<Flight>>);

impl Loan {
    #[inline]
    pub(super) fn new(flight: Box<Flight>) -> Loan {
        Loan(Some(flight))
    }

    #[inline]
    pub(super) fn take_op(&mut self) -> Option<Op> {
        self.0.as_mut()?.op.take()
    }
}

impl Drop for Loan {
    #[inline]
    fn drop(&mut self) {
        if let Some(flight) = self.0.take() {
            flight.free();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_in_a_flight_is_dropped_when_it_is_freed() {
        let mut flight = Box::new(Flight::default());
        flight.op = Some(Op::Recv);
        flight.owner = Some(Waker::noop().clone());
        flight.rest.push_back(Ok(super::super::Yield::Done(1)));
        flight.free();
        assert!(Flight::take().is_empty());
    }

    #[test]
    fn a_worker_keeps_a_few_and_passes_the_others_on() {
        let (giver, taker) = (Flights::new(2), Flights::new(2));
        for _ in 0..3 * KEPT {
            giver.put(Box::default());
            assert!(giver.count.get() <= KEPT);
        }
        assert!(taker.take().is_none());
        drop(taker.more());
        assert_eq!(taker.count.get(), MOVED - 1);
        let kept = std::iter::from_fn(|| giver.take()).count();
        assert!((KEPT - MOVED..=KEPT).contains(&kept));
        assert_eq!(giver.count.get(), 0);
    }
}
