//! One io_uring, reduced to what the driver does with it.
//!
//! # Rules
//!
//! 1. The ring is entered by the thread that built it, and by no other: the
//!    kernel refuses everyone else (EEXIST).
//! 2. Entering always asks for events (GETEVENTS): completions are made only
//!    then, and what overflowed comes back only then.
//! 3. What [`Ring::push`] took is the kernel's, whatever a later enter
//!    answers: it stays in the queue until an enter takes it.
//! 4. An enter that waits for several completions has a limit, however far:
//!    one without ends when its time for several is up, with nothing to show
//!    for it, and an idle worker would run in circles (seen on 6.18).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

use crate::setup::{Config, SetupError, negotiate};
use crate::trial::prompt_sends_work;

pub(crate) struct Ring {
    uring: IoUring,
    /// GETEVENTS, and what else goes with every enter.
    flags: EnterFlags,
    /// An enter can wait for several completions for some time, and then for
    /// one: Linux 6.12.
    batches: bool,
    /// Sends can be what `prompt` makes them.
    prompt: bool,
}

/// Completions that a sleep waits for that has time for several. Of 8, 16 and
/// 32 none was better beyond the spread; the most, so that the time is what is
/// chosen, by the user.
pub(crate) const SEVERAL: u32 = 32;

/// How an enter went. Errors that a later enter may not meet are in here.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// As asked, or interrupted: look at the completions.
    Done,
    /// The kernel took nothing, for want of memory or of room for completions.
    /// Reap, and come again.
    Busy,
}

/// Longest sleep in one enter. A deadline beyond what the kernel can count is
/// as good as none, and coming back early does no harm.
const LONGEST: Duration = Duration::from_secs(1_000_000);

impl Ring {
    pub(crate) fn new(config: &Config) -> Result<Ring, SetupError> {
        let uring = negotiate(config)?;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if uring.params().is_feature_no_iowait() {
            // The wake poll is always pending: an idle worker would show as
            // one that waits for a disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let batches = uring.params().is_feature_min_timeout();
        let mut ring = Ring {
            uring,
            flags,
            batches,
            prompt: false,
        };
        ring.prompt = prompt_sends_work(&mut ring);
        if ring.queued() > 0 {
            // Of a trial that was refused: its descriptors are somebody else's
            // soon.
            ring.uring = negotiate(config)?;
        }
        Ok(ring)
    }

    /// Whether a sleep can wait for several completions.
    #[cfg(test)]
    pub(crate) fn batches(&self) -> bool {
        self.batches
    }

    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    /// Makes the kernel write to this eventfd when there are completions, or
    /// work that makes them.
    pub(crate) fn register_bell(&self, bell: RawFd) -> io::Result<()> {
        self.submitter().register_eventfd(bell)
    }

    /// Queues an entry; `false` if the queue is full. Enters nothing.
    ///
    /// # Safety
    ///
    /// What the entry points to stays valid until the last completion with its
    /// user data.
    #[inline]
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: handed on from the caller.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// How many entries the kernel has not taken yet.
    pub(crate) fn queued(&mut self) -> usize {
        self.uring.submission().len()
    }

    /// How many completions can be popped.
    pub(crate) fn ready(&mut self) -> usize {
        self.uring.completion().len()
    }

    /// Whether some can.
    pub(crate) fn has_ready(&self) -> bool {
        // SAFETY: as in `due`, for the other queue.
        !unsafe { self.uring.completion_shared() }.is_empty()
    }

    /// Pops as many completions as are there and as there is room for.
    #[inline]
    pub(crate) fn pop<'a>(
        &mut self,
        into: &'a mut [MaybeUninit<cqueue::Entry>],
    ) -> &'a [cqueue::Entry] {
        self.uring.completion().fill(into)
    }

    /// Whether an enter would do something: take entries, make completions
    /// that are due, or bring back those that overflowed.
    pub(crate) fn due(&self) -> bool {
        // SAFETY: every other view of the queue borrows this value mutably, so
        // there is none now.
        let queue = unsafe { self.uring.submission_shared() };
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether sends can end with the enter that takes them.
    pub(crate) fn is_prompt(&self) -> bool {
        self.prompt
    }

    /// Whether the last enter has taken all entries, and what they completed
    /// with at once can be popped.
    pub(crate) fn has_taken_all(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.is_empty() && !queue.cq_overflow()
    }

    /// Hands over what was queued, without sleeping.
    pub(crate) fn submit(&mut self) -> io::Result<Entered> {
        let queued = self.queued();
        self.enter(queued as u32, 0, None)
    }

    /// Hands over what was queued and sleeps until there is a completion or
    /// `limit` (`None`: for ever) has passed.
    ///
    /// For `batch` it waits for [`SEVERAL`] completions, if the kernel can do
    /// that. Zero: for one.
    pub(crate) fn submit_and_sleep(
        &mut self,
        limit: Option<Duration>,
        batch: Duration,
    ) -> io::Result<Entered> {
        let queued = self.queued() as u32;
        // Rounded down: no sleep is longer for it.
        let batch = limit.map_or(batch, |limit| batch.min(limit)).as_micros();
        if batch == 0 || !self.batches {
            return self.enter(queued, 1, limit);
        }
        let time = timespec(limit.unwrap_or(LONGEST));
        let args = SubmitArgs::new()
            .timespec(&time)
            .min_wait_usec(u32::try_from(batch).unwrap_or(u32::MAX));
        self.enter_with(queued, SEVERAL, &args)
    }

    /// Sleeps as above, for one, but hands nothing over.
    pub(crate) fn sleep(&mut self, limit: Duration) -> io::Result<Entered> {
        self.enter(0, 1, Some(limit))
    }

    /// Hands `submit` entries over, and sleeps for `wait` completions.
    pub(crate) fn enter(
        &mut self,
        submit: u32,
        wait: u32,
        limit: Option<Duration>,
    ) -> io::Result<Entered> {
        let time = limit.map(timespec);
        let mut args = SubmitArgs::new();
        if let Some(time) = &time {
            args = args.timespec(time);
        }
        self.enter_with(submit, wait, &args)
    }

    fn enter_with(&mut self, submit: u32, wait: u32, args: &SubmitArgs) -> io::Result<Entered> {
        let (submitter, flags) = (self.uring.submitter(), self.flags.bits());
        // SAFETY: with EXT_ARG the argument is what `SubmitArgs` is, and it
        // borrows the time that it points to.
        let answer = unsafe { submitter.enter(submit, wait, flags, Some(args)) };
        answer.map_or_else(answered, |_| Ok(Entered::Done))
    }
}

fn timespec(limit: Duration) -> Timespec {
    Timespec::from(limit.min(LONGEST))
}

/// What an enter that failed says.
pub(crate) fn answered(error: io::Error) -> io::Result<Entered> {
    match error.raw_os_error() {
        // The time was up, a signal came, or (EBADR) the kernel had no memory
        // to keep a completion that overflowed: it says so once.
        Some(libc::ETIME | libc::EINTR | libc::EBADR) => Ok(Entered::Done),
        Some(libc::EAGAIN | libc::EBUSY) => Ok(Entered::Busy),
        _ => Err(error),
    }
}
