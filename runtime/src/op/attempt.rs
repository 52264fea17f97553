//! One try of an operation: one system call, which does not block.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr::NonNull;

use super::readiness::Left;
use super::{Address, Interest, sys};
use crate::buf::{Gather, OF_A_WORKER, RecvBuf};
use crate::runtime::Handle;

/// What an attempt came to.
#[derive(Debug)]
#[must_use]
pub(super) enum Attempt<T> {
    /// The operation is complete.
    Done(io::Result<T>, Left),
    /// It got some way, which the operation remembers.
    Progress(Left),
    /// It has to wait for the next edge.
    Blocked,
}

impl<T> Attempt<T> {
    #[inline]
    fn of(result: io::Result<(T, Left)>) -> Attempt<T> {
        match result {
            Ok((value, left)) => Attempt::Done(Ok(value), left),
            Err(e) if sys::would_block(&e) => Attempt::Blocked,
            // What else the next attempt meets is not known.
            Err(e) => Attempt::Done(Err(e), Left::Unknown),
        }
    }
}

pub(super) fn accept(fd: RawFd) -> Attempt<OwnedFd> {
    Attempt::of(sys::accept(fd).map(|fd| (fd, Left::Unknown)))
}

/// Receives into a buffer of the runtime's, or into one of its own if there is
/// none: that there is none is no reason to wait for whoever holds the leases.
#[inline]
pub(super) fn recv(fd: RawFd, runtime: &Handle) -> Attempt<RecvBuf> {
    let size = OF_A_WORKER;
    let Some(blank) = runtime.blank() else {
        return recv_private(fd, size);
    };
    // SAFETY: the buffer has so many bytes, and nobody else touches them.
    let call = |to: NonNull<u8>| unsafe { sys::recv(fd, to.as_ptr(), size) };
    // SAFETY: blank, and the kernel wrote what it says.
    match unsafe { blank.fill(call) } {
        Ok(Some((lease, n))) => Attempt::Done(Ok(lease), left_to_read(n, size)),
        Ok(None) => Attempt::Done(Ok(RecvBuf::empty()), Left::Unknown),
        Err(e) => Attempt::of(Err(e)),
    }
}

#[cold]
fn recv_private(fd: RawFd, size: usize) -> Attempt<RecvBuf> {
    let mut data = Vec::with_capacity(size);
    // SAFETY: so much was reserved.
    let received = unsafe { sys::recv(fd, data.as_mut_ptr(), size) };
    Attempt::of(received.map(|n| {
        // SAFETY: the kernel wrote `n` bytes.
        unsafe { data.set_len(n) };
        (RecvBuf::private(data), left_to_read(n, size))
    }))
}

#[inline]
pub(super) fn recv_into(fd: RawFd, buf: &mut [u8]) -> Attempt<usize> {
    let len = buf.len();
    // SAFETY: the slice is borrowed for this call, in which the kernel writes
    // and after which it knows nothing of it.
    let received = unsafe { sys::recv(fd, buf.as_mut_ptr(), len) };
    Attempt::of(received.map(|n| (n, left_to_read(n, len))))
}

/// As `recv_into`, but what is received stays, and so is there for the next.
pub(super) fn peek_into(fd: RawFd, buf: &mut [u8]) -> Attempt<usize> {
    // SAFETY: as in `recv_into`.
    let seen = unsafe { sys::peek(fd, buf.as_mut_ptr(), buf.len()) };
    Attempt::of(seen.map(|n| (n, Left::Unknown)))
}

/// Sends what is left of `data` from `from` on; yields how much of it is sent
/// by now if that is `all`, or just what this call sent.
#[inline]
pub(super) fn send(fd: RawFd, data: &[u8], from: &mut usize, all: bool) -> Attempt<usize> {
    let rest = &data[(*from).min(data.len())..];
    // SAFETY: the slice is borrowed for this call, in which the kernel reads.
    let sent = match unsafe { sys::send(fd, rest.as_ptr(), rest.len()) } {
        Ok(sent) => sent,
        Err(e) => return Attempt::of(Err(e)),
    };
    let left = left(sent, rest.len());
    *from += sent;
    // Nothing sent of something is no progress, and not worth a loop.
    if !all || sent == rest.len() || sent == 0 {
        let count = if all { *from } else { sent };
        return Attempt::Done(Ok(count), left);
    }
    Attempt::Progress(left)
}

/// Sends what is left of several buffers; yields how much they are.
pub(super) fn send_vectored(fd: RawFd, data: &mut Gather) -> Attempt<usize> {
    // SAFETY: the header, and what it points to, is valid as long as `data` is
    // there and not moved, and is read in this call.
    let sent = match unsafe { sys::send_msg(fd, data.header()) } {
        Ok(sent) => sent,
        Err(e) => return Attempt::of(Err(e)),
    };
    data.advance(sent);
    // As in `send`.
    match sent > 0 && data.sent() < data.len() {
        true => Attempt::Progress(Left::Unknown),
        false => Attempt::Done(Ok(data.sent()), Left::Unknown),
    }
}

/// Begins to connect, or looks how far it got.
pub(super) fn connect(fd: RawFd, address: &Address, begun: &mut bool) -> Attempt<()> {
    let result = if *begun {
        // Not connect(2) once more: it would begin another attempt, or answer
        // EISCONN. And no edge alone: it may be older than the attempt.
        match sys::poll(fd, Interest::Write) {
            Ok(false) => return Attempt::Blocked,
            Ok(true) => sys::take_error(fd),
            Err(e) => Err(e),
        }
    } else {
        *begun = true;
        // SAFETY: the address is borrowed for this call.
        match unsafe { sys::connect(fd, address.as_ptr(), address.size()) } {
            Ok(true) => Ok(()),
            Ok(false) => return Attempt::Blocked,
            // EAGAIN among them, which a local socket with a full backlog
            // answers: there is no event to wait for.
            Err(e) => Err(e),
        }
    };
    Attempt::Done(result, Left::Unknown)
}

#[inline]
fn left(moved: usize, of: usize) -> Left {
    if moved < of {
        Left::Short
    } else {
        Left::Unknown
    }
}

/// After a read: the end of a stream is there for the next one too.
#[inline]
fn left_to_read(received: usize, of: usize) -> Left {
    if received == 0 {
        Left::Unknown
    } else {
        left(received, of)
    }
}
