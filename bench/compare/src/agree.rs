//! Whether two runs say the same: the claim of a yardstick.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::rounds::Line;
use crate::stats::Spread;

/// What is read of `summary.json`.
#[derive(Debug, Deserialize)]
struct Summary {
    lines: Vec<Line>,
}

/// Suite, cell, contestant, metric.
type Ratios = BTreeMap<[String; 4], Spread>;

/// Prints which ratios of two results folders have intervals that do not meet.
/// True if there is none.
pub fn agree(a: &Path, b: &Path) -> Result<bool> {
    let (first, second) = (read(a)?, read(b)?);
    let both = compared(&first, &second);
    if both.is_empty() {
        bail!("the two runs have no ratio in common");
    }
    let apart: Vec<_> = both.iter().filter(|(_, a, b)| !a.meets(b)).collect();
    for ([suite, cell, name, metric], a, b) in &apart {
        println!(
            "{suite}, {cell}, {name}, {metric}: {} and {}",
            said(a),
            said(b)
        );
    }
    println!(
        "{} ratios are in both runs ({} in one alone); the intervals of {} do not meet",
        both.len(),
        first.len() + second.len() - 2 * both.len(),
        apart.len()
    );
    let mut moved: Vec<f64> = both
        .iter()
        .map(|(_, a, b)| (b.median / a.median - 1.0).abs())
        .collect();
    moved.sort_by(f64::total_cmp);
    println!(
        "medians differ by {:.1}% (median), {:.1}% (90% of them), {:.1}% (at most)",
        100.0 * crate::stats::quantile(&moved, 0.5),
        100.0 * crate::stats::quantile(&moved, 0.9),
        100.0 * crate::stats::quantile(&moved, 1.0)
    );
    Ok(apart.is_empty())
}

fn said(s: &Spread) -> String {
    format!("{:.3} [{:.3}, {:.3}]", s.median, s.low, s.high)
}

fn compared<'a>(a: &'a Ratios, b: &'a Ratios) -> Vec<(&'a [String; 4], Spread, Spread)> {
    let both = a.iter().filter_map(|(of, s)| Some((of, *s, *b.get(of)?)));
    both.collect()
}

fn read(folder: &Path) -> Result<Ratios> {
    let path = folder.join("summary.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let summary: Summary =
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    let mut ratios = Ratios::new();
    for line in summary.lines {
        for (metric, ratio) in line.ratios {
            let of = [
                line.suite.clone(),
                line.cell.clone(),
                line.name.clone(),
                metric,
            ];
            ratios.insert(of, ratio);
        }
    }
    Ok(ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_have_is_compared() {
        let of = |names: &[&str]| -> Ratios {
            let spread = Spread::of_ratios(&[1.0; 7]);
            let key = |n: &&str| ["s", "c", *n, "cpu_ns"].map(str::to_owned);
            let pairs = names.iter().filter_map(|n| Some((key(n), spread?)));
            pairs.collect()
        };
        let (a, b) = (of(&["x", "y"]), of(&["y", "z"]));
        let both = compared(&a, &b);
        assert_eq!(both.len(), 1);
        assert_eq!(both[0].0[2], "y");
        assert!(both[0].1.meets(&both[0].2));
    }
}
