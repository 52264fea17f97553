//! Bytes to send, and to recognise wherever in a stream they arrive.

use std::sync::OnceLock;

/// A prime, so that no buffer size hides a shift.
const PERIOD: usize = 65_521;

fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let once: Vec<u8> = (0..PERIOD).map(|_| random.next() as u8).collect();
        [once.clone(), once].concat()
    })
}

/// The bytes of the stream from `offset` on.
pub(crate) fn pattern(offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let from = (offset + bytes.len()) % PERIOD;
        let n = PERIOD.min(len - bytes.len());
        bytes.extend_from_slice(&block()[from..from + n]);
    }
    bytes
}

/// Asserts that these are the bytes from `offset` on.
#[track_caller]
pub(crate) fn check(mut offset: usize, bytes: &[u8]) {
    for chunk in bytes.chunks(PERIOD) {
        let from = offset % PERIOD;
        assert!(
            *chunk == block()[from..from + chunk.len()],
            "wrong bytes between {offset} and {}",
            offset + chunk.len()
        );
        offset += chunk.len();
    }
}

/// xorshift64*, seeded so that a run can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From `ISOCHROME_SEED`, or the clock; printed, for a failure's sake.
    pub(crate) fn seeded() -> Random {
        let given = std::env::var("ISOCHROME_SEED").ok();
        let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
            now.map_or(1, |now| now.as_nanos() as u64) | 1
        });
        println!("ISOCHROME_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
