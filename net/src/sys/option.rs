//! Options of sockets that socket2 does not know.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

/// setsockopt(2), of a number.
pub(crate) fn set(socket: &impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let (from, len) = (&raw const value, size_of_val(&value));
    // SAFETY: `len` bytes are read from `value`.
    match unsafe { libc::setsockopt(fd, level, name, from.cast(), len as libc::socklen_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
