//! Waiting for child processes.

mod common;

use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use common::everywhere;
use common::futures::give_up;
use isochrome::net::pipe::Receiver;
use isochrome::process::wait;
use isochrome::{Runtime, spawn_apart};

everywhere!(
    a_child_says_how_it_ended,
    a_child_that_reads_to_the_end_comes_to_it,
    a_wait_that_is_given_up_loses_nothing,
    many_are_waited_for_at_once,
    who_was_waited_for_is_told_again,
    who_is_nobodys_child_any_more_is_an_error,
);

/// Reads a line, and ends with the status that it says.
fn obedient() -> Child {
    Command::new("sh")
        .args(["-c", "read status && exit $status"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

fn tell(child: &mut Child, status: u8) {
    let stdin = child.stdin.as_mut().unwrap();
    writeln!(stdin, "{status}").unwrap();
}

fn a_child_says_how_it_ended(rt: Runtime) {
    rt.block_on(async {
        let mut child = obedient();
        tell(&mut child, 7);
        assert_eq!(wait(&mut child).await.unwrap().code(), Some(7));
        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        child.kill().unwrap();
        let status = wait(&mut child).await.unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    });
}

fn a_child_that_reads_to_the_end_comes_to_it(rt: Runtime) {
    rt.block_on(async {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(wait(&mut child).await.unwrap().success());
    });
}

fn a_wait_that_is_given_up_loses_nothing(rt: Runtime) {
    rt.block_on(async {
        // Its stdin is elsewhere, so that it is not closed.
        let mut child = obedient();
        let mut stdin = child.stdin.take().unwrap();
        for _ in 0..3 {
            assert!(give_up(wait(&mut child)).await.is_pending());
        }
        stdin.write_all(b"5\n").unwrap();
        assert_eq!(wait(&mut child).await.unwrap().code(), Some(5));
    });
}

fn many_are_waited_for_at_once(rt: Runtime) {
    rt.block_on(async {
        let (mut stdins, mut tasks) = (Vec::new(), Vec::new());
        for status in 0..20 {
            let mut child = obedient();
            stdins.push((status, child.stdin.take().unwrap()));
            let waiting = async move { wait(&mut child).await.unwrap().code() };
            tasks.push((status, spawn_apart(waiting)));
        }
        // The last one first.
        while let Some((status, mut stdin)) = stdins.pop() {
            writeln!(stdin, "{status}").unwrap();
            let (expected, task) = tasks.pop().unwrap();
            assert_eq!(task.await.unwrap(), Some(expected));
        }
    });
}

fn who_was_waited_for_is_told_again(rt: Runtime) {
    rt.block_on(async {
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        let stdout = Receiver::from_fd(child.stdout.take().unwrap()).unwrap();
        assert_eq!(stdout.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        for _ in 0..3 {
            assert!(wait(&mut child).await.unwrap().success());
        }
    });
}

fn who_is_nobodys_child_any_more_is_an_error(rt: Runtime) {
    rt.block_on(async {
        let mut child = obedient();
        tell(&mut child, 0);
        let pid = child.id() as libc::pid_t;
        // SAFETY: a null pointer for the status is allowed.
        let reaped = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        assert_eq!(reaped, pid);
        let error = wait(&mut child).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    });
}

#[test]
fn outside_of_a_runtime_it_is_an_error() {
    let _alone = common::alone();
    let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
    let error = common::futures::park_on(wait(&mut child)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    child.kill().unwrap();
    child.wait().unwrap();
}
