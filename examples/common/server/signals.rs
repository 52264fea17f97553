//! SIGINT and SIGTERM.

use std::io;
use std::process::exit;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::stop::Stop;

/// The shell's word for "ended by SIGINT".
const INTERRUPTED: i32 = 130;

/// From now on the first signal says `stop`, and the second one ends the
/// process at once.
///
/// A thread waits for them, so that the second one works even when every
/// worker is stuck.
pub(crate) fn watch(stop: Arc<Stop>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut arrivals = signals.forever();
            arrivals.next();
            stop.say();
            arrivals.next();
            exit(INTERRUPTED);
        })?;
    Ok(())
}
