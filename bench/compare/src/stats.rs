//! Medians, what is known of them, and which rounds count.
//!
//! Two figures from two runs are no ratio: machines drift. So a contestant is
//! divided by the base measured *just before and just after* it, and the median
//! and its interval are those of these ratios.
use load::Report;
use serde::{Deserialize, Serialize};

/// The middle of some figures, and a stretch around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub n: usize,
}

/// How sure an interval of a median is to hold the median of all rounds that
/// could have been run, where there are rounds enough (7). Two such intervals
/// miss each other by chance once in a thousand times or less, and a full run
/// has a few hundred ratios.
pub const CONFIDENCE: f64 = 0.98;

impl Spread {
    /// The median, and where four fifths of the figures lie. `None` of none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let sorted = sorted(figures);
        (!sorted.is_empty()).then(|| Self {
            median: quantile(&sorted, 0.5),
            low: quantile(&sorted, 0.1),
            high: quantile(&sorted, 0.9),
            n: sorted.len(),
        })
    }

    /// The median of ratios in the order in which they were measured, and an
    /// interval for it, which
    ///
    /// 1. is that of order statistics: between the k-th smallest and the k-th
    ///    largest ratio, with the largest k that leaves [`CONFIDENCE`] (David
    ///    and Nagaraja, "Order Statistics", 7.1: it assumes no distribution);
    /// 2. holds the medians of the first and of the second half of the rounds:
    ///    what drifts within a run drifts between two.
    ///
    /// `None` of none.
    pub fn of_ratios(ratios: &[f64]) -> Option<Self> {
        let all = sorted(ratios.iter().copied());
        let n = all.len();
        if n == 0 {
            return None;
        }
        let k = rank(n);
        let (mut low, mut high) = (all[k - 1], all[n - k]);
        if n > 1 {
            let (first, second) = ratios.split_at(n / 2);
            for half in [first, second] {
                let median = quantile(&sorted(half.iter().copied()), 0.5);
                (low, high) = (low.min(median), high.max(median));
            }
        }
        Some(Self {
            median: quantile(&all, 0.5),
            low,
            high,
            n,
        })
    }

    /// The same interval, longer by `share` of the median at either end.
    #[must_use]
    pub fn wider(self, share: f64) -> Self {
        Self {
            low: self.low - self.median * share,
            high: self.high + self.median * share,
            ..self
        }
    }

    /// Whether two intervals have a point in common.
    pub fn meets(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = figures.into_iter().filter(|f| f.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The largest k for which the k-th smallest and the k-th largest of `n` draws
/// have the median between them with [`CONFIDENCE`]; at least 1.
fn rank(n: usize) -> usize {
    // P(fewer than k of n fair coins show heads), summed up from 0.
    let (mut term, mut below, mut k) = (0.5_f64.powi(n as i32), 0.0, 0);
    loop {
        below += term;
        if 1.0 - 2.0 * below < CONFIDENCE || 2 * k >= n {
            return k.max(1);
        }
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
}

/// Of sorted figures, with linear interpolation (type 7 of Hyndman and Fan,
/// "Sample Quantiles in Statistical Packages", 1996: what R and NumPy do).
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - at.floor())
}

/// What one core did in a window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Core {
    pub window_us: f64,
    /// Time in which it ran something that is not ours.
    pub others_us: f64,
    /// Time our thread was ready and waited, and how often it was woken; only
    /// known of a process of one thread (several wait for each other).
    pub delay_us: Option<(f64, u64)>,
}

/// Of a window, taken by others: more is a disturbance. What a ratio is to tell
/// is 5%, and what others take changes our bill by less than what they took.
pub const SHARE: f64 = 0.05;
/// `/proc/stat` counts in ticks of 10 ms, and by whom a tick happens to hit. In
/// the 324 windows of `results/2026-11-21` it was up to 44 ms short of what our
/// own processes had used, which nobody can have given back: so that much is
/// chance, in either direction.
pub const LEAST_US: f64 = 50_000.0;
/// What a wake may take without anybody having taken the core: an idle virtual
/// CPU first has to be woken by the host. In the 180 windows of
/// `results/2026-11-21` with 400 wakes or more it was 0.6 us on average, and
/// less than this in 95% of them; beside a compiler it is 15 to 30 us.
pub const WAKE_US: f64 = 5.0;

impl Core {
    /// Why the round does not count, if it does not.
    pub fn disturbance(&self) -> Option<String> {
        if self.others_us > (SHARE * self.window_us).max(LEAST_US) {
            let share = 100.0 * self.others_us / self.window_us;
            return Some(format!("others ran for {share:.0}% of the window"));
        }
        let (delay, wakes) = self.delay_us?;
        let taken = delay - WAKE_US * wakes as f64;
        (taken > SHARE * self.window_us).then(|| {
            format!(
                "it waited for the core for {:.0}% of the window",
                100.0 * taken / self.window_us
            )
        })
    }
}

/// Whether another process took one of the two cores during `report`'s window.
pub fn disturbance(report: &Report) -> Option<String> {
    let window_us = report.elapsed_s * 1e6;
    let delay = |s: &load::proc::Sample| (s.run_delay_ns as f64 / 1e3, s.voluntary);
    let server = Core {
        window_us,
        others_us: report.others_on_server_core_us.unwrap_or(0) as f64,
        delay_us: report.server.as_ref().filter(|s| s.threads == 1).map(delay),
    };
    let client = Core {
        window_us,
        others_us: report.others_on_client_core_us.unwrap_or(0) as f64,
        delay_us: Some(delay(&report.client)),
    };
    let of = |core: Core, name: &str| core.disturbance().map(|why| format!("{name}: {why}"));
    of(server, "server's core").or_else(|| of(client, "client's core"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).map(|s| s.median), Some(2.0));
        assert_eq!(
            Spread::of([4.0, 1.0, 2.0, 3.0]).map(|s| s.median),
            Some(2.5)
        );
        assert_eq!(
            Spread::of([7.0]).map(|s| (s.low, s.median, s.high)),
            Some((7.0, 7.0, 7.0))
        );
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
        assert_eq!(Spread::of_ratios(&[]), None);
    }

    #[test]
    fn a_spread_holds_four_fifths() {
        let s = Spread::of((0..=100).map(f64::from));
        assert_eq!(s.map(|s| (s.low, s.high, s.n)), Some((10.0, 90.0, 101)));
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // 1 - 2 * 2^-7 = 98.4%; of 11 the second: 98.8%; of 15 the third: 99.3%.
        assert_eq!([1, 2, 6, 7, 10, 11, 15].map(rank), [1, 1, 1, 1, 1, 2, 3]);
        assert_eq!([19, 101, 301].map(rank), [5, 39, 130]);
    }

    #[test]
    fn one_wild_round_moves_neither_median_nor_interval() {
        let calm = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.0, 1.01, 0.99, 1.0, 1.0];
        let mut wild = calm;
        wild[0] = 9.0;
        assert_eq!(
            Spread::of_ratios(&wild).map(|s| (s.median, s.low, s.high)),
            Some((1.0, 0.99, 1.02))
        );
        assert_eq!(
            Spread::of_ratios(&calm).map(|s| (s.median, s.low, s.high)),
            Some((1.0, 0.99, 1.01))
        );
    }

    #[test]
    fn a_drift_within_a_run_is_in_the_interval() {
        let mut ratios = vec![1.0; 40];
        ratios.extend([1.1; 61]);
        let s = Spread::of_ratios(&ratios);
        assert_eq!(s.map(|s| (s.low, s.median, s.high)), Some((1.0, 1.1, 1.1)));
    }

    #[test]
    fn intervals_meet_or_do_not() {
        let of = |low, high| Spread {
            median: (low + high) / 2.0,
            low,
            high,
            n: 7,
        };
        assert!(of(1.0, 1.2).meets(&of(1.2, 1.3)));
        assert!(of(1.0, 2.0).meets(&of(1.2, 1.3)));
        assert!(!of(1.0, 1.1).meets(&of(1.2, 1.3)));
        assert!(of(1.0, 1.1).wider(0.1).meets(&of(1.2, 1.3)));
    }

    #[test]
    fn a_core_that_others_took_is_a_disturbance() {
        let core = |others_us, delay_us| Core {
            window_us: 2e6,
            others_us,
            delay_us,
        };
        assert!(core(99_000.0, None).disturbance().is_none());
        assert!(core(101_000.0, None).disturbance().is_some());
        // Wakes of an idle core are not a disturbance, waiting in line is.
        let wakes = |n| Some((150_000.0, n));
        assert!(core(0.0, wakes(12_000)).disturbance().is_none());
        assert!(core(0.0, wakes(100)).disturbance().is_some());
        // A few ticks too many in a short window are chance.
        let short = Core {
            window_us: 2e5,
            others_us: 40_000.0,
            delay_us: None,
        };
        assert!(short.disturbance().is_none());
        // Own work can exceed what the ticks saw.
        assert!(core(-20_000.0, None).disturbance().is_none());
    }
}
