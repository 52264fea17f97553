//! Medians, spreads, and which rounds count.
//!
//! Two figures from two runs are no ratio: machines drift. So a contestant is
//! divided by the base *of the same round*, and the median and the spread are
//! those of these ratios.
use load::Report;
use serde::{Deserialize, Serialize};

/// The middle of some figures, and where four fifths of them lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    /// 10% of the figures are below.
    pub low: f64,
    /// 10% are above.
    pub high: f64,
    pub n: usize,
}

impl Spread {
    /// `None` of no figures.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|f| f.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return None;
        }
        Some(Self {
            median: quantile(&sorted, 0.5),
            low: quantile(&sorted, 0.1),
            high: quantile(&sorted, 0.9),
            n: sorted.len(),
        })
    }
}

/// Of sorted figures, with linear interpolation (type 7 of Hyndman and Fan,
/// "Sample Quantiles in Statistical Packages", 1996: what R and NumPy do).
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - at.floor())
}

/// Of figures per round (`None`: the round does not count for it), the ratios
/// of the rounds in which both count.
pub fn ratios(figures: &[Option<f64>], base: &[Option<f64>]) -> Vec<f64> {
    let both = figures.iter().zip(base).filter_map(|(f, b)| (*f).zip(*b));
    both.filter(|(_, b)| *b > 0.0).map(|(f, b)| f / b).collect()
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

/// Of a window, taken by others: more is a disturbance. Below what a ratio
/// claims to know (5%), as only a part of what others take changes our bill.
pub const SHARE: f64 = 0.04;
/// `/proc/stat` counts ticks of 10 ms; less than three is chance.
pub const LEAST_US: f64 = 30_000.0;
/// What a wake may take without anybody having taken the core: an idle virtual
/// CPU first has to be woken by the host.
pub const WAKE_US: f64 = 50.0;

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
    }

    #[test]
    fn a_spread_holds_four_fifths() {
        let s = Spread::of((0..=100).map(f64::from));
        assert_eq!(
            s,
            Some(Spread {
                median: 50.0,
                low: 10.0,
                high: 90.0,
                n: 101
            })
        );
    }

    #[test]
    fn one_wild_round_moves_no_median() {
        let calm = Spread::of([1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.0]);
        let wild = Spread::of([1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 9.0]);
        assert_eq!(calm.map(|s| s.median), wild.map(|s| s.median));
    }

    #[test]
    fn ratios_pair_within_a_round_so_drift_cancels() {
        // The machine slows down threefold; the ratio stays.
        let base = [Some(1.0), Some(2.0), Some(3.0)];
        let figures = [Some(2.0), Some(4.0), Some(6.0)];
        assert_eq!(ratios(&figures, &base), [2.0, 2.0, 2.0]);
        // The ratio of medians of unpaired rounds would say 4/1.
        assert_eq!(ratios(&[None, Some(4.0)], &[Some(1.0), None]), [0.0; 0]);
    }

    #[test]
    fn a_round_counts_only_where_both_do() {
        let base = [Some(1.0), None, Some(1.0), Some(0.0)];
        assert_eq!(
            ratios(&[Some(2.0), Some(9.0), None, Some(1.0)], &base),
            [2.0]
        );
    }

    #[test]
    fn a_core_that_others_took_is_a_disturbance() {
        let core = |others_us, delay_us| Core {
            window_us: 1e6,
            others_us,
            delay_us,
        };
        assert!(core(10_000.0, None).disturbance().is_none());
        assert!(core(39_000.0, None).disturbance().is_none());
        assert!(core(41_000.0, None).disturbance().is_some());
        // Wakes of an idle core are not a disturbance, waiting in line is.
        assert!(core(0.0, Some((100_000.0, 5_000))).disturbance().is_none());
        assert!(core(0.0, Some((100_000.0, 100))).disturbance().is_some());
        // Another core's tick too many in a short window is chance.
        let short = Core {
            window_us: 2e5,
            others_us: 20_000.0,
            delay_us: None,
        };
        assert!(short.disturbance().is_none());
        // Own work can exceed what the ticks saw.
        assert!(core(-20_000.0, None).disturbance().is_none());
    }
}
