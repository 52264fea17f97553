//! How long polls take, for few looks at the clock.
//!
//! A color's turn and a worker's turn end by count and by time, and thieves
//! ask how long what waits will take. A look at the clock costs about as much
//! as a short poll, so it is taken once in [`MOST`] polls when they are short,
//! and after each when they are long. A poll that is long after many short
//! ones is noticed [`MOST`] polls later, at worst.

use std::cell::Cell;

/// The most polls between two looks.
const MOST: u32 = 16;

/// Stretches shorter than this are made longer, and longer ones short at once;
/// nanoseconds, as all times here.
const SHORT: u64 = 25_000;
const LONG: u64 = 100_000;

/// How long a color has its turn. Ten times what a request is expected to
/// take, and a fifth of what a timer is late anyway.
const COLOR: u64 = 200_000;

/// How long before the driver and the timers have theirs: a tick of the wheel.
const TURN: u64 = 1_000_000;

/// Taken for the length of a color's turn that was never measured.
pub(crate) const UNKNOWN: u32 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    Goes,
    ColorIsOver,
    /// And the color's too.
    TurnIsOver,
}

#[derive(Debug)]
pub(crate) struct Pace {
    /// Polls until the next look, and between the last and that.
    left: Cell<u32>,
    stretch: Cell<u32>,
    /// The first and the last look of this turn; zero: there was none.
    turn: Cell<u64>,
    last: Cell<u64>,
    /// The last look before the color began, or the first in it; whether it
    /// has still to be set.
    color: Cell<u64>,
    color_is_new: Cell<bool>,
    /// Colors begun since the last look.
    colors: Cell<u32>,
    /// Of a color's turn, a moving average; zero: not measured.
    average: Cell<u32>,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace {
            left: Cell::new(1),
            stretch: Cell::new(1),
            turn: Cell::new(0),
            last: Cell::new(0),
            color: Cell::new(0),
            color_is_new: Cell::new(false),
            colors: Cell::new(0),
            average: Cell::new(0),
        }
    }

    #[inline]
    pub(crate) fn begin_turn(&self) {
        if self.last.take() != 0 {
            // Turns of few polls: not a look in each.
            self.left.set(self.left.get().max(self.stretch.get()));
        }
    }

    #[inline]
    pub(crate) fn begin_color(&self) {
        self.color_is_new.set(true);
        self.colors.set(self.colors.get() + 1);
    }

    /// After each poll. `measured` is told the new average, if there is one.
    #[inline]
    pub(crate) fn tick(&self, measured: impl FnOnce(u32)) -> Slice {
        let left = self.left.get() - 1;
        self.left.set(left);
        if left > 0 {
            return Slice::Goes;
        }
        self.look(now(), measured)
    }

    #[cold]
    #[inline(never)]
    fn look(&self, now: u64, measured: impl FnOnce(u32)) -> Slice {
        let last = self.last.replace(now);
        if last == 0 {
            // The first of this turn: nothing to compare with, but the next
            // tells. Until then nothing says that polls are long.
            self.turn.set(now);
            self.color.set(now);
            self.color_is_new.set(false);
            self.colors.set(0);
            self.stretch.set((2 * self.stretch.get()).min(MOST));
            self.left.set(1);
            return Slice::Goes;
        }
        if self.color_is_new.replace(false) {
            self.color.set(last);
        }
        let took = now - last;
        let stretch = match took {
            _ if took < SHORT => (2 * self.stretch.get()).min(MOST),
            _ if took > LONG => 1,
            _ => self.stretch.get(),
        };
        self.stretch.set(stretch);
        self.left.set(stretch);
        let colors = u64::from(self.colors.replace(0).max(1));
        let each = u32::try_from(took / colors).unwrap_or(u32::MAX);
        let average = match self.average.get() {
            0 => each,
            old => old - old / 4 + each / 4,
        };
        self.average.set(average.max(1));
        measured(average.max(1));
        if now - self.turn.get() >= TURN {
            Slice::TurnIsOver
        } else if now - self.color.get() >= COLOR {
            Slice::ColorIsOver
        } else {
            Slice::Goes
        }
    }
}

/// CLOCK_MONOTONIC, which is never zero once a system runs. As std asks it,
/// whose `Instant` takes as many instructions again to subtract.
fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is written to during the call. It cannot fail: the clock
    // is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls of `each`, `count` of them; returns the looks and how it ended.
    fn polls(pace: &Pace, now: &mut u64, each: u64, count: usize) -> (usize, Slice) {
        let mut looks = 0;
        for _ in 0..count {
            *now += each;
            pace.left.set(pace.left.get() - 1);
            if pace.left.get() == 0 {
                looks += 1;
                let slice = pace.look(*now, |_| {});
                if slice != Slice::Goes {
                    return (looks, slice);
                }
            }
        }
        (looks, Slice::Goes)
    }

    #[test]
    fn short_polls_are_seldom_looked_at() {
        let (pace, mut now) = (Pace::new(), now());
        pace.begin_turn();
        pace.begin_color();
        let each = 100;
        let (looks, slice) = polls(&pace, &mut now, each, 1_000);
        assert_eq!(slice, Slice::Goes);
        assert!(looks < 1_000 / MOST as usize + 10, "{looks} looks");
    }

    #[test]
    fn long_polls_end_the_turn_soon() {
        let (pace, mut now) = (Pace::new(), now());
        for _ in 0..10 {
            pace.begin_turn();
            pace.begin_color();
            polls(&pace, &mut now, 100, 100);
        }
        // Noticed late once, and at once from then on.
        let long = 10_000_000;
        for most in [2 * MOST as usize, 3, 3] {
            pace.begin_turn();
            pace.begin_color();
            let before = now;
            let (_, slice) = polls(&pace, &mut now, long, 1_000);
            assert_eq!(slice, Slice::TurnIsOver);
            assert!(now - before <= long * most as u64);
        }
    }

    #[test]
    fn a_color_of_middling_polls_ends_before_the_turn() {
        let (pace, mut now) = (Pace::new(), now());
        pace.begin_turn();
        pace.begin_color();
        let (_, slice) = polls(&pace, &mut now, 30_000, 1_000);
        assert_eq!(slice, Slice::ColorIsOver);
    }

    #[test]
    fn the_average_is_of_color_turns() {
        let (pace, mut now) = (Pace::new(), now());
        pace.begin_turn();
        for _ in 0..2_000 {
            pace.begin_color();
            for _ in 0..2 {
                now += 1_000;
                pace.left.set(pace.left.get() - 1);
                if pace.left.get() == 0 {
                    let _ = pace.look(now, |_| {});
                }
            }
        }
        let average = pace.average.get();
        assert!((1_000..4_000).contains(&average), "{average} ns");
    }
}
