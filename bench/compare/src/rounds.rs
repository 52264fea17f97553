//! Interleaved rounds: who is measured when, and which rounds count.
//!
//! ```text
//! base a b c d base e f g h base ..   round 1
//! base g c e a base h b d f base ..   round 2: the others in another order
//! ```
//!
//! A machine that shares its processors with other guests changes its speed
//! within seconds. So the base is measured again after every few contestants,
//! and each is divided by the mean of the two bases around it.
//!
//! A measurement is discarded when another process took a core during it, or
//! during one of its two bases; one more round is run for it instead, up to
//! half as many again. If nothing is left at all (a machine that is never
//! quiet), the discarded ones are used and the line is marked: a table that
//! says so beats an empty one.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::child::STOP;
use crate::stats::Spread;

/// Contestants between two bases. More save time, fewer follow the machine
/// more closely: at a fifth of a second each, a base is less than a second away.
const BETWEEN: usize = 4;

/// One measurement of one contestant.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Figures by metric.
    pub figures: BTreeMap<String, f64>,
    pub disturbance: Option<String>,
    /// What is wrong with it although it counts.
    pub doubt: Option<String>,
    pub raw: serde_json::Value,
}

/// One contestant in one cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub suite: String,
    pub cell: String,
    pub name: String,
    pub group: String,
    /// Medians of the figures themselves, and where four fifths of them lie.
    pub figures: BTreeMap<String, Spread>,
    /// Medians of the ratios to the base, and their intervals.
    pub ratios: BTreeMap<String, Spread>,
    pub rounds: usize,
    pub discarded: usize,
    /// Only discarded rounds were there to use.
    pub disturbed: bool,
    pub error: Option<String>,
    /// What is wrong with some measurement although it counts.
    pub doubt: Option<String>,
}

pub struct Plan<'a> {
    pub suite: &'a str,
    pub cell: &'a str,
    pub rounds: usize,
    pub deadline: Instant,
    /// The first contestant is what the others are divided by. If not, all are
    /// measured once a round, and nothing is divided.
    pub has_base: bool,
    /// The metrics that are divided.
    pub ratios: fn(&str) -> bool,
    /// The contestant that is the base once more: by as much as its median is
    /// off 1, every interval is made longer.
    pub twin: Option<usize>,
    pub bar: &'a ProgressBar,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Done {
    pub lines: Vec<Line>,
    /// Every measurement, discarded ones too.
    pub raw: Vec<serde_json::Value>,
}

/// How many measurements `rounds` rounds of so many contestants are.
pub fn measurements(contestants: usize, has_base: bool, rounds: usize) -> usize {
    match contestants {
        _ if !has_base => contestants * rounds,
        0 => 0,
        n => rounds * (n - 1 + (n - 1).div_ceil(BETWEEN)) + 1,
    }
}

/// A measurement, in the order of time.
struct Slot {
    who: usize,
    measured: Option<Measured>,
}

/// What was measured until now.
struct Course<'a, F> {
    plan: Plan<'a>,
    names: &'a [(String, String)],
    measure: F,
    slots: Vec<Slot>,
    errors: Vec<Option<String>>,
    raw: Vec<serde_json::Value>,
}

/// Measures `names` (name, group).
pub fn run(
    plan: Plan<'_>,
    names: &[(String, String)],
    measure: impl FnMut(usize) -> Result<Measured>,
) -> Done {
    let mut course = Course {
        plan,
        names,
        measure,
        slots: Vec::new(),
        errors: vec![None; names.len()],
        raw: Vec::new(),
    };
    course.rounds();
    let mut lines: Vec<Line> = (0..names.len()).map(|i| course.line(i)).collect();
    if let Some(twin) = course.plan.twin {
        widen(&mut lines, twin);
    }
    Done {
        lines,
        raw: course.raw,
    }
}

/// Nothing is known better than to what the base differs from itself.
fn widen(lines: &mut [Line], twin: usize) {
    let off = |s: &Spread| (s.median - 1.0).abs();
    let off: BTreeMap<String, f64> = lines[twin]
        .ratios
        .iter()
        .map(|(metric, s)| (metric.clone(), off(s)))
        .collect();
    for line in &mut lines[1..] {
        for (metric, s) in &mut line.ratios {
            *s = s.wider(off.get(metric).copied().unwrap_or(0.0));
        }
    }
}

impl<F: FnMut(usize) -> Result<Measured>> Course<'_, F> {
    fn rounds(&mut self) {
        let has_base = self.plan.has_base;
        let wanted = self.plan.rounds;
        let most = wanted + wanted.div_ceil(2);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..most {
            let mut lacking: Vec<usize> = (usize::from(has_base)..self.names.len())
                .filter(|&i| self.errors[i].is_none() && self.calm(i) < wanted)
                .collect();
            let is_late = Instant::now() > self.plan.deadline;
            if lacking.is_empty() || (is_late && round > 0) {
                break;
            }
            shuffle(&mut lacking, &mut random);
            for few in lacking.chunks(BETWEEN) {
                for who in has_base.then_some(0).into_iter().chain(few.iter().copied()) {
                    self.one(round, who);
                }
            }
        }
        if has_base && !self.slots.is_empty() {
            // Behind the last.
            self.one(most, 0);
        }
    }

    fn one(&mut self, round: usize, who: usize) {
        let without_base = self.plan.has_base && self.errors[0].is_some();
        if without_base || self.errors[who].is_some() || STOP.load(Ordering::Relaxed) {
            return;
        }
        let name = &self.names[who].0;
        let (suite, cell) = (self.plan.suite, self.plan.cell);
        let said = format!("{suite} {cell} round {} {name}", round + 1);
        self.plan.bar.set_message(said);
        let result = (self.measure)(who);
        let ok = result.as_ref().ok();
        self.raw.push(serde_json::json!({
            "suite": suite, "cell": cell, "round": round, "name": name,
            "discarded": ok.and_then(|m| m.disturbance.clone()),
            "doubt": ok.and_then(|m| m.doubt.clone()),
            "error": result.as_ref().err().map(|e| format!("{e:#}")),
            "report": ok.map(|m| &m.raw),
        }));
        self.plan.bar.inc(1);
        let measured = match result {
            Ok(measured) => Some(measured),
            Err(e) => {
                self.errors[who] = Some(format!("{e:#}"));
                None
            }
        };
        self.slots.push(Slot { who, measured });
    }

    /// How many measurements of a contestant count.
    fn calm(&self, who: usize) -> usize {
        self.placed(who).iter().filter(|p| p.is_calm()).count()
    }

    fn placed(&self, who: usize) -> Vec<Placed<'_>> {
        let base = |slot: &&Slot| self.plan.has_base && slot.who == 0;
        let mut all = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(own) = slot.measured.as_ref().filter(|_| slot.who == who) else {
                continue;
            };
            let before = self.slots[..at].iter().rev().find(base);
            let behind = self.slots[at + 1..].iter().find(base);
            let bases = before.into_iter().chain(behind);
            let bases = bases.filter_map(|s| s.measured.as_ref()).collect();
            all.push(Placed { own, bases });
        }
        all
    }

    fn line(&self, who: usize) -> Line {
        let all = self.placed(who);
        let calm = all.iter().filter(|p| p.is_calm()).count();
        let disturbed = calm == 0 && !all.is_empty();
        let used: Vec<&Placed<'_>> = all.iter().filter(|p| disturbed || p.is_calm()).collect();
        let metrics: BTreeSet<&String> = used.iter().flat_map(|p| p.own.figures.keys()).collect();
        let (mut figures, mut ratios) = (BTreeMap::new(), BTreeMap::new());
        for metric in metrics {
            let own = used.iter().filter_map(|p| p.own.figures.get(metric));
            if let Some(s) = Spread::of(own.copied()) {
                figures.insert(metric.clone(), s);
            }
            if !self.plan.has_base || !(self.plan.ratios)(metric) {
                continue;
            }
            let of_base: Vec<f64> = used.iter().filter_map(|p| p.ratio(metric)).collect();
            if let Some(s) = Spread::of_ratios(&of_base) {
                ratios.insert(metric.clone(), s);
            }
        }
        let (name, group) = self.names[who].clone();
        Line {
            suite: self.plan.suite.to_owned(),
            cell: self.plan.cell.to_owned(),
            name,
            group,
            figures,
            ratios,
            rounds: used.len(),
            discarded: all.len() - calm,
            disturbed,
            error: self.errors[who].clone(),
            doubt: all.iter().find_map(|p| p.own.doubt.clone()),
        }
    }
}

/// Fisher and Yates, by xorshift64*: the same orders in every run.
fn shuffle(some: &mut [usize], random: &mut u64) {
    for i in (1..some.len()).rev() {
        *random ^= *random >> 12;
        *random ^= *random << 25;
        *random ^= *random >> 27;
        let drawn = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        some.swap(i, drawn as usize % (i + 1));
    }
}

/// A measurement with the bases around it: the one before, the one behind.
struct Placed<'a> {
    own: &'a Measured,
    bases: Vec<&'a Measured>,
}

impl Placed<'_> {
    fn is_calm(&self) -> bool {
        self.own.disturbance.is_none() && self.bases.iter().all(|b| b.disturbance.is_none())
    }

    fn ratio(&self, metric: &str) -> Option<f64> {
        let of = |m: &Measured| m.figures.get(metric).copied();
        let bases: Vec<f64> = self.bases.iter().filter_map(|b| of(b)).collect();
        let base = bases.iter().sum::<f64>() / bases.len() as f64;
        (!bases.is_empty() && base > 0.0).then_some(of(self.own)? / base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(cpu: f64, disturbed: bool) -> Measured {
        Measured {
            figures: [("cpu".to_owned(), cpu)].into(),
            disturbance: disturbed.then(|| "others".to_owned()),
            ..Measured::default()
        }
    }

    /// The contestants' numbers are `f(who, which of its measurements, time)`.
    fn lines(
        names: &[&str],
        rounds: usize,
        mut f: impl FnMut(usize, usize, usize) -> Result<Measured>,
    ) -> Vec<Line> {
        let names: Vec<_> = names
            .iter()
            .map(|n| ((*n).to_owned(), String::new()))
            .collect();
        let (mut seen, mut time) = (vec![0; names.len()], 0);
        let plan = Plan {
            suite: "s",
            cell: "c",
            rounds,
            deadline: Instant::now() + std::time::Duration::from_secs(60),
            has_base: true,
            ratios: |metric| metric == "cpu",
            twin: names.iter().position(|(n, _)| n == "again"),
            bar: &ProgressBar::hidden(),
        };
        let done = run(plan, &names, |i| {
            seen[i] += 1;
            time += 1;
            f(i, seen[i] - 1, time - 1)
        });
        assert_eq!(done.raw.len(), time);
        done.lines
    }

    #[test]
    fn a_machine_that_slows_down_steadily_changes_no_ratio() {
        let all = lines(&["floor", "a"], 7, |i, _, time| {
            Ok(measured(
                (100 + time) as f64 * if i == 0 { 1.0 } else { 1.5 },
                false,
            ))
        });
        let s = all[1].ratios["cpu"];
        assert!((s.low - 1.5).abs() < 1e-9 && (s.high - 1.5).abs() < 1e-9);
        assert_eq!((s.n, all[0].rounds), (7, 8));
        // The absolute figures did change.
        assert!(all[1].figures["cpu"].high > all[1].figures["cpu"].low);
    }

    #[test]
    fn a_disturbed_base_discards_what_is_beside_it_and_more_is_run() {
        let all = lines(&["floor", "a"], 4, |i, nth, _| {
            Ok(measured(1.0 + i as f64, i == 0 && nth == 1))
        });
        // It is the second base: behind the first of `a`, before the second.
        let a = &all[1];
        assert_eq!((a.rounds, a.discarded, a.disturbed), (4, 2, false));
        assert_eq!(a.ratios["cpu"].median, 2.0);
    }

    #[test]
    fn a_machine_that_is_never_quiet_is_said_to_be_so() {
        let all = lines(&["floor", "a"], 4, |i, _, _| {
            Ok(measured(1.0 + i as f64, true))
        });
        assert!(all[1].disturbed);
        assert_eq!((all[1].rounds, all[1].discarded), (6, 6));
        assert_eq!(all[1].ratios["cpu"].median, 2.0);
    }

    #[test]
    fn a_contestant_that_fails_is_named_and_the_others_go_on() {
        let all = lines(&["floor", "a", "b"], 3, |i, _, _| {
            if i == 1 {
                anyhow::bail!("no")
            }
            Ok(measured(1.0, false))
        });
        assert_eq!(all[1].error.as_deref(), Some("no"));
        assert_eq!((all[1].rounds, all[2].rounds), (0, 3));
    }

    #[test]
    fn a_base_that_differs_from_itself_widens_every_interval() {
        let all = lines(&["floor", "a", "again"], 7, |i, _, _| {
            Ok(measured([1.0, 2.0, 1.1][i], false))
        });
        let s = all[1].ratios["cpu"];
        assert!((s.low - 1.8).abs() < 1e-9 && (s.high - 2.2).abs() < 1e-9);
        // One that is known to be the base, and says it is not, includes 1.
        assert!(all[2].ratios["cpu"].low <= 1.0);
    }

    #[test]
    fn everyone_has_its_rounds_and_the_measurements_are_as_many_as_said() {
        let names = ["floor", "a", "b", "c", "d", "e", "f"];
        let mut count = 0;
        let all = lines(&names, 7, |_, _, _| {
            count += 1;
            Ok(measured(1.0, false))
        });
        assert!(all[1..].iter().all(|l| l.rounds == 7));
        assert_eq!(count, measurements(names.len(), true, 7));
    }
}
