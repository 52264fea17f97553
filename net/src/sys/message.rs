//! Receiving one message.

use std::io::{self, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use socket2::SockAddr;

use crate::control::Parts;

/// What recvmsg(2) says of a message, beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// What the call returned: the length, with MSG_TRUNC the whole one.
    pub(crate) size: usize,
    pub(crate) flags: c_int,
    /// How much of the control buffer is filled.
    pub(crate) control: usize,
}

fn answer(result: isize) -> io::Result<usize> {
    match result {
        0.. => Ok(result as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// recv(2).
pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8], flags: c_int) -> io::Result<usize> {
    let (to, len) = (buf.as_mut_ptr().cast(), buf.len());
    // SAFETY: the slice is borrowed for this call, in which the kernel writes.
    answer(unsafe { libc::recv(fd.as_raw_fd(), to, len, flags) })
}

/// recvfrom(2).
pub(crate) fn recv_from(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: c_int,
) -> io::Result<(usize, SockAddr)> {
    let (to, len) = (buf.as_mut_ptr().cast(), buf.len());
    // SAFETY: the kernel writes an address to the storage, no more than its
    // length says, and how long it is; the slice is borrowed for the call.
    unsafe {
        SockAddr::try_init(|name, name_len| {
            answer(libc::recvfrom(
                fd.as_raw_fd(),
                to,
                len,
                flags,
                name.cast(),
                name_len,
            ))
        })
    }
}

/// recvmsg(2), with its control messages.
pub(crate) fn recv_msg(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    control: &mut [u8],
    flags: c_int,
) -> io::Result<(Head, SockAddr)> {
    // SAFETY: a header of zeroes is an empty one. The kernel writes an address
    // to the storage, no more than its length says; the slices are borrowed
    // for the call, and `IoSliceMut` is an iovec by contract.
    unsafe {
        SockAddr::try_init(|name, name_len| {
            let mut header: libc::msghdr = mem::zeroed();
            header.msg_name = name.cast();
            header.msg_namelen = *name_len;
            header.msg_iov = bufs.as_mut_ptr().cast();
            header.msg_iovlen = bufs.len() as _;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = control.len() as _;
            let size = answer(libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags))?;
            *name_len = header.msg_namelen;
            Ok(Head {
                size,
                flags: header.msg_flags,
                control: header.msg_controllen as usize,
            })
        })
    }
}

/// As many as one message can carry: SCM_MAX_FD of linux/net/scm.h.
pub(crate) const MOST_FDS: usize = 253;

/// The sender as a pidfd, for sockets with SO_PASSPIDFD: SCM_PIDFD of
/// linux/socket.h.
const SCM_PIDFD: c_int = 4;

/// Room for so many, and for what else a local socket may tell.
const CONTROL: usize = MOST_FDS * size_of::<RawFd>() + 512;

/// What came beside the bytes of a message on a local socket.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) from: SockAddr,
    /// Those that were passed, or why they are lost.
    pub(crate) fds: io::Result<Vec<OwnedFd>>,
    /// There was a control message: on a socket that asks for timestamps, this
    /// tells a message from the end.
    pub(crate) told: bool,
}

/// recvmsg(2) on a local socket. The descriptors that come along are owned
/// from here on, and close-on-exec. Returns the length beside.
pub(crate) fn recv_local(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: c_int,
) -> io::Result<(usize, Beside)> {
    let mut control = [0; CONTROL];
    let bufs = &mut [IoSliceMut::new(buf)];
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    let (head, from) = recv_msg(fd, bufs, &mut control, flags)?;
    let mut fds = Vec::new();
    for (level, kind, data) in Parts::of(&control[..head.control]) {
        if level != libc::SOL_SOCKET || !matches!(kind, libc::SCM_RIGHTS | SCM_PIDFD) {
            continue;
        }
        let numbers = data.chunks_exact(size_of::<RawFd>());
        let numbers = numbers.filter_map(|number| {
            let number = RawFd::from_ne_bytes(number.try_into().ok()?);
            // An error stands in the place of a pidfd that could not be made.
            (number >= 0).then_some(number)
        });
        // SAFETY: the kernel has opened it for this message, and told nobody
        // else.
        let owned = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        match kind {
            libc::SCM_RIGHTS => fds.extend(owned),
            // Nobody asked for it here, and it is closed.
            _ => owned.for_each(drop),
        }
    }
    // There is room for all that can be sent: what is cut off was refused.
    let lost = head.flags & libc::MSG_CTRUNC != 0;
    let beside = Beside {
        from,
        fds: if lost { Err(fds_lost()) } else { Ok(fds) },
        told: head.control > 0,
    };
    Ok((head.size, beside))
}

#[cold]
fn fds_lost() -> io::Error {
    io::Error::other(
        "descriptors that came with this message are lost: the process has as many open as it \
         may (RLIMIT_NOFILE), or may not have these; those that did come were closed",
    )
}

#[cfg(test)]
mod tests {
    use crate::control::{HEADER, space};

    #[test]
    fn the_layout_is_the_systems() {
        assert_eq!(HEADER, size_of::<libc::cmsghdr>());
        // SAFETY: a computation.
        let spaces = [0, 1, 4, 8, 12].map(|n| unsafe { libc::CMSG_SPACE(n) } as usize);
        assert_eq!(spaces, [0, 1, 4, 8, 12].map(space));
    }
}
