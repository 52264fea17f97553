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
    #[inline]
    pub(super) fn wait(&mut self, number: u32, waker: &Waker) -> Option<Waker> {
        if self.first.is_none() {
            self.first = Some(Place {
                number,
                waker: waker.clone(),
            });
            return None;
        }
        let mut places = self.first.iter_mut().chain(&mut self.rest);
        if let Some(place) = places.find(|place| place.number == number) {
            if place.waker.will_wake(waker) {
                return None;
            }
            return Some(std::mem::replace(&mut place.waker, waker.clone()));
        }
        self.rest.push_back(Place {
            number,
            waker: waker.clone(),
        });
        None
    }

    /// Leaves the line.
    #[must_use]
    #[inline]
    pub(super) fn leave(&mut self, number: u32) -> Option<Waker> {
        if self.is_first(number) {
            let place = self.first.take();
            if !self.rest.is_empty() {
                self.first = self.rest.pop_front();
            }
            return place.map(|place| place.waker);
        }
        if self.rest.is_empty() {
            return None;
        }
        let at = self.rest.iter().position(|p| p.number == number)?;
        self.rest.remove(at).map(|place| place.waker)
    }

    #[inline]
    fn is_first(&self, number: u32) -> bool {
        self.first.as_ref().is_some_and(|p| p.number == number)
    }

    /// Nobody came before this place.
    #[inline]
    pub(super) fn is_turn_of(&self, number: u32) -> bool {
        self.first.is_none() || self.is_first(number)
    }

    /// The waker whose turn it is. It stays in the line until it leaves.
    #[inline]
    pub(super) fn turn(&self) -> Option<Waker> {
        self.first.as_ref().map(|place| place.waker.clone())
    }

    /// Takes everyone out.
    #[inline]
    pub(super) fn take(&mut self) -> Crowd {
        Crowd {
            first: self.first.take(),
            rest: match self.rest.is_empty() {
                true => None,
                false => Some(std::mem::take(&mut self.rest)),
            },
        }
    }
}

/// Those who were taken out of a line.
#[must_use]
pub(super) struct Crowd {
    first: Option<Place>,
    /// Not there in the common case.
    rest: Option<VecDeque<Place>>,
}

impl Crowd {
    #[inline]
    pub(super) fn wake(self) {
        if let Some(place) = self.first {
            place.waker.wake();
        }
        if let Some(rest) = self.rest {
            rest.into_iter().for_each(|place| place.waker.wake());
        }
    }
}
