//! Colors: queues of ready tasks that run one after another.
//!
//! * [`ready`]: the queue, a pure structure.
//! * [`refs`]: how many hold a color.
//! * `core`: the shared part of a color: queue, home, identity, references.
//! * `figures`: what a color with a name keeps of itself.
//! * `table`: which color has which number.
//! * `handle`: [`Color`], what users hold.
//! * `run`: atomic steps, and the role of the runner outside of a worker's loop.
//! * `cell`: [`ColorCell`], data that is reached under one color.
//! * [`grant`]: how the role goes to one who waits, a pure structure.
//! * `hold`: exclusion across awaits.
//! * `cycle`: holds that would wait for each other.

#[cfg(not(all(test, loom)))]
mod cell;
#[cfg(not(all(test, loom)))]
mod core;
#[cfg(not(all(test, loom)))]
mod cycle;
#[cfg(not(all(test, loom)))]
mod figures;
mod grant;
#[cfg(not(all(test, loom)))]
mod handle;
#[cfg(not(all(test, loom)))]
mod hold;
mod ready;
mod refs;
#[cfg(not(all(test, loom)))]
mod run;
#[cfg(not(all(test, loom)))]
mod table;

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, loom))]
mod model_hold;

pub(crate) use ready::Linked;
#[cfg(not(all(test, loom)))]
pub(crate) use {
    self::core::{ColorRef, Core, Kind, push},
    cycle::Holds,
    figures::{Figures, Hot, Named},
    hold::{Held, held_around},
    table::Table,
};

#[cfg(not(all(test, loom)))]
pub use {
    cell::{CellError, CellGuard, ColorCell},
    handle::Color,
    hold::{Hold, HoldError},
};
