//! What the kernel knows of a process and of a core.
//!
//! CPU time is read from the process's CPU clock (`clock_getcpuclockid`): in
//! nanoseconds, up to date even for a thread that runs right now, and with the
//! threads that have ended. Refused: `/proc/PID/stat` (10 ms), and the sum of
//! `/proc/PID/task/*/schedstat`, which lacks threads that have ended and lags a
//! running thread by up to a tick (4 ms). Descendant processes are added each by
//! its own clock; those that have ended and were reaped, by the parents'
//! `cutime + cstime` (10 ms a figure).
use std::fs;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One look at a process and its descendants.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Sample {
    /// CPU time, user and system, in ns.
    pub cpu_ns: u64,
    /// Time its threads were ready to run and did not, in ns.
    pub run_delay_ns: u64,
    /// Switches because it waited.
    pub voluntary: u64,
    /// Switches because the scheduler said so.
    pub involuntary: u64,
    /// Bytes resident, summed over processes (shared pages count in each).
    pub rss: u64,
    /// Of these, not backed by a file.
    pub rss_anon: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads now alive.
    pub threads: u64,
    /// Processes now alive.
    pub processes: u64,
}

impl Sample {
    /// Looks at `pid` and all its descendants.
    pub fn of(pid: i32) -> Self {
        let mut all = Self::default();
        let mut todo = vec![pid];
        while let Some(pid) = todo.pop() {
            all.add(pid, &mut todo);
        }
        all
    }

    fn add(&mut self, pid: i32, children: &mut Vec<i32>) {
        // The clock first: looking costs the server nothing, but takes time.
        let Some(cpu) = cpu_clock(pid) else { return };
        self.cpu_ns += cpu + reaped_children_ns(pid);
        self.processes += 1;
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return;
        };
        for task in tasks.flatten() {
            let at = task.path();
            self.threads += 1;
            if let Ok(text) = fs::read_to_string(at.join("schedstat")) {
                self.run_delay_ns += word(&text, 1);
            }
            if let Ok(text) = fs::read_to_string(at.join("status")) {
                self.voluntary += field(&text, "voluntary_ctxt_switches:");
                self.involuntary += field(&text, "nonvoluntary_ctxt_switches:");
            }
            if let Ok(text) = fs::read_to_string(at.join("children")) {
                children.extend(
                    text.split_whitespace()
                        .filter_map(|p| p.parse::<i32>().ok()),
                );
            }
        }
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) {
            self.rss += field(&text, "VmRSS:") * 1024;
            self.rss_anon += field(&text, "RssAnon:") * 1024;
        }
        self.descriptors +=
            fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |dir| dir.count() as u64);
    }

    /// What happened from `before` to `self`; memory and counts as they are now.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            run_delay_ns: self.run_delay_ns.saturating_sub(before.run_delay_ns),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
            ..self
        }
    }
}

fn cpu_clock(pid: i32) -> Option<u64> {
    let now = clock_getcpuclockid(Pid::from_raw(pid)).ok()?.now().ok()?;
    Some(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn reaped_children_ns(pid: i32) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0;
    };
    // Behind the name, which may hold anything: field 3 is word 0.
    let Some((_, rest)) = text.rsplit_once(')') else {
        return 0;
    };
    (word(rest, 13) + word(rest, 14)) * 10_000_000
}

/// Memory shared fairly among those that map it (PSS), over `pid` and all its
/// descendants, in bytes: (all of it, the anonymous part). Slow: it walks page
/// tables, so it is read outside the window.
pub fn proportional_memory(pid: i32) -> (u64, u64) {
    let (mut pss, mut anon) = (0, 0);
    let mut todo = vec![pid];
    while let Some(pid) = todo.pop() {
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
            pss += field(&text, "Pss:") * 1024;
            anon += field(&text, "Pss_Anon:") * 1024;
        }
        if let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) {
            for task in tasks.flatten() {
                let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                todo.extend(
                    text.split_whitespace()
                        .filter_map(|p| p.parse::<i32>().ok()),
                );
            }
        }
    }
    (pss, anon)
}

/// Microseconds for which `core` was not idle since boot.
///
/// `/proc/stat` counts in 10 ms and by the tick, so a window of a second is
/// known to about 2%.
pub fn core_busy_us(core: usize) -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let Some(line) = text.lines().find(|l| l.starts_with(&name)) else {
        return 0;
    };
    // user nice system idle iowait irq softirq steal; what follows is in user.
    let busy: u64 = [1, 2, 3, 6, 7, 8].iter().map(|&i| word(line, i)).sum();
    busy * 10_000
}

/// Connections the kernel dropped because a listener's queue was full, on the
/// whole machine.
pub fn listen_drops() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let at = names.split_whitespace().position(|n| n == "ListenDrops");
    at.map_or(0, |at| word(values, at))
}

fn word(text: &str, index: usize) -> u64 {
    text.split_whitespace()
        .nth(index)
        .and_then(|w| w.parse().ok())
        .unwrap_or(0)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.map_or(0, |rest| word(rest, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_is_billed_for_its_time() {
        let me = std::process::id() as i32;
        let before = Sample::of(me);
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 20 {
            std::hint::spin_loop();
        }
        let used = Sample::of(me).since(before);
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(used.rss > 100_000 && used.threads >= 1 && used.descriptors >= 3);
    }

    #[test]
    fn an_ended_threads_time_stays_in_the_bill() {
        let me = std::process::id() as i32;
        let before = Sample::of(me);
        let spin = || {
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 20 {
                std::hint::spin_loop();
            }
        };
        assert!(std::thread::spawn(spin).join().is_ok());
        assert!(Sample::of(me).since(before).cpu_ns > 1_000_000);
    }

    #[test]
    fn words_and_fields() {
        assert_eq!(word("cpu0 1 2 3", 2), 2);
        assert_eq!(field("a: 1\nVmRSS:\t  42 kB\n", "VmRSS:"), 42);
        assert_eq!(
            field(
                "nonvoluntary_ctxt_switches: 3\n",
                "voluntary_ctxt_switches:"
            ),
            0
        );
    }
}
