//! What the servers share: who is connected, how everybody hears that it is
//! over, and how it is said.

pub(crate) mod house;
pub(crate) mod signals;
pub(crate) mod stop;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use isochrome::Runtime;

use crate::common::cli::{self, Driver};
use crate::common::limits::raise_descriptor_limit;
use stop::Stop;

/// How long open exchanges may take to finish after the first signal.
pub(crate) const EXCHANGES: Duration = Duration::from_secs(5);

/// After an accept that failed for a reason that the listener does not know
/// how to handle: long enough not to spin if it stays, short enough not to
/// be noticed if it was one client's fault.
pub(crate) const AFTER_AN_ERROR: Duration = Duration::from_millis(10);

/// A runtime for a server, and what tells it to stop: signals are watched from
/// here on. Before anybody is told where it listens, so that none comes too
/// early.
pub(crate) fn start(driver: Driver, workers: Option<u16>) -> Result<(Runtime, Arc<Stop>), String> {
    raise_descriptor_limit();
    let runtime = cli::runtime(driver, workers).map_err(|e| e.to_string())?;
    let stop = Arc::new(Stop::default());
    signals::watch(stop.clone()).map_err(|e| format!("cannot watch for signals: {e}"))?;
    Ok((runtime, stop))
}

/// A line on stdout, at once. If nobody reads it any more, that is no reason
/// to stop serving.
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
