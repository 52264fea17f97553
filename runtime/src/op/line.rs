//! Who waits at a slot, in the order in which they came.
//!
//! The first place is in the slot: nearly always the only one, of a task of
//! ours, whose waker is one word. What few need is in the slot's flight: wakers
//! of other executors, and all other places.
//!
//! # Rules
//!
//! 1. A user has a number as long as they have a place, and no longer: so a
//!    number is new if no place in the line has it.
//! 2. There is nothing of the line in the flight if the line is empty.

use std::collections::VecDeque;
use std::task::Waker;

use super::flight;
use super::slot::State;
use crate::task::TaskWaker;

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

/// The place was left (rule 1).
#[inline(always)]
fn leaves(place: &mut Place<'_>) {
    if let Some(number) = place {
        **number = ANYONE;
    }
}

/// What a place is waited at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// A completion that is anyone's, of a subscription.
    Any,
    /// The turn of a one-shot operation: one after another.
    Turn,
}

/// The part of a line that is in the flight of its slot.
#[derive(Default)]
pub(super) struct Crowded {
    /// The waker of the first place, if it is of another executor.
    first: Option<Waker>,
    /// The other places.
    rest: VecDeque<Spot>,
}

impl Crowded {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }
}

/// A place in one word: its number, and above it what it is waited at for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u32);

/// For a turn.
const TURN: u32 = 1 << 31;

/// No place has this number.
pub(super) const NOBODY: Mark = Mark(TURN - 1);

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

/// Places, in order.
///
/// Waking takes the waker and leaves the place: who was woken keeps it until
/// they poll again, or go away.
impl State {
    #[inline]
    pub(super) fn is_line_empty(&self) -> bool {
        self.first_place == NOBODY
    }

    /// Waits at a place: where it is, if it is in the line, or at the end.
    /// Returns the waker that was there, to be dropped outside of the lock.
    #[must_use]
    #[inline(always)]
    pub(super) fn wait(&mut self, place: Place<'_>, what: For, waker: &Waker) -> Option<Waker> {
        if self.is_line_empty() {
            self.be_first(place, what, waker);
            return None;
        }
        let number = self.number_of(place);
        self.wait_behind(Mark::new(number, what), waker)
    }

    /// Waits at a place of which it is known that no other is in the line, and
    /// that no waker is there.
    #[inline(always)]
    fn be_first(&mut self, place: Place<'_>, what: For, waker: &Waker) {
        let number = place.map_or(ANYONE, |number| {
            *number = ANYONE + 1;
            ANYONE + 1
        });
        self.first_place = Mark::new(number, what);
        self.set_waker(waker);
    }

    /// Leaves a waker in the first place, where none is.
    #[inline(always)]
    fn set_waker(&mut self, waker: &Waker) {
        match TaskWaker::of(waker) {
            Some(waker) => std::mem::forget(self.first_waker.replace(waker)),
            None => self.set_foreign_waker(waker.clone()),
        }
    }

    #[cold]
    fn set_foreign_waker(&mut self, waker: Waker) {
        flight::of(&mut self.flight).line.first = Some(waker);
    }

    /// Takes the waker of the first place.
    #[inline(always)]
    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        match self.first_waker.take() {
            Some(waker) => Some(waker.into()),
            None if self.flight.is_some() => self.take_foreign_waker(),
            None => None,
        }
    }

    #[inline(never)]
    fn take_foreign_waker(&mut self) -> Option<Waker> {
        let waker = self.flight.as_mut()?.line.first.take();
        flight::shed(&mut self.flight);
        waker
    }

    /// Whether a waker is in the first place.
    #[inline]
    fn has_waker(&self) -> bool {
        let foreign = || self.flight.as_ref().is_some_and(|f| f.line.first.is_some());
        self.first_waker.is_some() || foreign()
    }

    /// The places behind the first.
    #[inline]
    fn rest_of_line(&mut self) -> Option<&mut VecDeque<Spot>> {
        self.flight.as_mut().map(|flight| &mut flight.line.rest)
    }

    #[inline(never)]
    fn wait_behind(&mut self, mark: Mark, waker: &Waker) -> Option<Waker> {
        if self.first_place.number() == mark.number() {
            self.first_place = mark;
            let old = self.take_waker();
            self.set_waker(waker);
            return old;
        }
        let rest = &mut flight::of(&mut self.flight).line.rest;
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

    /// The number of a place, which gets one if it has none, in a line that is
    /// not empty.
    #[inline]
    fn number_of(&mut self, place: Place<'_>) -> u32 {
        let Some(number) = place else {
            return ANYONE;
        };
        if *number == ANYONE {
            *number = self.new_number();
        }
        *number
    }

    /// One that no place has (rule 1).
    #[cold]
    fn new_number(&mut self) -> u32 {
        let first = self.first_place.number();
        let rest = self.rest_of_line();
        let rest = || rest.iter().flat_map(|rest| rest.iter());
        let taken = || rest().map(|spot| spot.mark.number()).chain([first]);
        let last = taken().max().unwrap_or(ANYONE);
        if last + 1 < NOBODY.0 {
            return last + 1;
        }
        let mut numbers = ANYONE + 1..;
        let new = numbers.find(|new| taken().all(|number| number != *new));
        new.expect("fewer places than numbers")
    }

    /// Leaves the line. `Some`: the place was there, with this waker.
    #[must_use]
    #[inline]
    pub(super) fn leave(&mut self, number: u32) -> Option<Option<Waker>> {
        if self.first_place.number() == number {
            let old = self.take_waker();
            self.first_place = NOBODY;
            if self.flight.is_some() {
                self.move_up_in_line();
            }
            return Some(old);
        }
        let rest = self.rest_of_line()?;
        let at = rest.iter().position(|spot| spot.mark.number() == number)?;
        let spot = rest.remove(at);
        flight::shed(&mut self.flight);
        spot.map(|spot| spot.waker)
    }

    /// Puts the next in the first place.
    #[cold]
    fn move_up_in_line(&mut self) {
        let Some(next) = self.rest_of_line().and_then(VecDeque::pop_front) else {
            return;
        };
        self.first_place = next.mark;
        match next.waker.map(TaskWaker::try_from) {
            None => {}
            Some(Ok(waker)) => self.first_waker = Some(waker),
            Some(Err(waker)) => self.set_foreign_waker(waker),
        }
        flight::shed(&mut self.flight);
    }

    /// Leaves the line, to wait again at its end. A place that has no number
    /// is not in it; the one without a place of its own may be.
    #[must_use]
    #[inline]
    pub(super) fn leave_again(&mut self, place: &mut Place<'_>) -> Option<Option<Waker>> {
        match place {
            Some(number) if **number == ANYONE => None,
            Some(number) => self.leave(std::mem::replace(*number, ANYONE)),
            None => self.leave(ANYONE),
        }
    }

    /// Nobody waits behind the first, if there is one.
    #[inline]
    pub(super) fn nobody_behind(&self) -> bool {
        let flight = self.flight.as_ref();
        flight.is_none_or(|flight| flight.line.rest.is_empty())
    }

    /// Whether only one place waits to be woken. (Who was woken and never came
    /// back counts no more.)
    pub(super) fn one_waits(&mut self) -> bool {
        let first = usize::from(self.has_waker());
        let rest = self.rest_of_line().into_iter().flatten();
        first + rest.filter(|spot| spot.waker.is_some()).count() == 1
    }

    /// Whether a place waits to be woken.
    #[inline]
    pub(super) fn somebody_waits(&self) -> bool {
        !self.is_line_empty() && self.has_some_waker()
    }

    #[inline(never)]
    fn has_some_waker(&self) -> bool {
        let mut rest = self.flight.iter().flat_map(|f| &f.line.rest);
        self.has_waker() || rest.any(|spot| spot.waker.is_some())
    }

    /// Whether nobody is in the line, or only this place, which was woken.
    #[inline]
    pub(super) fn is_free_for(&self, place: &Place<'_>) -> bool {
        if self.is_line_empty() {
            return true;
        }
        // A place that has no number is not in the line, whoever else is.
        let new = place.as_ref().is_some_and(|number| **number == ANYONE);
        let mine = !new && self.first_place.number() == number(place);
        mine && !self.has_waker() && self.nobody_behind()
    }

    /// Leaves the line, which is free for the place.
    #[inline(always)]
    pub(super) fn clear_line(&mut self, mut place: Place<'_>) {
        debug_assert!(!self.has_waker() && self.nobody_behind());
        self.first_place = NOBODY;
        leaves(&mut place);
    }

    /// Waits at a place that the line is free for.
    #[inline(always)]
    pub(super) fn wait_alone(&mut self, place: Place<'_>, what: For, waker: &Waker) {
        debug_assert!(!self.has_waker() && self.nobody_behind());
        self.be_first(place, what, waker);
    }

    /// Leaves the line, if nobody else is in it. `false`: somebody is; or, which
    /// is nearly as rare, this one polls without having been woken, and there is
    /// a waker to be dropped outside of the lock.
    #[inline]
    pub(super) fn leave_alone(&mut self, place: Place<'_>) -> bool {
        let free = self.is_free_for(&place);
        if free {
            self.clear_line(place);
        }
        free
    }

    /// Nobody who waits for a turn came before this place.
    #[inline]
    pub(super) fn is_turn_of(&mut self, number: u32) -> bool {
        self.is_line_empty() || self.is_turn_among(number)
    }

    #[inline(never)]
    fn is_turn_among(&mut self, number: u32) -> bool {
        let first = self.first_place;
        if first.is_for_turn() {
            return first.number() == number;
        }
        let mut rest = self.rest_of_line().into_iter().flatten();
        let turn = rest.find(|spot| spot.mark.is_for_turn());
        turn.is_none_or(|spot| spot.mark.number() == number)
    }

    /// The waker of whose turn it is.
    #[inline(always)]
    pub(super) fn turn_in_line(&mut self) -> Option<Waker> {
        match self.is_line_empty() {
            true => None,
            false => self.first_turn(),
        }
    }

    #[inline(never)]
    fn first_turn(&mut self) -> Option<Waker> {
        if self.first_place.is_for_turn() {
            return self.take_waker();
        }
        let mut rest = self.rest_of_line().into_iter().flatten();
        let turn = rest.find(|spot| spot.mark.is_for_turn());
        turn.and_then(|spot| spot.waker.take())
    }

    /// The waker of whose turn it is when nothing is in flight: as of
    /// `turn_in_line`, or of the first, if all wait for what nobody has submitted
    /// yet.
    #[inline(always)]
    pub(super) fn next_in_line(&mut self) -> Option<Waker> {
        match self.is_line_empty() {
            true => None,
            false => self.next_of_some(),
        }
    }

    #[inline(never)]
    fn next_of_some(&mut self) -> Option<Waker> {
        let mut rest = self.rest_of_line().into_iter().flatten();
        let turns = rest.any(|spot| spot.mark.is_for_turn());
        match turns || self.first_place.is_for_turn() {
            true => self.first_turn(),
            false => self.take_waker(),
        }
    }

    /// The wakers of all who wait for any completion, and of the first who
    /// waits for a turn.
    #[inline]
    pub(super) fn crowd(&mut self) -> Crowd {
        match self.nobody_behind() {
            true => Crowd::One(self.take_waker()),
            false => self.many(),
        }
    }

    #[cold]
    fn many(&mut self) -> Crowd {
        let mut turn = self.first_place.is_for_turn();
        let first = self.take_waker();
        let rest = self.rest_of_line().into_iter().flatten();
        let woken = rest
            .filter(|spot| !spot.mark.is_for_turn() || !std::mem::replace(&mut turn, true))
            .filter_map(|spot| spot.waker.take());
        Crowd::Many(first.into_iter().chain(woken).collect())
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

    fn with_line(f: impl FnOnce(&mut State)) {
        let mut state = State::new();
        f(&mut state);
        assert!(state.flight.is_none(), "nothing of an empty line is there");
    }

    fn waits(line: &mut State, number: &mut u32) {
        let old = line.wait(Some(number), For::Any, Waker::noop());
        drop(old);
    }

    #[test]
    fn numbers_are_those_that_no_place_has() {
        with_line(|line| {
            let (mut a, mut b, mut c) = (ANYONE, ANYONE, ANYONE);
            waits(line, &mut a);
            waits(line, &mut b);
            assert_eq!((a, b), (1, 2));
            assert!(line.leave_again(&mut Some(&mut a)).is_some());
            assert_eq!(a, ANYONE);
            waits(line, &mut a);
            assert_eq!(a, 3);
            // The highest that there is.
            line.first_place = Mark::new(NOBODY.0 - 1, For::Any);
            b = NOBODY.0 - 1;
            waits(line, &mut c);
            assert_eq!(c, 1);
            for number in [a, b, c] {
                assert!(line.leave(number).is_some());
            }
            assert!(line.is_line_empty());
        });
    }

    #[test]
    fn wakers_of_other_executors_move_up() {
        with_line(|line| {
            let mut numbers = [ANYONE; 3];
            for number in &mut numbers {
                waits(line, number);
            }
            for number in numbers {
                assert!(line.has_waker());
                assert!(matches!(line.leave(number), Some(Some(_))));
            }
        });
    }

    #[test]
    fn a_waker_that_is_taken_leaves_the_place() {
        with_line(|line| {
            let (mut a, mut b) = (ANYONE, ANYONE);
            waits(line, &mut a);
            assert!(line.take_waker().is_some());
            assert!(line.take_waker().is_none());
            assert!(line.is_free_for(&Some(&mut a)));
            assert!(!line.is_free_for(&Some(&mut b)));
            line.clear_line(Some(&mut a));
            assert_eq!(a, ANYONE);
        });
    }
}
