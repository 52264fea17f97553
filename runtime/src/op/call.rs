//! System calls on borrowed memory, for those who try them
//! ([`Waiter::poll_io`](super::Waiter::poll_io)) and have no `unsafe` of their
//! own. They block if the descriptor does.

use std::ffi::CStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{file_sys, sys::retry};
use crate::buf::MOST_SLICES;

/// read(2).
///
/// # Errors
///
/// What it answers.
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let fd = fd.as_raw_fd();
    // SAFETY: the slice is borrowed for the call.
    retry(|| unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) })
}

/// readv(2), into the first 1,024 slices.
///
/// # Errors
///
/// What it answers.
pub fn read_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let (fd, count) = (fd.as_raw_fd(), bufs.len().min(MOST_SLICES) as i32);
    // SAFETY: slices have the form of the kernel's, and are borrowed for the
    // call.
    retry(|| unsafe { libc::readv(fd, bufs.as_mut_ptr().cast(), count) })
}

/// write(2).
///
/// # Errors
///
/// What it answers.
pub fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    let fd = fd.as_raw_fd();
    // SAFETY: the slice is borrowed for the call.
    retry(|| unsafe { libc::write(fd, buf.as_ptr().cast(), buf.len()) })
}

/// writev(2), of the first 1,024 slices.
///
/// # Errors
///
/// What it answers.
pub fn write_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = fd.as_raw_fd();
    let count = bufs.len().min(MOST_SLICES) as i32;
    // SAFETY: slices have the form of the kernel's, and are borrowed for the
    // call.
    retry(|| unsafe { libc::writev(fd, bufs.as_ptr().cast(), count) })
}

/// splice(2), of at most `len` bytes, without waiting for a pipe.
///
/// # Errors
///
/// What it answers.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_NONBLOCK;
    file_sys::splice(from.as_raw_fd(), None, to.as_raw_fd(), len, flags)
}

/// The flags that a file was opened with: F_GETFL in fcntl(2).
///
/// # Errors
///
/// What it answers.
pub fn flags(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: no pointers are passed.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) as isize }).map(|n| n as i32)
}

/// Sets whether it blocks: F_SETFL in fcntl(2). Whoever shares the description
/// shares this.
///
/// # Errors
///
/// What it answers.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    crate::descriptor::set_nonblocking(fd, on)
}

/// Whether the other end of a pipe or a socket is gone: POLLHUP in poll(2).
///
/// # Errors
///
/// What it answers.
pub fn hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut one = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one entry is read and written.
    retry(|| unsafe { libc::poll(&mut one, 1, 0) as isize })?;
    Ok(one.revents & libc::POLLHUP != 0)
}

/// The reading and the writing end of a new pipe: pipe2(2), close-on-exec.
///
/// # Errors
///
/// What it answers.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: two numbers are written.
    retry(|| unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) as isize })?;
    // SAFETY: both just opened, and owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// How many bytes a pipe has room for: F_GETPIPE_SZ in fcntl(2).
///
/// # Errors
///
/// What it answers.
pub fn pipe_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: no pointers are passed.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) as isize })
}

/// Makes room for so many bytes or more in a pipe, and says how many:
/// F_SETPIPE_SZ in fcntl(2).
///
/// # Errors
///
/// What it answers.
pub fn set_pipe_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<usize> {
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    // SAFETY: no pointers are passed.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, size) as isize })
}

/// Makes a FIFO: mkfifo(3).
///
/// # Errors
///
/// What it answers.
pub fn mkfifo(path: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: the path ends with a zero, and is borrowed for the call.
    retry(|| unsafe { libc::mkfifo(path.as_ptr(), mode) as isize }).map(drop)
}
