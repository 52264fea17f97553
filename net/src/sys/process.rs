//! Descriptors of processes.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// pidfd_open(2), for which the crate `libc` has only the number. It is
/// close-on-exec.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let (pid, flags) = (pid as libc::pid_t, 0 as libc::c_uint);
    // SAFETY: two numbers; no memory is touched.
    match unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has opened it for this call, and told nobody else.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
    }
}
