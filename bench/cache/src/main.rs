//! The ways to share a cache, side by side, in one command:
//!
//! ```text
//! cargo run --release -p cache-load [-- --rounds 7 --window 0.35]
//! ```
//!
//! Builds the example `colored_cache`, serves it with each `--cache`, and
//! measures in interleaved rounds (A B C D, A B C D, ..), each with a server of
//! its own, so that nothing is left of the one before. Every body is verified.
//! Writes `bench/results/<date>/cache/`: `README.md` and `raw.json`.
//!
//! Two figures from two runs are no ratio: machines drift. So the ratios are to
//! the mutex *of the same round*, and the median and the spread are those of
//! the ratios.
//!
//! | module | what it holds |
//! |---|---|
//! | `client` | keep-alive connections in a closed loop |
//! | `server` | the example as a pinned child |
//! | `report` | medians, spread, the table |
#![forbid(unsafe_code)]

mod client;
mod report;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use client::Load;
use report::{Measured, Row};
use server::Server;

/// The ways to share; ratios are to the first.
const VARIANTS: [&str; 4] = ["mutex", "colored", "actor", "one-color"];

/// Where server and client run.
#[derive(Debug, Clone)]
pub struct Layout {
    name: &'static str,
    /// What it shows.
    what: &'static str,
    workers: usize,
    server: Vec<usize>,
    client: Vec<usize>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    name: &'static str,
    /// Of the requests, so many ask for a key that is kept.
    hits: f64,
    /// All of them for one key.
    hot: bool,
}

const CELLS: [Cell; 6] = [
    Cell {
        name: "all miss",
        hits: 0.0,
        hot: false,
    },
    Cell {
        name: "50% hits, spread",
        hits: 0.5,
        hot: false,
    },
    Cell {
        name: "50% hits, one key",
        hits: 0.5,
        hot: true,
    },
    Cell {
        name: "95% hits, spread",
        hits: 0.95,
        hot: false,
    },
    Cell {
        name: "95% hits, one key",
        hits: 0.95,
        hot: true,
    },
    Cell {
        name: "all hit, one key",
        hits: 1.0,
        hot: true,
    },
];

/// The ways to share a cache, side by side.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Interleaved rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds measured, each time.
    #[arg(long, default_value_t = 0.35)]
    window: f64,
    /// Keep-alive connections, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// What a value costs to make, in microseconds.
    #[arg(long, default_value_t = 50)]
    cost: u32,
    /// Keys that are kept, where they are spread.
    #[arg(long, default_value_t = 500)]
    keys: u64,
    /// The driver of the server.
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Only cells whose name has this in it.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Only this layout.
    #[arg(long, value_name = "NAME")]
    layout: Option<String>,
    /// Ends after so many seconds, with what there is.
    #[arg(long, default_value_t = 240)]
    limit: u64,
    /// Where results go, instead of bench/results/<date>/cache.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The last core is the client's, where it has one of its own.
fn layouts() -> Result<Vec<Layout>> {
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        bail!("two cores are needed: one for the server, one for the client");
    }
    let all: Vec<usize> = (0..cores).collect();
    Ok(vec![
        Layout {
            name: "apart",
            what: "one worker on core 0, the client on the last: what the sharing costs",
            workers: 1,
            server: vec![0],
            client: vec![cores - 1],
        },
        Layout {
            name: "together",
            what: "a worker a core, the client beside them: what runs in parallel",
            workers: cores,
            server: all.clone(),
            client: all,
        },
    ])
}

fn run(args: &Args) -> Result<()> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("bench/")?;
    let folder = match &args.out {
        Some(out) => out.clone(),
        None => bench.join("results").join(date()?).join("cache"),
    };
    let program = build(bench)?;
    let cells: Vec<Cell> = CELLS
        .into_iter()
        .filter(|cell| {
            args.only
                .as_ref()
                .is_none_or(|only| cell.name.contains(only.as_str()))
        })
        .collect();
    let layouts: Vec<Layout> = layouts()?
        .into_iter()
        .filter(|layout| args.layout.as_ref().is_none_or(|only| layout.name == only))
        .collect();
    if cells.is_empty() || layouts.is_empty() {
        bail!("no cell or layout of that name");
    }

    let end = Instant::now() + Duration::from_secs(args.limit);
    let mut rows: Vec<Row> = Vec::new();
    // Rounds outside, so that a limit costs rounds and not cells.
    'rounds: for round in 0..args.rounds {
        for layout in &layouts {
            for cell in &cells {
                for at in 0..VARIANTS.len() {
                    // Each has another neighbour in each round.
                    let variant = VARIANTS[(at + round) % VARIANTS.len()];
                    if Instant::now() > end {
                        eprintln!("\nthe limit is reached in round {}", round + 1);
                        break 'rounds;
                    }
                    eprint!(
                        "\rround {}/{}  {:9} {:18} {variant:10}",
                        round + 1,
                        args.rounds,
                        layout.name,
                        cell.name
                    );
                    let measured = measure(args, &program, layout, *cell, variant)
                        .with_context(|| format!("{} {} {variant}", layout.name, cell.name))?;
                    rows.push(Row {
                        round,
                        layout: layout.name,
                        cell: cell.name,
                        variant,
                        measured,
                    });
                }
            }
        }
    }
    eprintln!();
    let command = command();
    report::write(&folder, &command, &layouts, &cells, &VARIANTS, &rows)?;
    println!("{}", folder.join("README.md").display());
    Ok(())
}

/// One server and one window of load.
fn measure(
    args: &Args,
    program: &Path,
    layout: &Layout,
    cell: Cell,
    variant: &str,
) -> Result<Measured> {
    let flags = [
        "--cache".to_owned(),
        variant.to_owned(),
        "--driver".to_owned(),
        args.driver.clone(),
        "--workers".to_owned(),
        layout.workers.to_string(),
        "--cost".to_owned(),
        args.cost.to_string(),
        // Room for what is asked for again, whatever comes and goes.
        "--capacity".to_owned(),
        (20 * args.keys).to_string(),
    ];
    let server = Server::start(program, &flags, &layout.server)?;
    server::pin(&layout.client)?;
    let load = Load {
        addr: server.addr,
        pid: server.pid(),
        connections: args.connections,
        keys: if cell.hot { 1 } else { args.keys },
        hits: cell.hits,
        warm_up: Duration::from_millis(100),
        window: Duration::from_secs_f64(args.window),
    };
    let measured = load.run()?;
    server.stop()?;
    Ok(measured)
}

/// Builds the example; where it is.
fn build(bench: &Path) -> Result<PathBuf> {
    let root = bench.parent().context("the repository")?;
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--features", "hyper"])
        .args(["--example", "colored_cache"])
        .current_dir(root)
        .status()?;
    if !status.success() {
        bail!("the example colored_cache does not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| root.join("target"));
    Ok(target.join("release/examples/colored_cache"))
}

fn date() -> Result<String> {
    let out = Command::new("date").arg("+%F").output()?;
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

/// As it can be typed again.
fn command() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut command = "cd bench && cargo run --release -p cache-load".to_owned();
    if !args.is_empty() {
        command += &format!(" -- {}", args.join(" "));
    }
    command
}
