//! What colors and stealing bring and cost:
//!
//! ```text
//! cargo run --release -p colors-bench -- [--rounds N] [--only NAME] [--out FOLDER]
//! ```
//!
//! Each case runs two variants in turn, round after round, and tells the
//! median of the ratios of the rounds with an interval for that median.
//!
//! | module | what it holds |
//! |---|---|
//! | `cases` | what is run |
//! | `work` | processor time of a known length |

mod cases;
mod work;

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use cases::{CASES, Case};
use work::Work;

/// What colors and stealing bring and cost.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Rounds of each case; 15 give an interval of 96%.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only cases whose name has this in it.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Write README.md and raw.json into this folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Nanoseconds of both variants, round by round.
struct Rounds {
    first: Vec<f64>,
    second: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.rounds < 7 {
        bail!("fewer than 7 rounds say nothing of a median");
    }
    let chosen: Vec<&Case> = CASES
        .iter()
        .filter(|case| {
            args.only
                .as_ref()
                .is_none_or(|only| case.name.contains(only.as_str()))
        })
        .collect();
    if chosen.is_empty() {
        bail!("no case has that in its name");
    }
    let work = Work::calibrated();
    let bar = ProgressBar::new((chosen.len() * args.rounds) as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {eta} {msg}",
    )?);
    let mut table = String::from("| case | of | to | ratio | rounds |\n|---|---|---|---|---|\n");
    let mut raw = Vec::new();
    for case in chosen {
        bar.set_message(case.name);
        let rounds = run(case, work, args.rounds, &bar);
        let ratio = ratio(&rounds);
        let row = format!(
            "| {} | {}: {} | {}: {} | {:.2} [{:.2}, {:.2}] | {} |",
            case.name,
            case.first.0,
            time(median(&rounds.first)),
            case.second.0,
            time(median(&rounds.second)),
            ratio.1,
            ratio.0,
            ratio.2,
            args.rounds,
        );
        bar.println(&row);
        writeln!(table, "{row}")?;
        raw.push(json!({
            "case": case.name,
            "of": case.first.0,
            "to": case.second.0,
            "ns": { "of": rounds.first, "to": rounds.second },
        }));
    }
    bar.finish_and_clear();
    println!("{table}");
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder).context("the folder for results")?;
        let about = "Measured by `cargo run --release -p colors-bench`. Ratio: of / to, the \
                     median of the rounds [an interval for it, 95% at least].\n\n";
        fs::write(folder.join("README.md"), format!("{about}{table}"))?;
        fs::write(
            folder.join("raw.json"),
            serde_json::to_string_pretty(&Value::Array(raw))?,
        )?;
    }
    Ok(())
}

fn run(case: &Case, work: Work, count: usize, bar: &ProgressBar) -> Rounds {
    let mut rounds = Rounds {
        first: Vec::new(),
        second: Vec::new(),
    };
    // Once for the caches and the clock of the processor.
    (case.first.1)(work);
    (case.second.1)(work);
    for round in 0..count {
        // In turn first, so that drift favours nobody.
        if round % 2 == 0 {
            rounds.first.push((case.first.1)(work));
            rounds.second.push((case.second.1)(work));
        } else {
            rounds.second.push((case.second.1)(work));
            rounds.first.push((case.first.1)(work));
        }
        bar.inc(1);
    }
    rounds
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// The median of the ratios, between the order statistics that hold the true
/// one with a probability of 95% at least (Conover, Practical Nonparametric
/// Statistics, 3.2).
fn ratio(rounds: &Rounds) -> (f64, f64, f64) {
    let ratios: Vec<f64> = rounds
        .first
        .iter()
        .zip(&rounds.second)
        .map(|(a, b)| a / b)
        .collect();
    let sorted = sorted(&ratios);
    let n = sorted.len();
    let (mut below, mut choose, mut rank) = (0.0, 1.0, 0);
    for k in 0..n / 2 {
        below += choose * 0.5f64.powi(n as i32);
        if 2.0 * below > 0.05 {
            break;
        }
        rank = k;
        choose = choose * (n - k) as f64 / (k + 1) as f64;
    }
    (sorted[rank], median(&ratios), sorted[n - 1 - rank])
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_fifteen_rounds_is_the_fourth_to_the_twelfth() {
        let rounds = Rounds {
            first: (1..=15).map(f64::from).collect(),
            second: vec![1.0; 15],
        };
        assert_eq!(ratio(&rounds), (4.0, 8.0, 12.0));
    }
}
