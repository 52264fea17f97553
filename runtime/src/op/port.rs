//! The asking side of operations.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::attempt::{self, Attempt};
use super::feed;
use super::follow::waits_elsewhere;
use super::line::{ANYONE, For, Place};
use super::owner::{self, SlotRef};
use super::ready;
use super::slot::{Slot, State, Taken};
use super::{Completion, Interest, Op, Yield};
use crate::budget;
use crate::buf::RecvBuf;
use crate::descriptor::{Descriptor, DescriptorRef};

/// A place for one operation at a time on one descriptor; what it can do is
/// said at [`Slot`].
///
/// A socket has one port for each direction. The port is made once and used
/// for every operation, so that an operation allocates nothing. It can be used
/// from any thread and any executor; several users take turns, each through a
/// [`Waiter`] or a [`Run`] of their own.
///
/// Dropping it abandons what is in flight (see the [module](super)).
pub struct Port(SlotRef);

impl Port {
    /// Makes a port on `descriptor`. The first two of a descriptor take no
    /// memory of their own.
    pub fn new(descriptor: DescriptorRef) -> Port {
        Port(SlotRef::new(descriptor))
    }
}

impl Deref for Port {
    type Target = Slot;

    #[inline]
    fn deref(&self) -> &Slot {
        self.0.slot()
    }
}

impl Slot {
    /// The descriptor that it operates on.
    #[inline]
    pub fn descriptor(&self) -> &Descriptor {
        owner::descriptor(self)
    }

    /// Whether an operation is in flight, or what it brought was not taken yet:
    /// what is received past this port would overtake that. Never where the
    /// driver works by readiness.
    pub fn is_ahead(&self) -> bool {
        !self.descriptor().by_readiness() && !self.lock().is_idle()
    }

    /// Carries out a one-shot operation: waits for its turn, submits, and
    /// gives the result and the operation with its buffers back. Turns are
    /// taken in the order of the first polls.
    ///
    /// Dropping the future before the submission does nothing; after it, the
    /// operation is abandoned and the port stays usable.
    pub fn run(&self, op: Op) -> Run<'_> {
        Run {
            slot: self,
            op: Some(op),
            submitted: false,
            begun: false,
            number: ANYONE,
        }
    }

    /// A place to wait at, for one of several users of a subscription.
    #[inline]
    pub fn waiter(&self) -> Waiter<'_> {
        Waiter {
            slot: self,
            number: ANYONE,
        }
    }

    /// As [`Waiter::poll_next`], for a single user: only the last waker is
    /// kept.
    #[inline]
    pub fn poll_next(&self, cx: &mut Context<'_>, op: impl Fn() -> Op) -> Poll<Completion> {
        poll_next(self, None, cx, op)
    }

    /// As [`Waiter::poll_lease`], for a single user: only the last waker is
    /// kept.
    #[inline]
    pub fn poll_lease(&self, cx: &mut Context<'_>) -> Poll<io::Result<RecvBuf>> {
        poll_lease(self, None, cx)
    }

    /// As [`Waiter::poll_recv`], for a single user: only the last waker is
    /// kept.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_recv(self, None, cx, buf)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        abandon(self);
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Port").field(&**self).finish()
    }
}

/// One user's place at a [`Port`]. Dropping it gives the place up, and loses
/// nothing: completions wait in the port.
pub struct Waiter<'a> {
    pub(super) slot: &'a Slot,
    pub(super) number: u32,
}

impl Waiter<'_> {
    /// The next completion of a subscription, or of a readiness poll. If
    /// nothing is in flight, `op` is submitted.
    #[inline]
    pub fn poll_next(&mut self, cx: &mut Context<'_>, op: impl Fn() -> Op) -> Poll<Completion> {
        poll_next(self.slot, Some(&mut self.number), cx, op)
    }

    /// Receives into a buffer of the runtime's, taken when data is there
    /// ([`Op::Recv`]). An empty lease is the end.
    ///
    /// # Errors
    ///
    /// What the receive answers.
    #[inline]
    pub fn poll_lease(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<RecvBuf>> {
        poll_lease(self.slot, Some(&mut self.number), cx)
    }

    /// Receives into borrowed memory, and says how much: straight into it if
    /// the driver works by readiness, else by a copy. Either way the bytes come
    /// in the order of the stream, also after receives that were given up. 0
    /// is the end.
    ///
    /// # Errors
    ///
    /// What the receive answers.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_recv(self.slot, Some(&mut self.number), cx, buf)
    }
}

impl Drop for Waiter<'_> {
    #[inline]
    fn drop(&mut self) {
        leave(self.slot, self.number);
    }
}

impl fmt::Debug for Waiter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiter").field(&self.number).finish()
    }
}

#[inline]
fn poll_lease(slot: &Slot, place: Place<'_>, cx: &mut Context<'_>) -> Poll<io::Result<RecvBuf>> {
    let descriptor = slot.descriptor();
    match descriptor.by_readiness() {
        true => ready::poll(slot, place, For::Any, Interest::Read, cx, recv(descriptor)),
        false => poll_completed_lease(slot, place, cx),
    }
}

/// Where the driver works by completion. Apart, so that neither way pays for
/// the other's frame.
#[inline(never)]
fn poll_completed_lease(
    slot: &Slot,
    mut place: Place<'_>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<RecvBuf>> {
    loop {
        ready!(budget::poll_remaining(cx));
        let next = |state: &mut State| state.pop_lease();
        if let Some(lease) = ready!(poll_take(slot, place.as_deref_mut(), cx, || Op::Recv, next))? {
            return Poll::Ready(Ok(lease));
        }
    }
}

/// The attempt to receive into a buffer of this thread's.
#[inline]
fn recv(descriptor: &Descriptor) -> impl Fn(RawFd) -> Attempt<RecvBuf> {
    |fd| attempt::recv(fd, descriptor.runtime())
}

#[inline]
fn poll_next(
    slot: &Slot,
    place: Place<'_>,
    cx: &mut Context<'_>,
    op: impl Fn() -> Op,
) -> Poll<Completion> {
    if slot.descriptor().by_readiness() {
        return poll_ready(slot, place, For::Any, cx, &mut op(), &mut false);
    }
    ready!(budget::poll_remaining(cx));
    poll_take(slot, place, cx, op, |state| state.pop())
}

fn poll_recv(
    slot: &Slot,
    mut place: Place<'_>,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    if slot.descriptor().by_readiness() {
        return ready::poll(slot, place, For::Any, Interest::Read, cx, |fd| {
            attempt::recv_into(fd, buf)
        });
    }
    loop {
        ready!(budget::poll_remaining(cx));
        let take = |state: &mut State| state.take_into(buf);
        match ready!(poll_take(slot, place.as_deref_mut(), cx, || Op::Recv, take)) {
            Taken::Part(n) => return Poll::Ready(Ok(n)),
            Taken::Whole(Ok(Yield::Buf(lease))) => {
                buf[..lease.len()].copy_from_slice(&lease);
                return Poll::Ready(Ok(lease.len()));
            }
            // Of another operation, that was given up.
            Taken::Whole(Ok(Yield::Done(_) | Yield::Socket(_) | Yield::File(_))) => {}
            Taken::Whole(Err(e)) => return Poll::Ready(Err(e)),
        }
    }
}

/// Carries `op` out where the driver works by readiness.
#[inline]
fn poll_ready(
    slot: &Slot,
    place: Place<'_>,
    what: For,
    cx: &mut Context<'_>,
    op: &mut Op,
    begun: &mut bool,
) -> Poll<Completion> {
    let interest = op.interest();
    match op {
        Op::Recv => {
            let recv = recv(slot.descriptor());
            ready::poll(slot, place, what, interest, cx, recv).map_ok(Yield::Buf)
        }
        Op::Send { data, from, all } => {
            let send = |fd| attempt::send(fd, data.bytes(), from, *all);
            ready::poll(slot, place, what, interest, cx, send).map_ok(Yield::Done)
        }
        Op::SendZc { data, from } => {
            let send = |fd| attempt::send(fd, data.bytes(), from, true);
            ready::poll(slot, place, what, interest, cx, send).map_ok(Yield::Done)
        }
        Op::SendVectored(data) => {
            let send = |fd| attempt::send_vectored(fd, data);
            ready::poll(slot, place, what, interest, cx, send).map_ok(Yield::Done)
        }
        Op::Accept => {
            ready::poll(slot, place, what, interest, cx, attempt::accept).map_ok(Yield::Socket)
        }
        Op::Connect(address) => {
            let connect = |fd| attempt::connect(fd, address, begun);
            let connected = ready::poll(slot, place, what, interest, cx, connect);
            connected.map_ok(|()| Yield::Done(0))
        }
        Op::Edges(_) | Op::File(_) => Poll::Ready(Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "edges are told to the runtime only (ask for Port::poll_ready), and what is asked of \
             files goes through Port::file",
        ))),
    }
}

/// Takes something out of the slot, after submitting `op` if it is idle.
pub(super) fn poll_take<T>(
    slot: &Slot,
    mut place: Place<'_>,
    cx: &mut Context<'_>,
    op: impl Fn() -> Op,
    mut take: impl FnMut(&mut State) -> Option<T>,
) -> Poll<T> {
    let mut state = slot.lock();
    // Something is there, and nobody else, in the common case.
    let free = state.has_completions() && !state.is_owned_or_finished();
    if free && state.leave_alone(place.as_deref_mut()) {
        let taken = take(&mut state).expect("something is there");
        drop(state);
        budget::spend();
        return Poll::Ready(taken);
    }
    // Who waits again goes to the end of the line.
    let left = state.leave_again(&mut place);
    // Again, because another user may take what the submission brings before
    // this one looks, and leave the slot idle.
    while state.is_idle() {
        state.start(op(), false, slot.here());
        drop(state);
        // Before the waker is left there: an operation that completes at once
        // wakes nobody.
        slot.descriptor().runtime().submit(slot);
        state = slot.lock();
    }
    let Some(taken) = state.is_anyones().then(|| take(&mut state)).flatten() else {
        let old = state.wait(place, For::Any, cx.waker());
        let elsewhere = state.is_elsewhere();
        drop(state);
        drop((left, old));
        if elsewhere {
            waits_elsewhere(slot);
        }
        return Poll::Pending;
    };
    let done = state.take_finished();
    let turn = state.turn();
    drop(state);
    drop((left, done));
    if let Some(turn) = turn {
        turn.wake();
    }
    budget::spend();
    Poll::Ready(taken)
}

/// Gives a place in the line up, and the turn with it.
#[inline]
pub(super) fn leave(slot: &Slot, number: u32) {
    if number != ANYONE {
        leave_line(slot, number);
    }
}

#[inline(never)]
fn leave_line(slot: &Slot, number: u32) {
    let mut state = slot.lock();
    let left = state.leave(number);
    let turn = match slot.descriptor().by_readiness() {
        true => state.turn_in_line(),
        false => state.turn(),
    };
    drop(state);
    drop(left);
    if let Some(turn) = turn {
        turn.wake();
    }
}

pub(super) fn abandon(slot: &Slot) {
    abandon_after(slot, |_| ());
}

/// `last` is done to what is in flight, before it is nobody's.
#[cold]
fn abandon_after(slot: &Slot, last: impl FnOnce(&mut Op)) {
    let mut state = slot.lock();
    if state.life.is_in_flight() {
        state.with_op(last);
    }
    let leftover = state.abandon();
    let turn = state.turn();
    drop(state);
    let in_flight = leftover.in_flight;
    drop(leftover);
    if in_flight {
        slot.descriptor().runtime().cancel(slot);
    }
    if let Some(turn) = turn {
        turn.wake();
    }
}

/// The future of [`Slot::run`].
#[must_use = "futures do nothing unless polled"]
pub struct Run<'a> {
    slot: &'a Slot,
    op: Option<Op>,
    /// A driver that works by completion has it.
    submitted: bool,
    /// The first step of a connect was taken.
    begun: bool,
    /// Its place in the line, if it had to wait for its turn.
    number: u32,
}

impl Future for Run<'_> {
    type Output = (Completion, Op);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let run = &mut *self;
        // Here, and not when it is taken: then the slot is locked.
        assert!(run.submitted || run.op.is_some(), "polled after completion");
        if !run.slot.descriptor().by_readiness() {
            let op = || run.op.take().expect("just looked");
            let (number, submitted) = (&mut run.number, &mut run.submitted);
            let take = |state: &mut State| state.take_result();
            let owned = poll_owned(run.slot, number, submitted, cx, op, submit, take);
            return Poll::Ready(match ready!(owned) {
                Ok((completion, landed)) => (completion, landed.into_op()),
                Err(e) => (Err(e), run.op.take().expect("not submitted")),
            });
        }
        let op = run.op.as_mut().expect("just looked");
        let place = Some(&mut run.number);
        let result = ready!(poll_ready(
            run.slot,
            place,
            For::Turn,
            cx,
            op,
            &mut run.begun
        ));
        let op = run.op.take().expect("just used");
        Poll::Ready((result, op))
    }
}

/// Hands the operation in the slot to a driver.
#[inline]
pub(super) fn submit(slot: &Slot) {
    slot.descriptor().runtime().submit(slot);
}

/// Carries out a one-shot operation, made by `op` when its turn has come, and
/// handed by `submit` to who carries it out and completes it. What it came to
/// is taken out of the slot by `take`, if it is there.
///
/// # Errors
///
/// Of what was fed before, of which nobody was told yet: then nothing is
/// submitted, and `op` is not called.
#[inline]
pub(super) fn poll_owned<T>(
    slot: &Slot,
    number: &mut u32,
    submitted: &mut bool,
    cx: &mut Context<'_>,
    op: impl FnOnce() -> Op,
    submit: impl FnOnce(&Slot),
    take: impl FnOnce(&mut State) -> Option<T>,
) -> Poll<io::Result<T>> {
    ready!(budget::poll_remaining(cx));
    let mut state = slot.lock();
    if !*submitted {
        if !(state.is_idle() && state.is_turn_of(*number)) {
            return feed::poll_turn(slot, state, number, cx).map(Err);
        }
        let left = state.leave_again(&mut Some(number));
        state.start_owned(slot.here(), cx.waker(), op);
        drop(state);
        drop(left);
        *submitted = true;
        submit(slot);
        return Poll::Pending;
    }
    let Some(ended) = take(&mut state) else {
        let old = state.set_owner(cx.waker());
        drop(state);
        drop(old);
        return Poll::Pending;
    };
    let turn = state.turn();
    drop(state);
    *submitted = false;
    if let Some(turn) = turn {
        turn.wake();
    }
    budget::spend();
    Poll::Ready(Ok(ended))
}

/// Whoever carried out a one-shot operation goes away. `last` is done to the
/// operation if it goes on without them.
#[inline]
pub(super) fn give_up(slot: &Slot, submitted: bool, number: u32, last: impl FnOnce(&mut Op)) {
    if submitted {
        abandon_after(slot, last);
    } else {
        leave(slot, number);
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        give_up(self.slot, self.submitted, self.number, |_| ());
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("op", &self.op)
            .field("submitted", &self.submitted)
            .finish()
    }
}
