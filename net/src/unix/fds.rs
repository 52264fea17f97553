//! Passing descriptors: SCM_RIGHTS in unix(7).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use socket2::{MsgHdr, SockAddr, SockRef};

use crate::control::{Control, space};
use crate::datagram::SEND;
use crate::sys::MOST_FDS;

const CONTROL: usize = space(MOST_FDS * size_of::<RawFd>());

/// Sends with the descriptors, or nothing.
pub(super) fn send(
    fd: BorrowedFd<'_>,
    data: &[u8],
    to: Option<&SockAddr>,
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if fds.len() > MOST_FDS {
        let message = "more than 253 descriptors cannot be passed with one message";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut numbers = [0; MOST_FDS * size_of::<RawFd>()];
    let numbers = &mut numbers[..fds.len() * size_of::<RawFd>()];
    for (number, fd) in numbers.chunks_exact_mut(size_of::<RawFd>()).zip(fds) {
        number.copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    }
    let mut control = Control::<CONTROL>::new();
    if !fds.is_empty() {
        control.push(libc::SOL_SOCKET, libc::SCM_RIGHTS, numbers);
    }
    let bufs = [IoSlice::new(data)];
    let header = MsgHdr::new()
        .with_buffers(&bufs)
        .with_control(control.as_ref());
    let socket = SockRef::from(&fd);
    match to {
        Some(to) => socket.sendmsg(&header.with_addr(to), SEND),
        None => socket.sendmsg(&header, SEND),
    }
}
