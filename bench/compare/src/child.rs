//! Children: pinned, bounded in time, and killed by their own id.
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::Serialize;

/// Set by Ctrl-C: every wait ends.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// A child in a process group of its own; dropping it ends the whole group (a
/// server may fork).
#[derive(Debug)]
pub struct Owned {
    child: Child,
    /// It ended and its id was given back.
    reaped: bool,
}

impl Owned {
    pub fn spawn(command: &mut Command, cores: &[usize]) -> Result<Self> {
        let mut set = CpuSet::new();
        for &core in cores {
            set.set(core)?;
        }
        let pin = !cores.is_empty();
        command.process_group(0);
        // SAFETY: runs between fork and exec of a child of this process, which
        // has other threads: the closure makes two system calls and touches
        // neither locks nor the heap (`set` is a plain bit array it owns).
        unsafe {
            command.pre_exec(move || {
                // Else a server would outlive us if we are killed.
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                if pin {
                    sched_setaffinity(Pid::from_raw(0), &set)?;
                }
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child,
            reaped: false,
        })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // The group has the child's id, and the child is not yet reaped: the id
        // cannot have become another's.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    pub process: Owned,
    pub addr: String,
    lines: mpsc::Receiver<String>,
}

/// What a server says at its end of the connections that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Had {
    pub accepted: u64,
    /// Of these, closed without being served.
    pub refused: u64,
}

impl Server {
    /// Tells the server to end, and gives what it says then; `None` if it says
    /// nothing within a second.
    pub fn end(self) -> Option<Had> {
        // The child is not yet reaped: the id cannot have become another's.
        kill(Pid::from_raw(self.process.pid()), Signal::SIGTERM).ok()?;
        let line = self.lines.recv_timeout(Duration::from_secs(1)).ok()?;
        had(&line)
    }
}

/// `accepted 12 refused 3`
fn had(line: &str) -> Option<Had> {
    let mut words = line.split_whitespace();
    let mut after = |name: &str| {
        let is_next = words.next() == Some(name);
        words.next()?.parse().ok().filter(|_| is_next)
    };
    Some(Had {
        accepted: after("accepted")?,
        refused: after("refused")?,
    })
}

/// Starts `bin` pinned to `core` and waits for its `listening on IP:PORT`.
pub fn serve(bin: &Path, args: &[String], core: usize) -> Result<Server> {
    let mut command = Command::new(bin);
    command.args(["--addr", "127.0.0.1:0"]).args(args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Owned::spawn(&mut command, &[core])?;
    let (sender, lines) = mpsc::channel();
    if let Some(out) = process.child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    let errors = process.child.stderr.take().map(collect);
    match lines.recv_timeout(Duration::from_secs(10)) {
        Ok(line) => match line.split_once("listening on ") {
            Some((_, rest)) => {
                let addr = rest
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                Ok(Server {
                    process,
                    addr,
                    lines,
                })
            }
            None => bail!("said {line:?} instead of where it listens"),
        },
        Err(_) => {
            drop(process);
            let said = errors.and_then(|e| e.recv_timeout(Duration::from_secs(1)).ok());
            let said = said.unwrap_or_default();
            bail!(
                "did not listen: {}",
                said.lines().next().unwrap_or("no word")
            )
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// What a program that ran to its end, or to its limit, left.
#[derive(Debug)]
pub struct Output {
    /// `None`: it was ended at the limit.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` on `cores` (any, if empty) for at most `limit`.
pub fn output(command: &mut Command, cores: &[usize], limit: Duration) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Owned::spawn(command, cores)?;
    let stdout = process.child.stdout.take().map(collect);
    let stderr = process.child.stderr.take().map(collect);
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = process.child.try_wait()? {
            process.reaped = true;
            break Some(status);
        }
        if Instant::now() > end || STOP.load(Ordering::Relaxed) {
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    if status.is_none() {
        drop(process);
    }
    let text = |from: Option<mpsc::Receiver<String>>| {
        from.and_then(|r| r.recv_timeout(Duration::from_secs(2)).ok())
            .unwrap_or_default()
    };
    Ok(Output {
        code: status.and_then(|s| s.code()),
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_server_is_read() {
        let both = Had {
            accepted: 12,
            refused: 3,
        };
        assert_eq!(had("accepted 12 refused 3"), Some(both));
        assert_eq!(had("accepted 12"), None);
        assert_eq!(had("listening on 127.0.0.1:1"), None);
    }
}
