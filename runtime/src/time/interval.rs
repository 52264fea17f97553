//! What comes again and again.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::sleep::{Sleep, later, sleep};

/// A tick every `period`, the first one after a period.
///
/// The ticks are multiples of the period after the start, however long what is
/// done in between takes. Those that nobody waited for are left out: who comes
/// late gets one tick at once, and then the next that is still to come.
///
/// ```
/// use std::time::Duration;
/// use isochrome_runtime::time::interval;
///
/// # async fn example() {
/// let mut ticks = interval(Duration::from_secs(60));
/// loop {
///     ticks.tick().await;
///     println!("another minute");
/// }
/// # }
/// ```
///
/// # Panics
///
/// If the period is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval of no time would never wait");
    Interval {
        sleep: sleep(period),
        period,
    }
}

/// The ticks of [`interval`].
pub struct Interval {
    /// Until the next tick.
    sleep: Sleep,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick, and says when it was due.
    ///
    /// Dropping the future loses no tick.
    ///
    /// # Panics
    ///
    /// As for [`sleep`].
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// The poll form of [`tick`](Interval::tick).
    ///
    /// # Panics
    ///
    /// As for [`sleep`].
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let due = self.sleep.deadline();
        self.sleep.reset(next(due, self.period, Instant::now()));
        Poll::Ready(due)
    }

    /// Begins anew: the next tick is a period from now.
    pub fn reset(&mut self) {
        self.sleep = sleep(self.period);
    }
}

/// The first tick after `now`, of those that follow the one of `due`.
fn next(due: Instant, period: Duration, now: Instant) -> Instant {
    let behind = now.saturating_duration_since(due).as_nanos() % period.as_nanos();
    // A remainder is less than the period, which is a `Duration`.
    let behind = Duration::new(
        (behind / 1_000_000_000) as u64,
        (behind % 1_000_000_000) as u32,
    );
    later(now.max(due) - behind, period)
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interval")
            .field("period", &self.period)
            .field("next", &self.sleep.deadline())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_to_their_multiples_and_missed_ones_are_left_out() {
        let due = Instant::now();
        let ms = Duration::from_millis;
        for (late, expected) in [(0, 10), (9, 10), (10, 20), (11, 20), (1_234_567, 1_234_570)] {
            assert_eq!(next(due, ms(10), due + ms(late)), due + ms(expected));
        }
        // The clock of the caller may be behind the tick that it was given.
        assert_eq!(next(due + ms(3), ms(10), due), due + ms(13));
        let years = Duration::from_secs(1 << 40);
        assert_eq!(next(due, years, due + ms(5)), due + years);
        assert!(next(due, Duration::MAX, due + ms(5)) > due + ms(5));
    }
}
