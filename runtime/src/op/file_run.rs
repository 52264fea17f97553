//! The asking side of operations on files.

use std::fmt;
use std::future::Future;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::line::ANYONE;
use super::port::{give_up, poll_owned, submit};
use super::slot::{Slot, State};
use super::{Completion, FileOp, InFlight, Op, Yield};
use crate::budget;

/// The future of [`Slot::file`].
#[must_use = "futures do nothing unless polled"]
pub struct FileRun<'a> {
    slot: &'a Slot,
    op: Option<FileOp>,
    submitted: bool,
    number: u32,
}

impl Slot {
    /// Carries out an operation on a file: at once if it is said not to wait,
    /// else by the driver or on the blocking pool. Gives the result and the
    /// operation with its buffers back, also if the pool is full or the
    /// runtime has ended.
    ///
    /// Several operations on one file at a time take several ports. Dropping
    /// the future abandons the operation; a thread that has begun it goes on.
    pub fn file(&self, op: FileOp) -> FileRun<'_> {
        FileRun {
            slot: self,
            op: Some(op),
            submitted: false,
            number: ANYONE,
        }
    }
}

impl Future for FileRun<'_> {
    type Output = (Completion, FileOp);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Here, and not when it is taken: then the slot is locked.
        let over = this.op.is_none() && !this.submitted;
        assert!(!over, "polled after completion");
        if let Some(op) = &mut this.op {
            ready!(budget::poll_remaining(cx));
            if let Some(result) = op.try_inline(this.slot.descriptor().as_raw_fd()) {
                budget::spend();
                let op = this.op.take().expect("just used");
                return Poll::Ready((result.map(Yield::Done), op));
            }
        }
        let pooled = this.slot.descriptor().by_readiness();
        let op = || Op::File(this.op.take().expect("just looked"));
        let (number, submitted) = (&mut this.number, &mut this.submitted);
        let hand_over = |slot: &Slot| match pooled {
            true => to_pool(slot),
            false => submit(slot),
        };
        let take = |state: &mut State| state.take_result();
        let owned = poll_owned(this.slot, number, submitted, cx, op, hand_over, take);
        let (completion, landed) = match ready!(owned) {
            Ok(ended) => ended,
            Err(e) => {
                let op = this.op.take().expect("not submitted");
                return Poll::Ready((Err(e), op));
            }
        };
        let Op::File(op) = landed.into_op() else {
            unreachable!("a port gives back the operation it was given")
        };
        Poll::Ready((completion, op))
    }
}

/// Hands the operation in the slot to the blocking pool.
fn to_pool(slot: &Slot) {
    slot.lock().life.sent_to_nobody();
    let op = InFlight::new(slot);
    slot.descriptor().runtime().shared().blocking.carry_out(op);
}

impl Drop for FileRun<'_> {
    fn drop(&mut self) {
        give_up(self.slot, self.submitted, self.number, |_| ());
    }
}

impl fmt::Debug for FileRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRun")
            .field("op", &self.op)
            .field("submitted", &self.submitted)
            .finish()
    }
}
