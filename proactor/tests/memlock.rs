//! What happens where locked memory is short, which counts for users other than
//! root only: a smaller ring, and then a clear error.
//!
//! The test runs itself again, in a child that is an unknown user and has a
//! limit. (Not nobody: locked memory is counted for all processes of a user.)

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use isochrome_proactor::{Proactor, probe};

const CHILD: &str = "ISOCHROME_TEST_MEMLOCK";

/// Makes the calling process this user's, with so much locked memory.
fn restrict(user: u32, bytes: libc::rlim_t) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the limit is read during the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: these take numbers only. (It is not a thread of many.)
    if unsafe { libc::setgid(user) != 0 || libc::setuid(user) != 0 } {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the test says as another user; `None` if this one may not become that.
fn in_a_child(test: &str, bytes: libc::rlim_t) -> Option<Output> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root becomes another user");
        return None;
    }
    // Where nobody can read it.
    let path =
        std::env::temp_dir().join(format!("isochrome-memlock-{bytes}-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    let mut child = Command::new(&path);
    child
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .current_dir("/");
    // Two tests at a time, in processes of different numbers.
    let user = (1 << 30) + 2 * std::process::id() + u32::from(bytes > 0);
    // SAFETY: `restrict` makes three system calls and allocates nothing.
    unsafe { child.pre_exec(move || restrict(user, bytes)) };
    let output = child.output();
    std::fs::remove_file(&path).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
    Some(output)
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_little_memory_makes_a_smaller_ring() {
    // Less than a ring of 256 entries and 4,096 completions takes.
    if !is_child() {
        let _ = in_a_child("a_little_memory_makes_a_smaller_ring", 64 << 10);
        return;
    }
    probe().unwrap();
    // The kernel takes the memory of the probe's ring off the account somewhat
    // after it was closed.
    let begun = Instant::now();
    while let Err(error) = Proactor::new() {
        let patience = Duration::from_secs(30);
        let short = error.kind() == io::ErrorKind::OutOfMemory;
        assert!(short && begun.elapsed() < patience, "{error}");
        thread::yield_now();
    }
}

#[test]
fn no_memory_is_an_error_that_says_so() {
    if !is_child() {
        let _ = in_a_child("no_memory_is_an_error_that_says_so", 0);
        return;
    }
    let error = probe().unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOMEM), "{error}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    let error = Proactor::new().unwrap_err();
    assert!(error.to_string().contains("locked memory"), "{error}");
}
