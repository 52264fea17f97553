//! A caching HTTP server: parsing in parallel, the cache in a color.
//!
//! ```text
//! cargo run --release --features hyper --example colored_cache -- 127.0.0.1:8080
//! curl -i http://127.0.0.1:8080/key/7
//! ```
//!
//! `GET /key/N` answers a value that is costly to make: `--cost` microseconds
//! of a core, deterministic. Values are kept in a bounded cache, and
//! `X-Cache: hit` or `miss` says where one came from.
//!
//! It is the web server of libasync-smp's paper (Zeldovich et al., USENIX ATC
//! 2003): each connection has a color of its own, under which it parses and
//! makes values, in parallel with all others; the cache has a color too, which
//! serialises what touches it, without a lock. `--cache` runs the same server
//! with the other ways to share a cache, to compare them.
//!
//! The first line on stdout says where it listens and on what it runs. SIGINT
//! or SIGTERM ends it in order, with its totals on stdout; a second one ends
//! it at once.
//!
//! | module | |
//! |---|---|
//! | `main` | the command line, the accept loop, the end |
//! | `site` | what is answered to a request |
//! | `store` | the four ways to share the cache |
//! | `cache` | the cache itself, apart from any sharing |
//! | `value` | the values |

#![forbid(unsafe_op_in_unsafe_fn)]

mod cache;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/server/mod.rs"]
mod server;
mod site;
mod store;
mod value;

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum, value_parser};
use hyper::server::conn::http1;
use isochrome::hyper::{Io, Timer};
use isochrome::net::{TcpListener, TcpStream};
use isochrome::time::{sleep, timeout};
use isochrome::{Color, Runtime};

use cache::Cache;
use common::cli::{self, Driver};
use server::house::{Count, House, Ticket};
use server::stop::Stop;
use server::{AFTER_AN_ERROR, EXCHANGES, say};
use site::{Figures, Site};
use store::{Actor, Colored, Locked, OneColor, Store};
use value::Work;

/// A caching HTTP server.
#[derive(Debug, Parser)]
#[command(name = "colored_cache")]
struct Args {
    /// Where to listen; port 0 takes any free one
    #[arg(default_value = "127.0.0.1:8080")]
    addr: String,
    /// What carries out the I/O
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
    /// Threads that run connections [default: one a core]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// How the connections share the cache
    #[arg(long, value_enum, default_value = "colored")]
    cache: Sharing,
    /// The most values that are kept
    #[arg(long, value_name = "VALUES", default_value = "1000", value_parser = value_parser!(u32).range(1..))]
    capacity: u32,
    /// What a value costs to make, in microseconds of a core
    #[arg(long, value_name = "MICROSECONDS", default_value = "100", value_parser = value_parser!(u32).range(..=1_000_000))]
    cost: u32,
    /// Close a connection whose next request does not come for this long
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = cli::seconds)]
    idle_timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sharing {
    /// It has a color, and connections take steps under it
    Colored,
    /// Behind a mutex of std
    Mutex,
    /// In a task that the others send messages to
    Actor,
    /// Everything is of one color: nothing is parallel
    OneColor,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("colored_cache: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let (runtime, stop) = server::start(args.driver, args.workers)?;
    runtime.block_on(async {
        let cache = Cache::new(args.capacity as usize);
        // Here the four differ, and in `store`.
        match args.cache {
            Sharing::Colored => {
                let store = Colored::new(cache);
                listen_and_serve(args, &runtime, stop, store, Color::new).await
            }
            Sharing::Mutex => {
                let store = Locked::new(cache);
                listen_and_serve(args, &runtime, stop, store, Color::new).await
            }
            Sharing::Actor => {
                let store = Actor::start(cache);
                listen_and_serve(args, &runtime, stop, store, Color::new).await
            }
            Sharing::OneColor => {
                let color = Color::new();
                let store = OneColor::new(&color, cache);
                listen_and_serve(args, &runtime, stop, store, || color.clone()).await
            }
        }
    })
}

/// What a connection needs of its server.
#[derive(Clone, Debug)]
struct Terms {
    idle_timeout: Duration,
    totals: Arc<Totals>,
    stop: Arc<Stop>,
}

/// Everything since the start.
#[derive(Debug, Default)]
struct Totals {
    /// Connections that were served, whatever became of them.
    connections: Count,
    figures: Figures,
    /// Connections that ended in an error, and accepts that did.
    errors: Count,
}

async fn listen_and_serve<S: Store>(
    args: &Args,
    runtime: &Runtime,
    stop: Arc<Stop>,
    store: S,
    color: impl Fn() -> Color,
) -> Result<(), String> {
    let listener = TcpListener::bind(args.addr.as_str())
        .await
        .map_err(|e| format!("cannot listen on {}: {e}", args.addr))?;
    let addr = listener.local_addr().map_err(|e| e.to_string())?;
    let work = Work::of(Duration::from_micros(args.cost.into()));
    let (driver, workers) = (runtime.driver(), runtime.workers());
    let cache = args.cache.to_possible_value().expect("none is hidden");
    say(format_args!(
        "listening on {addr} driver={driver} workers={workers} cache={}",
        cache.get_name()
    ));

    let house = House::new();
    let terms = Terms {
        idle_timeout: args.idle_timeout,
        totals: Arc::default(),
        stop,
    };
    let mut stopped = terms.stop.listen();
    while let Some(accepted) = stopped.until(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            terms.totals.errors.add(1);
            sleep(AFTER_AN_ERROR).await;
            continue;
        };
        let ticket = house.admit(None).expect("there is no maximum");
        let site = Site::new(store.clone(), work);
        // Detached: its ticket tells when it is over.
        drop(color().spawn(serve(stream, site, terms.clone(), ticket)));
    }
    let backed_off = listener.pressure();
    drop(listener);

    let (mut everybody_left, census) = house.close();
    let _ = timeout(EXCHANGES, everybody_left.wait()).await;
    let cut = census.open();
    let totals = &terms.totals;
    say(format_args!(
        "total connections={} {} errors={} cut={cut} backed_off={backed_off}",
        totals.connections, totals.figures, totals.errors,
    ));
    Ok(())
}

/// Serves one client until it leaves, falls silent or fails, or the server
/// stops: then the request that it is at is still answered.
async fn serve<S: Store>(stream: TcpStream, site: Site<S>, terms: Terms, ticket: Ticket) {
    terms.totals.connections.add(1);
    // If the client is gone already, the first read will tell.
    let _ = stream.set_nodelay(true);
    let figures = site.figures();
    let connection = http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(terms.idle_timeout)
        .serve_connection(Io::new(stream), site);
    let mut connection = pin!(connection);
    let mut stop = terms.stop.listen();
    let served = match stop.until(connection.as_mut()).await {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Silence is an orderly end.
    if served.is_err_and(|e| !e.is_timeout()) {
        terms.totals.errors.add(1);
    }
    terms.totals.figures.add(&figures);
    drop(ticket);
}
