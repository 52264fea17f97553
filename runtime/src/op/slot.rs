//! The shared state of one operation.
//!
//! A mutex guards it. It is taken three times an operation (submit, complete,
//! take), by the worker that runs the color and by the driver of the same
//! worker: one thread in all but the stolen case, so it is not contended. That
//! keeps this file, on which the soundness of both drivers stands, free of
//! `unsafe`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::Waker;

use super::{Completion, Op};
use crate::descriptor::Descriptor;
use crate::sync::{Mutex, MutexGuard};

/// Rule 1 of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    InFlight,
    Finished,
}

pub(crate) struct Slot {
    pub(crate) descriptor: Arc<Descriptor>,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) phase: Phase,
    /// The worker whose driver has it, while in flight.
    pub(crate) worker: u32,
    /// What that driver calls it; `None` until the driver has seen it.
    key: Option<u64>,
    /// Nobody wants the result any more (rule 2).
    abandoned: bool,
    pub(crate) op: Option<Op>,
    /// Completions not taken yet: the first here, so that the common case of
    /// one needs no queue, the others in `rest`.
    first: Option<Completion>,
    rest: VecDeque<Completion>,
    /// Who waits for a completion, or for the slot to become idle.
    wakers: Wakers,
}

impl Slot {
    pub(crate) fn new(descriptor: Arc<Descriptor>) -> Arc<Slot> {
        Arc::new(Slot {
            descriptor,
            state: Mutex::new(State {
                phase: Phase::Idle,
                worker: 0,
                key: None,
                abandoned: false,
                op: None,
                first: None,
                rest: VecDeque::new(),
                wakers: Wakers::default(),
            }),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    pub(crate) fn start(&mut self, op: Op) {
        debug_assert!(self.phase == Phase::Idle && self.op.is_none());
        self.phase = Phase::InFlight;
        self.abandoned = false;
        self.key = None;
        self.op = Some(op);
    }

    pub(crate) fn pop(&mut self) -> Option<Completion> {
        let first = self.first.take();
        if first.is_some() && !self.rest.is_empty() {
            self.first = self.rest.pop_front();
        }
        first
    }

    fn push(&mut self, completion: Completion) -> usize {
        if self.first.is_none() {
            self.first = Some(completion);
        } else {
            self.rest.push_back(completion);
        }
        1 + self.rest.len()
    }

    /// Nothing is in flight, and nothing waits to be taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.first.is_none()
    }

    /// Ends the finished phase, if that is where a one-shot operation is, and
    /// gives the operation back.
    pub(crate) fn take_finished(&mut self) -> Option<Op> {
        if self.phase != Phase::Finished {
            return None;
        }
        self.phase = Phase::Idle;
        self.op.take()
    }

    pub(crate) fn wait(&mut self, waker: &Waker) {
        self.wakers.add(waker);
    }

    pub(crate) fn take_wakers(&mut self) -> Wakers {
        std::mem::take(&mut self.wakers)
    }

    /// Marks the operation as unwanted. What is returned has to be dropped
    /// after unlocking (rule 3).
    #[must_use]
    pub(crate) fn abandon(&mut self) -> Leftover {
        self.abandoned |= self.phase == Phase::InFlight;
        let op = match self.phase {
            Phase::InFlight => None,
            Phase::Idle | Phase::Finished => {
                self.phase = Phase::Idle;
                self.op.take()
            }
        };
        Leftover {
            _op: op,
            _first: self.first.take(),
            _rest: std::mem::take(&mut self.rest),
        }
    }

    /// The key to cancel by, if the driver named one already and the
    /// operation in flight is still the abandoned one.
    pub(crate) fn cancel_key(&self) -> Option<u64> {
        if self.abandoned { self.key } else { None }
    }
}

/// What an abandoned operation leaves behind.
pub(crate) struct Leftover {
    _op: Option<Op>,
    _first: Option<Completion>,
    _rest: VecDeque<Completion>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Slot")
            .field("descriptor", &self.descriptor)
            .field("phase", &state.phase)
            .field("op", &state.op)
            .finish_non_exhaustive()
    }
}

/// A set of wakers that needs no memory for one.
#[derive(Default)]
pub(crate) struct Wakers {
    one: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakers {
    fn add(&mut self, waker: &Waker) {
        match &self.one {
            None => self.one = Some(waker.clone()),
            Some(w) if w.will_wake(waker) => {}
            Some(_) if self.more.iter().any(|w| w.will_wake(waker)) => {}
            Some(_) => self.more.push(waker.clone()),
        }
    }

    pub(crate) fn wake(self) {
        self.one.into_iter().chain(self.more).for_each(Waker::wake);
    }
}

/// The driver's side of an operation in flight.
///
/// Whoever holds it keeps alive the descriptor and the memory that the
/// operation lends; it must not be dropped while the kernel may still touch
/// that memory. Dropping it otherwise finishes the operation with ECANCELED.
pub struct InFlight(Option<Arc<Slot>>);

impl InFlight {
    pub(crate) fn new(slot: Arc<Slot>) -> InFlight {
        InFlight(Some(slot))
    }

    fn slot(&self) -> &Arc<Slot> {
        self.0.as_ref().expect("only finish and leak empty it")
    }

    /// The descriptor to operate on.
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        &self.slot().descriptor
    }

    /// Its number, which stays valid for as long as this value lives.
    pub fn fd(&self) -> RawFd {
        self.descriptor().as_raw_fd()
    }

    /// Looks at the operation. The memory that it lends stays where it is
    /// until [`finish`](InFlight::finish). `f` must not wake or drop anything.
    pub fn with_op<R>(&self, f: impl FnOnce(&mut Op) -> R) -> R {
        let mut state = self.slot().lock();
        f(state.op.as_mut().expect("an operation in flight is there"))
    }

    /// Gives the operation the name by which [`Driver::cancel`] calls it.
    ///
    /// [`Driver::cancel`]: crate::driver::Driver::cancel
    pub fn set_key(&self, key: u64) {
        self.slot().lock().key = Some(key);
    }

    /// The operation is sent to another worker's driver.
    pub(crate) fn moves_to(&self, worker: u32) {
        self.slot().lock().worker = worker;
    }

    /// Hands over a completion of a subscription that more will follow.
    /// Returns how many now wait to be taken (0 if nobody wants them): the
    /// driver's reason to pause.
    pub fn deliver(&self, completion: Completion) -> usize {
        let mut state = self.slot().lock();
        if state.abandoned {
            drop(state);
            drop(completion);
            return 0;
        }
        let waiting = state.push(completion);
        let wakers = state.take_wakers();
        drop(state);
        wakers.wake();
        waiting
    }

    /// Hands over the last completion: the kernel touches nothing any more.
    pub fn finish(mut self, completion: Completion) {
        let slot = self.0.take().expect("finished once");
        Self::end(&slot, Some(completion));
    }

    /// Ends a subscription that has nothing more to say, so that the next
    /// poll submits it again.
    pub fn pause(mut self) {
        let slot = self.0.take().expect("finished once");
        debug_assert!(matches!(slot.lock().op, Some(Op::Accept | Op::Recv)));
        Self::end(&slot, None);
    }

    fn end(slot: &Slot, completion: Option<Completion>) {
        let mut state = slot.lock();
        let mut op = None;
        let mut unwanted = None;
        if state.abandoned {
            state.abandoned = false;
            state.phase = Phase::Idle;
            op = state.op.take();
            unwanted = completion;
        } else if matches!(state.op, Some(Op::Accept | Op::Recv)) {
            state.phase = Phase::Idle;
            op = state.op.take();
            if let Some(completion) = completion {
                state.push(completion);
            }
        } else {
            // One-shot: the operation stays, its buffers go back to the asker.
            state.phase = Phase::Finished;
            if let Some(completion) = completion {
                state.push(completion);
            }
        }
        let wakers = state.take_wakers();
        drop(state);
        drop((op, unwanted));
        wakers.wake();
    }

    /// Gives up on an operation whose memory the kernel may touch for ever
    /// after: nothing of it is freed. For [`Driver::shutdown`] alone.
    ///
    /// [`Driver::shutdown`]: crate::driver::Driver::shutdown
    pub fn leak(mut self) {
        if let Some(slot) = self.0.take() {
            let wakers = slot.lock().take_wakers();
            std::mem::forget(slot);
            wakers.wake();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            Self::end(
                &slot,
                Some(Err(io::Error::from_raw_os_error(libc::ECANCELED))),
            );
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(self.slot()).finish()
    }
}
