//! On what it was measured.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

pub fn facts(bench: &Path) -> BTreeMap<String, String> {
    let file = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let said = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).current_dir(bench).output();
        let text = out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or("", |(_, v)| v)
            .trim()
            .to_owned()
    };
    let cpu = file("/proc/cpuinfo");
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let dirty = if said("git", &["status", "--porcelain", "-uno"]).is_empty() {
        ""
    } else {
        " + changes"
    };
    let governor = file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    let all = [
        ("kernel", file("/proc/sys/kernel/osrelease")),
        ("cpu", format!("{cores} x {}", field(&cpu, "model name"))),
        (
            "virtual",
            if cpu.contains("hypervisor") {
                "yes".into()
            } else {
                "no".into()
            },
        ),
        ("memory", field(&file("/proc/meminfo"), "MemTotal")),
        (
            "governor",
            if governor.is_empty() {
                "unknown".into()
            } else {
                governor
            },
        ),
        (
            "clock",
            file("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        ),
        ("load before", file("/proc/loadavg")),
        ("rustc", said("rustc", &["--version"])),
        (
            "commit",
            said("git", &["rev-parse", "--short", "HEAD"]) + dirty,
        ),
        ("date", said("date", &["-u", "+%FT%TZ"])),
    ];
    all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}
