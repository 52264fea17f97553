//! System calls of the asking side's own, on every driver: tried at once, and
//! tried again when the descriptor is ready.
//!
//! For what a ring does no better than a system call does (datagrams), for
//! borrowed memory, and for descriptors of the user's own. Nothing is with the
//! kernel while one waits but the question whether it is ready, so giving up
//! loses nothing, and who waits owns no buffer. That question is asked once in a
//! socket's life ([`Op::Edges`]), also of a ring.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use super::follow::waits_elsewhere;
use super::line::{ANYONE, For, Place};
use super::port::leave;
use super::slot::Slot;
use super::{Interest, Op, Waiter, ready, sys};
use crate::budget;

impl Waiter<'_> {
    /// Carries out a system call of the caller's own: `call` is made until it
    /// answers anything but [`WouldBlock`](io::ErrorKind::WouldBlock) or
    /// [`Interrupted`](io::ErrorKind::Interrupted), and before it is made
    /// again after the former, the descriptor is waited for.
    ///
    /// `call` must not block: sockets are in blocking mode where the driver
    /// works by completion, so it takes MSG_DONTWAIT or its like. Nothing is
    /// locked while it runs. A port that is used so is used for nothing else,
    /// and for one direction.
    ///
    /// Nothing is in flight but a wait: dropping the waiter loses nothing.
    ///
    /// # Errors
    ///
    /// What `call` answers, or the wait; ECANCELED once the runtime has ended.
    pub fn poll_io<T>(
        &mut self,
        cx: &mut Context<'_>,
        interest: Interest,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        poll_io(self.slot, Some(&mut self.number), cx, interest, call)
    }

    /// Waits until the direction is ready, as poll(2) sees it at that moment:
    /// [`poll_io`](Waiter::poll_io) of that call.
    ///
    /// # Errors
    ///
    /// What poll(2) answers, or else as for `poll_io`.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        self.poll_io(cx, interest, |fd| is_ready(fd, interest))
    }
}

/// An edge alone would not do: the user may have drained the descriptor since,
/// or not quite, with system calls that nobody here saw. poll(2) costs what an
/// EAGAIN does.
fn is_ready(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
    match sys::poll(fd.as_raw_fd(), interest)? {
        true => Ok(()),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Slot {
    /// As [`Waiter::poll_io`], for a single user: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `Waiter::poll_io`.
    pub fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        poll_io(self, None, cx, interest, call)
    }

    /// As [`Waiter::poll_ready`], for a single user: only the last waker is
    /// kept.
    ///
    /// # Errors
    ///
    /// As for `Waiter::poll_ready`.
    pub fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        self.poll_io(cx, interest, |fd| is_ready(fd, interest))
    }
}

fn poll_io<T>(
    slot: &Slot,
    mut place: Place<'_>,
    cx: &mut Context<'_>,
    interest: Interest,
    mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(budget::poll_remaining(cx));
        if slot.descriptor().runtime().shared().is_closing() {
            return Poll::Ready(Err(ready::ended()));
        }
        let word = ready!(poll_word(slot, &mut place, interest, cx))?;
        budget::spend();
        match call(slot.descriptor().as_fd()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => word.was_wrong(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => {
                if let Some(number) = place {
                    leave(slot, std::mem::replace(number, ANYONE));
                }
                return Poll::Ready(result);
            }
        }
    }
}

/// The word that the descriptor is ready, taken out of the slot for one attempt outside of its lock (rule 5 in
/// `op::readiness`).
struct Word<'a>(&'a Slot);

impl Word<'_> {
    /// The attempt met EAGAIN: only an edge brings the next word.
    fn was_wrong(self) {
        std::mem::forget(self);
    }
}

impl Drop for Word<'_> {
    /// Puts it back, also if the attempt panicked, and tells those who came
    /// meanwhile and found it gone.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.readiness.event(false);
        let crowd = state.crowd();
        drop(state);
        crowd.wake();
    }
}

/// Takes the word, or waits for it.
fn poll_word<'a>(
    slot: &'a Slot,
    place: &mut Place<'_>,
    interest: Interest,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Word<'a>>> {
    let mut state = slot.lock();
    loop {
        // The subscription ended: it could not be made, or the driver did.
        if let Some(Err(e)) = state.pop() {
            return Poll::Ready(Err(e));
        }
        if !state.is_for(interest) {
            return Poll::Ready(Err(two_directions()));
        }
        if state.readiness.take() {
            return Poll::Ready(Ok(Word(slot)));
        }
        if !state.is_idle() {
            let old = state.wait(place.as_deref_mut(), For::Any, cx.waker());
            let elsewhere = state.is_elsewhere();
            drop(state);
            drop(old);
            if elsewhere {
                waits_elsewhere(slot);
            }
            return Poll::Pending;
        }
        state.start(Op::Edges(interest), false, slot.here());
        drop(state);
        slot.descriptor().runtime().submit(slot);
        state = slot.lock();
    }
}

#[cold]
fn two_directions() -> io::Error {
    let message = "a port waits for one direction: use another port for the other";
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
