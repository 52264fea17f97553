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
    let script = bench.join("servers/build-c.sh");
    if script.exists() && !STOP.load(Ordering::Relaxed) {
        // The peers that are not Rust; each that is missing fails to start, and
        // is named then.
        bar.set_message("build the C and C++ peers");
        if let Err(why) = built(Command::new("sh").arg(script).current_dir(bench)) {
            failed.insert("build-c.sh".into(), why);
        }
    }
    bar.finish_and_clear();
    failed
}

fn built(command: &mut Command) -> Result<(), String> {
    let out =
        child::output(command, &[], Duration::from_secs(900)).map_err(|e| format!("{e:#}"))?;
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
}
