//! A server, perhaps under a tool, from its start to its end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalogue::Entry;
use crate::client::Client;

/// How long a start and an end may take under a tool.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that listens. It is killed if it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    addr: SocketAddr,
    errors: Receiver<String>,
}

impl Server {
    /// Starts a server behind the words of a tool. With `exit_after`, it ends
    /// by itself after so many connections: valgrind delivers no signal to a
    /// process that waits in `io_uring_enter`.
    pub fn start(
        tool: &[String],
        exe: &Path,
        entry: &Entry,
        exit_after: Option<usize>,
    ) -> Result<Server, String> {
        let mut command = command(tool, exe);
        command.args(["--addr", "127.0.0.1:0"]).args(&entry.args);
        if !entry.args.iter().any(|arg| arg == "--workers") {
            command.args(["--workers", "1"]);
        }
        if let Some(connections) = exit_after {
            command.env("BENCH_EXIT_AFTER", connections.to_string());
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", entry.name))?;
        let lines = lines_of(child.stdout.take().expect("it is piped"));
        let errors = lines_of(child.stderr.take().expect("it is piped"));
        let mut server = Server {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            errors,
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = lines.recv_timeout(left) else {
                return Err(server.failed("does not say where it listens"));
            };
            let addr = line.strip_prefix("listening on ");
            let addr = addr.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            if let Some(addr) = addr {
                server.addr = addr;
                return Ok(server);
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves so many rounds on so many connections, and ends. Gives what it
    /// said on standard error.
    pub fn serve(mut self, connections: usize, rounds: usize) -> Result<String, String> {
        let served =
            Client::connect(self.addr, connections).and_then(|mut client| client.rounds(rounds));
        if let Err(e) = served {
            return Err(self.failed(&format!("did not serve: {e}")));
        }
        self.end()
    }

    fn end(&mut self) -> Result<String, String> {
        match wait(&mut self.child) {
            Some(true) => Ok(self.errors.iter().collect::<Vec<_>>().join("\n")),
            Some(false) => Err(self.failed("ended with an error")),
            None => Err(self.failed("did not end by itself")),
        }
    }

    /// What happened, with the last thing that it said.
    fn failed(&mut self, how: &str) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        match self.errors.iter().filter(|line| !line.is_empty()).last() {
            Some(line) => format!("{how} ({line})"),
            None => how.to_owned(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program behind the words of a tool to its end. Gives its standard
/// output and error.
pub fn run(tool: &[String], exe: &Path, args: &[String]) -> Result<(String, String), String> {
    let mut child = command(tool, exe)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", exe.display()))?;
    let output = lines_of(child.stdout.take().expect("it is piped"));
    let errors = lines_of(child.stderr.take().expect("it is piped"));
    let ended = wait(&mut child);
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let said = |lines: Receiver<String>| lines.iter().collect::<Vec<_>>();
    let (output, errors) = (said(output), said(errors));
    let last = || errors.last().cloned().unwrap_or_default();
    match ended {
        Some(true) => Ok((output.join("\n"), errors.join("\n"))),
        Some(false) => Err(format!("ended with an error ({})", last())),
        None => Err(format!("did not end by itself ({})", last())),
    }
}

fn command(tool: &[String], exe: &Path) -> Command {
    let mut command = match tool.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(exe);
            command
        }
        None => Command::new(exe),
    };
    command.stdin(Stdio::null());
    command
}

/// Whether it ended well; `None` if it did not end.
fn wait(child: &mut Child) -> Option<bool> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status.success());
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Reads on, so that the child never waits for us.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let _ = send.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
    lines
}
