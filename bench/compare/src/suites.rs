//! What is measured: each suite makes lines.
//!
//! A server is started fresh for every measurement. That costs some 30 ms and
//! buys that addresses, page colors and hash seeds are drawn anew each round,
//! so that their luck shows in the interval and not in the median; and no idle
//! rival is in memory while one is measured.
//!
//! Many short windows beat few long ones here: what disturbs a virtual machine
//! lasts for seconds, and is outlived by none of them but divided out by the
//! base beside each (see `rounds`).
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use load::Report;
use serde_json::Value;

use crate::catalogue::{Sched, Server};
use crate::child::{self, Had, STOP};
use crate::rounds::{self, Done, Line, Measured, Plan};
use crate::stats;

mod connections;
mod echo;
mod scheduler;

pub use scheduler::{COUNTS, HANDICAP_COUNTS};

pub const SERVER_CORE: usize = 0;
pub const CLIENT_CORE: usize = 1;

pub struct Bench {
    pub quick: bool,
    /// `--rounds`
    pub rounds: Option<usize>,
    /// Where binaries are.
    pub bins: PathBuf,
    pub servers: Vec<Server>,
    pub sched: Vec<Sched>,
    pub raw: Vec<Value>,
    pub lines: Vec<Line>,
    /// `counts`: as they were printed.
    pub counts: Vec<Value>,
    pub notes: Vec<String>,
}

type Row = (String, String);

/// The load of one measurement.
struct Load<'a> {
    args: Vec<String>,
    seconds: f64,
    /// For the server.
    protocol: &'a str,
}

/// How much of something is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    rounds: usize,
    /// The window of a measurement.
    seconds: f64,
}

impl Bench {
    /// What a quick and what a full run measure, unless `--rounds` says how
    /// many.
    fn size(&self, quick: Size, full: Size) -> Size {
        let size = if self.quick { quick } else { full };
        Size {
            rounds: self.rounds.unwrap_or(size.rounds),
            ..size
        }
    }

    /// How long something may take that takes so many seconds on a quiet
    /// machine. Quick runs are to end in 3 minutes on any.
    fn deadline(&self, seconds: f64) -> Instant {
        let slack = if self.quick { 1.05 } else { 2.0 };
        Instant::now() + Duration::from_secs_f64(seconds * slack)
    }

    fn bar(&self, steps: usize) -> ProgressBar {
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} {wide_msg}") {
            bar.set_style(style);
        }
        bar
    }

    fn some(&self, groups: &[&str]) -> Vec<Server> {
        let listed = |s: &&Server| groups.contains(&s.group.as_str()) && !s.handicap;
        let mut some: Vec<Server> = self.servers.iter().filter(listed).cloned().collect();
        // The base is first: the epoll floor, or whatever else is there.
        some.sort_by_key(|s| !(s.group == "floor" && s.io == "epoll"));
        some
    }

    /// Starts a server, loads it, ends it; what the client and what the server
    /// say.
    fn load(&self, server: &Server, load: &Load<'_>) -> Result<(Report, Option<Had>)> {
        let mut args = server.args.clone();
        args.extend(["--protocol".into(), load.protocol.into()]);
        let running = child::serve(&self.bins.join(&server.bin), &args, SERVER_CORE)?;
        let mut command = Command::new(self.bins.join("load"));
        command.args([
            "--addr",
            &running.addr,
            "--verify",
            "--protocol",
            load.protocol,
        ]);
        command.args(["--pid", &running.process.pid().to_string()]);
        command.args(["--client-core", &CLIENT_CORE.to_string()]);
        command.args(["--server-core", &SERVER_CORE.to_string()]);
        command.args(["--duration", &load.seconds.to_string()]);
        command.args(["--warmup", &(load.seconds / 4.0).to_string()]);
        command.args(&load.args);
        // Setup, warm-up, drains, and what a slow machine takes beyond.
        let limit = Duration::from_secs_f64(load.seconds * 1.25 + 25.0);
        let out = child::output(&mut command, &[CLIENT_CORE], limit)?;
        match out.code {
            Some(0) => {
                let report = serde_json::from_str(&out.stdout).context("what load said")?;
                Ok((report, running.end()))
            }
            None => bail!("load did not end within {} s", limit.as_secs()),
            Some(_) => bail!("{}", out.stderr.lines().next().unwrap_or("load failed")),
        }
    }

    fn keep(&mut self, wanted: usize, done: Done) {
        let few = |l: &&Line| l.error.is_none() && l.rounds < wanted;
        if let Some(line) = done.lines.iter().find(few) {
            self.notes.push(format!(
                "{}, {}: some lines have fewer than {wanted} rounds (time, or a busy machine)",
                line.suite, line.cell
            ));
        }
        for line in &done.lines {
            if let Some(doubt) = &line.doubt {
                self.notes.push(format!(
                    "{}, {}, {}: {doubt}",
                    line.suite, line.cell, line.name
                ));
            }
        }
        self.lines.extend(done.lines);
        self.raw.extend(done.raw);
    }
}

fn rows(servers: &[Server]) -> Vec<Row> {
    let row = |s: &Server| (s.name.clone(), s.group.clone());
    servers.iter().map(row).collect()
}

/// What client and server say of connections, beside each other.
///
/// A connection that a server refuses may count as established: it was, until
/// the server closed it. One that waits in the backlog is established, and not
/// accepted.
fn doubt(report: &Report, had: Option<Had>, all_are_served: bool) -> Option<String> {
    let clients = &report.clients;
    let Some(had) = had else {
        return Some("the server did not say how many it accepted".into());
    };
    let numbers = format!(
        "clients asked for {}, had {}, were served on {}; the server accepted {}, refused {}",
        clients.asked, clients.established, clients.served, had.accepted, had.refused
    );
    if had.accepted > clients.asked || had.accepted < clients.served {
        return Some(format!("a mismatch: {numbers}"));
    }
    let is_short = had.accepted != clients.established || had.refused > 0;
    (all_are_served && is_short).then(|| format!("not all were served: {numbers}"))
}

fn of_report(r: &Report, had: Option<Had>, all_are_served: bool) -> Measured {
    let trips = r.round_trips.max(1) as f64;
    let server = r.server.unwrap_or_default();
    let missed = r.options.connections as u64 - r.clients.served_in_window;
    let memory = r.server_memory.map_or(0, |m| m.0);
    let figures = [
        ("cpu_ns", server.cpu_ns as f64 / trips),
        ("per_second", r.per_second),
        ("p50_us", r.latency.p50 as f64 / 1e3),
        ("p99_us", r.latency.p99 as f64 / 1e3),
        (
            "switches",
            (server.voluntary + server.involuntary) as f64 / trips,
        ),
        ("memory_mib", memory as f64 / 1048576.0),
        ("served", r.clients.served_in_window as f64),
        ("not_served", missed as f64),
        (
            "failed",
            (r.clients.refused + r.clients.reset + r.clients.failed) as f64,
        ),
        ("refused_by_server", had.map_or(0.0, |h| h.refused as f64)),
    ];
    Measured {
        figures: figures
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
        disturbance: stats::disturbance(r),
        doubt: doubt(r, had, all_are_served),
        raw: serde_json::json!({"load": r, "server_says": had}),
    }
}
