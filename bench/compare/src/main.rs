//! Every claim of speed, side by side, in one command:
//!
//! ```text
//! cargo run --release -p compare -- [--quick] [--only SUITE] [--peer NAME]
//! cargo run --release -p compare -- --handicap
//! cargo run --release -p compare -- --agree RUN RUN
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
//! | `rounds` | who is measured when, beside the base; which rounds count |
//! | `stats` | medians of ratios, their intervals, the discard rule |
//! | `suites` | what is measured |
//! | `report`, `charts` | the results folder |
//! | `agree` | whether two results folders say the same |
//! | `machine` | on what it was measured |
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod agree;
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
use std::time::Instant;

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
    /// Interleaved rounds of everything, instead of what each suite has.
    #[arg(long)]
    rounds: Option<usize>,
    /// Test the yardstick itself: a server with one system call too many a
    /// round trip must show, and a server beside itself must not.
    #[arg(long)]
    handicap: bool,
    /// Measures nothing: whether two results folders agree on every ratio.
    #[arg(long, num_args = 2, value_name = "RUN")]
    agree: Option<Vec<PathBuf>>,
    /// Measure what is built already.
    #[arg(long)]
    no_build: bool,
    /// Where results go, instead of bench/results/<date>.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A suite, how many seconds it will take, and what measures it.
type Step = (&'static str, f64, fn(&mut suites::Bench));

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.agree {
        Some(runs) => agree::agree(&runs[0], &runs[1]),
        None => run(&args).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.rounds == Some(0) {
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
    if has(Suite::Counts) || args.handicap {
        packages.push("counts".into());
    }
    let mut seen = Vec::new();
    packages.retain(|p| {
        !p.is_empty() && !seen.contains(p) && {
            seen.push(p.clone());
            true
        }
    });
    let (mut failed, mut missing) = Default::default();
    if !args.no_build {
        failed = builds::build(&bench, &packages);
        if serves || has(Suite::Counts) {
            missing = builds::build_foreign(&bench);
        }
    }
    for server in &all.server {
        if let Some(why) = &server.broken {
            failed
                .entry(server.package.clone())
                .or_insert_with(|| why.clone());
        }
    }
    all.server
        .retain(|s| !failed.contains_key(&s.package) && !missing.contains_key(&s.bin));
    all.sched.retain(|s| !failed.contains_key(&s.package));
    // Packages and binaries: what somebody looks for is in one list.
    failed.append(&mut missing);
    for (what, why) in &failed {
        eprintln!("not built: {what}: {why}");
    }
    if let Some(why) = failed.get("load") {
        bail!("the load generator does not build: {why}");
    }

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
    let mut steps: Vec<Step> = Vec::new();
    if args.handicap {
        steps.push(("handicap", to.handicap_seconds(), suites::Bench::handicap));
        let counts = suites::Bench::handicap_counts;
        steps.push(("counts of it", suites::HANDICAP_COUNTS, counts));
    }
    if has(Suite::Echo) {
        steps.push(("echo", to.echo_seconds(), suites::Bench::echo));
    }
    if has(Suite::Old) {
        steps.push(("old", to.old_seconds(), suites::Bench::old));
    }
    if has(Suite::Idle) {
        steps.push(("idle", to.idle_seconds(), suites::Bench::idle));
    }
    if has(Suite::Sched) {
        steps.push(("sched", to.sched_seconds(), suites::Bench::sched));
    }
    if has(Suite::Counts) && args.quick && args.only.is_empty() {
        let why = "counts: left out, as they take minutes; `--only counts` measures them";
        to.notes.push(why.into());
    } else if has(Suite::Counts) {
        steps.push(("counts", suites::COUNTS, suites::Bench::counts));
    }
    let parts = steps
        .iter()
        .map(|(name, seconds, _)| format!("{name} {seconds:.0}"));
    let parts = parts.collect::<Vec<_>>().join(", ");
    let all: f64 = steps.iter().map(|(_, seconds, _)| seconds).sum();
    eprintln!("this takes about {:.0} s on a quiet machine ({parts})", all);
    for (name, _, measure) in steps {
        let begun = Instant::now();
        measure(&mut to);
        eprintln!("{name}: {} s", begun.elapsed().as_secs());
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
    if args.handicap {
        for said in report::planted(&to.servers, &to.counts) {
            println!("{said}");
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
