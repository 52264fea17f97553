//! The values, and what they cost.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How many words of a value are written out: 64 digits.
const WORDS: u64 = 4;

/// For how many mixes the machine's speed is measured: milliseconds.
const SAMPLE: u32 = 1 << 20;

/// The work that a value takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    mixes: u64,
}

impl Work {
    /// About so much time of this machine's, measured now; afterwards it is the
    /// same amount of work each time.
    pub(crate) fn of(cost: Duration) -> Work {
        // The shortest is the one that nobody disturbed.
        let sample = (0..3).map(|_| {
            let begun = Instant::now();
            black_box(burn(SAMPLE.into()));
            begun.elapsed()
        });
        let sample = sample.min().expect("three of them");
        let mixes = f64::from(SAMPLE) * cost.as_secs_f64() / sample.as_secs_f64();
        Work {
            mixes: mixes as u64,
        }
    }

    /// The value of a key: the same on every machine.
    pub(crate) fn value(self, key: u64) -> Bytes {
        black_box(burn(self.mixes));
        let mut text = format!("{key} ");
        for word in 0..WORDS {
            let digits = mix(key.wrapping_mul(WORDS).wrapping_add(word));
            write!(text, "{digits:016x}").expect("a string has room");
        }
        text.push('\n');
        text.into()
    }
}

/// Each mix waits for the one before.
fn burn(mixes: u64) -> u64 {
    (0..mixes).fold(0, |word, i| mix(word ^ i))
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_the_key_alone() {
        let cheap = Work::of(Duration::ZERO);
        let dear = Work::of(Duration::from_micros(50));
        assert_eq!(cheap.value(7), dear.value(7));
        assert_ne!(cheap.value(7)[2..], cheap.value(8)[2..]);
        // SplitMix64 of seed 0.
        let zero = "0 e220a8397b1dcdaf";
        assert!(cheap.value(0).starts_with(zero.as_bytes()));
        assert_eq!(cheap.value(0).len(), 2 + 64 + 1);
    }

    #[test]
    fn more_cost_is_more_work() {
        let (little, much) = (Duration::from_micros(10), Duration::from_millis(10));
        assert!(Work::of(little).mixes < Work::of(much).mixes);
    }
}
