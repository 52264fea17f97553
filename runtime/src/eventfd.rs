//! The eventfd that both drivers sleep on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::driver::Unpark;

/// An eventfd that drivers never read: edge-triggered epoll and
/// multishot polls report every write, so that resetting it would be a system
/// call for nothing. See eventfd(2).
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// What eventfd(2) answers: no descriptor left, mostly.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned by nobody else.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Reads it, so that it is not readable any more: for whoever waits for it
    /// level-triggered.
    pub fn clear(&self) {
        let mut count: u64 = 0;
        // EAGAIN says that it was not written to.
        // SAFETY: eight bytes are written to `count`.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl Unpark for EventFd {
    fn unpark(&self) {
        let one: u64 = 1;
        // EAGAIN would mean 2^64 - 2 wakes that nobody read; the count is
        // then taken down by a read, and the write goes through.
        // SAFETY: eight bytes are read from `one`.
        while unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) } != 8 {
            self.clear();
        }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
