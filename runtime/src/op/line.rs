//! Who waits at a slot, in the order in which they came.

use std::collections::VecDeque;
use std::task::Waker;

/// Whoever polls without a place of their own ([`Slot::poll_next`]): there is
/// one such place, and the last to poll has it.
///
/// [`Slot::poll_next`]: super::Slot::poll_next
pub(super) const ANYONE: u32 = 0;

/// The number of a user's place, which gets one when it first waits; `None`
/// for those without a place of their own.
pub(super) type Place<'a> = Option<&'a mut u32>;

/// The number that a place goes by at the moment.
#[inline]
pub(super) fn number(place: &Place<'_>) -> u32 {
    place.as_ref().map_or(ANYONE, |number| **number)
}

/// What a place is waited at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// A completion that is anyone's, of a subscription.
    Any,
    /// The turn of a one-shot operation: one after another.
    Turn,
}

/// Places, in order. One takes no memory beyond this.
///
/// Waking takes the waker and leaves the place: who was woken keeps it until
/// they poll again, or go away.
pub(crate) struct Line {
    first: Option<Spot>,
    /// Made when a second one comes, and kept.
    #[allow(clippy::box_collection, reason = "nearly always absent: one word")]
    rest: Option<Box<VecDeque<Spot>>>,
    last_number: u32,
}

struct Spot {
    waker: Option<Waker>,
    number: u32,
    what: For,
}

impl Spot {
    #[inline(always)]
    fn new(number: u32, what: For, waker: &Waker) -> Spot {
        Spot {
            waker: Some(waker.clone()),
            number,
            what,
        }
    }
}

impl Line {
    pub(super) const fn new() -> Line {
        Line {
            first: None,
            rest: None,
            last_number: 0,
        }
    }

    /// Waits at a place: where it is, if it is in the line, or at the end.
    /// Returns the waker that was there, to be dropped outside of the lock.
    #[must_use]
    #[inline(always)]
    pub(super) fn wait(&mut self, place: Place<'_>, what: For, waker: &Waker) -> Option<Waker> {
        let number = match place {
            None => ANYONE,
            Some(number) => {
                if *number == ANYONE {
                    *number = self.number();
                }
                *number
            }
        };
        if self.first.is_some() {
            return self.wait_behind(number, what, waker);
        }
        self.first = Some(Spot::new(number, what, waker));
        None
    }

    #[inline(never)]
    fn wait_behind(&mut self, number: u32, what: For, waker: &Waker) -> Option<Waker> {
        let Some(found) = self.spots().find(|spot| spot.number == number) else {
            let rest = self.rest.get_or_insert_default();
            rest.push_back(Spot::new(number, what, waker));
            return None;
        };
        found.what = what;
        match &found.waker {
            Some(old) if old.will_wake(waker) => None,
            _ => found.waker.replace(waker.clone()),
        }
    }

    /// A number for a new place.
    fn number(&mut self) -> u32 {
        self.last_number = match self.last_number.wrapping_add(1) {
            ANYONE => 1,
            number => number,
        };
        self.last_number
    }

    /// Leaves the line. `Some`: the place was there, with this waker.
    #[must_use]
    #[inline]
    pub(super) fn leave(&mut self, number: u32) -> Option<Option<Waker>> {
        if self.first.as_ref()?.number == number {
            let spot = self.first.take();
            self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
            return spot.map(|spot| spot.waker);
        }
        let rest = self.rest.as_mut()?;
        let at = rest.iter().position(|spot| spot.number == number)?;
        rest.remove(at).map(|spot| spot.waker)
    }

    /// Leaves the line, to wait again at its end. A place that has no number
    /// is not in it; the one without a place of its own may be.
    #[must_use]
    #[inline]
    pub(super) fn leave_again(&mut self, place: &Place<'_>) -> Option<Option<Waker>> {
        match place {
            Some(number) if **number == ANYONE => None,
            Some(number) => self.leave(**number),
            None => self.leave(ANYONE),
        }
    }

    fn spots(&mut self) -> impl Iterator<Item = &mut Spot> {
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        self.first.iter_mut().chain(rest)
    }

    /// Leaves the line, if nobody else is in it. `false`: somebody is; or, which
    /// is nearly as rare, this one polls without having been woken, and there is
    /// a waker to be dropped outside of the lock.
    #[inline]
    pub(super) fn leave_alone(&mut self, place: &Place<'_>) -> bool {
        let Some(first) = &self.first else {
            return true;
        };
        let others = self.rest.as_ref().is_some_and(|rest| !rest.is_empty());
        // A place that has no number is not in the line, whoever else is.
        let new = place.as_ref().is_some_and(|number| **number == ANYONE);
        let woken = first.number == number(place) && first.waker.is_none();
        if !woken || new || others {
            return false;
        }
        self.first = None;
        true
    }

    /// Nobody who waits for a turn came before this place.
    #[inline]
    pub(super) fn is_turn_of(&mut self, number: u32) -> bool {
        if self.first.is_none() {
            return true;
        }
        let turn = self.spots().find(|spot| spot.what == For::Turn);
        turn.is_none_or(|spot| spot.number == number)
    }

    /// The waker of whose turn it is.
    #[inline(always)]
    pub(super) fn turn(&mut self) -> Option<Waker> {
        match self.first {
            Some(_) => self.first_turn(),
            None => None,
        }
    }

    #[inline(never)]
    fn first_turn(&mut self) -> Option<Waker> {
        let turn = self.spots().find(|spot| spot.what == For::Turn);
        turn.and_then(|spot| spot.waker.take())
    }

    /// The wakers of all who wait for any completion, and of the first who
    /// waits for a turn.
    #[inline]
    pub(super) fn crowd(&mut self) -> Crowd {
        match &self.rest {
            Some(rest) if !rest.is_empty() => self.many(),
            _ => Crowd::One(self.first.as_mut().and_then(|spot| spot.waker.take())),
        }
    }

    #[cold]
    fn many(&mut self) -> Crowd {
        let mut turn = false;
        let woken = self
            .spots()
            .filter(|spot| spot.what == For::Any || !std::mem::replace(&mut turn, true));
        Crowd::Many(woken.filter_map(|spot| spot.waker.take()).collect())
    }
}

/// Those who are to be woken, outside of the lock.
#[must_use]
pub(super) enum Crowd {
    /// Nearly always.
    One(Option<Waker>),
    Many(Vec<Waker>),
}

impl Crowd {
    #[inline(always)]
    pub(super) fn wake(self) {
        match self {
            Crowd::One(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Crowd::Many(wakers) => wakers.into_iter().for_each(Waker::wake),
        }
    }
}
