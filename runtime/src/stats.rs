//! What a runtime and its named colors say of themselves: plain data, copied
//! when asked for.
//!
//! The figures are counted always; they are read while the runtime goes on, so
//! that each is right by itself, and two of them may be a moment apart. All
//! begin at zero with the runtime or the color, and only grow, but for those
//! that are said to be of the moment.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// What a runtime has done, and has to do: [`Handle::stats`].
///
/// [`Handle::stats`]: crate::Handle::stats
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// One for each worker, by number.
    pub workers: Vec<WorkerStats>,
    /// The named colors that someone holds, in no particular order.
    pub colors: Vec<ColorStats>,
    /// Tasks of the moment that no worker spawned: from foreign threads.
    pub foreign_tasks: usize,
}

/// What a worker has done, and has to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Tasks that it took off their color's queue and ran, in turns of colors
    /// that have ended. The end of an aborted task is one too.
    pub polls: u64,
    /// Those of colors without a name.
    pub unnamed_polls: u64,
    /// How often it ran a color, for one or more polls. The one that runs
    /// counts already.
    pub color_turns: u64,
    /// Those of colors without a name.
    pub unnamed_color_turns: u64,
    /// How often its loop has come round: its driver and its timers had their
    /// turn.
    pub turns: u64,
    /// How often it took colors from others.
    pub steals: u64,
    /// How many it took.
    pub colors_stolen: u64,
    /// How many others took from it.
    pub colors_lost: u64,
    /// How often it lay down to sleep in its driver.
    pub parks: u64,
    /// Notifications that were sent to it asleep, or about to sleep. Each was
    /// a system call of the sender, and each is counted when it gets up.
    pub wakes: u64,
    /// Polls that took longer than [`Builder::long_poll`] allows.
    ///
    /// [`Builder::long_poll`]: crate::Builder::long_poll
    pub long_polls: u64,
    /// Completions that its driver knew nothing of, and ignored. Always zero,
    /// but for a fault in the driver or the kernel.
    pub unknown_completions: u64,
    /// What its thread has used of a processor, as the kernel counts it; with
    /// what a thread in `block_on` or a host's loop does besides. `None` when
    /// the worker has ended.
    pub cpu_time: Option<Duration>,
    /// Ready colors in its run queue at the moment. What was sent to it and
    /// not yet received is not counted, nor are pinned colors.
    pub ready_colors: usize,
    /// Live tasks that were spawned on it, when its loop last came to its
    /// driver's turn. Of those that ended on other workers a few hundred may be
    /// among them while it sleeps.
    pub tasks: usize,
    /// Timers of the moment.
    pub timers: usize,
}

/// What a named color has done, and has to do: [`Color::stats`].
///
/// It is counted when a worker runs the color's tasks. Steps that ran at once
/// ([`Color::run`], [`ColorCell::with`]) and what [`Color::hold`] did are not in
/// it; steps that were queued are.
///
/// [`Color::run`]: crate::Color::run
/// [`ColorCell::with`]: crate::ColorCell::with
/// [`Color::hold`]: crate::Color::hold
/// [`Color::stats`]: crate::Color::stats
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ColorStats {
    /// Its name. Others may have the same.
    pub name: Arc<str>,
    /// Where it was made.
    pub made_at: &'static Location<'static>,
    /// The worker that wakes send it to at the moment.
    pub home: usize,
    /// Its ready tasks of the moment, without the one that runs.
    pub ready: u64,
    /// Its tasks that were taken off the queue and run, with the one that runs.
    /// The end of an aborted task is one too.
    pub polls: u64,
    /// How often a worker ran it, for one or more polls.
    pub turns: u64,
    /// How long it has been running, in turns that have ended: by the clock,
    /// so that it includes what the system took the processor away for.
    pub running: Duration,
    /// How long it was ready until a worker ran it, once for each turn.
    pub waits: Waits,
    /// How often a worker took it from another.
    pub steals: u64,
    /// How often its home has changed.
    pub moves: u64,
}

/// The first bucket is of waits below 2^8 ns; the last has no end.
const FIRST: u32 = 8;
pub(crate) const WAITS: usize = 28;

/// How long a color waited: a histogram whose buckets double in width.
#[derive(Clone, Debug)]
pub struct Waits {
    pub(crate) counts: [u64; WAITS],
    pub(crate) total: Duration,
    pub(crate) longest: Duration,
}

impl Waits {
    /// Where a wait of so many nanoseconds is counted.
    pub(crate) fn bucket(nanos: u64) -> usize {
        let bits = u64::BITS - nanos.leading_zeros();
        (bits.saturating_sub(FIRST) as usize).min(WAITS - 1)
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The longest; zero if there was none.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The buckets, shortest waits first: the time that waits in it stay below,
    /// and how many there are. The first ends at 256 ns, each at twice the one
    /// before, the last (from 17 s on) at `Duration::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let counts = self.counts.iter().enumerate();
        counts.map(|(i, count)| (Waits::end(i), *count))
    }

    fn end(bucket: usize) -> Duration {
        if bucket == WAITS - 1 {
            Duration::MAX
        } else {
            Duration::from_nanos(1 << (FIRST as usize + bucket))
        }
    }

    /// The time that this part of all waits (0.5: half of them) did not exceed:
    /// the end of the bucket in which it lies, so at most twice too long, and
    /// never more than [`longest`](Waits::longest). `None` if there are none.
    ///
    /// # Panics
    ///
    /// If `part` is not between 0 and 1.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        assert!((0.0..=1.0).contains(&part), "{part} is no part of 1");
        let wanted = (part * self.count() as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= wanted
        })?;
        Some(Waits::end(bucket).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(nanos: &[u64]) -> Waits {
        let mut waits = Waits {
            counts: [0; WAITS],
            total: Duration::from_nanos(nanos.iter().sum()),
            longest: Duration::from_nanos(nanos.iter().copied().max().unwrap_or(0)),
        };
        for n in nanos {
            waits.counts[Waits::bucket(*n)] += 1;
        }
        waits
    }

    #[test]
    fn a_wait_is_below_the_end_of_its_bucket_and_of_no_other_before() {
        for nanos in [0, 1, 255, 256, 257, 511, 512, 1 << 20, (1 << 35) - 1] {
            let bucket = Waits::bucket(nanos);
            let wait = Duration::from_nanos(nanos);
            assert!(wait < Waits::end(bucket), "{nanos}");
            assert!(bucket == 0 || wait >= Waits::end(bucket - 1), "{nanos}");
        }
        assert_eq!(Waits::bucket(1 << 34), WAITS - 1);
        assert_eq!(Waits::bucket(u64::MAX), WAITS - 1);
    }

    #[test]
    fn quantiles() {
        let none = waits(&[]);
        assert_eq!(none.quantile(0.5), None);
        let waits = waits(&[100, 300, 300, 1_000_000]);
        assert_eq!(waits.count(), 4);
        assert_eq!(waits.quantile(0.0), Some(Duration::from_nanos(256)));
        assert_eq!(waits.quantile(0.25), Some(Duration::from_nanos(256)));
        assert_eq!(waits.quantile(0.5), Some(Duration::from_nanos(512)));
        assert_eq!(waits.quantile(0.75), Some(Duration::from_nanos(512)));
        assert_eq!(waits.quantile(1.0), Some(waits.longest()));
        assert_eq!(waits.buckets().map(|(_, n)| n).sum::<u64>(), 4);
    }
}
