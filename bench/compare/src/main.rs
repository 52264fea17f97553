//! Every claim of speed, side by side, in one command:
//!
//! ```text
//! cargo run --release -p compare -- [--quick] [--only SUITE] [--peer NAME]
//! ```
//!
//! Builds every contestant by itself, measures in interleaved rounds, and
//! writes `bench/results/<date>/`. `docs/performance.md` explains the figures.
//!
//! | module | what it holds |
//! |---|---|
//! | `catalogue` | who takes part |
//! | `builds` | one package at a time |
//! | `child` | pinned children, bounded and ended by id: the only `unsafe` |
//! | `rounds` | A B C, A B C, ..; which rounds count |
//! | `stats` | medians of ratios, spread, the discard rule |
//! | `suites` | what is measured |
//! | `report`, `charts` | the results folder |
//! | `machine` | on what it was measured |
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod builds;
mod catalogue;
mod charts;
mod child;
mod machine;
mod report;
mod rounds;
mod stats;
mod suites;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// CPU per round trip, throughput, latency.
    Echo,
    /// The architectures of old, from 1 to 10,000 connections.
    Old,
    /// Spawn, yield, wake, timers, channels.
    Sched,
    /// Instructions, system calls, allocations.
    Counts,
    /// Memory of idle connections.
    Idle,
}

/// Every claim of speed, side by side.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Fewer cells and shorter windows: measured within 3 minutes.
    #[arg(long)]
    quick: bool,
    /// Only this suite (may be given more than once).
    #[arg(long, value_name = "SUITE")]
    only: Vec<Suite>,
    /// Beside the floor and Isochrome, only contestants whose name has this in
    /// it (may be given more than once).
    #[arg(long, value_name = "NAME")]
    peer: Vec<String>,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Test the yardstick itself: a server with one system call too many a
    /// round trip must show, and a server beside itself must not.
    #[arg(long)]
    handicap: bool,
    /// Measure what is built already.
    #[arg(long)]
    no_build: bool,
    /// Where results go, instead of bench/results/<date>.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    ctrlc::set_handler(|| child::STOP.store(true, Ordering::Relaxed)).context("Ctrl-C")?;
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()?;
    let machine = machine::facts(&bench);
    // Children inherit it: 10,000 connections need 10,000 descriptors.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;

    let mut all = catalogue::read(&bench)?;
    let wanted = |name: &str| args.peer.is_empty() || args.peer.iter().any(|p| name.contains(p));
    all.server.retain(|s| {
        wanted(&s.name) || s.group == "isochrome" || (s.group == "floor" && s.io == "epoll")
    });
    all.sched
        .retain(|s| wanted(&s.runtime) || s.runtime.contains("isochrome") || s.runtime == "tokio");
    let has = |suite| !args.handicap && (args.only.is_empty() || args.only.contains(&suite));
    let serves = args.handicap || has(Suite::Echo) || has(Suite::Old) || has(Suite::Idle);

    let mut packages = vec!["load".to_owned()];
    if serves || has(Suite::Counts) {
        packages.extend(all.server.iter().map(|s| s.package.clone()));
    }
    if has(Suite::Sched) || has(Suite::Counts) {
        packages.extend(all.sched.iter().map(|s| s.package.clone()));
    }
    if has(Suite::Counts) {
        packages.push("counts".into());
    }
    let mut seen = Vec::new();
    packages.retain(|p| {
        !p.is_empty() && !seen.contains(p) && {
            seen.push(p.clone());
            true
        }
    });
    let mut failed = if args.no_build {
        Default::default()
    } else {
        builds::build(&bench, &packages)
    };
    for server in &all.server {
        if let Some(why) = &server.broken {
            failed
                .entry(server.package.clone())
                .or_insert_with(|| why.clone());
        }
    }
    for (package, why) in &failed {
        eprintln!("not built: {package}: {why}");
    }
    if let Some(why) = failed.get("load") {
        bail!("the load generator does not build: {why}");
    }
    all.server.retain(|s| !failed.contains_key(&s.package));
    all.sched.retain(|s| !failed.contains_key(&s.package));

    // Ourselves beside the client, which is the smaller evil; we sleep.
    let mut core = CpuSet::new();
    core.set(suites::CLIENT_CORE)?;
    sched_setaffinity(Pid::from_raw(0), &core).context("two cores are needed")?;

    let mut to = suites::Bench {
        quick: args.quick,
        rounds: args.rounds,
        bins: builds::target(&bench),
        servers: all.server,
        sched: all.sched,
        raw: Vec::new(),
        lines: Vec::new(),
        counts: Vec::new(),
        notes: Vec::new(),
    };
    let start = Instant::now();
    // Seconds. Quick: their sum is 3 minutes less what ending takes.
    let budget = |quick, full| Duration::from_secs(if args.quick { quick } else { full });
    if args.handicap {
        to.handicap(budget(60, 300));
    }
    if has(Suite::Echo) {
        to.echo(budget(65, 3600));
    }
    if has(Suite::Old) {
        to.old(budget(35, 3600));
    }
    if has(Suite::Idle) {
        to.idle(budget(15, 600));
    }
    if has(Suite::Sched) {
        to.sched(budget(25, 3600));
    }
    if has(Suite::Counts) {
        to.counts(budget(25, 1800));
    }
    if child::STOP.load(Ordering::Relaxed) {
        to.notes
            .push("stopped by hand: what was measured until then".into());
    }

    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("cargo run --release -p compare -- {}", words.join(" "));
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => dated(&bench)?,
    };
    report::write(
        &folder,
        &to,
        &machine,
        &failed,
        command.trim_end_matches([' ', '-']),
    )?;
    for line in to.lines.iter().filter(|l| l.suite == "handicap") {
        if let Some(r) = line.ratios.get("cpu_ns") {
            println!(
                "{}: CPU x {:.3} [{:.3}, {:.3}]",
                line.name, r.median, r.low, r.high
            );
        }
    }
    for note in &to.notes {
        println!("note: {note}");
    }
    let discarded: usize = to.lines.iter().map(|l| l.discarded).sum();
    println!(
        "{discarded} measurements discarded; measured in {} s",
        start.elapsed().as_secs()
    );
    println!("{}", folder.join("README.md").display());
    Ok(())
}

/// `results/2026-01-31`, or with the time behind it if that is taken.
fn dated(bench: &Path) -> Result<PathBuf> {
    let date = |format: &str| -> Result<String> {
        let out = Command::new("date")
            .args(["-u", format])
            .output()
            .context("date")?;
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let folder = bench.join("results").join(date("+%F")?);
    if !folder.exists() {
        return Ok(folder);
    }
    Ok(bench.join("results").join(date("+%F-%H%M%S")?))
}
