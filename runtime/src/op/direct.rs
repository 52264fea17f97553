//! System calls of the asking side's own, on every driver: tried at once, and
//! tried again when the descriptor is ready.
//!
//! For what a ring does no better than a system call does (datagrams), for
//! borrowed memory, and for descriptors of the user's own. Nothing is with the
//! kernel while one waits but the question whether it is ready, so giving up
//! loses nothing, and who waits owns no buffer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::line::{ANYONE, For, Place};
use super::port::{leave, poll_take};
use super::slot::{Slot, State};
use super::{Interest, Op, Port, Waiter, ready};
use crate::budget;

impl Waiter<'_> {
    /// Carries out a system call of the caller's own: `call` is made until it
    /// answers anything but [`WouldBlock`](io::ErrorKind::WouldBlock) or
    /// [`Interrupted`](io::ErrorKind::Interrupted), and before it is made
    /// again after the former, the descriptor is waited for.
    ///
    /// `call` must not block: sockets are in blocking mode where the driver
    /// works by completion, so it takes MSG_DONTWAIT or its like. Nothing is
    /// locked while it runs. All users of a port ask for one direction.
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
}

impl Port {
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
        poll_io(self.slot(), None, cx, interest, call)
    }
}

fn poll_io<T>(
    slot: &Arc<Slot>,
    mut place: Place<'_>,
    cx: &mut Context<'_>,
    interest: Interest,
    mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    let by_readiness = slot.descriptor.by_readiness();
    loop {
        ready!(budget::poll_remaining(cx));
        if slot.descriptor.runtime().shared().is_closing() {
            return Poll::Ready(Err(ready::ended()));
        }
        let word = match by_readiness {
            true => Some(ready!(poll_word(slot, &mut place, interest, cx))?),
            false => {
                use_word_up(slot);
                None
            }
        };
        budget::spend();
        match call(slot.descriptor.as_fd()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            result => {
                if let Some(number) = place {
                    leave(slot, std::mem::replace(number, ANYONE));
                }
                drop(word);
                return Poll::Ready(result);
            }
        }
        if let Some(word) = word {
            word.was_wrong();
        } else {
            let (place, op) = (place.as_deref_mut(), || Op::Poll(interest));
            ready!(poll_take(slot, place, cx, op, State::pop))?;
        }
    }
}

/// Where the driver works by completion: takes the completion of a wait, if
/// there is one. The attempt that follows stands for it; else it would still be
/// there, and say "ready", when that is no longer true.
fn use_word_up(slot: &Slot) {
    let mut state = slot.lock();
    if !state.has_completions() || !state.is_anyones() {
        return;
    }
    let word = state.pop();
    let done = state.take_finished();
    let turn = state.turn();
    drop(state);
    drop((word, done));
    if let Some(turn) = turn {
        turn.wake();
    }
}

/// Where the driver works by readiness: the word that the descriptor is ready,
/// taken out of the slot for one attempt outside of its lock (rule 5 in
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
        let crowd = state.line.crowd();
        drop(state);
        crowd.wake();
    }
}

/// Takes the word, or waits for it.
fn poll_word<'a>(
    slot: &'a Arc<Slot>,
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
            let old = state.line.wait(place.as_deref_mut(), For::Any, cx.waker());
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        state.start(Op::Edges(interest), false, slot.here());
        drop(state);
        slot.descriptor.runtime().submit(slot);
        state = slot.lock();
    }
}

#[cold]
fn two_directions() -> io::Error {
    let message = "a port waits for one direction: use another port for the other";
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
