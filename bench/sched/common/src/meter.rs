//! The measured stretch of a repetition.

use std::time::{Duration, Instant};

use crate::alloc::{Counts, counts};

/// What one repetition cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// How many operations it was.
    pub ops: u64,
    /// Wall time.
    pub wall: Duration,
    /// CPU time of the process, user and system.
    pub cpu: Duration,
    /// What the allocator counted, if it did.
    pub counts: Counts,
}

/// A stretch that is being measured.
#[derive(Debug)]
pub struct Meter {
    wall: Instant,
    cpu: Duration,
    counts: Counts,
}

impl Meter {
    /// From now on.
    pub fn start() -> Meter {
        let counts = counts();
        let cpu = cpu_time();
        Meter {
            wall: Instant::now(),
            cpu,
            counts,
        }
    }

    /// Up to now, and that was so many operations.
    pub fn stop(self, ops: u64) -> Sample {
        let wall = self.wall.elapsed();
        let cpu = cpu_time() - self.cpu;
        let now = counts();
        Sample {
            ops,
            wall,
            cpu,
            counts: Counts {
                calls: now.calls - self.counts.calls,
                bytes: now.bytes - self.counts.bytes,
                live_calls: now.live_calls - self.counts.live_calls,
                live_bytes: now.live_bytes - self.counts.live_bytes,
            },
        }
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec`, which is ours.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(answer, 0, "the clock of the process cannot fail");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
