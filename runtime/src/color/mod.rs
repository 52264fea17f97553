//! Colors: queues of ready tasks that run one after another.
//!
//! * [`ready`]: the queue, a pure structure.
//! * [`refs`]: how many hold a color.
//! * `core`: the shared part of a color: queue, home, identity, references.
//! * `table`: which color has which number.
//! * `handle`: [`Color`], what users hold.

#[cfg(not(all(test, loom)))]
mod core;
#[cfg(not(all(test, loom)))]
mod handle;
mod ready;
mod refs;
#[cfg(not(all(test, loom)))]
mod table;

#[cfg(all(test, loom))]
mod model;

pub(crate) use ready::Linked;
#[cfg(not(all(test, loom)))]
pub(crate) use {
    self::core::{ColorRef, Core, Kind, push},
    table::Table,
};

#[cfg(not(all(test, loom)))]
pub use handle::Color;
