//! Receiving without taking, and without waiting.

use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};

use super::attempt::{self, Attempt};
use super::line::{For, Place};
use super::port::poll_take;
use super::slot::{Slot, State, Taken};
use super::{Interest, Op, Waiter, Yield, ready};
use crate::budget;

impl Waiter<'_> {
    /// As [`poll_recv`](Waiter::poll_recv), but what is received stays, and is
    /// what the next receive gives first. Where the driver works by completion
    /// it is looked at in the port, where it waits to be taken.
    ///
    /// # Errors
    ///
    /// What the receive answers; an error is told once.
    pub fn poll_peek(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_peek(self.slot, Some(&mut self.number), cx, buf)
    }
}

impl Slot {
    /// As [`Waiter::poll_peek`], for a single user: only the last waker is
    /// kept.
    ///
    /// # Errors
    ///
    /// As for `Waiter::poll_peek`.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_peek(self, None, cx, buf)
    }

    /// Receives what is there at this moment, if anything is, into borrowed
    /// memory.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there: where the
    /// driver works by completion and a receive is in flight, what has arrived
    /// is there when the driver has had its turn. Else what the receive
    /// answers.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let slot = self;
        if slot.descriptor().runtime().shared().is_closing() {
            return Err(ready::ended());
        }
        let fd = slot.descriptor().as_raw_fd();
        let mut state = slot.lock();
        while state.has_completions() && state.is_anyones() {
            let taken = state.take_into(buf);
            let done = state.take_finished();
            match taken {
                Some(Taken::Part(n)) => return Ok(n),
                Some(Taken::Whole(Ok(Yield::Buf(lease)))) => {
                    drop(state);
                    drop(done);
                    buf[..lease.len()].copy_from_slice(&lease);
                    return Ok(lease.len());
                }
                Some(Taken::Whole(Err(e))) => return Err(e),
                // Of another operation, that was given up.
                Some(Taken::Whole(Ok(_))) | None => {}
            }
        }
        let tried = if slot.descriptor().by_readiness() {
            if !state.is_for(Interest::Read) {
                return Err(would_block());
            }
            let tcp = slot.descriptor().is_tcp();
            state.try_once(tcp, || attempt::recv_into(fd, buf))
        } else if state.is_idle() {
            // Under the lock, so that no receive is submitted meanwhile.
            match attempt::recv_into(fd, buf) {
                Attempt::Done(result, _) => Some(result),
                Attempt::Progress(_) | Attempt::Blocked => None,
            }
        } else {
            None
        };
        tried.unwrap_or_else(|| Err(would_block()))
    }

    /// Puts back an error that [`try_recv`](Slot::try_recv) answered, for the
    /// next who receives: sockets tell of it once.
    pub fn put_error_back(&self, error: io::Error) {
        let mut state = self.lock();
        state.push(Err(error));
        let crowd = state.crowd();
        drop(state);
        crowd.wake();
    }
}

fn would_block() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

fn poll_peek(
    slot: &Slot,
    mut place: Place<'_>,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    if slot.descriptor().by_readiness() {
        return ready::poll(slot, place, For::Any, Interest::Read, cx, |fd| {
            attempt::peek_into(fd, buf)
        });
    }
    loop {
        ready!(budget::poll_remaining(cx));
        let look = |state: &mut State| state.peek_into(buf);
        let place = place.as_deref_mut();
        match ready!(poll_take(slot, place, cx, || Op::Recv, look)) {
            Taken::Part(n) => return Poll::Ready(Ok(n)),
            Taken::Whole(Err(e)) => return Poll::Ready(Err(e)),
            // Of another operation, that was given up.
            Taken::Whole(Ok(_)) => {}
        }
    }
}
