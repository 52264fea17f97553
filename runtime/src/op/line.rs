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
    /// Of the first place.
    waker: Option<Waker>,
    /// The first place, or `NOBODY`.
    first: Mark,
    last_number: u32,
    /// Made when a second one comes, and kept.
    #[allow(clippy::box_collection, reason = "nearly always absent: one word")]
    rest: Option<Box<VecDeque<Spot>>>,
}

/// A place in one word: its number, and above it what it is waited at for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark(u32);

/// For a turn.
const TURN: u32 = 1 << 31;

/// No place has this number.
const NOBODY: Mark = Mark(TURN - 1);

impl Mark {
    #[inline]
    fn new(number: u32, what: For) -> Mark {
        match what {
            For::Any => Mark(number),
            For::Turn => Mark(number | TURN),
        }
    }

    #[inline]
    fn number(self) -> u32 {
        self.0 & !TURN
    }

    #[inline]
    fn is_for_turn(self) -> bool {
        self.0 & TURN != 0
    }
}

/// A place behind the first.
struct Spot {
    waker: Option<Waker>,
    mark: Mark,
}

impl Line {
    pub(super) const fn new() -> Line {
        Line {
            waker: None,
            first: NOBODY,
            last_number: ANYONE,
            rest: None,
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first == NOBODY
    }

    /// Waits at a place: where it is, if it is in the line, or at the end.
    /// Returns the waker that was there, to be dropped outside of the lock.
    #[must_use]
    #[inline(always)]
    pub(super) fn wait(&mut self, place: Place<'_>, what: For, waker: &Waker) -> Option<Waker> {
        let number = self.number_of(place);
        let mark = Mark::new(number, what);
        if self.is_empty() {
            self.first = mark;
            self.waker = Some(waker.clone());
            return None;
        }
        self.wait_behind(mark, waker)
    }

    #[inline(never)]
    fn wait_behind(&mut self, mark: Mark, waker: &Waker) -> Option<Waker> {
        if self.first.number() == mark.number() {
            self.first = mark;
            return left_there(&mut self.waker, waker);
        }
        let rest = self.rest.get_or_insert_default();
        let found = rest
            .iter_mut()
            .find(|spot| spot.mark.number() == mark.number());
        if let Some(spot) = found {
            spot.mark = mark;
            return left_there(&mut spot.waker, waker);
        }
        let waker = Some(waker.clone());
        rest.push_back(Spot { waker, mark });
        None
    }

    /// The number of a place, which gets one if it has none.
    #[inline]
    fn number_of(&mut self, place: Place<'_>) -> u32 {
        let Some(number) = place else {
            return ANYONE;
        };
        if *number == ANYONE {
            *number = self.number();
        }
        *number
    }

    /// A number for a new place.
    fn number(&mut self) -> u32 {
        self.last_number = match self.last_number + 1 {
            number if Mark(number) == NOBODY => ANYONE + 1,
            number => number,
        };
        self.last_number
    }

    /// Leaves the line. `Some`: the place was there, with this waker.
    #[must_use]
    #[inline]
    pub(super) fn leave(&mut self, number: u32) -> Option<Option<Waker>> {
        if self.first.number() == number {
            let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
            let next = next.unwrap_or(Spot {
                waker: None,
                mark: NOBODY,
            });
            self.first = next.mark;
            return Some(std::mem::replace(&mut self.waker, next.waker));
        }
        let rest = self.rest.as_mut()?;
        let at = rest.iter().position(|spot| spot.mark.number() == number)?;
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

    /// Nobody waits behind the first, if there is one.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.is_empty())
    }

    /// Whether only one place waits to be woken. (Who was woken and never came
    /// back counts no more.)
    pub(super) fn one_waits(&mut self) -> bool {
        let waiting = self.spots().filter(|(_, waker)| waker.is_some());
        waiting.count() == 1
    }

    /// All places, in order.
    fn spots(&mut self) -> impl Iterator<Item = (Mark, &mut Option<Waker>)> {
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        let first = (self.first != NOBODY).then_some((self.first, &mut self.waker));
        let rest = rest.map(|spot| (spot.mark, &mut spot.waker));
        first.into_iter().chain(rest)
    }

    /// Whether nobody is in the line, or only this place, which was woken.
    #[inline]
    pub(super) fn is_free_for(&self, place: &Place<'_>) -> bool {
        if self.is_empty() {
            return true;
        }
        // A place that has no number is not in the line, whoever else is.
        let new = place.as_ref().is_some_and(|number| **number == ANYONE);
        let mine = !new && self.first.number() == number(place);
        mine && self.waker.is_none() && self.is_alone()
    }

    /// Leaves the line, which is free for the place.
    #[inline]
    pub(super) fn clear(&mut self) {
        debug_assert!(self.waker.is_none() && self.is_alone());
        self.first = NOBODY;
    }

    /// Waits at a place that the line is free for.
    #[inline(always)]
    pub(super) fn wait_alone(&mut self, place: Place<'_>, what: For, waker: &Waker) {
        debug_assert!(self.waker.is_none() && self.is_alone());
        let number = self.number_of(place);
        self.first = Mark::new(number, what);
        self.waker = Some(waker.clone());
    }

    /// Leaves the line, if nobody else is in it. `false`: somebody is; or, which
    /// is nearly as rare, this one polls without having been woken, and there is
    /// a waker to be dropped outside of the lock.
    #[inline]
    pub(super) fn leave_alone(&mut self, place: &Place<'_>) -> bool {
        let free = self.is_free_for(place);
        if free {
            self.clear();
        }
        free
    }

    /// Nobody who waits for a turn came before this place.
    #[inline]
    pub(super) fn is_turn_of(&mut self, number: u32) -> bool {
        if self.is_empty() {
            return true;
        }
        let turn = self.spots().find(|(mark, _)| mark.is_for_turn());
        turn.is_none_or(|(mark, _)| mark.number() == number)
    }

    /// The waker of whose turn it is.
    #[inline(always)]
    pub(super) fn turn(&mut self) -> Option<Waker> {
        match self.is_empty() {
            true => None,
            false => self.first_turn(),
        }
    }

    #[inline(never)]
    fn first_turn(&mut self) -> Option<Waker> {
        let turn = self.spots().find(|(mark, _)| mark.is_for_turn());
        turn.and_then(|(_, waker)| waker.take())
    }

    /// The waker of whose turn it is when nothing is in flight: as of `turn`, or
    /// of the first, if all wait for what nobody has submitted yet.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Waker> {
        match self.is_empty() {
            true => None,
            false => self.next_of_some(),
        }
    }

    #[inline(never)]
    fn next_of_some(&mut self) -> Option<Waker> {
        let turns = self.spots().any(|(mark, _)| mark.is_for_turn());
        match turns {
            true => self.first_turn(),
            false => self.first(),
        }
    }

    /// The waker of the first.
    #[inline]
    pub(super) fn first(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// The wakers of all who wait for any completion, and of the first who
    /// waits for a turn.
    #[inline]
    pub(super) fn crowd(&mut self) -> Crowd {
        match self.is_alone() {
            true => Crowd::One(self.first()),
            false => self.many(),
        }
    }

    #[cold]
    fn many(&mut self) -> Crowd {
        let mut turn = false;
        let woken = self
            .spots()
            .filter(|(mark, _)| !mark.is_for_turn() || !std::mem::replace(&mut turn, true));
        Crowd::Many(woken.filter_map(|(_, waker)| waker.take()).collect())
    }
}

#[cold]
fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// Leaves a waker in a place; returns the one that was there.
#[inline]
fn left_there(place: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match place {
        Some(old) if old.will_wake(waker) => None,
        _ => place.replace(waker.clone()),
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
            Crowd::One(None) => {}
            Crowd::One(Some(waker)) => waker.wake(),
            Crowd::Many(wakers) => wake_all(wakers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_mark_do_not_mix() {
        for number in [ANYONE, 1, 0x5555_5555, NOBODY.0 - 1] {
            for what in [For::Any, For::Turn] {
                let mark = Mark::new(number, what);
                assert_eq!(mark.number(), number);
                assert_eq!(mark.is_for_turn(), what == For::Turn);
                assert!(mark != NOBODY);
            }
        }
    }

    #[test]
    fn numbers_begin_again_before_nobody() {
        let mut line = Line::new();
        line.last_number = NOBODY.0 - 2;
        assert_eq!(line.number(), NOBODY.0 - 1);
        assert_eq!(line.number(), 1);
    }
}
