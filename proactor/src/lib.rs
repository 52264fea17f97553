//! The io_uring driver of [isochrome](https://docs.rs/isochrome).
//!
//! A [`Proactor`] is a [`Driver`](isochrome_runtime::driver::Driver): it hands
//! the operations of one worker to the kernel, through a ring of the worker's
//! own, and delivers what the kernel completes. [`probe()`] says whether that
//! works on this machine, by doing it.
//!
//! # Roles
//!
//! | file | role |
//! |---|---|
//! | `setup` | which ring is built, and the error if none can be |
//! | `ring` | the ring: push, enter, pop |
//! | `faults` | in tests, a ring with faults |
//! | `buffers` | receive buffers that the kernel chooses from |
//! | `table` | operations in flight, by key |
//! | `operation` | one operation: its stages, its entry, what a completion means |
//! | `prompt` | sends that end with the enter that takes them |
//! | `family` | which sockets get multishot receives |
//! | `driver` | what the runtime calls: submit, cancel, park, shutdown |
//! | `completion` | what completions do |
//! | `wake` | what ends a sleep from outside |
//! | `probe` | the trial run |
//! | `trial` | whether sends can be prompt |
//!
//! # Rules
//!
//! 1. An operation stays in the table from `submit` to its last completion,
//!    the one without MORE. Nothing else ends it once it was pushed: no
//!    cancel, no failed enter, no drop of the driver. What the kernel does not
//!    give back in time at shutdown is leaked. (Of an abandoned send without a
//!    copy only the memory stays, once its result is known: the kernel has no
//!    more to do with the descriptor.)
//! 2. What goes into the kernel goes in `park`, by one enter a turn: `submit`
//!    and `cancel` only fill queues, and no queue forgets (the submission
//!    queue, behind it the backlog, and the cancels beside it).
//! 3. `park` sleeps only if nothing was delivered in this call, nothing can be
//!    delivered now, nothing waits for room in the submission queue, and the
//!    poll on the wake source is in the ring: pushed before the sleep or armed
//!    since an earlier one.
//! 4. Every poll or multishot is over when a completion comes without MORE,
//!    whatever its result: the wake poll is pushed again before the next
//!    sleep, a subscription by its asker.
//! 5. Wakers run in `park`, `shutdown` and drop (and in `submit` once shut
//!    down), with the table in order: an operation that is finished has left
//!    it.

mod buffers;
mod completion;
mod driver;
mod family;
#[cfg_attr(not(any(test, isochrome_faults)), path = "no_faults.rs")]
mod faults;
mod file;
mod operation;
mod probe;
mod prompt;
mod ring;
mod setup;
mod table;
#[cfg(test)]
mod tests;
mod trial;
mod wake;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

pub use probe::probe;
pub use setup::{SetupError, Step};

use buffers::Buffers;
use faults::Ring;
use isochrome_runtime::op::Kept;
use operation::{Apart, Operation};
use prompt::Prompt;
use table::{Key, Table};
use wake::Wake;

/// The io_uring driver of one worker.
///
/// It owns a ring of 256 entries (fewer if locked memory is short), 512
/// receive buffers of 16 KiB (8 MiB of address space, which take memory when
/// they are first used), and an eventfd.
///
/// Dropping it ends what is in flight, for at most 200 ms, as
/// [`shutdown`](isochrome_runtime::driver::Driver::shutdown) does.
pub struct Proactor {
    ring: Ring,
    buffers: Buffers,
    table: Table<Operation>,
    /// What few operations have, by the name of the operation.
    apart: BTreeMap<u64, Apart>,
    /// What abandoned sends without a copy left to the kernel, by the name of
    /// the operation, until its last completion.
    kept: BTreeMap<u64, Kept>,
    /// What ends with the enter that takes it.
    prompt: Prompt,
    wake: Arc<Wake>,
    /// The poll on `wake` is in the ring.
    wake_armed: bool,
    /// Pushed operations that a cancel has to be pushed for.
    cancels: VecDeque<Key>,
    /// Operations that found no room in the submission queue.
    backlog: VecDeque<Key>,
    /// Receives that found no buffer.
    starved: VecDeque<Key>,
    /// Operations that were cancelled out of the two queues above, or after
    /// their result was known.
    doomed: Vec<Key>,
    /// Completions of nothing that is known; ignored, and shown.
    strangers: Arc<AtomicU64>,
    /// How long a sleep waits for several completions.
    batch: Duration,
    closed: bool,
    leaked: usize,
}

/// How often a driver is tried that is refused for want of locked memory: the
/// kernel gives that of a closed ring, such as the probe's, back later.
const PATIENCE: usize = 3;

/// How much later. One wait was enough for the ring of a probe on Linux 6.18.
const LATE: Duration = Duration::from_millis(30);

impl Proactor {
    /// Makes a driver. To be called on the thread of the worker: the kernel
    /// lets no other use the ring.
    ///
    /// # Errors
    ///
    /// A [`SetupError`], wrapped; see [`probe()`], which tells beforehand.
    pub fn new() -> io::Result<Proactor> {
        let mut config = faults::config();
        for _ in 0..PATIENCE {
            match Proactor::with_config(&config) {
                Err(e) if e.errno() == Some(libc::ENOMEM) => thread::sleep(LATE),
                result => return Ok(result?),
            }
            // The ring left no room for the buffers: a smaller one may.
            config.entries /= 2;
            config.completions /= 2;
        }
        Ok(Proactor::with_config(&config)?)
    }

    /// For `time` after it went to sleep, the worker waits for 32 completions
    /// and not for the first alone: fewer and longer turns, which take less of
    /// the processor. Zero, which is the default: it does not.
    ///
    /// All that comes within that time may wait for the rest of it, wakes from
    /// other threads too; a sleep's own limit stands, and so do the sleeps of
    /// a host loop (once [`as_fd`](isochrome_runtime::driver::Driver::as_fd)
    /// was asked for). It needs Linux 6.12, and does nothing on an older one.
    pub fn batch(mut self, time: Duration) -> Proactor {
        self.batch = time;
        self
    }
}

impl fmt::Debug for Proactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proactor")
            .field("in_flight", &self.table.len())
            .field("kept", &self.kept.len())
            .field("backlog", &self.backlog.len())
            .field("starved", &self.starved.len())
            .field("buffers_lent", &self.buffers.lent())
            .field("strangers", &self.strangers)
            .field("leaked", &self.leaked)
            .finish_non_exhaustive()
    }
}
