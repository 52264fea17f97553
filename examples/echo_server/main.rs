//! An echo server on Isochrome.
//!
//! ```text
//! cargo run --release --example echo_server -- 127.0.0.1:7777 --stats 1
//! ```
//!
//! The first line on stdout says where it listens and on what it runs:
//! `listening on 127.0.0.1:7777 driver=proactor workers=2`. SIGINT or SIGTERM
//! ends it in order, with its totals on stdout; a second one ends it at once.
//!
//! | module | |
//! |---|---|
//! | `main` | the command line, the accept loop, the end |
//! | `connection` | one connection, from its first byte to its last |
//! | `delimited` | the stateful protocol, apart from any I/O |
//! | `totals` | what is counted |
//! | `server` | shared: signals, who is connected, how everybody hears that it is over |

#![forbid(unsafe_op_in_unsafe_fn)]

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod delimited;
#[path = "../common/server/mod.rs"]
mod server;
mod totals;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum, value_parser};
use isochrome::net::{ListenFd, TcpListener, TcpStream, listen_fds};
use isochrome::time::{sleep, timeout};
use isochrome::{Runtime, spawn, spawn_apart};

use common::cli::{self, Driver};
use connection::{Protocol, Terms};
use server::house::House;
use server::stop::Stop;
use server::{AFTER_AN_ERROR, EXCHANGES, say};
use totals::Totals;

/// An echo server.
#[derive(Debug, Parser)]
#[command(name = "echo_server")]
struct Args {
    /// Where to listen; port 0 takes any free one
    #[arg(default_value = "127.0.0.1:7777")]
    addr: String,
    /// Serve the listening TCP socket that the service manager hands over
    /// (systemd's socket activation: LISTEN_FDS) instead
    #[arg(long, conflicts_with = "addr")]
    listen_fds: bool,
    /// What carries out the I/O
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
    /// Threads that run connections [default: one a core]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// What is answered
    #[arg(long, value_enum, default_value = "echo")]
    protocol: Protocol,
    /// Which connections run one after another
    #[arg(long, value_enum, default_value = "connection")]
    color: Coloring,
    /// Clients above this number are closed at once
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Close a connection that sends nothing for this long
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    idle_timeout: Option<Duration>,
    /// Print a line on stderr this often
    #[arg(long, value_name = "SECONDS", value_parser = cli::seconds)]
    stats: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Coloring {
    /// None: each connection has a color of its own
    Connection,
    /// All: they share the default color
    Default,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("echo_server: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    // Before anybody else opens a descriptor.
    let given = args.listen_fds.then(handed_over).transpose()?;
    let (runtime, stop) = server::start(args.driver, args.workers)?;
    runtime.block_on(async {
        let listener = match given {
            Some(given) => given.into_tcp_listener().map_err(|e| e.to_string())?,
            None => TcpListener::bind(args.addr.as_str())
                .await
                .map_err(|e| format!("cannot listen on {}: {e}", args.addr))?,
        };
        serve(args, listener, &runtime, stop).await
    })
}

/// The first listening TCP socket among what was handed over.
fn handed_over() -> Result<ListenFd, String> {
    let given = listen_fds().map_err(|e| format!("LISTEN_FDS: {e}"))?;
    let mut given = given.into_iter().filter(ListenFd::is_tcp_listener);
    let none = "no listening TCP socket was handed over: is it a .socket unit that starts this?";
    given.next().ok_or_else(|| none.to_owned())
}

async fn serve(
    args: &Args,
    listener: TcpListener,
    runtime: &Runtime,
    stop: Arc<Stop>,
) -> Result<(), String> {
    let addr = listener.local_addr().map_err(|e| e.to_string())?;
    let (driver, workers) = (runtime.driver(), runtime.workers());
    say(format_args!(
        "listening on {addr} driver={driver} workers={workers}"
    ));

    let house = House::new();
    let terms = Terms {
        protocol: args.protocol,
        idle_timeout: args.idle_timeout,
        totals: Arc::new(Totals::default()),
        stop,
    };
    let totals = &terms.totals;
    if let Some(period) = args.stats {
        let stop = terms.stop.listen();
        // Detached: it ends by itself.
        drop(spawn(totals::report(
            totals.clone(),
            house.census(),
            period,
            stop,
        )));
    }
    accept(args, &listener, &house, &terms).await;
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

/// Takes clients in until the server stops.
async fn accept(args: &Args, listener: &TcpListener, house: &House, terms: &Terms) {
    let mut stop = terms.stop.listen();
    while let Some(accepted) = stop.until(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => match house.admit(args.max_connections) {
                Some(ticket) => {
                    let connection = connection::serve(stream, terms.clone(), ticket);
                    start(args.color, connection);
                }
                None => {
                    terms.totals.refused.add(1);
                    close(stream);
                }
            },
            Err(_) => {
                terms.totals.errors.add(1);
                sleep(AFTER_AN_ERROR).await;
            }
        }
    }
}

/// Lets a connection run, detached: its ticket tells when it is over.
fn start(coloring: Coloring, connection: impl Future<Output = ()> + Send + 'static) {
    drop(match coloring {
        Coloring::Connection => spawn_apart(connection),
        Coloring::Default => spawn(connection),
    });
}

/// Dropping a stream closes it.
fn close(_: TcpStream) {}
