//! The system calls, each as a safe function.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

fn check(answer: i32) -> io::Result<i32> {
    size(answer as isize).map(|n| n as i32)
}

fn size(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

pub fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the new descriptor has no other owner.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::epoll_create1(
            libc::EPOLL_CLOEXEC,
        ))?))
    }
}

pub fn control(epoll: &OwnedFd, what: i32, fd: RawFd, events: u32) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events,
        u64: fd as u64,
    };
    // SAFETY: the pointer is to a local event.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), what, fd, &mut event) }).map(drop)
}

/// How many of `events` were filled in.
pub fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event], ms: i32) -> io::Result<usize> {
    let len = events.len() as i32;
    // SAFETY: the pointer is to that many events.
    match check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), len, ms) }) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        answer => answer.map(|n| n as usize),
    }
}

pub fn accept(listener: &TcpListener) -> io::Result<RawFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null asks for no address.
    check(unsafe { libc::accept4(listener.as_raw_fd(), null_mut(), null_mut(), flags) })
}

pub fn set_nodelay(fd: RawFd) -> io::Result<()> {
    let on: i32 = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer is to a local int, of the size given.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            len,
        )
    })
    .map(drop)
}

pub fn recv(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer is to that many bytes, which may be written.
    size(unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) })
}

pub fn send(fd: RawFd, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer is to that many bytes.
    size(unsafe { libc::send(fd, buf.as_ptr().cast(), buf.len(), libc::MSG_NOSIGNAL) })
}

/// Closes a descriptor that the caller owns, and which nobody uses afterwards.
pub fn close(fd: RawFd) {
    // SAFETY: the caller owns it.
    unsafe { libc::close(fd) };
}
