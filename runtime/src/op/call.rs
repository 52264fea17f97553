//! System calls on borrowed memory, for those who try them
//! ([`Waiter::poll_io`](super::Waiter::poll_io)) and have no `unsafe` of their
//! own. They block if the descriptor does.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{file_sys, sys::retry};

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
    let count = bufs.len().min(1024) as i32;
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
