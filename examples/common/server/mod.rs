//! What the servers share: who is connected, how everybody hears that it is
//! over, and how it is said.

pub(crate) mod house;
pub(crate) mod signals;
pub(crate) mod stop;

use std::io::{self, Write};
use std::time::Duration;

/// How long open exchanges may take to finish after the first signal.
pub(crate) const EXCHANGES: Duration = Duration::from_secs(5);

/// After an accept that failed for a reason that the listener does not know
/// how to handle: long enough not to spin if it stays, short enough not to
/// be noticed if it was one client's fault.
pub(crate) const AFTER_AN_ERROR: Duration = Duration::from_millis(10);

/// A line on stdout, at once. If nobody reads it any more, that is no reason
/// to stop serving.
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
