//! What there is to measure: the two catalogues, and the binaries.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toml::{Table, Value};

/// A server or a scheduler benchmark.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub package: String,
    pub bin: String,
    pub args: Vec<String>,
    pub group: String,
    /// Why it cannot be built here.
    pub broken: Option<String>,
}

/// The `bench` folder.
fn bench() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this package is in `bench`")
}

/// The servers, but for the old architectures: what is counted here is the
/// cost of a connection in one process.
pub fn servers() -> Result<Vec<Entry>, String> {
    let mut entries = read("servers/catalogue.toml", "server", "name")?;
    entries.retain(|entry| entry.group != "old");
    Ok(entries)
}

/// The scheduler benchmarks. All have a run with one worker.
pub fn schedulers() -> Result<Vec<Entry>, String> {
    read("sched/catalogue.toml", "sched", "runtime")
}

fn read(file: &str, table: &str, name: &str) -> Result<Vec<Entry>, String> {
    let path = bench().join(file);
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let catalogue: Table = text
        .parse()
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let entries = catalogue.get(table).and_then(Value::as_array);
    let entries = entries.ok_or(format!("{}: no [[{table}]]", path.display()))?;
    entries
        .iter()
        .map(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
            let needed =
                |key: &str| text(key).ok_or(format!("{}: an entry has no {key}", path.display()));
            let args = entry.get("args").and_then(Value::as_array);
            let words = args.into_iter().flatten().filter_map(Value::as_str);
            Ok(Entry {
                name: needed(name)?,
                package: needed("package")?,
                bin: needed("bin")?,
                args: words.map(str::to_owned).collect(),
                group: text("group").unwrap_or_default(),
                broken: text("broken"),
            })
        })
        .collect()
}

/// Builds binaries, and knows where they are.
#[derive(Debug)]
pub struct Binaries {
    build: bool,
    built: HashMap<String, Result<PathBuf, String>>,
}

impl Binaries {
    pub fn new(build: bool) -> Binaries {
        Binaries {
            build,
            built: HashMap::new(),
        }
    }

    /// The binary of an entry. It is built the first time that it is asked
    /// for, alone, so that no features are unified.
    pub fn get(&mut self, entry: &Entry) -> Result<PathBuf, String> {
        let build = self.build;
        let make = || match &entry.broken {
            Some(why) => Err(why.clone()),
            None if build && entry.package.is_empty() => compile_foreign(entry),
            None if build => compile(entry),
            None => find(entry),
        };
        let built = self.built.entry(entry.bin.clone());
        built.or_insert_with(make).clone()
    }
}

fn compile(entry: &Entry) -> Result<PathBuf, String> {
    eprintln!("building {}", entry.bin);
    let output = cargo()
        .args(["build", "--release", "--quiet"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--package", &entry.package, "--bin", &entry.bin])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("{} does not build", entry.package));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == entry.bin.as_str())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or(format!("cargo does not say where {} is", entry.bin))
}

/// Builds what is not written in Rust; all of it at once, which takes a second.
fn compile_foreign(entry: &Entry) -> Result<PathBuf, String> {
    eprintln!("building {}", entry.bin);
    let status = Command::new("sh")
        .arg(bench().join("servers/build-c.sh"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    status.map_err(|e| format!("cannot run build-c.sh: {e}"))?;
    find(entry)
}

/// The target folder that cargo has, and the binary in it.
fn find(entry: &Entry) -> Result<PathBuf, String> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let folder = metadata["target_directory"].as_str();
    let folder = folder.ok_or("cargo metadata has no target_directory")?;
    let path = Path::new(folder).join("release").join(&entry.bin);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{} is not there; do without --no-build", entry.bin)),
    }
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(bench()).stdin(Stdio::null());
    command
}
