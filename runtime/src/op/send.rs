//! Sending, without a layer in between: what nearly every round trip does.
//!
//! The buffer of a send in flight is not moved into the slot and back, as what
//! other operations lend is: the future keeps it, for as long as there is a
//! future.
//!
//! # Rules
//!
//! 1. From the submission to the end of the operation, whoever keeps the buffer
//!    neither drops it nor borrows it mutably nor gives it away. By the contract
//!    of [`IoBuf`] it may move meanwhile, with the future.
//! 2. A future that is dropped while the operation goes on leaves the buffer to
//!    the operation, under the lock of the slot. One that is forgotten has
//!    forgotten the buffer too, so that its bytes stay for ever.
//! 3. Nobody takes the bytes out of the operation: it does not own them, so that
//!    they may be gone when it has ended (rule 7 in `driver`).

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::line::{ANYONE, For};
use super::port::{give_up, poll_owned, submit};
use super::slot::{Slot, State};
use super::{Interest, Op, attempt, ready};
use crate::buf::{IoBuf, Lent};

/// The future of [`Slot::send`].
#[must_use = "futures do nothing unless polled"]
pub struct SendBuf<'a, B: IoBuf> {
    slot: &'a Slot,
    /// Lent to the operation while a driver that works by completion has it
    /// (rule 1).
    buf: Option<B>,
    /// How much was sent, where the driver works by readiness.
    from: usize,
    number: u32,
    all: bool,
    zero_copy: bool,
    submitted: bool,
}

// The buffer is never pinned: its bytes do not move with it.
impl<B: IoBuf> Unpin for SendBuf<'_, B> {}

impl Slot {
    /// Sends from a buffer that is handed over, and hands it back with the
    /// number of bytes sent: of some of them, or of `all` but for an error.
    /// Nothing is copied in user space. Senders take turns in the order of
    /// their first polls, and nobody's bytes come between those of one.
    ///
    /// Dropping the future leaves open whether any of it was sent.
    ///
    /// # Errors
    ///
    /// What send(2) answers. A broken pipe is an error, never a signal.
    #[inline]
    pub fn send<B: IoBuf>(&self, buf: B, all: bool) -> SendBuf<'_, B> {
        SendBuf {
            slot: self,
            buf: Some(buf),
            from: 0,
            number: ANYONE,
            all,
            zero_copy: false,
            submitted: false,
        }
    }

    /// As [`send`](Slot::send) of all bytes, without a copy into the kernel
    /// where the driver can do that ([`Op::SendZc`]). The buffer comes back when
    /// the kernel is done with it, which is when the other end has the bytes,
    /// and the next sender waits for that.
    ///
    /// # Errors
    ///
    /// As for `send`.
    pub fn send_zc<B: IoBuf>(&self, buf: B) -> SendBuf<'_, B> {
        let mut sending = self.send(buf, true);
        sending.zero_copy = true;
        sending
    }
}

impl<B: IoBuf> Future for SendBuf<'_, B> {
    type Output = (io::Result<usize>, B);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let result = if this.slot.descriptor().by_readiness() {
            let bytes = this.buf.as_ref().map_or(&[][..], IoBuf::bytes);
            if bytes.is_empty() {
                Ok(0)
            } else {
                let (from, all) = (&mut this.from, this.all);
                let send = |fd| attempt::send(fd, bytes, from, all);
                let place = Some(&mut this.number);
                ready!(ready::poll(
                    this.slot,
                    place,
                    For::Turn,
                    Interest::Write,
                    cx,
                    send
                ))
            }
        } else {
            ready!(this.poll_lent(cx))
        };
        let buf = this.buf.take().expect("polled after completion");
        Poll::Ready((result, buf))
    }
}

impl<B: IoBuf> SendBuf<'_, B> {
    /// Where the driver works by completion.
    #[inline]
    fn poll_lent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let buf = self.buf.as_ref().expect("polled after completion");
        if !self.submitted && buf.bytes().is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (from, all, zero_copy) = (0, self.all, self.zero_copy);
        let op = || {
            // SAFETY: rules 1 to 3: `poll` gives it away when the operation
            // has ended, and `drop` leaves it to one that has not.
            let data = unsafe { Lent::kept(buf) };
            match zero_copy {
                true => Op::SendZc { data, from },
                false => Op::Send { data, from, all },
            }
        };
        let (number, submitted) = (&mut self.number, &mut self.submitted);
        let take = |state: &mut State| state.take_sent();
        let owned = poll_owned(self.slot, number, submitted, cx, op, submit, take);
        owned.map(|ended| ended.and_then(|(result, _sent)| result))
    }
}

impl<B: IoBuf> Drop for SendBuf<'_, B> {
    #[inline]
    fn drop(&mut self) {
        let buf = &mut self.buf;
        give_up(self.slot, self.submitted, self.number, |op| {
            if let (Op::Send { data, .. } | Op::SendZc { data, .. }, Some(buf)) = (op, buf.take()) {
                data.adopt(buf);
            }
        });
    }
}

impl<B: IoBuf> fmt::Debug for SendBuf<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBuf")
            .field("all", &self.all)
            .field("submitted", &self.submitted)
            .finish_non_exhaustive()
    }
}
