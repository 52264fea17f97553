//! When to shed: controlled delay, by the time that connections stood in the
//! queue.
//!
//! The algorithm is CoDel (Nichols and Jacobson, "Controlling Queue Delay",
//! ACM Queue 2012; RFC 8289), with connections for packets. A queue that is
//! good drains now and then: the smallest delay over an interval goes to
//! nothing. One that stands, so that even the smallest delay is above the
//! target for a whole interval, is shed from: one connection at once, and the
//! next ever sooner, the interval divided by the square root of their number,
//! until a delay is below the target again.
//!
//! Defaults are those of the RFC: a target of 5 ms in intervals of 100 ms.

use std::time::{Duration, Instant};

/// How long a delay has to stand before anything is shed; RFC 8289, 4.3.
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Codel {
    target: Duration,
    /// When the delay will have been above the target for an interval.
    above_until: Option<Instant>,
    shedding: bool,
    /// When the next is shed, while shedding.
    next: Option<Instant>,
    /// How many were shed since it began.
    count: u32,
    /// `count` when it began: what came since is what the last time took.
    first_count: u32,
}

impl Codel {
    pub(super) fn new(target: Duration) -> Codel {
        Codel {
            target,
            above_until: None,
            shedding: false,
            next: None,
            count: 0,
            first_count: 0,
        }
    }

    /// A connection leaves the queue after `delay`; `last`: nobody stands
    /// behind it. Whether to shed it.
    pub(super) fn sheds(&mut self, delay: Duration, last: bool, now: Instant) -> bool {
        let stands = self.stands(delay, last, now);
        if self.shedding {
            if !stands {
                self.shedding = false;
                return false;
            }
            let due = self.next.is_some_and(|next| now >= next);
            if due {
                self.count = self.count.saturating_add(1);
                self.next = self.next.map(|next| next + self.pause());
            }
            return due;
        }
        if !stands {
            return false;
        }
        self.shedding = true;
        // As often as at the end of the last time, if that was just now: the
        // rate that was found to be right then is likely to be right still.
        let recent = (self.next).is_some_and(|next| now.duration_since(next) < 16 * INTERVAL);
        let taken = self.count - self.first_count;
        self.count = if recent && taken > 1 { taken } else { 1 };
        self.first_count = self.count;
        self.next = Some(now + self.pause());
        true
    }

    /// Whether the delay has been above the target for an interval.
    fn stands(&mut self, delay: Duration, last: bool, now: Instant) -> bool {
        if delay < self.target || last {
            self.above_until = None;
            return false;
        }
        match self.above_until {
            None => {
                self.above_until = Some(now + INTERVAL);
                false
            }
            Some(until) => now >= until,
        }
    }

    /// Until the next is shed.
    fn pause(&self) -> Duration {
        INTERVAL.div_f64(f64::from(self.count).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TARGET: Duration = Duration::from_millis(5);

    /// One connection each millisecond, `delay` after it came.
    fn shed(codel: &mut Codel, now: &mut Instant, delay: Duration, count: u32) -> u32 {
        let mut shed = 0;
        for _ in 0..count {
            *now += MS;
            shed += u32::from(codel.sheds(delay, false, *now));
        }
        shed
    }

    #[test]
    fn short_delays_are_never_shed() {
        let (mut codel, mut now) = (Codel::new(TARGET), Instant::now());
        assert_eq!(shed(&mut codel, &mut now, 4 * MS, 10_000), 0);
    }

    #[test]
    fn a_burst_that_drains_within_an_interval_is_not_shed() {
        let (mut codel, mut now) = (Codel::new(TARGET), Instant::now());
        for _ in 0..100 {
            assert_eq!(shed(&mut codel, &mut now, 50 * MS, 99), 0);
            assert_eq!(shed(&mut codel, &mut now, MS, 1), 0);
        }
    }

    #[test]
    fn a_standing_queue_is_shed_ever_faster() {
        let (mut codel, mut now) = (Codel::new(TARGET), Instant::now());
        assert_eq!(shed(&mut codel, &mut now, 50 * MS, 100), 0);
        let counts: Vec<_> = (0..10)
            .map(|_| shed(&mut codel, &mut now, 50 * MS, 1_000))
            .collect();
        assert!(counts[0] > 10, "{counts:?}");
        assert!(counts.is_sorted(), "{counts:?}");
        assert!(counts[9] > 3 * counts[0], "{counts:?}");
        // And not at all as soon as it drains.
        assert_eq!(shed(&mut codel, &mut now, MS, 1_000), 0);
        assert_eq!(shed(&mut codel, &mut now, 50 * MS, 99), 0);
    }

    #[test]
    fn it_goes_on_at_the_rate_at_which_it_stopped() {
        let (mut codel, mut now) = (Codel::new(TARGET), Instant::now());
        let first = shed(&mut codel, &mut now, 50 * MS, 1_000);
        shed(&mut codel, &mut now, 50 * MS, 4_000);
        shed(&mut codel, &mut now, MS, 1);
        let again = shed(&mut codel, &mut now, 50 * MS, 1_000);
        assert!(again > 2 * first, "{again} after {first}");
        // After a long peace it begins anew.
        shed(&mut codel, &mut now, MS, 100_000);
        assert_eq!(shed(&mut codel, &mut now, 50 * MS, 1_000), first);
    }

    #[test]
    fn the_last_in_the_queue_is_no_standing_queue() {
        let (mut codel, mut now) = (Codel::new(TARGET), Instant::now());
        for _ in 0..1_000 {
            now += MS;
            assert!(!codel.sheds(50 * MS, true, now));
        }
    }
}
