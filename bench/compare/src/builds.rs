//! Builds the contestants one package at a time.
//!
//! `cargo build -p X` resolves the features that X alone asks for. One build of
//! the whole workspace would give every peer the union of all features.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::child::{self, STOP};

/// Where cargo puts release binaries.
pub fn target(bench: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| bench.join("target"))
        .join("release")
}

/// Builds `packages`; those that failed, with the first line of why.
pub fn build(bench: &Path, packages: &[String]) -> BTreeMap<String, String> {
    let bar = ProgressBar::new(packages.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    let mut failed = BTreeMap::new();
    for package in packages {
        if STOP.load(Ordering::Relaxed) {
            break;
        }
        bar.set_message(format!("build {package}"));
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--release", "--quiet", "-p", package])
            .current_dir(bench);
        if let Err(why) = built(&mut command) {
            failed.insert(package.clone(), why);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    failed
}

/// Builds the peers that are not Rust; those that failed by binary, with why.
pub fn build_foreign(bench: &Path) -> BTreeMap<String, String> {
    let mut script = Command::new("sh");
    script
        .arg(bench.join("servers/build-c.sh"))
        .current_dir(bench);
    match child::output(&mut script, &[], LIMIT) {
        Ok(out) => missing(&out.stderr),
        Err(e) => [("build-c.sh".to_owned(), format!("{e:#}"))].into(),
    }
}

/// From `build-c.sh: peer-libuv is not built: no <uv.h>: install libuv1-dev`.
fn missing(text: &str) -> BTreeMap<String, String> {
    let named = text.lines().filter_map(|line| {
        let (name, why) = line
            .strip_prefix("build-c.sh: ")?
            .split_once(" is not built: ")?;
        Some((name.to_owned(), why.to_owned()))
    });
    named.collect()
}

/// For one package with all that it depends on, from nothing.
const LIMIT: Duration = Duration::from_secs(900);

fn built(command: &mut Command) -> Result<(), String> {
    let out = child::output(command, &[], LIMIT).map_err(|e| format!("{e:#}"))?;
    match out.code {
        Some(0) => Ok(()),
        None => Err("the build did not end in 15 minutes".into()),
        Some(_) => Err(first_error(&out.stderr)),
    }
}

fn first_error(text: &str) -> String {
    let error = text
        .lines()
        .find(|l| l.starts_with("error") || l.contains("error:"));
    error
        .or_else(|| text.lines().next())
        .unwrap_or("failed without a word")
        .to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_error_is_found_behind_warnings() {
        let text = "warning: a\n --> b\nerror[E0432]: no such thing\nerror: aborting";
        assert_eq!(super::first_error(text), "error[E0432]: no such thing");
        assert_eq!(super::first_error("odd"), "odd");
    }

    #[test]
    fn a_foreign_peer_that_is_missing_is_named() {
        let text = "cc: warning\nbuild-c.sh: peer-libuv is not built: no <uv.h>: install it\n";
        let all = super::missing(text);
        assert_eq!(all["peer-libuv"], "no <uv.h>: install it");
        assert_eq!(all.len(), 1);
    }
}
