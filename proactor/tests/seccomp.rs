//! What the probe says where io_uring is blocked, as in most containers.
//!
//! The test runs itself again, in a child under a seccomp filter.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use isochrome_proactor::{Step, probe};

const CHILD: &str = "ISOCHROME_TEST_BLOCKED";

/// Makes the calling process get `errno` for one system call.
fn block(call: libc::c_long, errno: i32) -> io::Result<()> {
    let (allow, refuse) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO);
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    let statement = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        // The number of the call is the first field.
        statement(load, 0),
        libc::sock_filter {
            code: jump,
            jt: 0,
            jf: 1,
            k: call as u32,
        },
        statement(ret, refuse | errno as u32),
        statement(ret, allow),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes numbers only.
    let fine = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program is as long as it says, and is copied by the kernel.
    if fine && unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

fn in_a_child(test: &str, call: libc::c_long, errno: i32) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]).env(CHILD, "1");
    // SAFETY: `block` makes two system calls and allocates nothing.
    unsafe { child.pre_exec(move || block(call, errno)) };
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn setup_is_refused() {
    if !is_child() {
        return in_a_child("setup_is_refused", libc::SYS_io_uring_setup, libc::EPERM);
    }
    let error = probe().unwrap_err();
    assert_eq!(
        (error.step(), error.errno()),
        (Step::Setup, Some(libc::EPERM))
    );
    assert!(error.to_string().contains("seccomp"), "{error}");
    let error = isochrome_proactor::Proactor::new().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn there_is_no_io_uring() {
    if !is_child() {
        return in_a_child(
            "there_is_no_io_uring",
            libc::SYS_io_uring_setup,
            libc::ENOSYS,
        );
    }
    let error = probe().unwrap_err();
    assert_eq!(
        (error.step(), error.errno()),
        (Step::Setup, Some(libc::ENOSYS))
    );
}

#[test]
fn the_ring_exists_and_may_not_be_entered() {
    if !is_child() {
        let name = "the_ring_exists_and_may_not_be_entered";
        return in_a_child(name, libc::SYS_io_uring_enter, libc::EPERM);
    }
    let error = probe().unwrap_err();
    assert_eq!(
        (error.step(), error.errno()),
        (Step::Enter, Some(libc::EPERM))
    );
}

#[test]
fn nothing_may_be_registered() {
    if !is_child() {
        let name = "nothing_may_be_registered";
        return in_a_child(name, libc::SYS_io_uring_register, libc::EPERM);
    }
    assert_eq!(probe().unwrap_err().errno(), Some(libc::EPERM));
}

#[test]
fn other_refusals_are_refusals() {
    if !is_child() {
        for errno in [libc::EACCES, libc::EOPNOTSUPP] {
            let name = "other_refusals_are_refusals";
            in_a_child(name, libc::SYS_io_uring_setup, errno);
        }
        return;
    }
    let error = probe().unwrap_err();
    assert_eq!(error.step(), Step::Setup);
    let errno = error.errno();
    assert!([Some(libc::EACCES), Some(libc::EOPNOTSUPP)].contains(&errno));
}
