//! Latencies, gathered from all connections.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Recorders beside each other. A histogram takes about 200 KiB, too much for
/// each of thousands of connections; a handful of them keeps the workers out
/// of each other's way.
const SHARDS: usize = 16;

/// Nanoseconds; an hour is as good as for ever.
const LONGEST: u64 = 3_600_000_000_000;

/// Three digits: quantiles are good to 0.1%.
const DIGITS: u8 = 3;

/// The latency of every round trip.
#[derive(Debug)]
pub(crate) struct Figures {
    shards: Vec<Mutex<Histogram<u64>>>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("constant bounds are fine")
}

impl Figures {
    pub(crate) fn new() -> Figures {
        Figures {
            shards: (0..SHARDS).map(|_| Mutex::new(histogram())).collect(),
        }
    }

    /// Counts a round trip of connection `number`.
    pub(crate) fn record(&self, number: usize, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST);
        let shard = &self.shards[number % SHARDS];
        shard.lock().unwrap().saturating_record(nanos);
    }

    /// Round trips so far.
    pub(crate) fn round_trips(&self) -> u64 {
        self.shards.iter().map(|s| s.lock().unwrap().len()).sum()
    }

    /// All of them together.
    pub(crate) fn latencies(&self) -> Latencies {
        let mut all = histogram();
        for shard in &self.shards {
            all.add(&*shard.lock().unwrap())
                .expect("all have the same bounds");
        }
        Latencies(all)
    }
}

/// Prints the quantiles.
pub(crate) struct Latencies(Histogram<u64>);

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            let value = Duration::from_nanos(self.0.value_at_quantile(quantile));
            write!(f, "{name}={value:.1?} ")?;
        }
        write!(f, "max={:.1?}", Duration::from_nanos(self.0.max()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let figures = Figures::new();
        for number in 0..100 {
            figures.record(number, Duration::from_micros(number as u64 + 1));
        }
        assert_eq!(figures.round_trips(), 100);
        let text = figures.latencies().to_string();
        assert!(text.starts_with("p50=50.0µs "), "{text}");
        assert!(text.contains(" max=100."), "{text}");
    }
}
