//! The contestants, as `servers/catalogue.toml` and `sched/catalogue.toml` name
//! them.
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    pub name: String,
    pub package: String,
    pub bin: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// `floor`, `peer`, `isochrome` or `old`.
    pub group: String,
    #[serde(default)]
    pub io: String,
    #[serde(default)]
    pub note: String,
    /// Of the runtime, pinned in the package.
    #[serde(default)]
    pub version: String,
    /// Why it cannot be built here, if it cannot.
    #[serde(default)]
    pub broken: Option<String>,
    /// A server that is slow on purpose: see `--handicap`.
    #[serde(default)]
    pub handicap: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sched {
    #[serde(alias = "name")]
    pub runtime: String,
    pub package: String,
    pub bin: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// The worker counts it can run with.
    #[serde(default = "one_and_two")]
    pub workers: Vec<usize>,
}

fn one_and_two() -> Vec<usize> {
    vec![1, 2]
}

#[derive(Debug, Default, Deserialize)]
pub struct Catalogue {
    #[serde(default)]
    pub server: Vec<Server>,
    #[serde(default)]
    pub sched: Vec<Sched>,
}

/// Reads both; a file that is not there is an empty list.
pub fn read(bench: &Path) -> Result<Catalogue> {
    let read = |path: &str| -> Result<Catalogue> {
        let path = bench.join(path);
        if !path.exists() {
            return Ok(Catalogue::default());
        }
        let text = std::fs::read_to_string(&path)?;
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))
    };
    let (servers, sched) = (
        read("servers/catalogue.toml")?,
        read("sched/catalogue.toml")?,
    );
    Ok(Catalogue {
        server: servers.server,
        sched: sched.sched,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_catalogues_of_this_tree_parse() {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let all = read(&bench);
        assert!(all.is_ok(), "{all:?}");
    }
}
