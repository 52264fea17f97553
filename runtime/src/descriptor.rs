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
    /// Here too, so that it is at hand for every attempt.
    by_readiness: bool,
    tcp: bool,
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
        set_nonblocking(fd.as_fd(), runtime.by_readiness())?;
        let tcp = option(fd.as_raw_fd(), libc::SO_PROTOCOL).is_ok_and(|p| p == libc::IPPROTO_TCP);
        Ok(Descriptor::make(fd, tcp, runtime))
    }

    /// Takes `fd` over for system calls that are tried and wait for readiness
    /// ([`Waiter::poll_io`](crate::op::Waiter::poll_io)), and makes it
    /// non-blocking whatever the driver is: for what no flag makes so for one
    /// call, as pipes.
    ///
    /// # Errors
    ///
    /// What fcntl(2) answers.
    pub fn nonblocking(fd: OwnedFd, runtime: &Handle) -> io::Result<Arc<Descriptor>> {
        set_nonblocking(fd.as_fd(), true)?;
        Ok(Descriptor::make(fd, false, runtime))
    }

    /// Takes a TCP socket over as it is: the caller made it blocking or
    /// non-blocking as [`Handle::by_readiness`] says.
    pub fn tcp(fd: OwnedFd, runtime: &Handle) -> Arc<Descriptor> {
        Descriptor::make(fd, true, runtime)
    }

    fn make(fd: OwnedFd, tcp: bool, runtime: &Handle) -> Arc<Descriptor> {
        Arc::new(Descriptor {
            fd,
            by_readiness: runtime.by_readiness(),
            tcp,
            runtime: runtime.clone(),
            home: AtomicU32::new(NOWHERE),
            token: AtomicU64::new(NO_TOKEN),
        })
    }

    /// Whether the runtime's driver works by readiness.
    #[inline]
    pub fn by_readiness(&self) -> bool {
        self.by_readiness
    }

    /// Whether it is a TCP socket, on which a short transfer proves that there
    /// is no more of the same, and no kind of descriptor with its own rules.
    #[inline]
    pub fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// The runtime that its operations run on.
    #[inline]
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
    #[inline]
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

/// getsockopt(2) at the level of sockets, of a number.
pub(crate) fn option(fd: RawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let (to, level) = (&raw mut value, libc::SOL_SOCKET);
    // SAFETY: `len` bytes are written to `value` at most.
    if unsafe { libc::getsockopt(fd, level, name, to.cast(), &mut len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
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
