//! Who waits at a slot, in the order in which they came.

use std::collections::VecDeque;
use std::task::Waker;

/// Whoever polls without a place of their own ([`Port::poll_next`]): there is
/// one such place, and the last to poll has it.
///
/// [`Port::poll_next`]: super::Port::poll_next
pub(super) const ANYONE: u32 = 0;

/// Wakers, each with the number of its place. One needs no memory.
#[derive(Default)]
pub(crate) struct Line {
    first: Option<Place>,
    rest: VecDeque<Place>,
    last_number: u32,
}

struct Place {
    number: u32,
    waker: Waker,
}

impl Line {
    /// A number for a new place.
    pub(super) fn number(&mut self) -> u32 {
        self.last_number = match self.last_number.wrapping_add(1) {
            ANYONE => 1,
            number => number,
        };
        self.last_number
    }

    /// Waits at a place: where it is, if it is in the line, or at the end.
    /// Returns the waker that was there, to be dropped outside of the lock.
    #[must_use]
    pub(super) fn wait(&mut self, number: u32, waker: &Waker) -> Option<Waker> {
        let mut places = self.first.iter_mut().chain(&mut self.rest);
        if let Some(place) = places.find(|place| place.number == number) {
            if place.waker.will_wake(waker) {
                return None;
            }
            return Some(std::mem::replace(&mut place.waker, waker.clone()));
        }
        let place = Place {
            number,
            waker: waker.clone(),
        };
        if self.first.is_none() {
            self.first = Some(place);
        } else {
            self.rest.push_back(place);
        }
        None
    }

    /// Leaves the line.
    #[must_use]
    pub(super) fn leave(&mut self, number: u32) -> Option<Waker> {
        if self.is_first(number) {
            let place = self.first.take();
            self.first = self.rest.pop_front();
            return place.map(|place| place.waker);
        }
        let at = self.rest.iter().position(|p| p.number == number)?;
        self.rest.remove(at).map(|place| place.waker)
    }

    fn is_first(&self, number: u32) -> bool {
        self.first.as_ref().is_some_and(|p| p.number == number)
    }

    /// Nobody came before this place.
    pub(super) fn is_turn_of(&self, number: u32) -> bool {
        self.first.is_none() || self.is_first(number)
    }

    /// The waker whose turn it is. It stays in the line until it leaves.
    pub(super) fn turn(&self) -> Option<Waker> {
        self.first.as_ref().map(|place| place.waker.clone())
    }

    /// Takes everyone out.
    pub(super) fn take(&mut self) -> Crowd {
        Crowd {
            first: self.first.take(),
            rest: std::mem::take(&mut self.rest),
        }
    }
}

/// Those who were taken out of a line.
#[must_use]
pub(super) struct Crowd {
    first: Option<Place>,
    rest: VecDeque<Place>,
}

impl Crowd {
    pub(super) fn wake(self) {
        let all = self.first.into_iter().chain(self.rest);
        all.for_each(|place| place.waker.wake());
    }
}
