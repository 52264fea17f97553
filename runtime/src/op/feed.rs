//! Sends that nobody waits for.
//!
//! Who sends and waits for the end runs twice, once only to hear that all went
//! well. What is *fed* is the slot's from the beginning: its end gives the
//! buffer up and wakes whoever is next, and nobody if there is none.
//!
//! Where the driver works by readiness nothing goes on by itself: what is fed is
//! sent as by [`Slot::send`], so that it is over when it is handed over.
//!
//! # Rules
//!
//! 1. What is fed takes its turn in the line as any send does. So one buffer at
//!    a time is under way, and what is sent afterwards, by whatever call of the
//!    port, comes behind it.
//! 2. From the submission on the buffer is the operation's. Until then it is the
//!    future's, and dropped with that.
//! 3. The end of what is fed makes the slot idle, or *failed*, if not all was
//!    sent. A failure is told to the next who takes a turn, flushes, or asks for
//!    the end of the direction, instead of what they asked for, and to nobody
//!    else. What is told by the slot alone (a flush) tells it out of turn.
//! 4. Who sends past the port, or ends the direction, sees to it that what is
//!    fed comes first ([`Slot::poll_flush`], [`Slot::end_after_fed`]).
//! 5. A flush takes a place in the line, and its turn is over at once. The poll
//!    form, which may be given up without a word, waits for any end instead: a
//!    place that nobody comes back to must not hold a turn.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::line::{ANYONE, For};
use super::port::leave;
use super::slot::{Slot, SlotGuard};
use super::{Interest, Op, attempt, ready};
use crate::budget;
use crate::buf::{IoBuf, Lent};

/// The future of [`Slot::feed`].
#[must_use = "futures do nothing unless polled"]
pub struct Feed<'a, B: IoBuf> {
    slot: &'a Slot,
    /// Not handed over yet (rule 2).
    buf: Option<B>,
    /// How much was sent, where the driver works by readiness.
    from: usize,
    number: u32,
}

// The buffer is never pinned: its bytes do not move with it.
impl<B: IoBuf> Unpin for Feed<'_, B> {}

/// The future of [`Slot::flush`].
#[must_use = "futures do nothing unless polled"]
pub struct Flush<'a> {
    slot: &'a Slot,
    number: u32,
}

impl Slot {
    /// Sends all of a buffer that is handed over for good, and is ready when
    /// that is under way: it is dropped at the end of the send, by the worker
    /// that hears of it. One buffer at a time is under way; turns are taken in
    /// the order of the first polls, with those who [`send`](Slot::send).
    ///
    /// Dropping the future while it waits for its turn drops the buffer, and
    /// nothing of it is sent. Where the driver works by readiness, it may be in
    /// the middle of it then.
    ///
    /// # Errors
    ///
    /// What the send of something fed before came to, if nobody was told yet:
    /// then the buffer is dropped. (Where the driver works by readiness, what
    /// its own send came to.)
    #[inline]
    pub fn feed<B: IoBuf>(&self, buf: B) -> Feed<'_, B> {
        Feed {
            slot: self,
            buf: Some(buf),
            from: 0,
            number: ANYONE,
        }
    }

    /// Waits for the end of what was fed. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What it came to, if nobody was told yet.
    pub fn flush(&self) -> Flush<'_> {
        Flush {
            slot: self,
            number: ANYONE,
        }
    }

    /// The poll form of [`flush`](Slot::flush), for a single user: only the last
    /// waker is kept.
    ///
    /// # Errors
    ///
    /// As for `flush`.
    #[inline]
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.descriptor().by_readiness() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.lock();
        if state.life.is_fed() {
            let old = state.wait(None, For::Any, cx.waker());
            drop(state);
            drop(old);
            hurry(self);
            return Poll::Pending;
        }
        // From an earlier call.
        let left = state.leave(ANYONE);
        tell(state, left)
    }

    /// What the send of something fed came to, if it is over, was not all well,
    /// and nobody was told yet.
    pub fn take_failure(&self) -> Option<io::Error> {
        if self.descriptor().by_readiness() {
            return None;
        }
        let mut state = self.lock();
        let failure = state.take_failure()?;
        let turn = state.turn();
        drop(state);
        if let Some(turn) = turn {
            turn.wake();
        }
        Some(failure)
    }

    /// Whether something fed is under way.
    #[inline]
    pub fn is_fed(&self) -> bool {
        !self.descriptor().by_readiness() && self.lock().life.is_fed()
    }

    /// Has the sending direction of the socket ended, by shutdown(2), when what
    /// is fed is sent. `false`: nothing is, so that the caller may do it.
    #[must_use]
    pub fn end_after_fed(&self) -> bool {
        let fed = !self.descriptor().by_readiness() && self.lock().life.end_after_fed();
        if fed {
            hurry(self);
        }
        fed
    }
}

/// Somebody waits for the end of what is fed.
fn hurry(slot: &Slot) {
    slot.descriptor().runtime().hurry(slot);
}

/// Tells of what failed, or that nothing did, to one who has left the line.
#[inline]
fn tell<T>(mut state: SlotGuard<'_>, left: T) -> Poll<io::Result<()>> {
    let failure = match state.life.has_failed() {
        true => state.take_failure(),
        false => None,
    };
    let turn = state.turn();
    drop(state);
    drop(left);
    if let Some(turn) = turn {
        turn.wake();
    }
    Poll::Ready(match failure {
        Some(e) => Err(e),
        None => Ok(()),
    })
}

/// For one who cannot submit now: waits for the turn, or is told that what was
/// fed has failed. (Where the driver works by readiness only files come here, and
/// nothing is fed.)
#[inline(never)]
pub(super) fn poll_turn(
    slot: &Slot,
    mut state: SlotGuard<'_>,
    number: &mut u32,
    cx: &mut Context<'_>,
) -> Poll<io::Error> {
    if state.is_turn_of(*number) {
        if let Some(e) = state.take_failure() {
            let left = state.leave_again(&mut Some(number));
            let turn = state.turn();
            drop(state);
            drop(left);
            if let Some(turn) = turn {
                turn.wake();
            }
            budget::spend();
            return Poll::Ready(e);
        }
    }
    let old = state.wait(Some(number), For::Turn, cx.waker());
    let fed = state.life.is_fed();
    drop(state);
    drop(old);
    if fed {
        hurry(slot);
    }
    Poll::Pending
}

impl<B: IoBuf> Future for Feed<'_, B> {
    type Output = io::Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.bytes().is_empty() {
            this.buf = None;
            return Poll::Ready(Ok(()));
        }
        match this.slot.descriptor().by_readiness() {
            true => this.poll_sent(cx),
            false => this.poll_handed_over(cx),
        }
    }
}

impl<B: IoBuf> Feed<'_, B> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        let buf = self.buf.as_ref();
        buf.expect("polled after completion").bytes()
    }

    /// Where the driver works by completion.
    #[inline]
    fn poll_handed_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(budget::poll_remaining(cx));
        let slot = self.slot;
        let mut state = slot.lock();
        if !(state.is_idle() && state.is_turn_of(self.number)) {
            return poll_turn(slot, state, &mut self.number, cx).map(Err);
        }
        let left = state.leave_again(&mut Some(&mut self.number));
        // They have come before there was anything to be hurried.
        let awaited = state.somebody_waits();
        let buf = self.buf.take().expect("looked at");
        state.start_fed(slot.here(), || Op::Send {
            data: Lent::new(buf),
            from: 0,
            all: true,
        });
        drop(state);
        drop(left);
        self.number = ANYONE;
        slot.descriptor().runtime().feed(slot);
        if awaited {
            hurry(slot);
        }
        budget::spend();
        Poll::Ready(Ok(()))
    }

    /// Where it works by readiness.
    #[inline]
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let bytes = self.buf.as_ref().map_or(&[][..], IoBuf::bytes);
        let (from, place) = (&mut self.from, Some(&mut self.number));
        let send = |fd| attempt::send(fd, bytes, from, true);
        let sent = ready::poll(self.slot, place, For::Turn, Interest::Write, cx, send);
        let result = match ready!(sent) {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(e) => Err(e),
        };
        self.buf = None;
        Poll::Ready(result)
    }
}

impl<B: IoBuf> Drop for Feed<'_, B> {
    #[inline]
    fn drop(&mut self) {
        leave(self.slot, self.number);
    }
}

impl Future for Flush<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.slot.descriptor().by_readiness() {
            return Poll::Ready(Ok(()));
        }
        let mut state = this.slot.lock();
        if state.life.is_fed() {
            let old = state.wait(Some(&mut this.number), For::Turn, cx.waker());
            drop(state);
            drop(old);
            hurry(this.slot);
            return Poll::Pending;
        }
        let left = state.leave_again(&mut Some(&mut this.number));
        this.number = ANYONE;
        tell(state, left)
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        leave(self.slot, self.number);
    }
}

impl<B: IoBuf> fmt::Debug for Feed<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("handed_over", &self.buf.is_none())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Flush<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flush").finish_non_exhaustive()
    }
}
