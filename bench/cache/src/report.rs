//! Medians, spread, the table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use crate::{Cell, Layout};

/// What a window of load came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measured {
    pub requests_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Of the server, per request.
    pub cpu_us: f64,
    /// The share of the answers that came from the cache.
    pub hits: f64,
}

/// One window.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub round: usize,
    pub layout: &'static str,
    pub cell: &'static str,
    pub variant: &'static str,
    #[serde(flatten)]
    pub measured: Measured,
}

/// The middle of some figures, and where four fifths of them lie.
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    /// `None` of no figures.
    fn of(figures: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return None;
        }
        Some(Spread {
            median: quantile(&sorted, 0.5),
            low: quantile(&sorted, 0.1),
            high: quantile(&sorted, 0.9),
        })
    }
}

/// Of sorted figures, with linear interpolation (type 7 of Hyndman and Fan,
/// "Sample Quantiles in Statistical Packages", 1996).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (at - at.floor())
}

/// Writes the raw rows and the table.
pub fn write(
    folder: &Path,
    command: &str,
    layouts: &[Layout],
    cells: &[Cell],
    variants: &[&str],
    rows: &[Row],
) -> Result<()> {
    fs::create_dir_all(folder)?;
    let raw = json!({ "command": command, "rows": rows });
    let raw = serde_json::to_string_pretty(&raw)?;
    fs::write(folder.join("raw.json"), raw + "\n")?;

    let mut page = format!("# Ways to share a cache\n\nMade by `{command}`.\n\n");
    let base = variants[0];
    writeln!(
        page,
        "`× {base}`: relative to {base} in the same round, the median of the rounds, and where four \
         fifths of them lie. The other figures are medians too; CPU is the server's, a request. \
         Two ratios whose ranges overlap are not told apart.\n"
    )?;
    for layout in layouts {
        writeln!(page, "## {}: {}\n", layout.name, layout.what)?;
        writeln!(
            page,
            "| requests | cache | requests/s | × {base} | p50 µs | p99 µs | × {base} | CPU µs | × {base} | hits | rounds |\n\
             |---|---|---:|---|---:|---:|---|---:|---|---:|---:|"
        )?;
        for cell in cells {
            for variant in variants {
                let line = line(rows, layout.name, cell.name, variant, base);
                page += &line.unwrap_or_default();
            }
        }
        page.push('\n');
    }
    fs::write(folder.join("README.md"), page)?;
    Ok(())
}

fn line(rows: &[Row], layout: &str, cell: &str, variant: &str, base: &str) -> Option<String> {
    let of = |variant: &str| {
        let wanted =
            move |row: &&Row| row.layout == layout && row.cell == cell && row.variant == variant;
        rows.iter().filter(wanted).collect::<Vec<_>>()
    };
    let (mine, base) = (of(variant), of(base));
    let median = |figure: fn(&Measured) -> f64| {
        let figures = mine.iter().map(|row| figure(&row.measured));
        Spread::of(figures).map(|spread| spread.median)
    };
    let ratio = |figure: fn(&Measured) -> f64| {
        let ratios = mine.iter().filter_map(|row| {
            let other = base.iter().find(|other| other.round == row.round)?;
            Some(figure(&row.measured) / figure(&other.measured))
        });
        let Spread { median, low, high } = Spread::of(ratios)?;
        Some(format!("{median:.2} ({low:.2} to {high:.2})"))
    };
    Some(format!(
        "| {cell} | {variant} | {:.0} | {} | {:.0} | {:.0} | {} | {:.1} | {} | {:.0}% | {} |\n",
        median(|m| m.requests_per_s)?,
        ratio(|m| m.requests_per_s)?,
        median(|m| m.p50_us)?,
        median(|m| m.p99_us)?,
        ratio(|m| m.p99_us)?,
        median(|m| m.cpu_us)?,
        ratio(|m| m.cpu_us)?,
        100.0 * median(|m| m.hits)?,
        mine.len(),
    ))
}
