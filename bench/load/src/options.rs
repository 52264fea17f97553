//! What is asked of the generator.
use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

/// How client and server speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every byte comes back.
    Echo,
    /// The server greets with `*`; after a `^` every byte comes back plus one,
    /// until a `$`. The generator sends one `^` and never a `$`.
    Delimited,
}

/// Load for an echo server.
#[derive(Debug, Clone, Parser, Serialize, Deserialize)]
#[command(version, about)]
pub struct Options {
    /// The server.
    #[arg(long)]
    pub addr: SocketAddr,
    /// Connections that carry load.
    #[arg(long, short = 'c', default_value_t = 1)]
    pub connections: usize,
    /// Bytes a message.
    #[arg(long, short = 's', default_value_t = 64)]
    pub size: usize,
    /// Messages in flight on a connection.
    #[arg(long, default_value_t = 1)]
    pub pipeline: usize,
    /// Messages a second over all connections; without it, a closed loop.
    #[arg(long)]
    pub rate: Option<f64>,
    /// More connections, which do one round trip each and then nothing.
    #[arg(long, default_value_t = 0)]
    pub idle: usize,
    /// Connects a second; 0: as fast as they come, 128 under way at most.
    #[arg(long, default_value_t = 0.0)]
    pub connect_rate: f64,
    /// Round trips after which a client closes and connects anew; 0: never.
    /// The first latency of such a session includes its connect.
    #[arg(long, default_value_t = 0)]
    pub session: u64,
    /// Seconds measured.
    #[arg(long, default_value_t = 2.0)]
    pub duration: f64,
    /// Seconds of load before that.
    #[arg(long, default_value_t = 0.5)]
    pub warmup: f64,
    /// Seconds for all connections to be made; then it starts with those it has.
    #[arg(long, default_value_t = 5.0)]
    pub setup_timeout: f64,
    /// Compare every byte received.
    #[arg(long)]
    pub verify: bool,
    /// How the server speaks.
    #[arg(long, value_enum, default_value = "echo")]
    pub protocol: Protocol,
    /// The server's process: CPU, switches and memory are read from /proc,
    /// those of its descendants included.
    #[arg(long)]
    pub pid: Option<i32>,
    /// Pin this process to that core.
    #[arg(long)]
    pub client_core: Option<usize>,
    /// Where the server is pinned: what others take of that core is reported.
    #[arg(long)]
    pub server_core: Option<usize>,
}
