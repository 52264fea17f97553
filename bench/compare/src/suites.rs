//! What is measured: each suite makes lines.
//!
//! A server is started fresh for every measurement. That costs some 20 ms and
//! buys that addresses, page colors and hash seeds are drawn anew each round,
//! so that their luck shows in the spread and not in the median; and no idle
//! rival is in memory while one is measured.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use load::Report;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use crate::catalogue::{Sched, Server};
use crate::child::{self, STOP};
use crate::rounds::{self, Line, Measured, Plan};
use crate::stats::{self, Core};

pub const SERVER_CORE: usize = 0;
pub const CLIENT_CORE: usize = 1;

pub struct Bench {
    pub quick: bool,
    pub rounds: usize,
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

impl Bench {
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

    fn load(&self, server: &Server, load: &Load<'_>) -> Result<Report> {
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
            Some(0) => serde_json::from_str(&out.stdout).context("what load said"),
            None => bail!("load did not end within {} s", limit.as_secs()),
            Some(_) => bail!("{}", out.stderr.lines().next().unwrap_or("load failed")),
        }
    }

    /// CPU per round trip, throughput and latency of an echo, beside the floor.
    pub fn echo(&mut self, budget: Duration) {
        let cells: &[(usize, usize)] = if self.quick {
            &[(64, 64)]
        } else {
            &[
                (1, 64),
                (64, 64),
                (1000, 64),
                (1, 4096),
                (64, 4096),
                (1000, 4096),
            ]
        };
        let servers = self.some(&["floor", "peer", "isochrome"]);
        self.echo_cells("echo", cells, &servers, budget);
    }

    /// The handicapped server beside the same server without.
    pub fn handicap(&mut self, budget: Duration) {
        let Some(slow) = self.servers.iter().find(|s| s.handicap).cloned() else {
            self.notes
                .push("handicap: no server of that name in the catalogue".into());
            return;
        };
        let same = |s: &&Server| s.package == slow.package && s.io == slow.io && !s.handicap;
        let Some(base) = self.servers.iter().find(same).cloned() else {
            self.notes
                .push(format!("handicap: nothing to compare {} with", slow.name));
            return;
        };
        // The base twice: the yardstick must also see no difference where none is.
        let twin = Server {
            name: format!("{} again", base.name),
            ..base.clone()
        };
        self.echo_cells("handicap", &[(64, 64)], &[base, twin, slow], budget);
    }

    fn echo_cells(
        &mut self,
        suite: &str,
        cells: &[(usize, usize)],
        servers: &[Server],
        budget: Duration,
    ) {
        if servers.is_empty() {
            return;
        }
        let rows: Vec<Row> = servers
            .iter()
            .map(|s| (s.name.clone(), s.group.clone()))
            .collect();
        let bar = self.bar(cells.len() * rows.len() * self.rounds);
        let start = Instant::now();
        let measurements = cells.len() * rows.len() * self.rounds;
        // Starting, connecting and settling take about 0.15 s beside the window.
        let each = budget.as_secs_f64() / measurements as f64 - 0.15;
        let seconds = if self.quick {
            (each / 1.25).clamp(0.25, 1.0)
        } else {
            1.0
        };
        for (k, &(connections, size)) in cells.iter().enumerate() {
            if STOP.load(Ordering::Relaxed) {
                break;
            }
            let load = Load {
                args: [
                    "--connections",
                    &connections.to_string(),
                    "--size",
                    &size.to_string(),
                ]
                .map(str::to_owned)
                .into(),
                seconds,
                protocol: "echo",
            };
            let deadline = start + budget.mul_f64((k + 1) as f64 / cells.len() as f64);
            let this = &*self;
            let results = |i: usize| {
                let report = this.load(&servers[i], &load)?;
                if report.round_trips == 0 {
                    bail!("no round trip in the window");
                }
                if report.clients.served_in_window < connections as u64 {
                    bail!(
                        "served {} of {connections}",
                        report.clients.served_in_window
                    );
                }
                Ok(of_report(&report))
            };
            // Measured through a shared borrow, stored after.
            let cell = format!("C={connections} {size} B");
            let mut raw = Vec::new();
            let plan = Plan {
                suite,
                cell: &cell,
                rounds: self.rounds,
                deadline,
                bar: &bar,
                raw: &mut |value| raw.push(value),
            };
            let lines = rounds::run(plan, &rows, results);
            self.keep(suite, &cell, lines, raw);
        }
        bar.finish_and_clear();
    }

    fn keep(&mut self, suite: &str, cell: &str, lines: Vec<Line>, raw: Vec<Value>) {
        if lines
            .iter()
            .any(|l| l.error.is_none() && l.rounds < self.rounds)
        {
            self.notes.push(format!(
                "{suite}, {cell}: some lines have fewer than {} rounds (time, or a busy machine)",
                self.rounds
            ));
        }
        self.lines.extend(lines);
        self.raw.extend(raw);
    }
}

fn of_report(r: &Report) -> Measured {
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
    ];
    Measured {
        figures: figures
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
        disturbance: stats::disturbance(r),
        raw: serde_json::to_value(r).unwrap_or_default(),
    }
}

impl Bench {
    /// The old architectures and Isochrome, speaking the delimited protocol.
    ///
    /// Clients come and go: 10 round trips, then a new connection, whose first
    /// latency includes the connect. With clients that stay, a sequential
    /// server would serve one for ever and the others never.
    pub fn old(&mut self, budget: Duration) {
        let cells: &[usize] = if self.quick {
            &[1, 100, 1000]
        } else {
            &[1, 10, 100, 1000, 10_000]
        };
        let mut servers = self.some(&["old", "isochrome"]);
        // Each driver once: variants of the read call are the echo suite's.
        let mut seen = Vec::new();
        servers.retain(|s| {
            s.group == "old"
                || (!seen.contains(&s.io) && {
                    seen.push(s.io.clone());
                    true
                })
        });
        servers.sort_by_key(|s| s.group != "isochrome");
        if servers.is_empty() {
            return;
        }
        let rows: Vec<Row> = servers
            .iter()
            .map(|s| (s.name.clone(), s.group.clone()))
            .collect();
        let wanted = if self.quick {
            self.rounds.min(3)
        } else {
            self.rounds
        };
        let bar = self.bar(cells.len() * rows.len() * wanted);
        let start = Instant::now();
        let seconds = if self.quick { 0.3 } else { 1.0 };
        for (k, &connections) in cells.iter().enumerate() {
            if STOP.load(Ordering::Relaxed) {
                break;
            }
            let setup = if self.quick { "1.5" } else { "5" };
            let load = Load {
                args: ["--session", "10", "--setup-timeout", setup, "--connections"]
                    .into_iter()
                    .map(str::to_owned)
                    .chain([connections.to_string()])
                    .collect(),
                seconds,
                protocol: "delimited",
            };
            let deadline = start + budget.mul_f64((k + 1) as f64 / cells.len() as f64);
            let cell = format!("C={connections}");
            let mut raw = Vec::new();
            let plan = Plan {
                suite: "old",
                cell: &cell,
                rounds: wanted,
                deadline,
                bar: &bar,
                raw: &mut |value| raw.push(value),
            };
            let this = &*self;
            let lines = rounds::run(plan, &rows, |i| {
                Ok(of_report(&this.load(&servers[i], &load)?))
            });
            self.keep("old", &cell, lines, raw);
        }
        bar.finish_and_clear();
    }

    /// Memory of the server's own that an idle connection holds.
    pub fn idle(&mut self, budget: Duration) {
        let idle = if self.quick { 2000 } else { 10_000 };
        let servers = self.some(&["floor", "peer", "isochrome"]);
        if servers.is_empty() {
            return;
        }
        let rows: Vec<Row> = servers
            .iter()
            .map(|s| (s.name.clone(), s.group.clone()))
            .collect();
        // Bytes hardly vary, and nobody else's work changes them.
        let wanted = if self.quick { 1 } else { 3 };
        let bar = self.bar(rows.len() * wanted);
        let load = Load {
            args: vec!["--idle".into(), idle.to_string()],
            seconds: 0.1,
            protocol: "echo",
        };
        let cell = format!("{idle} idle");
        let mut raw = Vec::new();
        let plan = Plan {
            suite: "idle",
            cell: &cell,
            rounds: wanted,
            deadline: Instant::now() + budget,
            bar: &bar,
            raw: &mut |value| raw.push(value),
        };
        let this = &*self;
        let lines = rounds::run(plan, &rows, |i| {
            let r = this.load(&servers[i], &load)?;
            if r.clients.idle < idle {
                bail!("{} of {idle} idle connections were served", r.clients.idle);
            }
            let (Some(after), Some(before)) = (r.server, r.server_before_idle) else {
                bail!("no figures of the server");
            };
            let bytes = after.rss_anon.saturating_sub(before.rss_anon) as f64;
            let figures = [
                ("bytes_per_connection", bytes / idle as f64),
                ("before_mib", before.rss_anon as f64 / 1048576.0),
            ];
            Ok(Measured {
                figures: figures
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect(),
                disturbance: None,
                raw: serde_json::to_value(&r)?,
            })
        });
        bar.finish_and_clear();
        self.lines.extend(lines);
        self.raw.extend(raw);
    }

    /// The scheduler micro-benchmarks, beside tokio where it is there.
    pub fn sched(&mut self, budget: Duration) {
        let start = Instant::now();
        for workers in [1, 2] {
            let mut some: Vec<Sched> = self
                .sched
                .iter()
                .filter(|s| s.workers.contains(&workers))
                .cloned()
                .collect();
            some.sort_by_key(|s| s.runtime != "tokio");
            if some.is_empty() || STOP.load(Ordering::Relaxed) {
                continue;
            }
            let rows: Vec<Row> = some
                .iter()
                .map(|s| (s.runtime.clone(), "sched".to_owned()))
                .collect();
            let wanted = if self.quick {
                self.rounds.min(3)
            } else {
                self.rounds
            };
            let bar = self.bar(rows.len() * wanted);
            let scale = if self.quick { "0.05" } else { "1" };
            let cores: Vec<usize> = (0..workers).collect();
            let limit = if self.quick { 10 } else { 120 };
            let cell = format!("{workers} workers");
            let mut raw = Vec::new();
            let plan = Plan {
                suite: "sched",
                cell: &cell,
                rounds: wanted,
                deadline: start + budget.mul_f64(workers as f64 / 2.0),
                bar: &bar,
                raw: &mut |value| raw.push(value),
            };
            let bins = self.bins.clone();
            let lines = rounds::run(plan, &rows, |i| {
                let mut command = Command::new(bins.join(&some[i].bin));
                command.args(["--workers", &workers.to_string(), "--scale", scale]);
                command.args(&some[i].args);
                sched_once(&mut command, &cores, Duration::from_secs(limit))
            });
            bar.finish_and_clear();
            self.keep("sched", &cell, lines, raw);
        }
    }

    /// What noise cannot touch.
    pub fn counts(&mut self, budget: Duration) {
        let bar = self.bar(1);
        bar.set_message("counts");
        bar.tick();
        let mut command = Command::new(self.bins.join("counts"));
        // What it counts is built, if counts is measured at all.
        command.args(["--json", "--no-build"]);
        match child::output(&mut command, &[], budget) {
            Ok(out) => {
                // What was printed before the limit counts.
                let lines = out
                    .stdout
                    .lines()
                    .filter_map(|l| serde_json::from_str(l).ok());
                self.counts = lines.collect();
                match out.code {
                    Some(0) => {}
                    None => self.notes.push("counts: ended at its time limit".into()),
                    Some(_) => {
                        let why = out.stderr.lines().next().unwrap_or("failed").to_owned();
                        self.notes.push(format!("counts: {why}"));
                    }
                }
            }
            Err(e) => self.notes.push(format!("counts: {e:#}")),
        }
        bar.finish_and_clear();
    }
}

/// One run of a scheduler benchmark: every case is a figure.
fn sched_once(command: &mut Command, cores: &[usize], limit: Duration) -> Result<Measured> {
    let busy = || {
        cores
            .iter()
            .map(|&c| load::proc::core_busy_us(c))
            .sum::<u64>() as f64
    };
    let own = || {
        let used = getrusage(UsageWho::RUSAGE_CHILDREN).map(|u| {
            let us = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 * 1e6 + t.tv_usec() as f64;
            us(u.user_time()) + us(u.system_time())
        });
        used.unwrap_or(0.0)
    };
    let (busy_before, own_before, start) = (busy(), own(), Instant::now());
    let out = child::output(command, cores, limit)?;
    let window_us = start.elapsed().as_micros() as f64 * cores.len() as f64;
    let core = Core {
        window_us,
        others_us: (busy() - busy_before) - (own() - own_before),
        delay_us: None,
    };
    let cases: Vec<Value> = out
        .stdout
        .lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect();
    if cases.is_empty() {
        let why = out
            .stderr
            .lines()
            .next()
            .unwrap_or("printed no case")
            .to_owned();
        bail!(
            "{}",
            if out.code.is_none() {
                "did not end in time".to_owned()
            } else {
                why
            }
        );
    }
    let mut figures = BTreeMap::new();
    for case in &cases {
        let Some(name) = case.get("case").and_then(Value::as_str) else {
            continue;
        };
        for key in ["ns_per_op", "allocations_per_op", "bytes_per_op"] {
            if let Some(value) = case.get(key).and_then(Value::as_f64) {
                figures.insert(format!("{name}/{key}"), value);
            }
        }
    }
    Ok(Measured {
        figures,
        disturbance: core.disturbance(),
        raw: Value::Array(cases),
    })
}
