//! What comes out.
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::proc::Sample;

/// The result of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What was asked.
    pub options: Options,
    /// Seconds from the first send of the window to its last reply.
    pub elapsed_s: f64,
    /// Round trips completed in the window.
    pub round_trips: u64,
    /// Of these, a second.
    pub per_second: f64,
    /// Messages without an answer at the end of the window.
    pub unanswered: u64,
    /// False if the window's end did not wait for these (they never came).
    pub drained: bool,
    /// Bytes received in the window.
    pub bytes: u64,
    /// From the intended time of sending, in ns.
    pub latency: Latency,
    /// The clients' side of every connection.
    pub clients: Clients,
    /// The server over exactly the window; `None` without `--pid`.
    pub server: Option<Sample>,
    /// The server before the first connect.
    pub server_before: Option<Sample>,
    /// The server with its busy connections, before the idle ones.
    pub server_before_idle: Option<Sample>,
    /// Bytes (all, anonymous) as shared fairly, after the window.
    pub server_memory: Option<(u64, u64)>,
    /// This process over the window.
    pub client: Sample,
    /// Time in which the server's core ran something else, in us; see
    /// [`crate::proc::core_busy_us`] for how well that is known.
    pub others_on_server_core_us: Option<i64>,
    /// The same for the client's core.
    pub others_on_client_core_us: Option<i64>,
    /// Connects dropped by full listen queues of this machine, setup included.
    pub listen_drops: u64,
    /// The first byte that was not as expected, if `--verify` found one.
    pub wrong: Option<String>,
}

/// Counts of connections; every one asked for ends in one of them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Clients {
    /// Connects begun.
    pub asked: u64,
    /// Connects completed (which may mean no more than a place in the backlog).
    pub established: u64,
    /// Connections that got at least one reply.
    pub served: u64,
    /// Closed-loop clients that got at least one reply inside the window.
    pub served_in_window: u64,
    /// Connects refused, and connections closed by the server before a reply.
    pub refused: u64,
    /// Connections reset or closed by the server later.
    pub reset: u64,
    /// Connects that failed otherwise (time-out, no port, no descriptor).
    pub failed: u64,
    /// Idle connections that did their round trip and stayed.
    pub idle: u64,
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Latency {
    pub(crate) fn of(h: &Histogram<u64>) -> Self {
        Self {
            count: h.len(),
            mean: h.mean(),
            p50: h.value_at_quantile(0.5),
            p90: h.value_at_quantile(0.9),
            p99: h.value_at_quantile(0.99),
            p999: h.value_at_quantile(0.999),
            max: h.max(),
        }
    }
}
