//! Descriptors whose close waits for the last operation.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::runtime::Handle;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A file descriptor of a runtime.
///
/// It is shared by the socket and every operation on it, so that its number
/// is not reused while an operation that names it is queued or in flight: the
/// descriptor is closed when the last of them is gone.
pub struct Descriptor {
    fd: OwnedFd,
    runtime: Handle,
    /// The worker whose driver it is registered with, or `NOWHERE`.
    home: AtomicU32,
    /// What that driver calls it, or `NO_TOKEN`.
    token: AtomicU64,
}

const NOWHERE: u32 = u32::MAX;
const NO_TOKEN: u64 = u64::MAX;

impl Descriptor {
    /// Takes `fd` over for operations on `runtime`, and makes it blocking or
    /// non-blocking as the runtime's driver needs it.
    ///
    /// # Errors
    ///
    /// What fcntl(2) answers.
    pub fn new(fd: OwnedFd, runtime: &Handle) -> io::Result<Arc<Descriptor>> {
        set_nonblocking(fd.as_fd(), runtime.nonblocking())?;
        Ok(Descriptor::prepared(fd, runtime))
    }

    /// Takes `fd` over as it is: the caller made it blocking or non-blocking
    /// as [`Handle::nonblocking`] says.
    pub fn prepared(fd: OwnedFd, runtime: &Handle) -> Arc<Descriptor> {
        Arc::new(Descriptor {
            fd,
            runtime: runtime.clone(),
            home: AtomicU32::new(NOWHERE),
            token: AtomicU64::new(NO_TOKEN),
        })
    }

    /// The runtime that its operations run on.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The worker that it is registered with. The first to ask decides.
    pub fn home(&self, or: usize) -> usize {
        let home = self.home.load(Ordering::Relaxed);
        if home != NOWHERE {
            return home as usize;
        }
        // Relaxed: the number says whom to send operations to, and publishes
        // nothing; registrations are touched by that worker only.
        let new = or as u32;
        match (self.home).compare_exchange(NOWHERE, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => or,
            Err(first) => first as usize,
        }
    }

    /// What the driver of the home worker called it, if it is registered.
    pub fn token(&self) -> Option<u64> {
        // Acquire, set_token: Drop, on another thread, must see the token.
        match self.token.load(Ordering::Acquire) {
            NO_TOKEN => None,
            token => Some(token),
        }
    }

    /// Called by the driver of the home worker when it registers the
    /// descriptor. [`Driver::forget`](crate::driver::Driver::forget) gets the
    /// token back.
    pub fn set_token(&self, token: u64) {
        debug_assert_ne!(token, NO_TOKEN);
        self.token.store(token, Ordering::Release);
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(token) = self.token() {
            let home = self.home.load(Ordering::Relaxed) as usize;
            self.runtime.forget(home, token);
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor")
            .field("fd", &self.fd.as_raw_fd())
            .finish_non_exhaustive()
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    // SAFETY: F_GETFL takes no pointer.
    let old = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if old < 0 {
        return Err(io::Error::last_os_error());
    }
    let new = if on {
        old | libc::O_NONBLOCK
    } else {
        old & !libc::O_NONBLOCK
    };
    // SAFETY: F_SETFL takes no pointer.
    if new != old && unsafe { libc::fcntl(fd, libc::F_SETFL, new) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
