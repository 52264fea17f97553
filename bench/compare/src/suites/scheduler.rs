//! The scheduler cases, and the counts: other programs, which print JSON.
use std::collections::BTreeMap;

use nix::sys::resource::{UsageWho, getrusage};

use super::*;
use crate::stats::Core;

/// How much of itself a program runs: `--scale` and `--repetitions`, and what
/// that takes in seconds. The rounds are repetitions too.
struct Share {
    scale: &'static str,
    repetitions: &'static str,
    seconds: f64,
}

const QUICK: Share = Share {
    scale: "0.05",
    repetitions: "1",
    seconds: 0.4,
};
const FULL: Share = Share {
    scale: "0.5",
    repetitions: "1",
    seconds: 0.8,
};

/// Workers in the two tables.
const WORKERS: [usize; 2] = [1, 2];

/// What the counts of a full run take, in seconds.
pub const COUNTS: f64 = 300.0;
/// Those of the handicaps alone.
pub const HANDICAP_COUNTS: f64 = 30.0;

/// The times; but for that of the case that measures memory, which sleeps.
fn is_ratio(metric: &str) -> bool {
    metric
        .strip_suffix("/ns_per_op")
        .is_some_and(|case| case != "task-bytes")
}

impl Bench {
    fn share(&self) -> Share {
        if self.quick { QUICK } else { FULL }
    }

    fn sched_rounds(&self) -> usize {
        self.rounds.unwrap_or(7)
    }

    /// The base (tokio, where it is there), the others, and the base again.
    fn schedulers(&self, workers: usize) -> Vec<Sched> {
        let can = |s: &&Sched| s.workers.contains(&workers);
        let mut some: Vec<Sched> = self.sched.iter().filter(can).cloned().collect();
        some.sort_by_key(|s| s.runtime != "tokio");
        let again = some.first().map(|base| Sched {
            runtime: format!("{} again", base.runtime),
            ..base.clone()
        });
        some.extend(again);
        some
    }

    pub fn sched_seconds(&self) -> f64 {
        let count = |w| rounds::measurements(self.schedulers(w).len(), true, self.sched_rounds());
        let count: usize = WORKERS.into_iter().map(count).sum();
        count as f64 * self.share().seconds
    }

    pub fn sched(&mut self) {
        let (wanted, share) = (self.sched_rounds(), self.share());
        for workers in WORKERS {
            let some = self.schedulers(workers);
            if some.is_empty() || STOP.load(Ordering::Relaxed) {
                continue;
            }
            let row = |s: &Sched| (s.runtime.clone(), "sched".to_owned());
            let rows: Vec<Row> = some.iter().map(row).collect();
            let count = rounds::measurements(rows.len(), true, wanted);
            let bar = self.bar(count);
            let cores: Vec<usize> = (0..workers).collect();
            let cell = format!("{workers} worker{}", if workers == 1 { "" } else { "s" });
            let plan = Plan {
                suite: "sched",
                cell: &cell,
                rounds: wanted,
                deadline: self.deadline(count as f64 * share.seconds),
                has_base: true,
                ratios: is_ratio,
                twin: Some(rows.len() - 1),
                bar: &bar,
            };
            let bins = self.bins.clone();
            let done = rounds::run(plan, &rows, |i| {
                let mut command = Command::new(bins.join(&some[i].bin));
                command.args(["--workers", &workers.to_string()]);
                command.args(["--scale", share.scale, "--repetitions", share.repetitions]);
                command.args(&some[i].args);
                // A run that hangs must not take the others' time.
                let limit = Duration::from_secs_f64(30.0 * share.seconds);
                sched_once(&mut command, &cores, limit)
            });
            bar.finish_and_clear();
            self.keep(wanted, done);
        }
    }

    /// What noise cannot touch.
    pub fn counts(&mut self) {
        self.counted(&[], COUNTS);
    }

    /// What the handicaps cost, counted.
    pub fn handicap_counts(&mut self) {
        let only = ["--only", "per round trip", "--peer", "iso-reactor"];
        self.counted(&only, HANDICAP_COUNTS);
    }

    fn counted(&mut self, only: &[&str], seconds: f64) {
        let bar = ProgressBar::new_spinner();
        bar.set_message("counts");
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut command = Command::new(self.bins.join("counts"));
        // What it counts is built, if counts is measured at all. Counts repeat
        // themselves: one is enough.
        command.args(["--json", "--no-build", "--repeat", "1"]);
        command.args(only);
        match child::output(&mut command, &[], Duration::from_secs_f64(3.0 * seconds)) {
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
    match out.code {
        Some(0) if !cases.is_empty() => {}
        None => bail!("did not end in time"),
        Some(_) => bail!("{}", out.stderr.lines().next().unwrap_or("printed no case")),
    }
    let mut figures = BTreeMap::new();
    // A program may add lines of another name (`rayon-iter`), for the raw file.
    let own = |c: &&Value| c.get("runtime") == cases[0].get("runtime");
    for case in cases.iter().filter(own) {
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
        doubt: None,
        raw: Value::Array(cases),
    })
}
