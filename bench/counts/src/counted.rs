//! The counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::args::Args;
use crate::catalogue::{self, Binaries, Entry};
use crate::client::Client;
use crate::process::{self, Server};
use crate::report::{Count, Report, Values};
use crate::system;
use crate::tools::{self, Scratch};

const INSTRUCTIONS: &str = "instructions per round trip";
const CALLS: &str = "system calls per round trip";
const BLOCKS: &str = "allocations per round trip";
const BLOCK_BYTES: &str = "bytes allocated per round trip";
const STEPS: &str = "instructions per operation";
const FRESH: &str = "user bytes per idle connection, fresh";
const USED: &str = "user bytes per idle connection, after a round trip";
const TASK_BYTES: &str = "bytes per idle task";
const TASK_BLOCKS: &str = "allocations per idle task";

/// Instructions: one connection shows a whole turn of the loop for each round
/// trip; with many, what a turn costs is shared.
const CONNECTIONS: [usize; 2] = [1, 64];

/// The cases whose steps are counted. Those that wait, or that use the
/// processor on purpose, are not among them.
const CASES: [&str; 10] = [
    "yield",
    "yield-many",
    "spawn-join-one",
    "spawn-join-batch",
    "spawn-join-all",
    "ping-pong-same",
    "chain",
    "channel-throughput",
    "timer-timeout",
    "timer-cancel",
];

/// Two lengths of a run in rounds, for so many connections. Instrumented, a
/// round trip takes 0.1 ms or so.
pub fn lengths(connections: usize) -> [usize; 2] {
    match connections {
        0..8 => [1_000, 3_000],
        _ => [50, 150],
    }
}

/// Two lengths of a scheduler case, as its scale.
pub const SCALES: [f64; 2] = [0.1, 0.3];

pub fn all(args: &Args, report: &mut Report) -> Result<(), String> {
    let scratch = Scratch::new()?;
    let mut binaries = Binaries::new(args.build);
    let wants = |names: &[&str]| names.iter().any(|name| args.wants(name));
    let mut servers = Vec::new();
    if wants(&[INSTRUCTIONS, CALLS, BLOCKS, BLOCK_BYTES, FRESH, USED]) {
        servers = catalogue::servers()?;
    }
    let mut schedulers = Vec::new();
    if wants(&[STEPS, TASK_BYTES, TASK_BLOCKS]) {
        schedulers = catalogue::schedulers()?;
    }
    servers.retain(|entry| args.wants_peer(&entry.name));
    schedulers.retain(|entry| args.wants_peer(&entry.name));
    // Everything is built before we keep to one processor.
    let built: Vec<_> = servers.iter().map(|entry| binaries.get(entry)).collect();
    let schedulers: Vec<_> = schedulers
        .iter()
        .map(|entry| (entry, binaries.get(entry)))
        .collect();
    let most = system::many_descriptors().map_err(|e| format!("descriptors: {e}"))?;
    system::take_turns().map_err(|e| format!("cannot keep to one processor: {e}"))?;

    for (entry, exe) in servers.iter().zip(&built) {
        let at = Measured {
            entry,
            exe: exe.as_deref().map_err(Clone::clone),
            scratch: &scratch,
            args,
        };
        if args.wants(INSTRUCTIONS) {
            for connections in CONNECTIONS {
                at.instructions(connections, report);
            }
        }
        // With one connection that is no count: strace stops the server at
        // each call, the client gets in between, and a receive finds what it
        // would have had to wait for.
        if args.wants(CALLS) {
            at.calls(64, report);
        }
        if args.wants(BLOCKS) || args.wants(BLOCK_BYTES) {
            at.allocations(report);
        }
        if args.wants(FRESH) || args.wants(USED) {
            at.idle(most, report);
        }
    }
    for (entry, exe) in &schedulers {
        let at = Measured {
            entry,
            exe: exe.as_deref().map_err(Clone::clone),
            scratch: &scratch,
            args,
        };
        // It has no tasks that wait.
        if entry.name == "rayon" {
            continue;
        }
        if args.wants(STEPS) {
            for case in CASES {
                at.steps(case, report);
            }
        }
        if args.wants(TASK_BYTES) || args.wants(TASK_BLOCKS) {
            at.tasks(report);
        }
    }
    // The table has the same counts together.
    report.sort();
    Ok(())
}

/// Whom is measured, and with what.
struct Measured<'a> {
    entry: &'a Entry,
    exe: Result<&'a Path, String>,
    scratch: &'a Scratch,
    args: &'a Args,
}

impl Measured<'_> {
    fn server(&self, what: &'static str, connections: usize, got: Result<Values, String>) -> Count {
        Count {
            what,
            kind: "server",
            who: self.entry.name.clone(),
            at: vec![("connections", json!(connections))],
            got,
        }
    }

    fn exe(&self) -> Result<&Path, String> {
        self.exe.clone()
    }

    /// Runs the server under a tool for both lengths, and gives what `count`
    /// read, with the number of round trips between.
    fn twice<T>(
        &self,
        tool: &[String],
        connections: usize,
        count: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(T, T, f64), String> {
        let exe = self.exe()?;
        let [short, long] = lengths(connections);
        let run = |rounds: usize| {
            let server = Server::start(tool, exe, self.entry, Some(connections))?;
            count(&server.serve(connections, rounds)?)
        };
        let trips = (connections * (long - short)) as f64;
        Ok((run(short)?, run(long)?, trips))
    }

    fn repeated(&self, one: impl Fn() -> Result<f64, String>) -> Result<Values, String> {
        let values: Result<Vec<_>, _> = (0..self.args.repeat).map(|_| one()).collect();
        values.map(Values::of)
    }

    fn instructions(&self, connections: usize, report: &mut Report) {
        let out = self.scratch.file("callgrind");
        let tool = tools::callgrind(&out);
        let got = self.repeated(|| {
            let read = |_: &str| tools::instructions(&out);
            let (short, long, trips) = self.twice(&tool, connections, read)?;
            Ok((long - short) / trips)
        });
        report.add(self.server(INSTRUCTIONS, connections, got));
    }

    fn calls(&self, connections: usize, report: &mut Report) {
        let out = self.scratch.file("strace");
        let tool = tools::strace(&out);
        let got =
            self.twice(&tool, connections, |_| tools::calls(&out))
                .map(|(short, long, trips)| {
                    let parts = less(&long, &short, trips);
                    let sum = parts.iter().map(|(_, calls)| calls).sum();
                    Values {
                        parts: parts.into_iter().filter(|(_, n)| *n >= 0.005).collect(),
                        ..Values::of(vec![sum])
                    }
                });
        report.add(self.server(CALLS, connections, got));
    }

    fn allocations(&self, report: &mut Report) {
        let connections = 64;
        let got = self.twice(&tools::dhat(), connections, tools::allocations);
        let part = |of: fn((f64, f64)) -> f64| {
            got.clone()
                .map(|(short, long, trips)| Values::of(vec![(of(long) - of(short)) / trips]))
        };
        report.add(self.server(BLOCKS, connections, part(|(blocks, _)| blocks)));
        report.add(self.server(BLOCK_BYTES, connections, part(|(_, bytes)| bytes)));
    }

    fn idle(&self, most: u64, report: &mut Report) {
        let connections = self.args.idle;
        let got = match most {
            _ if (connections as u64) + 100 <= most => self.idle_bytes(connections),
            _ => Err(format!("only {most} descriptors are allowed")),
        };
        let (fresh, used) = match got {
            Ok((fresh, used)) => (Ok(Values::of(vec![fresh])), Ok(Values::of(vec![used]))),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        report.add(self.server(FRESH, connections, fresh));
        report.add(self.server(USED, connections, used));
    }

    fn idle_bytes(&self, connections: usize) -> Result<(f64, f64), String> {
        let server = Server::start(&[], self.exe()?, self.entry, None)?;
        let failed = |e: std::io::Error| format!("did not serve: {e}");
        // What is made at the first use of anything is there before.
        let mut warm = Client::connect(server.addr(), 64).map_err(failed)?;
        warm.rounds(10).map_err(failed)?;
        let before = settled(&server)?;
        let mut client = Client::connect(server.addr(), connections).map_err(failed)?;
        // The last to be accepted answers when all have been.
        warm.each_once().map_err(failed)?;
        let fresh = settled(&server)?;
        client.each_once().map_err(failed)?;
        let used = settled(&server)?;
        // Before the client goes, so that its ports are free at once.
        drop(server);
        let each = |bytes: f64| (bytes - before) / connections as f64;
        Ok((each(fresh), each(used)))
    }

    fn runtime(
        &self,
        what: &'static str,
        case: Option<&str>,
        got: Result<Values, String>,
    ) -> Count {
        let case = case.map(|case| ("case", Value::from(case)));
        Count {
            what,
            kind: "runtime",
            who: self.entry.name.clone(),
            at: case.into_iter().collect(),
            got,
        }
    }

    fn steps(&self, case: &str, report: &mut Report) {
        let out = self.scratch.file("callgrind");
        let tool = tools::callgrind(&out);
        let got = self.exe().and_then(|exe| {
            let run = |scale: f64| {
                let ops = once(&tool, exe, case, scale)?;
                Ok::<_, String>((tools::instructions(&out)?, ops))
            };
            self.repeated(|| {
                let (short, long) = (run(SCALES[0])?, run(SCALES[1])?);
                Ok((long.0 - short.0) / (long.1 - short.1))
            })
        });
        report.add(self.runtime(STEPS, Some(case), got));
    }

    fn tasks(&self, report: &mut Report) {
        let got = self.exe().and_then(|exe| {
            let args = ["--workers", "1", "--only", "task-bytes"].map(str::to_owned);
            let (output, _) = process::run(&[], exe, &args)?;
            let line = parsed(&output)?;
            let number = |key: &str| line[key].as_f64().ok_or(format!("no {key}: {line}"));
            Ok((number("bytes_per_op")?, number("allocations_per_op")?))
        });
        let (bytes, blocks) = match got {
            Ok((bytes, blocks)) => (Ok(Values::of(vec![bytes])), Ok(Values::of(vec![blocks]))),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        report.add(self.runtime(TASK_BYTES, None, bytes));
        report.add(self.runtime(TASK_BLOCKS, None, blocks));
    }
}

/// Runs a scheduler case under a tool, without warm-up. Gives how many
/// operations that was.
pub fn once(tool: &[String], exe: &Path, case: &str, scale: f64) -> Result<f64, String> {
    let scale = scale.to_string();
    let args = [
        "--workers",
        "1",
        "--once",
        "--only",
        case,
        "--scale",
        &scale,
    ];
    let (output, _) = process::run(tool, exe, &args.map(str::to_owned))?;
    let line = parsed(&output)?;
    match (line["ops"].as_f64(), line["skipped"].as_str()) {
        (Some(ops), _) => Ok(ops),
        (None, Some(why)) => Err(why.to_owned()),
        (None, None) => Err(format!("no ops: {line}")),
    }
}

fn parsed(output: &str) -> Result<Value, String> {
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|e| format!("`{line}` is no JSON: {e}"))
}

/// What the long run has more than the short one, by name, each; largest
/// first.
pub fn less(
    long: &BTreeMap<String, f64>,
    short: &BTreeMap<String, f64>,
    each: f64,
) -> Vec<(String, f64)> {
    let mut names: Vec<_> = long.keys().chain(short.keys()).collect();
    names.sort();
    names.dedup();
    let of = |map: &BTreeMap<String, f64>, name: &String| map.get(name).copied().unwrap_or(0.0);
    let mut parts: Vec<_> = names
        .into_iter()
        .map(|name| (name.clone(), (of(long, name) - of(short, name)) / each))
        .collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    parts
}

/// The anonymous memory of a process, when it does not change any more.
fn settled(server: &Server) -> Result<f64, String> {
    let mut last = -1.0;
    for _ in 0..50 {
        let now = anonymous(server.id())?;
        if now == last {
            return Ok(now);
        }
        last = now;
        thread::sleep(Duration::from_millis(200));
    }
    Err("its memory does not settle".into())
}

/// Not `RssAnon` of `status`: the kernel adds that up per processor, and is
/// off by up to 64 pages each.
fn anonymous(id: u32) -> Result<f64, String> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .map(|kib| kib * 1024.0)
        .ok_or(format!("{path} has no Anonymous"))
}
