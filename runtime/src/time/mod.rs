//! Time: sleeping, ticking, and giving up after a while.
//!
//! Each worker has a timer wheel (`wheel`), whose nearest deadline bounds
//! its sleep. The resolution is a millisecond; timers never fire early.

mod interval;
mod sleep;
mod timers;
mod wheel;

pub use interval::{Interval, interval};
pub use sleep::{Elapsed, Sleep, Timeout, sleep, sleep_until, timeout, timeout_at};
pub(crate) use timers::{Clock, Timers};
