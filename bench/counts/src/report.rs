//! The lines and the table.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

/// A count, or why there is none.
#[derive(Debug)]
pub struct Count {
    /// What was counted.
    pub what: &'static str,
    /// Of whom: `server` or `runtime`.
    pub kind: &'static str,
    pub who: String,
    /// What else tells it apart: connections, the case.
    pub at: Vec<(&'static str, Value)>,
    pub got: Result<Values, String>,
}

/// The median of the differences that were taken, and their extremes.
#[derive(Clone, Debug)]
pub struct Values {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// Of what it consists, largest first.
    pub parts: Vec<(String, f64)>,
}

impl Values {
    pub fn of(mut values: Vec<f64>) -> Values {
        values.sort_by(f64::total_cmp);
        Values {
            median: values[values.len() / 2],
            low: values[0],
            high: values[values.len() - 1],
            parts: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub struct Report {
    json: bool,
    rows: Vec<Count>,
}

impl Report {
    pub fn new(json: bool) -> Report {
        Report {
            json,
            rows: Vec::new(),
        }
    }

    /// Takes a count, and says it at once.
    pub fn add(&mut self, count: Count) {
        if self.json {
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{}", line(&count)).and_then(|()| out.flush());
        } else {
            let at = at(&count);
            eprintln!("{}: {} {at}", count.what, count.who);
        }
        self.rows.push(count);
    }

    /// Puts the same counts together, in the order in which they first came.
    pub fn sort(&mut self) {
        let mut order: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !order.contains(&row.what) {
                order.push(row.what);
            }
        }
        let place = |row: &Count| order.iter().position(|what| *what == row.what);
        self.rows.sort_by_key(place);
    }

    /// Prints what was counted, for people.
    pub fn table(&self) {
        if self.json {
            return;
        }
        let mut out = io::stdout().lock();
        let mut last = "";
        for row in &self.rows {
            if row.what != last {
                last = row.what;
                let _ = writeln!(out, "\n{last}");
            }
            let at = at(row);
            let _ = match &row.got {
                Ok(values) => writeln!(
                    out,
                    "  {:<28} {:<22} {:>12.2}   {:.2}..{:.2}   {}",
                    row.who,
                    at,
                    values.median,
                    values.low,
                    values.high,
                    parts(values)
                ),
                Err(why) => writeln!(out, "  {:<28} {:<22} {:>12}   {why}", row.who, at, "-"),
            };
        }
    }
}

fn at(count: &Count) -> String {
    let words = count.at.iter().map(|(key, value)| match value {
        Value::String(text) => text.clone(),
        other => format!("{other} {key}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn parts(values: &Values) -> String {
    let words = values.parts.iter().take(4);
    let words = words.map(|(name, value)| format!("{name} {value:.2}"));
    words.collect::<Vec<_>>().join(", ")
}

fn line(count: &Count) -> Value {
    let mut line = Map::new();
    line.insert("what".into(), count.what.into());
    line.insert(count.kind.into(), count.who.clone().into());
    for (key, value) in &count.at {
        line.insert((*key).into(), value.clone());
    }
    match &count.got {
        Ok(values) => {
            line.insert("value".into(), json!(rounded(values.median)));
            line.insert("low".into(), json!(rounded(values.low)));
            line.insert("high".into(), json!(rounded(values.high)));
            if !values.parts.is_empty() {
                let parts = values.parts.iter();
                let parts = parts.map(|(name, value)| (name.clone(), json!(rounded(*value))));
                line.insert("parts".into(), Value::Object(parts.collect()));
            }
        }
        Err(why) => drop(line.insert("skipped".into(), why.clone().into())),
    }
    Value::Object(line)
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
