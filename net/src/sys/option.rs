//! Options of sockets that socket2 does not know.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

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

/// What getsockopt(2) may write.
///
/// # Safety
///
/// Any bytes are a value of the type, zeroes among them.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: a number.
unsafe impl Plain for c_int {}
// SAFETY: three numbers.
unsafe impl Plain for libc::ucred {}

/// Of asm-generic/socket.h and its kin; the crate `libc` does not have it.
const SO_PEERPIDFD: c_int = match cfg!(any(target_arch = "sparc", target_arch = "sparc64")) {
    true => 0x56,
    false => 77,
};

/// A new pidfd of the process at the other end of a local socket.
pub(crate) fn peer_pidfd(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let fd: c_int = get(socket, libc::SOL_SOCKET, SO_PEERPIDFD)?;
    // SAFETY: the kernel has opened it for this call, and told nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// getsockopt(2).
pub(crate) fn get<T: Plain>(socket: &impl AsFd, level: c_int, name: c_int) -> io::Result<T> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: zeroes are a value, as `Plain` promises.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    let to = &raw mut value;
    // SAFETY: `len` bytes are written to `value` at most, and whatever they
    // are, they are a value.
    match unsafe { libc::getsockopt(fd, level, name, to.cast(), &raw mut len) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
