//! The example as a child: pinned, and ended in order.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long it may take to end.
const END: Duration = Duration::from_secs(8);

/// A running server; killed when it is dropped.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
}

impl Server {
    /// Starts `program` on `cores` and a free port.
    pub fn start(program: &Path, flags: &[String], cores: &[usize]) -> Result<Server> {
        // A child has the cores of the thread that makes it.
        pin(cores)?;
        let mut child = Command::new(program)
            .arg("127.0.0.1:0")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut line = String::new();
        let out = child.stdout.take().context("it is piped")?;
        // It says where it listens, or ends: either way there is something.
        BufReader::new(out).read_line(&mut line)?;
        let addr = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(' ').next());
        let Some(addr) = addr.and_then(|addr| addr.parse().ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("it said {line:?} instead of where it listens");
        };
        Ok(Server { child, addr })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Ends it, in order.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM)?;
        let end = Instant::now() + END;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("the server ended with {status}");
                }
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the server does not end");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps this thread, and what it starts, on `cores`.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot pin to cores")
}
