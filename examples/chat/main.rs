//! A chat: every room is a color.
//!
//! ```text
//! cargo run --release --example chat -- 127.0.0.1:6667
//! nc 127.0.0.1 6667
//! ```
//!
//! Lines that begin with `/` are commands (`/help` lists them), what else a
//! member writes goes to everybody in the room. A room is a `ColorCell`: its
//! steps run one after another and without a lock, so that all members read
//! the same in the same order; different rooms run in parallel, and so do the
//! connections, each in a color of its own.
//!
//! Nobody waits for a slow reader: each member has a queue of `--queue` lines,
//! and `--slow` says what happens when it is full.
//!
//! The first line on stdout says where it listens and on what it runs. SIGINT
//! or SIGTERM ends it in order, with its totals on stdout; a second one ends
//! it at once.
//!
//! | module | |
//! |---|---|
//! | `main` | the command line, the accept loop, the end |
//! | `session` | one connection: its commands |
//! | `lines` | from bytes to lines |
//! | `outbox` | the queue of a member, and what becomes of slow readers |
//! | `hall` | which rooms and names there are |
//! | `room` | who is in a room |

#![forbid(unsafe_op_in_unsafe_fn)]

#[path = "../common/mod.rs"]
mod common;
mod hall;
mod lines;
mod outbox;
mod room;
#[path = "../common/server/mod.rs"]
mod server;
mod session;

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, value_parser};
use isochrome::net::TcpListener;
use isochrome::time::{sleep, timeout};
use isochrome::{Runtime, spawn_apart};

use common::cli::{self, Driver};
use hall::Hall;
use outbox::Slow;
use server::house::{Count, House};
use server::stop::Stop;
use server::{AFTER_AN_ERROR, EXCHANGES, say};

/// A chat server.
#[derive(Debug, Parser)]
#[command(name = "chat")]
struct Args {
    /// Where to listen; port 0 takes any free one
    #[arg(default_value = "127.0.0.1:6667")]
    addr: String,
    /// What carries out the I/O
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
    /// Threads that run rooms and connections [default: one a core]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Lines that wait for a slow reader, at most
    #[arg(long, value_name = "LINES", default_value = "256", value_parser = value_parser!(u16).range(1..))]
    queue: u16,
    /// What happens when there are more
    #[arg(long, value_enum, default_value = "drop-oldest")]
    slow: Slow,
    /// Bytes of a line, at most
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = value_parser!(u16).range(1..))]
    max_line: u16,
    /// Clients above this number are closed at once
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Close a connection that says nothing for this long
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    idle_timeout: Option<Duration>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("chat: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let (runtime, stop) = server::start(args.driver, args.workers)?;
    runtime.block_on(listen_and_serve(args, &runtime, stop))
}

/// What a session needs of its server.
#[derive(Clone, Debug)]
struct Terms {
    queue: usize,
    slow: Slow,
    max_line: usize,
    idle_timeout: Option<Duration>,
    hall: Hall,
    totals: Arc<Totals>,
    stop: Arc<Stop>,
}

/// Everything since the start.
#[derive(Debug, Default)]
struct Totals {
    /// Clients that were let in, whatever became of them.
    connections: Count,
    /// Clients turned away because there were enough.
    refused: Count,
    /// Lines said in rooms.
    said: Count,
    /// Lines put into the queues of members.
    queued: Count,
    /// Lines thrown out of them, for newer ones.
    dropped: Count,
    /// Members closed because they read too slowly.
    slow: Count,
    /// Members closed for their silence.
    idle: Count,
    /// Connections that ended in an error, and accepts that did.
    errors: Count,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connections={} refused={} said={} queued={} dropped={} slow={} idle={} errors={}",
            self.connections,
            self.refused,
            self.said,
            self.queued,
            self.dropped,
            self.slow,
            self.idle,
            self.errors,
        )
    }
}

async fn listen_and_serve(args: &Args, runtime: &Runtime, stop: Arc<Stop>) -> Result<(), String> {
    let listener = TcpListener::bind(args.addr.as_str())
        .await
        .map_err(|e| format!("cannot listen on {}: {e}", args.addr))?;
    let addr = listener.local_addr().map_err(|e| e.to_string())?;
    let (driver, workers) = (runtime.driver(), runtime.workers());
    say(format_args!(
        "listening on {addr} driver={driver} workers={workers}"
    ));

    let house = House::new();
    let terms = Terms {
        queue: args.queue.into(),
        slow: args.slow,
        max_line: args.max_line.into(),
        idle_timeout: args.idle_timeout,
        hall: Hall::new(),
        totals: Arc::default(),
        stop,
    };
    let totals = &terms.totals;
    let mut stopped = terms.stop.listen();
    while let Some(accepted) = stopped.until(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            totals.errors.add(1);
            sleep(AFTER_AN_ERROR).await;
            continue;
        };
        match house.admit(args.max_connections) {
            // Detached: its ticket tells when it is over.
            Some(ticket) => drop(spawn_apart(session::serve(stream, terms.clone(), ticket))),
            // Dropping the stream closes it.
            None => totals.refused.add(1),
        }
    }
    let backed_off = listener.pressure();
    drop(listener);

    let (mut everybody_left, census) = house.close();
    let _ = timeout(EXCHANGES, everybody_left.wait()).await;
    let cut = census.open();
    say(format_args!(
        "total {totals} cut={cut} backed_off={backed_off}"
    ));
    Ok(())
}
