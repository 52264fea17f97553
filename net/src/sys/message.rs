//! Receiving one message.

use std::io::{self, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_int;
use socket2::SockAddr;

/// What recvmsg(2) says of a message, beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// What the call returned: the length, with MSG_TRUNC the whole one.
    pub(crate) size: usize,
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
                control: header.msg_controllen as usize,
            })
        })
    }
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
