//! How a role goes to one who waits for it, once.
//!
//! ```text
//!   Waiting ----give----> Granted ----take----> Over
//!      |                     |                   ^
//!      +---------------------+------leave--------+
//! ```
//!
//! # Rules
//!
//! 1. `give` makes the role only if it is waited for; else the giver keeps its
//!    own. So there is one role at any time.
//! 2. Who leaves takes a role along that was granted meanwhile, and has to
//!    pass it on: a role is never lost.
//!
//! The lock orders what the giver did before what the taker does (rule 2 in
//! `color::ready`). It is taken only by those who have to wait, and by those
//! who give to them.

use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Grant<R>(Mutex<State<R>>);

enum State<R> {
    Waiting(Option<Waker>),
    Granted(R),
    Over,
}

impl<R> Grant<R> {
    pub(crate) fn new() -> Grant<R> {
        Grant(Mutex::new(State::Waiting(None)))
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Gives the role that `role` makes. `false`: nobody waits any more, and
    /// none was made.
    #[must_use]
    pub(crate) fn give(&self, role: impl FnOnce() -> R) -> bool {
        let mut state = self.lock();
        let State::Waiting(waker) = &mut *state else {
            return false;
        };
        let waker = waker.take();
        *state = State::Granted(role());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Takes the role when it was given. After `take` or `leave` it is pending
    /// for ever.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Poll<R> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Granted(role) => return Poll::Ready(role),
            State::Waiting(_) => *state = State::Waiting(Some(cx.waker().clone())),
            State::Over => {}
        }
        Poll::Pending
    }

    /// Waits no more. A role that was given and not taken comes out.
    #[must_use]
    pub(crate) fn leave(&self) -> Option<R> {
        match std::mem::replace(&mut *self.lock(), State::Over) {
            State::Granted(role) => Some(role),
            State::Waiting(_) | State::Over => None,
        }
    }
}
