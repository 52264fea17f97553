//! One try of an operation: one system call.

use std::io;
use std::sync::Arc;

use isochrome_runtime::buf::{Pool, RecvBuf};
use isochrome_runtime::op::{Completion, InFlight, Interest, Op, Yield};

use crate::sys;

/// What an attempt came to.
#[derive(Debug)]
#[must_use]
pub(crate) enum Attempt {
    /// The operation is complete.
    Done(Completion, Left),
    /// It got some way, which was noted in it.
    Progress(Left),
    /// It has to wait for the next edge.
    Blocked,
}

/// What an attempt that was not blocked left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Perhaps more of the same: all that was asked for was done.
    Unknown,
    /// The transfer was shorter than asked for.
    Short,
}

/// The direction that an operation waits for.
pub(crate) fn interest(op: &Op) -> Interest {
    match op {
        Op::Accept | Op::Recv => Interest::Read,
        Op::Connect(_) | Op::Send { .. } => Interest::Write,
        Op::Poll(interest) => *interest,
    }
}

/// Tries an operation that was not tried before, or that only was in line.
pub(crate) fn first(op: &InFlight, pool: &Arc<Pool>) -> Attempt {
    match call(op) {
        Call::Connect { address, len } => {
            // SAFETY: the address belongs to the operation, which lives.
            match unsafe { sys::connect(op.fd(), address, len) } {
                Ok(true) => done(Ok(0)),
                Ok(false) => Attempt::Blocked,
                // EAGAIN among them, which a local socket with a full backlog
                // answers: there is no event to wait for.
                Err(e) => done(Err(e)),
            }
        }
        // An edge alone would not do: the user may have drained the
        // descriptor since, or not quite, with system calls that nobody here
        // saw. poll(2) costs what an EAGAIN does.
        Call::Poll(interest) => match sys::poll(op.fd(), interest) {
            Ok(true) => done(Ok(0)),
            Ok(false) => Attempt::Blocked,
            Err(e) => done(Err(e)),
        },
        call => transfer(op, call, pool),
    }
}

/// Tries an operation again that waited for an edge, now that one has come.
pub(crate) fn again(op: &InFlight, pool: &Arc<Pool>) -> Attempt {
    match call(op) {
        // Not connect(2) once more: it would begin another attempt, or
        // answer EISCONN.
        Call::Connect { .. } => done(sys::take_error(op.fd()).map(|()| 0)),
        Call::Poll(_) => done(Ok(0)),
        call => transfer(op, call, pool),
    }
}

/// What the kernel is told, read out of the operation once per attempt so
/// that its lock is not held in the system call. The pointers are valid for
/// as long as the `InFlight` is.
enum Call {
    Accept,
    Connect {
        address: *const libc::sockaddr,
        len: libc::socklen_t,
    },
    Recv,
    Send {
        data: *const u8,
        len: usize,
        from: usize,
        all: bool,
    },
    Poll(Interest),
}

fn call(op: &InFlight) -> Call {
    op.with_op(|op| match op {
        Op::Accept => Call::Accept,
        Op::Connect(address) => Call::Connect {
            address: address.as_ptr(),
            len: address.size(),
        },
        Op::Recv => Call::Recv,
        Op::Send { data, from, all } => Call::Send {
            data: data.as_ptr(),
            len: data.len(),
            from: (*from).min(data.len()),
            all: *all,
        },
        Op::Poll(interest) => Call::Poll(*interest),
    })
}

fn transfer(op: &InFlight, call: Call, pool: &Arc<Pool>) -> Attempt {
    match call {
        Call::Accept => result(sys::accept(op.fd()).map(|fd| (Yield::Socket(fd), Left::Unknown))),
        Call::Recv => recv(op, pool),
        Call::Send {
            data,
            len,
            from,
            all,
        } => {
            // SAFETY: `from` is at most `len`, and the buffer belongs to the
            // operation, which lives.
            let sent = match unsafe { sys::send(op.fd(), data.add(from), len - from) } {
                Ok(sent) => sent,
                Err(e) => return result(Err(e)),
            };
            let left = left(sent, len - from);
            // Nothing sent of something is no progress, and not worth a loop.
            if !all || sent == len - from || sent == 0 {
                let count = if all { from + sent } else { sent };
                return Attempt::Done(Ok(Yield::Done(count)), left);
            }
            op.with_op(|op| {
                if let Op::Send { from, .. } = op {
                    *from += sent;
                }
            });
            Attempt::Progress(left)
        }
        Call::Connect { .. } | Call::Poll(_) => unreachable!("these transfer nothing"),
    }
}

/// Receives into a buffer of the pool, or into one of its own if there is
/// none: an empty pool is no reason to wait for whoever holds the leases.
fn recv(op: &InFlight, pool: &Arc<Pool>) -> Attempt {
    let size = pool.buffer_size();
    let Some(id) = pool.take() else {
        let mut data = Vec::with_capacity(size);
        // SAFETY: so much was reserved.
        let received = unsafe { sys::recv(op.fd(), data.as_mut_ptr(), size) };
        return result(received.map(|n| {
            // SAFETY: the kernel wrote `n` bytes.
            unsafe { data.set_len(n) };
            (Yield::Buf(RecvBuf::private(data)), left_to_read(n, size))
        }));
    };
    // SAFETY: a buffer has `size` bytes, and this one was just taken.
    match unsafe { sys::recv(op.fd(), pool.address(id).as_ptr(), size) } {
        Ok(n) if n > 0 => {
            // SAFETY: taken above, and given up here.
            let lease = unsafe { pool.lease(id, n) };
            result(Ok((Yield::Buf(lease), left_to_read(n, size))))
        }
        nothing => {
            pool.put(id);
            result(nothing.map(|_| (Yield::Buf(RecvBuf::empty()), Left::Unknown)))
        }
    }
}

pub(crate) fn left(moved: usize, of: usize) -> Left {
    if moved < of {
        Left::Short
    } else {
        Left::Unknown
    }
}

/// After a read: the end of a stream is there for the next one too.
pub(crate) fn left_to_read(received: usize, of: usize) -> Left {
    if received == 0 {
        Left::Unknown
    } else {
        left(received, of)
    }
}

fn done(result: io::Result<usize>) -> Attempt {
    Attempt::Done(result.map(Yield::Done), Left::Unknown)
}

fn result(result: io::Result<(Yield, Left)>) -> Attempt {
    match result {
        Ok((value, left)) => Attempt::Done(Ok(value), left),
        Err(e) if sys::would_block(&e) => Attempt::Blocked,
        // What else the next attempt meets is not known.
        Err(e) => Attempt::Done(Err(e), Left::Unknown),
    }
}
