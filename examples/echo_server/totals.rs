//! What the server counts, and the line of every few seconds.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isochrome::time::sleep;

use crate::server::house::{Census, Count};
use crate::server::stop::Listener;

/// Everything since the start.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Connections that were served, whatever became of them.
    pub(crate) connections: Count,
    /// Clients turned away because there were enough.
    pub(crate) refused: Count,
    /// Bytes received in order to be answered.
    pub(crate) received: Count,
    /// Bytes sent. Of a send that failed or was cut, nobody can tell how much of
    /// it the client has: it is counted if it was under way.
    pub(crate) sent: Count,
    /// Bytes that arrived when the server was no longer listening.
    pub(crate) discarded: Count,
    /// Connections closed for their silence.
    pub(crate) idle: Count,
    /// Connections that ended in an error, and accepts that did.
    pub(crate) errors: Count,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connections={} received={} sent={} discarded={} refused={} idle={} errors={}",
            self.connections,
            self.received,
            self.sent,
            self.discarded,
            self.refused,
            self.idle,
            self.errors,
        )
    }
}

/// Prints a line on stderr every `period`, until the server stops.
pub(crate) async fn report(
    totals: Arc<Totals>,
    census: Census,
    period: Duration,
    mut stop: Listener,
) {
    let mut last = Sample::of(&totals);
    while stop.until(sleep(period)).await.is_some() {
        let now = Sample::of(&totals);
        eprintln!(
            "connections open={} total={} received={:.2}MB/s sent={:.2}MB/s errors={}",
            census.open(),
            totals.connections,
            now.rate(&last, |s| s.received),
            now.rate(&last, |s| s.sent),
            totals.errors,
        );
        last = now;
    }
}

struct Sample {
    at: Instant,
    received: u64,
    sent: u64,
}

impl Sample {
    fn of(totals: &Totals) -> Sample {
        Sample {
            at: Instant::now(),
            received: totals.received.get(),
            sent: totals.sent.get(),
        }
    }

    /// Megabytes a second since `last`.
    fn rate(&self, last: &Sample, which: fn(&Sample) -> u64) -> f64 {
        let seconds = (self.at - last.at).as_secs_f64();
        (which(self) - which(last)) as f64 / 1e6 / seconds
    }
}
