//! Waiting for child processes.
//!
//! `std::process` starts them, and [`pipe`](crate::pipe) has their streams.

use std::io::{self, ErrorKind};
use std::process::{Child, ExitStatus};

use crate::{Async, sys};

/// Waits until a child process has ended, and says how. No thread waits: the
/// kernel tells by a pidfd (pidfd_open(2), Linux 5.3).
///
/// As with std's `wait`, a stdin of the child that is still with `child` is
/// closed first, so that a child that reads to its end comes to it. Read its
/// stdout meanwhile if that is a pipe: a child that nobody listens to waits for
/// room.
///
/// ```no_run
/// use std::process::Command;
/// use std::time::Duration;
/// use isochrome_net::process;
/// use isochrome_runtime::time::timeout;
///
/// # async fn example() -> std::io::Result<()> {
/// let mut child = Command::new("make").spawn()?;
/// let status = match timeout(Duration::from_secs(60), process::wait(&mut child)).await {
///     Ok(ended) => ended?,
///     Err(_) => {
///         child.kill()?;
///         process::wait(&mut child).await?
///     }
/// };
/// println!("{status}");
/// # Ok(())
/// # }
/// ```
///
/// Dropping the future loses nothing: the child goes on, and can be waited for
/// again.
///
/// # Errors
///
/// `Unsupported` on an older kernel. What waitpid(2) answers: ECHILD if the
/// program ignores SIGCHLD, or waits for all its children elsewhere. If no
/// descriptor is left; if called outside a runtime.
pub async fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    drop(child.stdin.take());
    // So that the number is still the child's own: nobody has waited for it.
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let pidfd = sys::pidfd_open(child.id()).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOSYS) => io::Error::new(
            ErrorKind::Unsupported,
            "waiting for a child process takes Linux 5.3 (pidfd_open); \
             use `Child::wait` in `spawn_blocking`",
        ),
        _ => e,
    })?;
    let pidfd = Async::new(pidfd)?;
    let ended = |_: &_| child.try_wait()?.ok_or(ErrorKind::WouldBlock.into());
    pidfd.read_with(ended).await
}
