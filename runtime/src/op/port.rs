//! The asking side of operations.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::slot::{Phase, Slot};
use super::{Completion, Interest, Op, Yield};
use crate::budget;
use crate::descriptor::Descriptor;

/// A place for one operation at a time on one descriptor.
///
/// A socket has one port for each direction. The port is made once and used
/// for every operation, so that an operation allocates nothing. It can be used
/// from any thread and any executor; several users take turns.
///
/// Dropping it abandons what is in flight (see the [module](super)).
pub struct Port {
    slot: Arc<Slot>,
}

impl Port {
    /// Makes a port on `descriptor`.
    pub fn new(descriptor: Arc<Descriptor>) -> Port {
        Port {
            slot: Slot::new(descriptor),
        }
    }

    /// The descriptor that it operates on.
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        &self.slot.descriptor
    }

    /// Carries out a one-shot operation: waits for its turn, submits, and
    /// gives the result and the operation with its buffers back.
    ///
    /// Dropping the future before the submission does nothing; after it, the
    /// operation is abandoned and the port stays usable.
    pub fn run(&self, op: Op) -> Run<'_> {
        Run {
            slot: &self.slot,
            op: Some(op),
            submitted: false,
        }
    }

    /// Receives into borrowed memory if the driver of this thread can
    /// ([`Driver::recv_now`](crate::driver::Driver::recv_now)), else into a
    /// lease. Either way the bytes come in the order of the stream, also after
    /// receives that were given up.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<Received> {
        let runtime = self.slot.descriptor.runtime();
        loop {
            ready!(budget::poll_remaining(cx));
            let mut op = Op::Recv;
            // What waits in the slot, or is on its way there, comes first.
            if self.slot.lock().is_idle() {
                match runtime.recv_now(&self.slot.descriptor, buf) {
                    Some(Poll::Ready(result)) => {
                        budget::spend();
                        return Poll::Ready(Received::Here(result));
                    }
                    Some(Poll::Pending) => op = Op::Poll(Interest::Read),
                    None => {}
                }
            }
            match ready!(self.poll_next(cx, || op)) {
                // Readable: try again.
                Ok(Yield::Done(_)) => {}
                completion => return Poll::Ready(Received::Elsewhere(completion)),
            }
        }
    }

    /// The next completion of a subscription, or of a readiness poll. If
    /// nothing is in flight, `op` is submitted.
    ///
    /// Nothing is lost when the asker goes away: completions wait here.
    pub fn poll_next(&self, cx: &mut Context<'_>, op: impl FnOnce() -> Op) -> Poll<Completion> {
        ready!(budget::poll_remaining(cx));
        let mut state = self.slot.lock();
        if state.is_idle() {
            state.start(op());
            drop(state);
            // Before the waker is left there: an operation that completes at
            // once wakes nobody.
            self.slot.descriptor.runtime().submit(&self.slot);
            state = self.slot.lock();
        }
        let Some(completion) = state.pop() else {
            state.wait(cx.waker());
            return Poll::Pending;
        };
        let done = state.take_finished();
        let wakers = done.is_some().then(|| state.take_wakers());
        drop(state);
        drop(done);
        // Others may have waited for their turn.
        if let Some(wakers) = wakers {
            wakers.wake();
        }
        budget::spend();
        Poll::Ready(completion)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        abandon(&self.slot);
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Port").field(&self.slot).finish()
    }
}

/// What [`Port::poll_recv`] did.
#[derive(Debug)]
pub enum Received {
    /// Received this many bytes into the caller's memory; 0 is the end.
    Here(io::Result<usize>),
    /// Received a lease, or an error.
    Elsewhere(Completion),
}

fn abandon(slot: &Arc<Slot>) {
    let mut state = slot.lock();
    let in_flight = state.phase == Phase::InFlight;
    let leftover = state.abandon();
    let wakers = state.take_wakers();
    drop(state);
    drop(leftover);
    if in_flight {
        slot.descriptor.runtime().cancel(slot);
    }
    // Others may have waited for their turn.
    wakers.wake();
}

/// The future of [`Port::run`].
#[must_use = "futures do nothing unless polled"]
pub struct Run<'a> {
    slot: &'a Arc<Slot>,
    op: Option<Op>,
    submitted: bool,
}

impl Future for Run<'_> {
    type Output = (Completion, Op);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(budget::poll_remaining(cx));
        let mut state = self.slot.lock();
        if !self.submitted {
            if state.phase != Phase::Idle {
                state.wait(cx.waker());
                return Poll::Pending;
            }
            state.start(self.op.take().expect("polled after completion"));
            drop(state);
            self.submitted = true;
            self.slot.descriptor.runtime().submit(self.slot);
            state = self.slot.lock();
        }
        let Some(op) = state.take_finished() else {
            state.wait(cx.waker());
            return Poll::Pending;
        };
        let completion = state.pop().expect("a finished operation has a result");
        let wakers = state.take_wakers();
        drop(state);
        self.submitted = false;
        // Others may have waited for their turn.
        wakers.wake();
        budget::spend();
        Poll::Ready((completion, op))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.submitted {
            abandon(self.slot);
        }
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
