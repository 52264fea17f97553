//! An example program as a child process.
//!
//! Every wait here is for an event (a line, the end of a pipe, the exit) and
//! is bounded by [`PATIENCE`].

#![allow(dead_code, unused_macros, reason = "no test uses all of it")]

use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Far more than anything here takes on a busy machine. (Each enter that a fault
/// refuses is a sleep of a millisecond.)
pub(crate) const PATIENCE: Duration = Duration::from_secs(match cfg!(isochrome_faults) {
    true => 300,
    false => 60,
});

/// Runs each test on both drivers.
macro_rules! on_both_drivers {
    ($($test:ident)*) => {
        mod reactor {
            $(#[test] fn $test() { super::$test("reactor"); })*
        }
        mod proactor {
            $(#[test] fn $test() {
                match super::io_uring_refused() {
                    None => super::$test("proactor"),
                    Some(e) => println!("skipped: the kernel refuses io_uring: {e}"),
                }
            })*
        }
    };
}

#[allow(unused_imports, reason = "no test uses all of it")]
pub(crate) use on_both_drivers;

/// Each of these command lines is refused, and the reason told.
pub(crate) fn bad_flags_are_explained(example: &str, lines: &[&[&str]]) {
    for args in lines {
        let (status, stdout, stderr) = Process::start(example, args).end();
        assert_eq!(status.code(), Some(2), "{args:?}");
        assert_eq!(stdout, [""; 0]);
        assert!(stderr[0].starts_with("error: "), "{stderr:?}");
        let help = stderr.last().expect("there was a line");
        assert!(help.contains("--help"), "{stderr:?}");
    }
}

/// An address that somebody else has makes it end, with one line.
pub(crate) fn an_address_in_use_is_told(example: &str) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let (status, stdout, stderr) = Process::start(example, &[&addr]).end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, [""; 0]);
    assert_eq!(stderr.len(), 1, "{stderr:?}");
    let expected = format!("{example}: cannot listen on {addr}: ");
    assert!(stderr[0].starts_with(&expected), "{stderr:?}");
    assert!(stderr[0].contains("in use"), "{stderr:?}");
}

/// Where cargo put the example: beside the directory of this test.
fn path_of(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.parent().and_then(|deps| deps.parent());
    let path = profile.expect("target/PROFILE/deps").join("examples");
    let path = path.join(example);
    assert!(
        path.exists(),
        "{} is missing: `cargo test` builds the examples, `cargo test --test example` alone \
         does not; run `cargo build --examples` first",
        path.display(),
    );
    path
}

/// A running example. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    pub(crate) fn start(example: &str, args: &[&str]) -> Process {
        Process::run(Command::new(path_of(example)).args(args))
    }

    /// Starts it where a seccomp filter refuses io_uring, as most containers
    /// do.
    pub(crate) fn start_without_io_uring(example: &str, args: &[&str]) -> Process {
        let mut command = Command::new(path_of(example));
        // SAFETY: between fork and exec only two system calls are made;
        // nothing is allocated or locked.
        unsafe { command.args(args).pre_exec(refuse_io_uring) };
        Process::run(&mut command)
    }

    /// Starts it with a stdout to which nothing can be written.
    pub(crate) fn start_with_full_stdout(example: &str, args: &[&str]) -> Process {
        let mut command = Command::new("sh");
        let script = "exec \"$0\" \"$@\" >/dev/full";
        command
            .args(["-c", script])
            .arg(path_of(example))
            .args(args);
        Process::run(&mut command)
    }

    /// Starts it with a listener handed over as systemd does it.
    pub(crate) fn start_with(listener: &impl AsRawFd, example: &str, args: &[&str]) -> Process {
        let fd = listener.as_raw_fd();
        let mut command = Command::new("sh");
        // The variable has to name the process that is started: exec keeps it.
        let script = "export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        command
            .args(["-c", script])
            .arg(path_of(example))
            .args(args);
        command.env("LISTEN_FDS", "1");
        let hand_over = move || {
            // Away from 3 first, which it may be: a copy is not close-on-exec.
            // SAFETY: no memory is touched.
            let spare = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100) };
            // SAFETY: likewise; what lies on 3 now is the child's.
            match unsafe { libc::dup2(spare, 3) } {
                3 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec only two system calls are made.
        unsafe { command.pre_exec(hand_over) };
        Process::run(&mut command)
    }

    fn run(command: &mut Command) -> Process {
        let mut child = command
            // What `auto` means is up to the arguments here.
            .env_remove("ISOCHROME_DRIVER")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let stdout = Lines::of(child.stdout.take().expect("it is piped"));
        let stderr = Lines::of(child.stderr.take().expect("it is piped"));
        Process {
            child,
            stdout,
            stderr,
        }
    }

    /// The next line on stdout.
    pub(crate) fn line(&mut self) -> String {
        match self.stdout.next() {
            Some(line) => line,
            None => panic!("stdout has ended; stderr: {:?}", self.stderr.rest()),
        }
    }

    /// The next line on stderr.
    pub(crate) fn error_line(&mut self) -> String {
        self.stderr.next().expect("a line on stderr")
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: kill(2) touches no memory. The child was not waited for
        // yet, so that its number is still its own.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
    }

    /// Waits for the exit: the status, and what was left to read of stdout
    /// and stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        // Both pipes have ended: the process is going, or gone.
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return (status, stdout, stderr);
            }
            assert!(begun.elapsed() < PATIENCE, "it does not exit");
            thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe, as they come.
struct Lines(Receiver<String>);

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Lines(lines)
    }

    fn next(&mut self) -> Option<String> {
        match self.0.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line and no end"),
        }
    }

    fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// An example that serves, listening.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) first_line: String,
}

/// What a server said at its end.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) discarded: u64,
    pub(crate) refused: u64,
    pub(crate) idle: u64,
    pub(crate) errors: u64,
    pub(crate) cut: u64,
}

impl Server {
    /// Starts an echo server on a free port, with two workers.
    pub(crate) fn start(driver: &str, args: &[&str]) -> Server {
        Server::start_example("echo_server", driver, args)
    }

    /// Starts another one likewise.
    pub(crate) fn start_example(example: &str, driver: &str, args: &[&str]) -> Server {
        let common = ["127.0.0.1:0", "--workers", "2", "--driver", driver];
        Server::listening(Process::start(example, &[&common, args].concat()))
    }

    /// The server that `process` is, once it listens.
    pub(crate) fn listening(mut process: Process) -> Server {
        let first_line = process.line();
        let addr = first_line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(' ').next())
            .and_then(|addr| addr.parse().ok())
            .unwrap_or_else(|| panic!("no address in {first_line:?}"));
        Server {
            process,
            addr,
            first_line,
        }
    }

    /// A client whose reads and writes do not wait for ever.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.addr, PATIENCE).expect("it listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Ends it by a signal, in order.
    pub(crate) fn stop(self, signal: i32) -> Totals {
        self.process.signal(signal);
        self.ended()
    }

    /// Waits for the orderly end that somebody asked for.
    pub(crate) fn ended(self) -> Totals {
        Totals::of(&self.figures())
    }

    /// Waits for the orderly end that somebody asked for: the last line.
    pub(crate) fn figures(self) -> Figures {
        let (status, stdout, stderr) = self.process.end();
        assert_eq!(status.code(), Some(0), "{status}; stderr: {stderr:?}");
        assert_eq!(stdout.len(), 1, "{stdout:?}");
        let figures = stdout[0].strip_prefix("total ").expect("the totals");
        Figures(figures.to_owned())
    }
}

/// `name=number` and so on.
#[derive(Debug)]
pub(crate) struct Figures(String);

impl Figures {
    pub(crate) fn get(&self, name: &str) -> u64 {
        let mut figures = self.0.split(' ');
        figures
            .find_map(|f| f.strip_prefix(name)?.strip_prefix('='))
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }
}

impl Totals {
    fn of(figures: &Figures) -> Totals {
        Totals {
            connections: figures.get("connections"),
            received: figures.get("received"),
            sent: figures.get("sent"),
            discarded: figures.get("discarded"),
            refused: figures.get("refused"),
            idle: figures.get("idle"),
            errors: figures.get("errors"),
            cut: figures.get("cut"),
        }
    }
}

/// From now on io_uring_setup(2) fails with EPERM in this process.
fn refuse_io_uring() -> io::Result<()> {
    const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        let code = code as u16;
        libc::sock_filter { code, jt, jf, k }
    }
    // The number of the system call is the first word of what is filtered; it
    // is the same on every architecture.
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: prctl(2) copies the program, which is well-formed and lives
    // until it returns.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if refused {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the kernel refuses io_uring altogether; asked without the library
/// under test.
pub(crate) fn io_uring_refused() -> Option<io::Error> {
    // On a thread of its own: the kernel still has work for a thread that
    // made a ring when the ring is closed, and interrupts its next reads
    // (EINTR) to do it.
    thread::spawn(try_io_uring).join().unwrap()
}

fn try_io_uring() -> Option<io::Error> {
    // struct io_uring_params: 30 words, all zero for a plain ring.
    let mut params = [0u32; 30];
    // SAFETY: io_uring_setup(2) reads and writes this struct only; what it
    // returns is a descriptor of ours, if it is one.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr());
        if ring < 0 {
            return Some(io::Error::last_os_error());
        }
        libc::close(ring as i32);
    }
    None
}
