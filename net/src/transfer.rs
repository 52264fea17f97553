//! Bytes from one descriptor to another, without passing through the hands of
//! whoever asks for it.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::Poll;

use isochrome_runtime::op::{FileOp, Interest, Port, call};
use isochrome_runtime::{Descriptor, DescriptorRef};

use crate::family::Family;
use crate::fs::{File, count};
use crate::stream::StreamSocket;

/// How much of a file is in a pipe, or in a buffer, at a time: as much as a
/// pipe may hold without privileges (`/proc/sys/fs/pipe-max-size`).
const CHUNK: usize = 1 << 20;

/// Up to here sending by a buffer is cheaper than two splices: measured, see
/// `docs/performance.md`.
const SMALL: u64 = 64 << 10;

/// The buffer beyond that: what a processor's cache holds.
const BUFFER: u64 = 256 << 10;

/// Sends what comes from one connection to another until the end, and says how
/// many bytes that was. They are sent from the buffers that they were received
/// into. The other connection is not ended.
///
/// Dropping the future leaves open how much was sent, and loses what was
/// received and not sent.
///
/// # Errors
///
/// Of [`recv`](StreamSocket::recv) and [`send_all`](StreamSocket::send_all).
pub async fn copy<F: Family, G: Family>(
    from: &StreamSocket<F>,
    to: &StreamSocket<G>,
) -> io::Result<u64> {
    let mut count = 0;
    loop {
        let data = from.recv().await?;
        if data.is_empty() {
            return Ok(count);
        }
        let len = data.len() as u64;
        to.send_all(data).await.0?;
        count += len;
    }
}

/// Sends what comes from either connection to the other, until both have
/// ended. The end of one direction is passed on at once, by ending the writing
/// half of the other connection, while the other direction goes on. Says how
/// many bytes went from `a` to `b`, and how many from `b` to `a`.
///
/// Dropping the future leaves open how much was sent, and loses what was
/// received and not sent.
///
/// # Errors
///
/// The first of either direction; the other is given up then, and both
/// connections are of no use but to be closed.
pub async fn copy_bidirectional<F: Family, G: Family>(
    a: &StreamSocket<F>,
    b: &StreamSocket<G>,
) -> io::Result<(u64, u64)> {
    let mut there = pin!(copy_and_end(a, b));
    let mut back = pin!(copy_and_end(b, a));
    let (mut sent, mut received) = (None, None);
    poll_fn(|cx| {
        if sent.is_none() {
            if let Poll::Ready(result) = there.as_mut().poll(cx) {
                sent = Some(result?);
            }
        }
        if received.is_none() {
            if let Poll::Ready(result) = back.as_mut().poll(cx) {
                received = Some(result?);
            }
        }
        match (sent, received) {
            (Some(sent), Some(received)) => Poll::Ready(Ok((sent, received))),
            _ => Poll::Pending,
        }
    })
    .await
}

async fn copy_and_end<F: Family, G: Family>(
    from: &StreamSocket<F>,
    to: &StreamSocket<G>,
) -> io::Result<u64> {
    let count = copy(from, to).await?;
    match to.shutdown(Shutdown::Write) {
        // It is gone already, which it may be once all was sent.
        Err(e) if e.kind() != ErrorKind::NotConnected => Err(e),
        _ => Ok(count),
    }
}

/// Sends `len` bytes of a file from `offset` on, or up to its end if that
/// comes first, and says how many that was. What else is sent meanwhile on the
/// same connection comes between them.
///
/// More than 64 KiB go by splice(2), without a copy; what is less is cheaper
/// through a buffer, and so are files that cannot be spliced (EINVAL). On the
/// proactor a splice that waits for room keeps a thread of the kernel's.
///
/// Dropping the future leaves open how much was sent: the connection is of no
/// use afterwards but to be closed.
///
/// # Errors
///
/// Of [`File::read_at`] and [`StreamSocket::send_all`]; how much was sent is
/// not known then.
pub async fn sendfile<F: Family>(
    file: &File,
    offset: u64,
    len: u64,
    to: &StreamSocket<F>,
) -> io::Result<u64> {
    if len <= SMALL {
        return copied(file, offset, len, to).await;
    }
    let mut sent = 0;
    match spliced(file, offset, len, to, &mut sent).await {
        Err(e) if sent == 0 && e.raw_os_error() == Some(libc::EINVAL) => {
            copied(file, offset, len, to).await
        }
        result => result.map(|()| sent),
    }
}

async fn spliced<F: Family>(
    file: &File,
    offset: u64,
    len: u64,
    to: &StreamSocket<F>,
    sent: &mut u64,
) -> io::Result<()> {
    let runtime = to.ports.descriptor().runtime();
    let (reading, writing) = call::pipe()?;
    // As large as we may.
    let _ = call::set_pipe_size(writing.as_fd(), CHUNK);
    let reading = Descriptor::blocking(reading, runtime)?;
    let fill = Port::new(Descriptor::blocking(writing, runtime)?);
    // Apart from the port for sending, which knows its own attempts only.
    let room = Port::new(to.ports.descriptor().clone());
    while *sent < len {
        let op = FileOp::Splice {
            from: file.descriptor().clone(),
            at: Some(offset.saturating_add(*sent)),
            len: (len - *sent).min(CHUNK as u64) as u32,
            keep: Some(reading.clone()),
        };
        let mut filled = count(fill.file(op).await.0?);
        if filled == 0 {
            return Ok(());
        }
        while filled > 0 {
            let n = empty(&reading, fill.descriptor(), filled, to, &room).await?;
            if n == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            filled -= n;
            *sent += n as u64;
        }
    }
    Ok(())
}

/// From the pipe to the connection.
async fn empty<F: Family>(
    from: &DescriptorRef,
    other_end: &Descriptor,
    len: usize,
    to: &StreamSocket<F>,
    room: &Port,
) -> io::Result<usize> {
    let descriptor = to.ports.descriptor();
    if descriptor.by_readiness() {
        let call = |fd: BorrowedFd<'_>| call::splice(from.as_fd(), fd, len);
        return poll_fn(|cx| room.poll_io(cx, Interest::Write, call)).await;
    }
    let op = FileOp::Splice {
        from: from.clone(),
        at: None,
        len: len as u32,
        keep: Some(DescriptorRef::to(other_end)),
    };
    to.ports.send().file(op).await.0.map(count)
}

/// Through a buffer.
async fn copied<F: Family>(
    file: &File,
    offset: u64,
    len: u64,
    to: &StreamSocket<F>,
) -> io::Result<u64> {
    let mut sent = 0;
    let mut buf = vec![0; len.min(BUFFER) as usize];
    while sent < len {
        buf.resize((len - sent).min(BUFFER) as usize, 0);
        let (n, back) = file.read_at(buf, offset.saturating_add(sent)).await;
        buf = back;
        let n = n?;
        if n == 0 {
            break;
        }
        buf.truncate(n);
        let (result, back) = to.send_all(buf).await;
        result?;
        buf = back;
        sent += n as u64;
    }
    Ok(sent)
}
