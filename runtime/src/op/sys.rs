//! The system calls of single attempts. None of them blocks.
//!
//! A signal does not end them: what EINTR interrupts is done again, except for
//! connect(2), which goes on by itself then.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::Interest;

#[inline]
pub(super) fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether an error means "wait".
#[inline]
pub(super) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// accept(2) on a socket that is non-blocking.
pub(super) fn accept(fd: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no address is asked for.
    let call = || unsafe { libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), flags) as isize };
    let fd = retry(call)?;
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// shutdown(2) of what is sent.
#[cold]
pub(super) fn end_writing(fd: RawFd) -> io::Result<()> {
    // SAFETY: it takes no memory.
    retry(|| unsafe { libc::shutdown(fd, libc::SHUT_WR) as isize }).map(|_| ())
}

/// recv(2).
///
/// # Safety
///
/// `len` bytes can be written at `buf`, and nobody else touches them now.
#[inline]
pub(super) unsafe fn recv(fd: RawFd, buf: *mut u8, len: usize) -> io::Result<usize> {
    // SAFETY: handed on from the caller.
    retry(|| unsafe { libc::recv(fd, buf.cast(), len, libc::MSG_DONTWAIT) })
}

/// recv(2) with MSG_PEEK.
///
/// # Safety
///
/// As for [`recv`].
pub(super) unsafe fn peek(fd: RawFd, buf: *mut u8, len: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: handed on from the caller.
    retry(|| unsafe { libc::recv(fd, buf.cast(), len, flags) })
}

/// send(2), without SIGPIPE.
///
/// # Safety
///
/// `len` bytes can be read at `buf`, and nobody writes them now.
#[inline]
pub(super) unsafe fn send(fd: RawFd, buf: *const u8, len: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: handed on from the caller.
    retry(|| unsafe { libc::send(fd, buf.cast(), len, flags) })
}

/// sendmsg(2), without SIGPIPE.
///
/// # Safety
///
/// `header`, its slices and what they describe can be read, and nobody writes
/// them now.
pub(super) unsafe fn send_msg(fd: RawFd, header: *const libc::msghdr) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: handed on from the caller.
    retry(|| unsafe { libc::sendmsg(fd, header, flags) })
}

/// connect(2) on a socket that is non-blocking. `false`: it goes on in the
/// background, and [`take_error`] tells how it ended once there is an event.
///
/// # Safety
///
/// `len` bytes can be read at `address`.
pub(super) unsafe fn connect(
    fd: RawFd,
    address: *const libc::sockaddr,
    len: libc::socklen_t,
) -> io::Result<bool> {
    // SAFETY: handed on from the caller.
    if unsafe { libc::connect(fd, address, len) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if matches!(e.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Ok(false),
        e => Err(e),
    }
}

/// The pending error of a socket, which is cleared: how a connect ended.
pub(super) fn take_error(fd: RawFd) -> io::Result<()> {
    match crate::descriptor::option(fd, libc::SO_ERROR)? {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// poll(2): whether the direction is ready at this moment.
pub(super) fn poll(fd: RawFd, interest: Interest) -> io::Result<bool> {
    let mut one = libc::pollfd {
        fd,
        events: match interest {
            Interest::Read => libc::POLLIN | libc::POLLRDHUP,
            Interest::Write => libc::POLLOUT,
        },
        revents: 0,
    };
    // SAFETY: one entry is read and written.
    let n = retry(|| unsafe { libc::poll(&mut one, 1, 0) as isize })?;
    Ok(n > 0)
}
