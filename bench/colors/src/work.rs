//! Processor time of a known length.

use std::hint::black_box;
use std::time::Instant;

/// Steps of a dependent chain, and how many take a microsecond here.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    steps_per_us: f64,
}

impl Work {
    /// Measures the chain: the fastest of many goes, which nobody disturbed.
    pub fn calibrated() -> Work {
        const STEPS: u64 = 100_000;
        let fastest = (0..50)
            .map(|_| {
                let start = Instant::now();
                steps(STEPS);
                start.elapsed().as_nanos() as f64
            })
            .fold(f64::INFINITY, f64::min);
        Work {
            steps_per_us: STEPS as f64 * 1e3 / fastest,
        }
    }

    /// Keeps the processor busy for so many nanoseconds.
    pub fn spend(self, ns: u64) {
        steps((self.steps_per_us * ns as f64 / 1e3) as u64);
    }
}

fn steps(count: u64) {
    let mut x = black_box(1u64);
    for _ in 0..count {
        // Knuth's MMIX generator: each step needs the one before.
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
    }
    black_box(x);
}
