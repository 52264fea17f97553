//! The results folder: raw JSON, a Markdown page, charts.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::catalogue::Server;
use crate::charts::{self, Bar, Row, Series};
use crate::rounds::Line;
use crate::stats::Spread;
use crate::suites::Bench;

pub fn write(
    folder: &Path,
    bench: &Bench,
    machine: &BTreeMap<String, String>,
    failed: &BTreeMap<String, String>,
    command: &str,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    let raw: Vec<String> = bench.raw.iter().map(Value::to_string).collect();
    fs::write(folder.join("raw.jsonl"), raw.join("\n") + "\n")?;
    let summary = json!({
        "command": command, "machine": machine, "failed_builds": failed, "lines": bench.lines,
        "counts": bench.counts, "notes": bench.notes, "servers": bench.servers,
    });
    fs::write(
        folder.join("summary.json"),
        serde_json::to_string_pretty(&summary)? + "\n",
    )?;
    fs::write(
        folder.join("README.md"),
        page(folder, bench, machine, failed, command)?,
    )?;
    Ok(())
}

fn page(
    folder: &Path,
    bench: &Bench,
    machine: &BTreeMap<String, String>,
    failed: &BTreeMap<String, String>,
    command: &str,
) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "# Measured by `{command}`\n")?;
    writeln!(
        out,
        "What it means and what it does not show: `docs/performance.md`.\n"
    )?;
    writeln!(out, "| | |\n|---|---|")?;
    for (k, v) in machine {
        writeln!(out, "| {k} | {v} |")?;
    }
    if !failed.is_empty() {
        writeln!(out, "\n## Not built\n")?;
        for (package, why) in failed {
            writeln!(out, "- `{package}`: {}", cell(why))?;
        }
    }
    if !bench.notes.is_empty() {
        writeln!(out, "\n## Notes\n")?;
        for note in &bench.notes {
            writeln!(out, "- {note}")?;
        }
    }
    for (suite, cell) in cells(&bench.lines) {
        let lines: Vec<&Line> = bench
            .lines
            .iter()
            .filter(|l| l.suite == suite && l.cell == cell)
            .collect();
        writeln!(out, "\n## {suite}, {cell}\n")?;
        match suite.as_str() {
            "echo" | "handicap" => echo(&mut out, folder, &suite, &cell, &lines)?,
            "sched" => sched(&mut out, folder, &cell, &lines)?,
            "idle" => idle(&mut out, &lines)?,
            _ => old(&mut out, &lines)?,
        }
        for line in &lines {
            if let Some(error) = &line.error {
                writeln!(out, "\n`{}`: {}", line.name, self::cell(error))?;
            }
        }
    }
    for (metric, title) in [
        ("per_second", "round trips a second"),
        ("p99_us", "p99, us (first of a session: with connect)"),
        ("memory_mib", "memory, MiB (PSS)"),
        ("not_served", "clients without any reply in the window"),
        ("cpu_ns", "server CPU a round trip, ns"),
    ] {
        over_connections(&mut out, folder, &bench.lines, metric, title)?;
    }
    if !bench.servers.is_empty() {
        writeln!(
            out,
            "\n## Who took part\n\n| server | group | I/O | version | note |"
        )?;
        writeln!(out, "|---|---|---|---|---|")?;
        for s in &bench.servers {
            let (io, version, note) = (&s.io, &s.version, cell(&s.note));
            writeln!(
                out,
                "| `{}` | {} | {io} | {version} | {note} |",
                s.name, s.group
            )?;
        }
    }
    if !bench.counts.is_empty() {
        writeln!(out, "\n## Counts that noise cannot touch")?;
        counts(&mut out, &bench.counts, "server")?;
        counts(&mut out, &bench.counts, "runtime")?;
        for said in planted(&bench.servers, &bench.counts) {
            writeln!(out, "\n{said}")?;
        }
    }
    Ok(out)
}

/// What servers that are slow on purpose cost more than the same without.
pub fn planted(servers: &[Server], counts: &[Value]) -> Vec<String> {
    let mut said = Vec::new();
    for slow in servers.iter().filter(|s| s.handicap) {
        let same = |s: &&Server| s.package == slow.package && s.io == slow.io && !s.handicap;
        let Some(base) = servers.iter().find(same) else {
            continue;
        };
        for count in counts.iter().filter(|c| c["server"] == slow.name.as_str()) {
            let is_base = |c: &&Value| {
                let same = ["what", "connections"].iter().all(|k| c[k] == count[k]);
                same && c["server"] == base.name.as_str()
            };
            let of_base = counts
                .iter()
                .find(is_base)
                .and_then(|c| c["value"].as_f64());
            let Some((value, of_base)) = count["value"].as_f64().zip(of_base) else {
                continue;
            };
            if (value - of_base).abs() >= 0.5 {
                let what = count["what"].as_str().unwrap_or_default();
                said.push(format!(
                    "`{}` over `{}`, C={}: {:+.1} {what}",
                    slow.name,
                    base.name,
                    count["connections"],
                    value - of_base
                ));
            }
        }
    }
    said
}

/// One table: a line a server or a runtime (`kind`), a column a count.
fn counts(out: &mut String, counts: &[Value], kind: &str) -> Result<()> {
    let text = |count: &Value, key: &str| count.get(key).and_then(Value::as_str).map(str::to_owned);
    let column = |count: &Value| {
        let mut column = text(count, "what").unwrap_or_default();
        if let Some(case) = text(count, "case") {
            column = format!("{case}: {column}");
        }
        if let Some(connections) = count.get("connections") {
            column += &format!(", C={connections}");
        }
        column
    };
    let own: Vec<&Value> = counts.iter().filter(|c| c.get(kind).is_some()).collect();
    if own.is_empty() {
        return Ok(());
    }
    let mut columns: Vec<String> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut skipped: BTreeSet<String> = BTreeSet::new();
    for count in &own {
        let (column, name) = (column(count), text(count, kind).unwrap_or_default());
        if let Some(why) = text(count, "skipped") {
            skipped.insert(format!("`{name}`, {column}: {}", cell(&why)));
        }
        if !columns.contains(&column) {
            columns.push(column);
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    writeln!(out, "\n| {kind} | {} |", columns.join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(columns.len()))?;
    for name in &names {
        write!(out, "| `{name}` |")?;
        for wanted in &columns {
            let is_it = |c: &&&Value| text(c, kind).as_ref() == Some(name) && column(c) == *wanted;
            let value = own
                .iter()
                .find(is_it)
                .and_then(|c| c.get("value")?.as_f64());
            write!(out, " {} |", value.map_or("-".into(), number))?;
        }
        writeln!(out)?;
    }
    for why in skipped {
        writeln!(out, "\n{why}")?;
    }
    Ok(())
}

fn cells(lines: &[Line]) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    for line in lines {
        let cell = (line.suite.clone(), line.cell.clone());
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
    cells
}

fn echo(out: &mut String, folder: &Path, suite: &str, cell: &str, lines: &[&Line]) -> Result<()> {
    let base = lines.first().map_or("", |l| l.name.as_str());
    writeln!(
        out,
        "Ratios to `{base}` just before and after: median [interval]; figures: medians.\n"
    )?;
    writeln!(
        out,
        "| server | CPU a round trip | throughput | p50 | p99 | CPU, ns | a second | p50, us | p99, us | switches | rounds | discarded |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    let mut bars = Vec::new();
    for line in lines {
        let ratio = |m: &str| line.ratios.get(m).map_or("-".into(), ratio_text);
        let figure = |m: &str| line.figures.get(m).map_or("-".into(), |s| number(s.median));
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            name(line),
            ratio("cpu_ns"),
            ratio("per_second"),
            ratio("p50_us"),
            ratio("p99_us"),
            figure("cpu_ns"),
            figure("per_second"),
            figure("p50_us"),
            figure("p99_us"),
            figure("switches"),
            rounds(line),
            line.discarded
        )?;
        if let Some(value) = line.ratios.get("cpu_ns") {
            bars.push(Bar {
                label: line.name.clone(),
                group: line.group.clone(),
                value: *value,
            });
        }
    }
    bars.sort_by(|a, b| a.value.median.total_cmp(&b.value.median));
    if !bars.is_empty() {
        let file = format!("{suite}-{}.svg", slug(cell));
        let title = format!("Server CPU per round trip, {cell}");
        charts::bars(
            &folder.join(&file),
            &title,
            &format!("relative to {base} (less is better)"),
            &bars,
        )?;
        writeln!(out, "\n![{title}]({file})")?;
    }
    Ok(())
}

fn old(out: &mut String, lines: &[&Line]) -> Result<()> {
    writeln!(out, "Medians [where 80% of the rounds lie].\n")?;
    writeln!(
        out,
        "| server | a second | p50, us | p99, us | memory, MiB | CPU, ns | served | not served | refused, reset, failed | refused by the server | rounds | discarded |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    for line in lines {
        let figure = |m: &str| line.figures.get(m).map_or("-".into(), spread_text);
        let columns = [
            "per_second",
            "p50_us",
            "p99_us",
            "memory_mib",
            "cpu_ns",
            "served",
            "not_served",
            "failed",
            "refused_by_server",
        ];
        let columns: Vec<String> = columns.iter().map(|m| figure(m)).collect();
        let (rounds, discarded) = (rounds(line), line.discarded);
        writeln!(
            out,
            "| {} | {} | {rounds} | {discarded} |",
            name(line),
            columns.join(" | ")
        )?;
    }
    Ok(())
}

fn idle(out: &mut String, lines: &[&Line]) -> Result<()> {
    writeln!(
        out,
        "Anonymous memory of the server, grown by idle connections that each did one round trip.\n"
    )?;
    writeln!(
        out,
        "| server | bytes a connection | before, MiB |\n|---|---|---|"
    )?;
    for line in lines {
        let figure = |m: &str| line.figures.get(m).map_or("-".into(), spread_text);
        writeln!(
            out,
            "| {} | {} | {} |",
            name(line),
            figure("bytes_per_connection"),
            figure("before_mib")
        )?;
    }
    Ok(())
}

fn sched(out: &mut String, folder: &Path, cell: &str, lines: &[&Line]) -> Result<()> {
    let base = lines.first().map_or("", |l| l.name.as_str());
    let keys: BTreeSet<&String> = lines.iter().flat_map(|l| l.figures.keys()).collect();
    tasks(out, lines)?;
    for (metric, title) in [
        ("ns_per_op", "ns an operation"),
        ("allocations_per_op", "allocations an operation"),
        ("bytes_per_op", "bytes allocated an operation"),
    ] {
        let suffix = format!("/{metric}");
        let cases: Vec<&str> = keys
            .iter()
            .filter_map(|k| k.strip_suffix(&suffix))
            .filter(|case| metric != "ns_per_op" || *case != "task-bytes")
            .collect();
        if cases.is_empty() {
            continue;
        }
        writeln!(out, "### {title}\n")?;
        let names: Vec<String> = lines.iter().map(|l| name(l)).collect();
        writeln!(out, "| case | {} |", names.join(" | "))?;
        writeln!(out, "|---|{}", "---|".repeat(lines.len()))?;
        for case in cases {
            let key = format!("{case}{suffix}");
            let text = |l: &&Line| {
                let Some(s) = l.figures.get(&key) else {
                    return "-".to_owned();
                };
                let ratio = l
                    .ratios
                    .get(&key)
                    .filter(|_| metric == "ns_per_op" && l.name != base);
                match ratio {
                    Some(r) => format!("{} ({})", number(s.median), ratio_text(r)),
                    None => number(s.median),
                }
            };
            let columns: Vec<String> = lines.iter().map(text).collect();
            writeln!(out, "| {case} | {} |", columns.join(" | "))?;
        }
        writeln!(out)?;
    }
    let cases = keys.iter().filter_map(|k| k.strip_suffix("/ns_per_op"));
    // Its figure is memory, in the tables.
    let cases = cases.filter(|case| *case != "task-bytes");
    let rows: Vec<Row> = cases
        .map(|case| Row {
            label: case.to_owned(),
            points: lines
                .iter()
                .map(|l| l.ratios.get(&format!("{case}/ns_per_op")).copied())
                .collect(),
        })
        .collect();
    if !rows.is_empty() {
        let file = format!("sched-{}.svg", slug(cell));
        let title = format!("Scheduler, {cell}: time an operation");
        let names: Vec<&str> = lines.iter().map(|l| l.name.as_str()).collect();
        charts::dots(
            &folder.join(&file),
            &title,
            &format!("relative to {base} (less is better)"),
            &names,
            &rows,
        )?;
        writeln!(out, "![{title}]({file})")?;
    }
    let all: Vec<String> = lines
        .iter()
        .map(|l| format!("{} {} ({})", l.name, rounds(l), l.discarded))
        .collect();
    writeln!(out, "\nRounds (discarded): {}.", all.join(", "))?;
    Ok(())
}

/// What a task costs.
fn tasks(out: &mut String, lines: &[&Line]) -> Result<()> {
    writeln!(out, "### A task\n")?;
    writeln!(
        out,
        "| runtime | ns to spawn and join one | of a thousand, each | allocations | bytes allocated | bytes held while it waits |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for line in lines {
        let figure = |m: &str| line.figures.get(m).map_or("-".into(), |s| number(s.median));
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            name(line),
            figure("spawn-join-one/ns_per_op"),
            figure("spawn-join-batch/ns_per_op"),
            figure("spawn-join-one/allocations_per_op"),
            figure("spawn-join-one/bytes_per_op"),
            figure("task-bytes/bytes_per_op"),
        )?;
    }
    writeln!(out)?;
    Ok(())
}

/// The old architectures, one chart a metric.
fn over_connections(
    out: &mut String,
    folder: &Path,
    lines: &[Line],
    metric: &str,
    title: &str,
) -> Result<()> {
    let mut series: Vec<Series> = Vec::new();
    for line in lines.iter().filter(|l| l.suite == "old") {
        let x = line.cell.trim_start_matches("C=").parse::<f64>();
        let (Ok(x), Some(y)) = (x, line.figures.get(metric)) else {
            continue;
        };
        match series.iter_mut().find(|s| s.name == line.name) {
            Some(s) => s.points.push((x, y.median)),
            None => series.push(Series {
                name: line.name.clone(),
                points: vec![(x, y.median)],
            }),
        }
    }
    if series.is_empty() {
        return Ok(());
    }
    let file = format!("old-{}.svg", slug(metric));
    let path = folder.join(&file);
    charts::lines(
        &path,
        &format!("Old architectures: {title}"),
        title,
        &series,
    )?;
    if path.exists() {
        writeln!(out, "\n![{title}]({file})")?;
    }
    Ok(())
}

fn name(line: &Line) -> String {
    format!("`{}`", line.name)
}

/// Marked where only discarded rounds were there.
fn rounds(line: &Line) -> String {
    format!(
        "{}{}",
        line.rounds,
        if line.disturbed { " (disturbed)" } else { "" }
    )
}

/// With fewer rounds the extremes are no interval of the confidence claimed.
const LEAST: usize = 7;

fn ratio_text(s: &Spread) -> String {
    if s.n < LEAST {
        return format!("{:.2} (n={})", s.median, s.n);
    }
    format!("{:.2} [{:.2}, {:.2}]", s.median, s.low, s.high)
}

fn spread_text(s: &Spread) -> String {
    if s.low == s.high || s.n < 3 {
        return number(s.median);
    }
    format!(
        "{} [{}, {}]",
        number(s.median),
        number(s.low),
        number(s.high)
    )
}

/// Three figures that mean something, thousands set apart.
fn number(f: f64) -> String {
    if f == 0.0 {
        return "0".into();
    }
    if f.abs() < 100.0 {
        let digits = if f.abs() < 1.0 {
            3
        } else if f.abs() < 10.0 {
            2
        } else {
            1
        };
        let text = format!("{f:.digits$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{:.0}", f.abs());
    let mut out = String::from(if f < 0.0 { "-" } else { "" });
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn slug(text: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let text: String = text.chars().map(keep).collect();
    text.split('-')
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// A line of another program, safe in a table.
fn cell(text: &str) -> String {
    text.lines().next().unwrap_or_default().replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let all = [0.0, 0.0312, 2.0, 12.34, 123.4, 1234.5, 1_234_567.0].map(number);
        assert_eq!(
            all,
            ["0", "0.031", "2", "12.3", "123", "1,234", "1,234,567"]
        );
    }

    #[test]
    fn a_cell_makes_a_file_name() {
        assert_eq!(slug("C=64 64 B"), "c-64-64-b");
    }
}
