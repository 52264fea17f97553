//! TCP Fast Open (RFC 7413): the two options of it that no crate of ours sets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How many connections may wait that brought data with their SYN:
/// TCP_FASTOPEN in tcp(7). Before listening or after.
///
/// # Errors
///
/// What setsockopt(2) answers.
pub fn set_queue(socket: BorrowedFd<'_>, len: u32) -> io::Result<()> {
    let len = libc::c_int::try_from(len).unwrap_or(libc::c_int::MAX);
    set(socket, libc::TCP_FASTOPEN, len)
}

/// See [`set_queue`].
///
/// # Errors
///
/// What getsockopt(2) answers.
pub fn queue(socket: BorrowedFd<'_>) -> io::Result<u32> {
    get(socket, libc::TCP_FASTOPEN).map(|len| len.max(0) as u32)
}

/// Whether connecting waits for the first data and sends it with the SYN, if
/// the other end allows it: TCP_FASTOPEN_CONNECT in tcp(7).
///
/// # Errors
///
/// What setsockopt(2) answers.
pub fn set_connect(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(socket, libc::TCP_FASTOPEN_CONNECT, on.into())
}

/// See [`set_connect`].
///
/// # Errors
///
/// What getsockopt(2) answers.
pub fn connect(socket: BorrowedFd<'_>) -> io::Result<bool> {
    get(socket, libc::TCP_FASTOPEN_CONNECT).map(|on| on != 0)
}

fn set(socket: BorrowedFd<'_>, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let (fd, len) = (socket.as_raw_fd(), size_of_val(&value) as libc::socklen_t);
    let from = (&raw const value).cast();
    // SAFETY: `len` bytes are read from `value`.
    match unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, name, from, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    let (fd, to) = (socket.as_raw_fd(), (&raw mut value).cast());
    // SAFETY: `len` bytes are written to `value` at most.
    match unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, name, to, &mut len) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
