//! Interleaved rounds: A B C, A B C, ..
//!
//! A round is discarded for a contestant when another process took a core
//! during its measurement or during that of the base of the same round; one
//! more is run instead, up to half as many again. If nothing is left at all (a
//! machine that is never quiet), the discarded rounds are used and the line is
//! marked: a table that says so beats an empty one.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::child::STOP;
use crate::stats::{self, Spread};

/// One measurement of one contestant.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Figures by metric; those of a base are what others are divided by.
    pub figures: BTreeMap<String, f64>,
    pub disturbance: Option<String>,
    pub raw: serde_json::Value,
}

/// One contestant in one cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub suite: String,
    pub cell: String,
    pub name: String,
    pub group: String,
    /// Medians of the figures themselves.
    pub figures: BTreeMap<String, Spread>,
    /// Medians of the ratios to the base in the same round.
    pub ratios: BTreeMap<String, Spread>,
    pub rounds: usize,
    pub discarded: usize,
    /// Only discarded rounds were there to use.
    pub disturbed: bool,
    pub error: Option<String>,
}

pub struct Plan<'a> {
    pub suite: &'a str,
    pub cell: &'a str,
    pub rounds: usize,
    pub deadline: Instant,
    pub bar: &'a ProgressBar,
    /// Gets every measurement, discarded ones too.
    pub raw: &'a mut dyn FnMut(serde_json::Value),
}

/// Measures `names` (name, group), of which the first is the base.
pub fn run(
    plan: Plan<'_>,
    names: &[(String, String)],
    mut measure: impl FnMut(usize) -> Result<Measured>,
) -> Vec<Line> {
    let mut all: Vec<Vec<Option<Measured>>> = vec![Vec::new(); names.len()];
    let mut errors: Vec<Option<String>> = vec![None; names.len()];
    let counts = |m: &Option<Measured>| m.as_ref().is_some_and(|m| m.disturbance.is_none());
    let most = plan.rounds + plan.rounds.div_ceil(2);
    for round in 0..most {
        let good = |all: &[Vec<Option<Measured>>], i: usize| {
            all[i]
                .iter()
                .zip(&all[0])
                .filter(|(m, b)| counts(m) && counts(b))
                .count()
        };
        let lacking: Vec<usize> = (0..names.len())
            .filter(|&i| errors[i].is_none() && good(&all, i) < plan.rounds)
            .collect();
        let over = Instant::now() > plan.deadline || STOP.load(Ordering::Relaxed);
        if lacking.is_empty() || errors[0].is_some() || (over && round > 0) {
            break;
        }
        for i in 0..names.len() {
            if i != 0 && !lacking.contains(&i) {
                all[i].push(None);
                continue;
            }
            if errors[i].is_some() || STOP.load(Ordering::Relaxed) {
                all[i].push(None);
                continue;
            }
            let name = &names[i].0;
            plan.bar.set_message(format!(
                "{} {} round {} {name}",
                plan.suite,
                plan.cell,
                round + 1
            ));
            let result = measure(i);
            (plan.raw)(serde_json::json!({
                "suite": plan.suite, "cell": plan.cell, "round": round, "name": name,
                "discarded": result.as_ref().ok().and_then(|m| m.disturbance.clone()),
                "error": result.as_ref().err().map(|e| format!("{e:#}")),
                "report": result.as_ref().ok().map(|m| &m.raw),
            }));
            match result {
                Ok(m) => all[i].push(Some(m)),
                Err(e) => {
                    errors[i] = Some(format!("{e:#}"));
                    all[i].push(None);
                }
            }
            if round < plan.rounds {
                plan.bar.inc(1);
            }
        }
    }
    let done = all.iter().enumerate();
    done.map(|(i, rounds)| line(&plan, &names[i], rounds, &all[0], errors[i].clone()))
        .collect()
}

fn line(
    plan: &Plan<'_>,
    (name, group): &(String, String),
    rounds: &[Option<Measured>],
    base: &[Option<Measured>],
    error: Option<String>,
) -> Line {
    let measured = rounds.iter().flatten();
    let calm = rounds.iter().zip(base).filter(|(m, b)| {
        let ok = |m: &Option<Measured>| m.as_ref().is_some_and(|m| m.disturbance.is_none());
        ok(m) && ok(b)
    });
    let calm = calm.count();
    let total = measured.clone().count();
    let disturbed = calm == 0 && total > 0;
    let pick = |rounds: &[Option<Measured>], metric: &str| -> Vec<Option<f64>> {
        let figure = |m: &Option<Measured>| {
            let m = m
                .as_ref()
                .filter(|m| disturbed || m.disturbance.is_none())?;
            m.figures.get(metric).copied()
        };
        rounds.iter().map(figure).collect()
    };
    let metrics: std::collections::BTreeSet<String> =
        measured.flat_map(|m| m.figures.keys().cloned()).collect();
    let mut out = Line {
        suite: plan.suite.to_owned(),
        cell: plan.cell.to_owned(),
        name: name.clone(),
        group: group.clone(),
        figures: BTreeMap::new(),
        ratios: BTreeMap::new(),
        rounds: if disturbed { total } else { calm },
        discarded: total - calm,
        disturbed,
        error,
    };
    for metric in metrics {
        let (figures, base) = (pick(rounds, &metric), pick(base, &metric));
        if let Some(s) = Spread::of(figures.iter().flatten().copied()) {
            out.figures.insert(metric.clone(), s);
        }
        if let Some(s) = Spread::of(stats::ratios(&figures, &base)) {
            out.ratios.insert(metric, s);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(cpu: f64, disturbed: bool) -> Measured {
        Measured {
            figures: [("cpu".to_owned(), cpu)].into(),
            disturbance: disturbed.then(|| "others".to_owned()),
            raw: serde_json::Value::Null,
        }
    }

    fn lines(rounds: usize, mut f: impl FnMut(usize, usize) -> Result<Measured>) -> Vec<Line> {
        let names = ["floor", "a"].map(|n| (n.to_owned(), String::new()));
        let mut seen = [0, 0];
        let plan = Plan {
            suite: "s",
            cell: "c",
            rounds,
            deadline: Instant::now() + std::time::Duration::from_secs(60),
            bar: &ProgressBar::hidden(),
            raw: &mut |_| {},
        };
        run(plan, &names, |i| {
            seen[i] += 1;
            f(i, seen[i] - 1)
        })
    }

    #[test]
    fn a_disturbed_base_discards_the_round_for_all_and_one_more_is_run() {
        let all = lines(4, |i, round| {
            let drift = (round + 1) as f64;
            Ok(measured(
                drift * if i == 0 { 1.0 } else { 1.5 },
                i == 0 && round == 1,
            ))
        });
        assert_eq!(
            (all[1].rounds, all[1].discarded, all[1].disturbed),
            (4, 1, false)
        );
        assert_eq!(all[1].ratios["cpu"].median, 1.5);
        assert_eq!(all[1].ratios["cpu"].n, 4);
    }

    #[test]
    fn a_machine_that_is_never_quiet_is_said_to_be_so() {
        let all = lines(4, |i, _| Ok(measured(1.0 + i as f64, true)));
        assert!(all[1].disturbed);
        assert_eq!((all[1].rounds, all[1].discarded), (6, 6));
        assert_eq!(all[1].ratios["cpu"].median, 2.0);
    }

    #[test]
    fn a_contestant_that_fails_is_named_and_the_others_go_on() {
        let all = lines(3, |i, _| {
            if i == 1 {
                anyhow::bail!("no")
            } else {
                Ok(measured(1.0, false))
            }
        });
        assert_eq!(all[1].error.as_deref(), Some("no"));
        assert_eq!((all[0].rounds, all[1].rounds), (3, 0));
    }
}
