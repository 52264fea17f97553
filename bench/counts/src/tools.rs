//! What callgrind, dhat and strace say of the life of a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder for what the tools write, removed at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Scratch, String> {
        let path = std::env::temp_dir().join(format!("counts-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Scratch(path))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

pub fn callgrind(out: &Path) -> Vec<String> {
    let mut tool = words(&["valgrind", "--tool=callgrind"]);
    tool.push(format!("--callgrind-out-file={}", out.display()));
    tool
}

pub fn dhat() -> Vec<String> {
    words(&["valgrind", "--tool=dhat", "--dhat-out-file=/dev/null"])
}

pub fn strace(out: &Path) -> Vec<String> {
    let out = out.display().to_string();
    words(&["strace", "-f", "-c", "-U", "calls,name", "-o", &out])
}

/// The instructions of a process.
pub fn instructions(out: &Path) -> Result<f64, String> {
    let text = read(out)?;
    let line = text.lines().rev().find(|line| line.starts_with("totals:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .ok_or("callgrind gave no totals".into())
}

/// Blocks and bytes that a process allocated, from what dhat said.
pub fn allocations(errors: &str) -> Result<(f64, f64), String> {
    // `==123== Total:     1,234 bytes in 56 blocks`
    let line = errors.lines().find_map(|line| line.split_once("Total:"));
    let line = line.ok_or("dhat gave no total")?.1;
    let mut numbers = line.split_whitespace().filter_map(|word| {
        let digits = word.replace(',', "");
        digits.parse::<f64>().ok()
    });
    match (numbers.next(), numbers.next()) {
        (Some(bytes), Some(blocks)) => Ok((blocks, bytes)),
        _ => Err(format!("what dhat said: {line}")),
    }
}

/// The system calls of a process, by name.
pub fn calls(out: &Path) -> Result<BTreeMap<String, f64>, String> {
    let text = read(out)?;
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let calls = words.next()?.parse().ok()?;
        let name = words.next()?;
        (name != "total").then(|| (name.to_owned(), calls))
    });
    Ok(lines.collect())
}

/// Where the instructions of a process were spent: in which functions, and in
/// which source files (which tells inlined code apart).
#[derive(Debug, Default)]
pub struct Places {
    pub functions: BTreeMap<String, f64>,
    pub files: BTreeMap<String, f64>,
}

/// Reads a file in callgrind's format:
/// <https://valgrind.org/docs/manual/cl-format.html>.
pub fn places(out: &Path) -> Result<Places, String> {
    let text = read(out)?;
    let mut places = Places::default();
    let mut functions = BTreeMap::new();
    let mut files = BTreeMap::new();
    let (mut function, mut file) = (String::new(), String::new());
    let mut inclusive = false;
    for line in text.lines() {
        if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            // The line after `calls=` is what the callee cost.
            if !std::mem::take(&mut inclusive) {
                let cost = line.split_whitespace().nth(1);
                let cost: f64 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0.0);
                *places.functions.entry(function.clone()).or_default() += cost;
                *places.files.entry(file.clone()).or_default() += cost;
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        match key {
            "fn" => function = name(&mut functions, value),
            "cfn" => drop(name(&mut functions, value)),
            "fl" | "fi" | "fe" => file = name(&mut files, value),
            "cfi" | "cfl" => drop(name(&mut files, value)),
            "calls" => inclusive = true,
            _ => {}
        }
    }
    Ok(places)
}

/// `(12) name` names it, and `(12)` is it from then on.
fn name(names: &mut BTreeMap<String, String>, value: &str) -> String {
    let Some((number, rest)) = value.split_once(')') else {
        return value.to_owned();
    };
    match rest.trim() {
        "" => names.get(number).cloned().unwrap_or_default(),
        new => {
            names.insert(number.to_owned(), new.to_owned());
            new.to_owned()
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_of_dhat_is_read() {
        let said = "==1== \n==1== Total:     1,234,567 bytes in 89 blocks\n==1== At t-gmax: 1";
        assert_eq!(allocations(said), Ok((89.0, 1_234_567.0)));
    }

    #[test]
    fn the_cost_of_a_callee_is_not_ours() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.file("places");
        let text = "events: Ir\nfl=(1) a.rs\nfn=(1) one\n10 5\nfi=(2) b.rs\n11 7\n\
                    cfn=(2) two\ncalls=1 3\n12 100\nfe=(1)\n+1 1\n\nfn=(2)\n3 100\ntotals: 113\n";
        fs::write(&file, text).unwrap();
        let places = places(&file).unwrap();
        assert_eq!(places.functions["one"], 13.0);
        assert_eq!(places.functions["two"], 100.0);
        assert_eq!(places.files["b.rs"], 7.0);
        assert_eq!(instructions(&file), Ok(113.0));
    }
}
