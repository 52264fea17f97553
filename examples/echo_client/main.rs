//! A load generator for the echo server: closed loop, and it counts.
//!
//! ```text
//! cargo run --release --example echo_client -- --connections 1000 --size 64 --duration 5
//! ```
//!
//! Connects everything first, then lets every connection send a message, read
//! it back, and so on until the time is over. The exit status is 1 if a
//! connection failed, if one was never served, or if a byte was wrong: a
//! server that admits some of its clients and forgets the others would look
//! fast otherwise.
//!
//! | module | |
//! |---|---|
//! | `main` | the command line, connecting, the summary |
//! | `session` | one connection |
//! | `pattern` | what is sent, and how a wrong byte is found |
//! | `figures` | latencies |

#![forbid(unsafe_op_in_unsafe_fn)]

#[path = "../common/mod.rs"]
mod common;
mod figures;
mod pattern;
mod session;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, value_parser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isochrome::net::TcpStream;
use isochrome::time::{sleep, timeout};
use isochrome::{Color, JoinHandle, spawn};

use common::cli::{self, Driver};
use common::limits::raise_descriptor_limit;
use figures::{Figures, Latencies};
use session::{Failure, Plan};

/// Connections under way at once. More would overflow the backlog of a
/// server that does not accept fast enough, and a SYN that was dropped is
/// sent again after a whole second only.
const DIALERS: usize = 64;

/// The longest that connecting may take, all connections together.
const DIALING: Duration = Duration::from_secs(30);

/// How long a round trip that is under way at the end may take to finish.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks of the progress bar.
const TICK: Duration = Duration::from_millis(100);

/// Makes load for an echo server.
#[derive(Debug, Parser)]
#[command(name = "echo_client")]
struct Args {
    /// Where the server listens
    #[arg(default_value = "127.0.0.1:7777")]
    addr: String,
    /// Connections, all at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..))]
    connections: u32,
    /// The size of each message
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = value_parser!(u32).range(1..))]
    size: u32,
    /// How long to make round trips, once all are connected
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = cli::seconds)]
    duration: Duration,
    /// Stop each connection after this many round trips
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Send other bytes on each connection in each round, and check every one
    #[arg(long)]
    verify: bool,
    /// What carries out the I/O
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
    /// Threads that run connections [default: one a core]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("echo_client: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    raise_descriptor_limit();
    let runtime = cli::runtime(args.driver, args.workers).map_err(|e| e.to_string())?;
    let summary = runtime.block_on(load(args));
    writeln!(io::stdout(), "{summary}").map_err(|e| format!("cannot print the summary: {e}"))?;
    summary.verdict()
}

async fn load(args: &Args) -> Summary {
    let begun = Instant::now();
    let (streams, failures) = connect(args).await;
    let mut summary = Summary {
        asked: args.connections as usize,
        established: streams.len(),
        served: 0,
        failed: failures.len(),
        reason: failures.into_iter().next(),
        connecting: begun.elapsed(),
        running: Duration::ZERO,
        round_trips: 0,
        bytes: 0,
        latencies: Figures::new().latencies(),
    };
    make_round_trips(args, streams, &mut summary).await;
    summary
}

type Dialed = (usize, io::Result<TcpStream>);

/// Establishes all connections, some at a time.
async fn connect(args: &Args) -> (Vec<(usize, TcpStream)>, Vec<String>) {
    let end = Instant::now() + DIALING;
    let dialers: Vec<JoinHandle<Vec<Dialed>>> = (0..DIALERS)
        .map(|first| {
            let numbers = (first..args.connections as usize).step_by(DIALERS);
            Color::new().spawn(dial(args.addr.clone(), numbers, end))
        })
        .collect();
    let (mut streams, mut failures) = (Vec::new(), Vec::new());
    for dialer in dialers {
        let dialed = match dialer.await {
            Ok(dialed) => dialed,
            Err(e) => {
                failures.push(format!("a connecting task ended: {e}"));
                continue;
            }
        };
        for (number, stream) in dialed {
            match stream {
                Ok(stream) => streams.push((number, stream)),
                Err(e) => failures.push(format!("connection {number}: cannot connect: {e}")),
            }
        }
    }
    (streams, failures)
}

async fn dial(
    addr: String,
    numbers: impl Iterator<Item = usize> + Send + 'static,
    end: Instant,
) -> Vec<Dialed> {
    let mut dialed = Vec::new();
    for number in numbers {
        let left = end.saturating_duration_since(Instant::now());
        let stream = match timeout(left, TcpStream::connect(addr.as_str())).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let stream = stream.and_then(|s| s.set_nodelay(true).map(|()| s));
        dialed.push((number, stream));
    }
    dialed
}

async fn make_round_trips(args: &Args, streams: Vec<(usize, TcpStream)>, summary: &mut Summary) {
    let figures = Arc::new(Figures::new());
    let plan = Plan {
        size: args.size as usize,
        verify: args.verify,
        requests: args.requests,
    };
    let begun = Instant::now();
    let end = begun + args.duration;
    let sessions: Vec<(usize, JoinHandle<_>)> = streams
        .into_iter()
        .map(|(number, stream)| {
            let session = session::run(stream, number, plan, end, figures.clone());
            // The clock of the patience starts now, so it includes the run.
            let session = timeout(args.duration + PATIENCE, session);
            (number, Color::new().spawn(session))
        })
        .collect();
    let progress = spawn(show_progress(figures.clone(), args.duration));
    for (number, session) in sessions {
        let outcome = match session.await {
            Ok(Ok(outcome)) => outcome.map_err(|e| e.to_string()),
            Ok(Err(_elapsed)) => Err(Failure::NoAnswer.to_string()),
            Err(e) => Err(format!("its task ended: {e}")),
        };
        summary.count(number, outcome);
    }
    summary.running = begun.elapsed();
    progress.abort();
    let _ = progress.await;
    summary.round_trips = figures.round_trips();
    summary.bytes = summary.round_trips * u64::from(args.size);
    summary.latencies = figures.latencies();
}

/// A bar on stderr; nothing, if that is no terminal.
async fn show_progress(figures: Arc<Figures>, duration: Duration) {
    let bar = ProgressBar::with_draw_target(
        Some(duration.as_millis() as u64),
        ProgressDrawTarget::stderr(),
    );
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {msg}");
    bar.set_style(style.expect("a constant template is fine"));
    let cleared = ClearOnDrop(bar);
    if cleared.0.is_hidden() {
        return;
    }
    let begun = Instant::now();
    loop {
        sleep(TICK).await;
        let elapsed = begun.elapsed();
        let rate = figures.round_trips() as f64 / elapsed.as_secs_f64();
        cleared.0.set_position(elapsed.as_millis() as u64);
        cleared.0.set_message(format!("{rate:.0} round trips/s"));
    }
}

/// The task that shows the bar is aborted: the bar goes with it.
struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What came of it.
struct Summary {
    asked: usize,
    established: usize,
    /// Connections with at least one round trip.
    served: usize,
    failed: usize,
    /// Of the first failure.
    reason: Option<String>,
    connecting: Duration,
    running: Duration,
    round_trips: u64,
    bytes: u64,
    latencies: Latencies,
}

impl Summary {
    /// Counts a connection that is over, with its round trips.
    fn count(&mut self, number: usize, outcome: Result<u64, String>) {
        match outcome {
            Ok(0) => {
                let reason = || format!("connection {number}: never served");
                self.reason.get_or_insert_with(reason);
            }
            Ok(_) => self.served += 1,
            Err(e) => {
                self.failed += 1;
                self.reason
                    .get_or_insert_with(|| format!("connection {number}: {e}"));
            }
        }
    }

    fn verdict(&self) -> Result<(), String> {
        if self.served == self.asked {
            return Ok(());
        }
        let reason = self.reason.as_deref().unwrap_or("unknown");
        let (wrong, asked) = (self.asked - self.served, self.asked);
        Err(format!("{reason} ({wrong} of {asked} connections failed)"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            established,
            served,
            failed,
            connecting,
            running,
            round_trips,
            ..
        } = self;
        let seconds = running.as_secs_f64();
        let rate = self.round_trips as f64 / seconds;
        let megabytes = self.bytes as f64 / 1e6 / seconds;
        writeln!(
            f,
            "connections established={established} served={served} failed={failed} connected_in={connecting:.2?}"
        )?;
        writeln!(
            f,
            "round_trips={round_trips} in={running:.2?} rate={rate:.0}/s throughput={megabytes:.2}MB/s"
        )?;
        write!(f, "latency {}", self.latencies)
    }
}
