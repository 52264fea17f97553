//! Workers: threads that run ready colors, and sleep in their driver.
//!
//! * [`queue`], [`inbox`], [`sleep`]: pure structures, with models.
//! * `shared`: what other threads reach of a worker.
//! * `local`: the worker itself, and its loop.
//! * `ready`: how it runs ready colors.
//! * `steal`: what an idle worker takes from others.
//! * `pace`: how long polls take.
//! * `io`: the worker and its driver.
//! * `figures`: what it counts, and measures of the turns of colors.
//! * `close`: how a worker ends.

#[cfg(not(all(test, loom)))]
mod close;
#[cfg(not(all(test, loom)))]
mod command;
#[cfg(not(all(test, loom)))]
mod figures;
mod inbox;
#[cfg(not(all(test, loom)))]
mod io;
#[cfg(not(all(test, loom)))]
mod local;
#[cfg(not(all(test, loom)))]
mod pace;
mod queue;
#[cfg(not(all(test, loom)))]
mod ready;
#[cfg(not(all(test, loom)))]
mod shared;
mod sleep;
#[cfg(not(all(test, loom)))]
mod steal;

#[cfg(all(test, loom))]
mod model;

#[cfg(all(test, loom))]
pub(crate) use inbox::Inbox;

#[cfg(not(all(test, loom)))]
pub(crate) use {
    local::{Worker, here},
    shared::WorkerShared,
    sleep::{Scout, Sleepers},
};
