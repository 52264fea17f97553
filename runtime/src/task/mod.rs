//! Tasks: one spawned future each, in one allocation.
//!
//! Roles:
//!
//! * **Wakers** (any thread) queue the task in its color, by the state word.
//! * The **runner** is the worker that runs the task's color. It alone polls
//!   the future, drops it, and completes the task.
//! * The **handle** takes the output.
//! * The **owner list** of the spawning worker holds the live reference, so
//!   that a runtime that ends finds every task.
//!
//! Which field belongs to whom:
//!
//! | field | who touches it |
//! |---|---|
//! | `state` | everyone, by the rules in [`state`] |
//! | `link` | whoever queued the task, then the runner |
//! | `index`, `owner` | the worker that spawned it ([`owned`]) |
//! | `stage`, `holds` | the runner until COMPLETE, then by rule 5 in `task::state` |
//! | `joiner` | rule 6 in `task::state` |
//!
//! A panic of the future ends its task, and reaches whoever awaits the handle.
//! The future is dropped before the completion is published.

#[cfg(not(all(test, loom)))]
mod join;
#[cfg(not(all(test, loom)))]
mod joiner;
#[cfg(not(all(test, loom)))]
mod one_word;
#[cfg(not(all(test, loom)))]
pub(crate) mod owned;
#[cfg(not(all(test, loom)))]
mod raw;
pub(crate) mod state;
#[cfg(not(all(test, loom)))]
mod waker;

#[cfg(all(test, loom))]
mod model;

#[cfg(not(all(test, loom)))]
pub use join::{AbortHandle, JoinError, JoinHandle};
#[cfg(not(all(test, loom)))]
pub(crate) use {
    join::{Reason, abort},
    one_word::TaskWaker,
    raw::{Header, NewTask, Ran, TaskRef, queue},
};
