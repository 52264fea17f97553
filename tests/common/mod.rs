//! What the tests of the whole house share: one body on every driver and
//! worker count, a watchdog, descriptor counts, and small futures.
//!
//! Bodies of one binary run one after another (a lock sees to it), so that
//! each can count the descriptors of the process.

#![allow(dead_code, unused_macros, reason = "no test uses all of it")]

pub(crate) mod agree;
pub(crate) mod bytes;
pub(crate) mod futures;
pub(crate) mod local;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::process::abort;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use isochrome::net::{TcpListener, TcpStream};
use isochrome::{Builder, DriverChoice, Runtime};

/// Far more than any body takes on a busy machine. (Each enter that a fault
/// refuses is a sleep of a millisecond.)
pub(crate) const PATIENCE: Duration = Duration::from_secs(match cfg!(isochrome_faults) {
    true => 300,
    false => 60,
});

/// An address to bind to: the system picks the port.
pub(crate) const LOCAL: &str = "127.0.0.1:0";

/// Makes tests of functions that take a [`Runtime`]: each on both drivers and
/// on 1, 2 and 4 workers.
macro_rules! everywhere {
    ($($test:ident),* $(,)?) => {
        common::one_place!(reactor_1, Reactor, 1, $($test),*);
        common::one_place!(reactor_2, Reactor, 2, $($test),*);
        common::one_place!(reactor_4, Reactor, 4, $($test),*);
        common::one_place!(proactor_1, Proactor, 1, $($test),*);
        common::one_place!(proactor_2, Proactor, 2, $($test),*);
        common::one_place!(proactor_4, Proactor, 4, $($test),*);
    };
}

/// As `everywhere`, on two workers only: for what takes long.
macro_rules! on_both_drivers {
    ($($test:ident),* $(,)?) => {
        common::one_place!(reactor, Reactor, 2, $($test),*);
        common::one_place!(proactor, Proactor, 2, $($test),*);
    };
}

macro_rules! one_place {
    ($place:ident, $driver:ident, $workers:literal, $($test:ident),*) => {
        mod $place {
            $(#[test]
            fn $test() {
                let place = concat!(stringify!($place), "::", stringify!($test));
                let driver = isochrome::DriverChoice::$driver;
                crate::common::run(place, driver, $workers, super::$test);
            })*
        }
    };
}

#[allow(unused_imports, reason = "no test uses all of it")]
pub(crate) use {everywhere, on_both_drivers, one_place};

/// Runs a body alone in the process, bounded, and counts its descriptors.
pub(crate) fn run(place: &str, driver: DriverChoice, workers: usize, body: fn(Runtime)) {
    let _alone = alone();
    let _watchdog = Watchdog::start(place);
    if !works(driver) {
        return;
    }
    let before = descriptors();
    body(build(driver, workers));
    descriptors_return_to(&before);
}

/// Whether the kernel lets this driver run; says so if not.
pub(crate) fn works(driver: DriverChoice) -> bool {
    match Builder::new().driver(driver).workers(1).build() {
        Ok(_) => true,
        Err(e) => {
            println!("skipped: {e}");
            assert_eq!(driver, DriverChoice::Proactor, "epoll works everywhere");
            false
        }
    }
}

pub(crate) fn build(driver: DriverChoice, workers: usize) -> Runtime {
    let runtime = Builder::new().driver(driver).workers(workers).build();
    let runtime = runtime.expect("a runtime");
    assert_eq!(runtime.driver(), driver.to_string());
    assert_eq!(runtime.workers(), workers);
    runtime
}

/// The lock that keeps tests apart. A test that failed did no harm to it.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Ends the process if it is not dropped in time: a hang then has a name.
pub(crate) struct Watchdog(#[allow(dead_code, reason = "dropped")] Sender<()>);

impl Watchdog {
    pub(crate) fn start(what: &str) -> Watchdog {
        let (alive, end) = channel::<()>();
        let what = what.to_owned();
        thread::spawn(move || {
            if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // Past what the harness keeps for itself, and loses by the abort.
                let last = format!("{what} hangs: aborting after {PATIENCE:?}\n");
                let _ = io::stderr().write_all(last.as_bytes());
                abort();
            }
        });
        Watchdog(alive)
    }
}

/// The open descriptors, and what they are.
pub(crate) fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("proc is mounted");
    let mut open: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            let what = std::fs::read_link(&path).ok()?;
            // The directory that is being read.
            let what = what.to_string_lossy().into_owned();
            (!what.starts_with("/proc/")).then(|| format!("{} {what}", path.display()))
        })
        .collect();
    open.sort();
    open
}

/// Waits until as many descriptors are open as before. Threads that have been
/// left to themselves may need a moment.
pub(crate) fn descriptors_return_to(before: &[String]) {
    let begun = Instant::now();
    loop {
        let now = descriptors();
        if now.len() == before.len() {
            return;
        }
        let limit = Duration::from_secs(10);
        assert!(
            begun.elapsed() < limit,
            "descriptors leaked: {before:#?} became {now:#?}"
        );
        thread::yield_now();
    }
}

/// Whether an epoll set of this process tells of the descriptor.
pub(crate) fn is_registered(fd: RawFd) -> bool {
    let sets = std::fs::read_dir("/proc/self/fdinfo").expect("proc is mounted");
    let named = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("tfd:") && words.next() == Some(&fd.to_string())
    };
    sets.filter_map(|set| std::fs::read_to_string(set.unwrap().path()).ok())
        .any(|set| set.lines().any(named))
}

/// Waits until `attempt` says yes, on a thread.
pub(crate) fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !attempt() {
        assert!(begun.elapsed() < PATIENCE, "waited too long: {what}");
        thread::yield_now();
    }
}

/// Waits until `attempt` says yes, in a task.
pub(crate) async fn eventually_async(what: &str, mut attempt: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !attempt() {
        assert!(begun.elapsed() < PATIENCE, "waited too long: {what}");
        isochrome::yield_now().await;
    }
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Both ends of a connection, in this runtime.
///
/// Without Nagle's algorithm: it would hold the second half of a send that a
/// fault has cut in two until the other end acknowledges the first, 40 ms later.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen().await;
    // The kernel completes it before it is accepted.
    let near = TcpStream::connect(address).await.expect("connects");
    let (far, _) = listener.accept().await.expect("accepts");
    near.set_nodelay(true).expect("an option");
    far.set_nodelay(true).expect("an option");
    (near, far)
}

/// One end in this runtime, the other a blocking socket of std.
pub(crate) async fn std_pair() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind(LOCAL).expect("a port");
    let address = listener.local_addr().expect("an address");
    let near = TcpStream::connect(address).await.expect("connects");
    let (far, _) = listener.accept().expect("accepts");
    near.set_nodelay(true).expect("an option");
    far.set_nodelay(true).expect("an option");
    far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    far.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    (near, far)
}

/// Makes the socket's send buffer small, so that writes are partial. (Not the
/// receiver's: a window below loopback's segments waits for the timers of
/// TCP, 200 ms each.)
pub(crate) fn shrink(socket: &impl AsRawFd) {
    let size: libc::c_int = 16 << 10;
    // SAFETY: the option is an int, and its size is said.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
}

/// The soft and hard limit of open files.
pub(crate) fn file_limit() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is written to during the call.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
    limit
}

pub(crate) fn set_file_limit(soft: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: soft,
        ..file_limit()
    };
    // SAFETY: the limit is read during the call.
    let answer = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
}
