//! The epoll set: epoll(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How many events one wait takes. libuv's and mio's order of magnitude; what
/// does not fit stays in the set for the next wait.
const EVENTS: usize = 256;

/// Both directions, the end of the peer's half, and urgent data, which makes
/// short reads inconclusive. ERR and HUP are always reported.
pub(crate) const BOTH: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;

/// For an eventfd: each write, without a read in between.
pub(crate) const WRITTEN: u32 = (libc::EPOLLIN | libc::EPOLLET) as u32;

/// What was reported of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: u64,
    mask: u32,
}

impl Event {
    fn any(self, mask: i32) -> bool {
        self.mask & mask as u32 != 0
    }

    /// A read has something to find: data, the end, or an error.
    pub(crate) fn readable(self) -> bool {
        self.any(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
    }

    pub(crate) fn writable(self) -> bool {
        self.any(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// There is more to read than data, or data that a read stops at.
    pub(crate) fn read_exceptional(self) -> bool {
        self.any(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI)
    }

    pub(crate) fn write_exceptional(self) -> bool {
        self.any(libc::EPOLLHUP | libc::EPOLLERR)
    }
}

#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// epoll_pwait2(2) works here: Linux 5.11, and no filter against it.
    nanoseconds: bool,
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Epoll {
            // SAFETY: just opened, and owned by nobody else.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS],
            nanoseconds: true,
        })
    }

    /// Adds a descriptor. What is ready already is reported by the next wait.
    pub(crate) fn add(&self, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, fd, token, interest) {
            // A duplicate kept the file in the set when the descriptor of
            // this number was closed, and got the same number later. To
            // modify an entry renames it, and reports as an addition does.
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
            }
            result => result,
        }
    }

    /// Takes out a descriptor that is in the set.
    pub(crate) fn remove(&self, fd: RawFd) {
        // It is there, and removing takes no memory: no error is left.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    fn control(&self, what: i32, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: token,
        };
        // SAFETY: the event is read during the call only.
        if unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), what, fd, &mut event) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits for events; returns how many there are. A signal ends the wait.
    pub(crate) fn wait(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        let n = match wait {
            None => self.wait_ms(-1),
            Some(Duration::ZERO) => self.wait_ms(0),
            Some(wait) => self.wait_for(wait),
        };
        if n >= 0 {
            return Ok(n as usize);
        }
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            e => Err(e),
        }
    }

    fn wait_for(&mut self, wait: Duration) -> i32 {
        if self.nanoseconds {
            let n = self.wait_ns(wait);
            let refused = n < 0
                && matches!(
                    io::Error::last_os_error().raw_os_error(),
                    // EPERM: seccomp filters from before the call was known.
                    Some(libc::ENOSYS | libc::EPERM)
                );
            if !refused {
                return n;
            }
            self.nanoseconds = false;
        }
        self.wait_ms(whole_ms(wait))
    }

    fn wait_ms(&mut self, ms: i32) -> i32 {
        let (events, len) = (self.events.as_mut_ptr(), self.events.len());
        // SAFETY: there is room for `len` events, written during the call.
        unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, len as i32, ms) }
    }

    fn wait_ns(&mut self, wait: Duration) -> i32 {
        /// `__kernel_timespec`: 64 bits each, whatever the C library has.
        #[repr(C)]
        struct Timespec {
            sec: i64,
            nsec: i64,
        }
        let timeout = Timespec {
            sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            nsec: wait.subsec_nanos().into(),
        };
        // SAFETY: there is room for so many events, and all memory is touched
        // during the call only; no signal mask is passed.
        unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len(),
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            ) as i32
        }
    }

    /// Event `i` of the last wait.
    pub(crate) fn event(&self, i: usize) -> Event {
        let event = self.events[i];
        Event {
            token: event.u64,
            mask: event.events,
        }
    }
}

/// Rounded up: a wait that ends early would make the caller wait again.
fn whole_ms(wait: Duration) -> i32 {
    let ms = wait.as_nanos().div_ceil(1_000_000);
    i32::try_from(ms).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn milliseconds_are_rounded_up() {
        assert_eq!(whole_ms(Duration::from_nanos(1)), 1);
        assert_eq!(whole_ms(Duration::from_millis(7)), 7);
        assert_eq!(whole_ms(Duration::from_micros(7001)), 8);
        assert_eq!(whole_ms(Duration::MAX), i32::MAX);
    }

    #[test]
    fn a_wait_is_never_too_short_with_either_call() {
        let mut epoll = Epoll::new().unwrap();
        for nanoseconds in [true, false] {
            epoll.nanoseconds &= nanoseconds;
            for us in [300, 2500] {
                let wait = Duration::from_micros(us);
                let start = Instant::now();
                assert_eq!(epoll.wait(Some(wait)).unwrap(), 0);
                assert!(start.elapsed() >= wait);
            }
        }
    }
}
