//! The ring: its flags, and one enter per turn.

use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, squeue};

/// As many as may be submitted in one enter; with more to submit in one turn
/// there is one enter more.
const ENTRIES: u32 = 1024;

/// Completions that one turn may find. An overflow would not be lost, but ends
/// the multishots that it hits.
const COMPLETIONS: u32 = 4096;

/// Asks for a flag.
type Flag = fn(&mut Builder);

/// The oldest first, so that a kernel that does not know one is asked again
/// without the newest. DEFER_TASKRUN needs SINGLE_ISSUER.
const FLAGS: [Flag; 5] = [
    |b| {
        b.setup_cqsize(COMPLETIONS);
    },
    |b| {
        b.setup_submit_all();
    },
    |b| {
        b.setup_taskrun_flag();
    },
    |b| {
        b.setup_single_issuer().setup_defer_taskrun();
    },
    |b| {
        b.setup_no_sqarray();
    },
];

pub struct Ring(IoUring);

impl Ring {
    pub fn new() -> io::Result<Ring> {
        let mut known = FLAGS.len();
        loop {
            let mut builder = IoUring::builder();
            // Without DEFER_TASKRUN the flag needs COOP_TASKRUN beside it.
            if known == 3 {
                builder.setup_coop_taskrun();
            }
            for flag in &FLAGS[..known] {
                flag(&mut builder);
            }
            match builder.build(ENTRIES) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && known > 0 => known -= 1,
                built => return built.map(Ring),
            }
        }
    }

    pub fn get(&self) -> &IoUring {
        &self.0
    }

    /// Queues an operation.
    ///
    /// # Safety
    ///
    /// The memory that it refers to must stay until its last completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: as the caller promises.
        while unsafe { self.0.submission().push(entry) }.is_err() {
            match self.0.submit() {
                Err(e) if !is_passing(&e) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Submits what was queued.
    pub fn submit(&mut self) -> io::Result<()> {
        match self.0.submit() {
            Err(e) if !is_passing(&e) => Err(e),
            _ => Ok(()),
        }
    }

    /// Submits what was queued and waits for a completion, for `limit` at the
    /// most.
    pub fn enter(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let answer = match limit {
            Some(limit) => {
                let limit = Timespec::from(limit);
                let args = SubmitArgs::new().timespec(&limit);
                self.0.submitter().submit_with_args(1, &args)
            }
            None => self.0.submit_and_wait(1),
        };
        match answer {
            Err(e) if !is_passing(&e) => Err(e),
            _ => Ok(()),
        }
    }

    /// Whether the kernel has taken what was queued, and keeps no completion
    /// back.
    pub fn has_taken_all(&mut self) -> bool {
        let queue = self.0.submission();
        queue.is_empty() && !queue.cq_overflow()
    }

    pub fn completions(&mut self) -> cqueue::CompletionQueue<'_> {
        self.0.completion()
    }
}

/// Time is up, or completions that are there are in the way.
fn is_passing(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME)
    )
}
