//! Sending borrowed memory, for adapters to traits of the `poll_write` kind.
//!
//! A borrowed slice must not be with the kernel across an await, so these send
//! on the spot or not at all, on every driver: send(2) with MSG_DONTWAIT. Only
//! the wait for room is an operation, and it has a port of its own: a wait
//! that was given up does not stand in the way of a later
//! [`send_all`](StreamSocket::send_all).

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll, ready};

use isochrome_runtime::op::{Interest, poll_budget};
use socket2::SockRef;

use crate::family::Family;
use crate::stream::StreamSocket;

/// On the spot, and a broken pipe is an error.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// sendmsg(2) refuses more.
const MOST_SLICES: usize = libc::UIO_MAXIOV as usize;

impl<F: Family> StreamSocket<F> {
    /// Sends some of the borrowed bytes, and says how many: for a single
    /// writer, only the last waker is kept, and its bytes come between those
    /// of a [`send_all`](StreamSocket::send_all) that goes on in another task,
    /// but behind what was [fed](StreamSocket::feed). 0 only for an empty `buf`.
    ///
    /// What is pending has sent nothing, so giving up loses no byte, and the
    /// next call may bring other ones. ([`send_all`](StreamSocket::send_all) of
    /// an owned buffer is cheaper on a proactor: no system call of its own.)
    ///
    /// # Errors
    ///
    /// What send(2) answers, also for what was fed. A broken pipe is an error,
    /// never a signal.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, |socket| socket.send_with_flags(buf, FLAGS))
    }

    /// As [`poll_write`](StreamSocket::poll_write), of several slices in their
    /// order. Of very many, the first 1,024 are sent.
    ///
    /// # Errors
    ///
    /// As for `poll_write`.
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bufs = sendable(bufs);
        if bufs.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, |socket| socket.send_vectored_with_flags(bufs, FLAGS))
    }

    /// Sends some of the borrowed bytes, and says how many: the future of
    /// [`poll_write`](StreamSocket::poll_write), for a single writer.
    ///
    /// Dropping the future has sent nothing.
    ///
    /// # Errors
    ///
    /// As for `poll_write`.
    pub async fn write(&self, buf: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write(cx, buf)).await
    }

    /// As [`write`](StreamSocket::write), of several slices in their order.
    ///
    /// # Errors
    ///
    /// As for `poll_write`.
    pub async fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write_vectored(cx, bufs)).await
    }

    /// Sends all of the borrowed bytes, for a single writer.
    ///
    /// Dropping the future leaves open how much was sent.
    ///
    /// # Errors
    ///
    /// As for `poll_write`; how much was sent is not known then.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write(buf).await? {
                0 => return Err(ErrorKind::WriteZero.into()),
                n => buf = &buf[n..],
            }
        }
        Ok(())
    }

    /// Sends what there is room for at this moment, and says how much.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) if there is no room, or something
    /// [fed](StreamSocket::feed) is under way; else as for `poll_write`.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.try_flush()?;
        self.socket().send_with_flags(buf, FLAGS)
    }

    /// As [`try_write`](StreamSocket::try_write), of several slices in their
    /// order. Of very many, the first 1,024 are sent.
    ///
    /// # Errors
    ///
    /// As for `try_write`.
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = sendable(bufs);
        if bufs.is_empty() {
            return Ok(0);
        }
        self.try_flush()?;
        self.socket().send_vectored_with_flags(bufs, FLAGS)
    }

    /// What the traits call closing or shutting down: the end of the writing
    /// direction. That the connection is gone already is as good.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn end_writing(&self) -> io::Result<()> {
        match self.shutdown(std::net::Shutdown::Write) {
            Err(e) if e.kind() == ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        send: impl Fn(&SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // Behind what was fed.
        ready!(self.poll_flush(cx))?;
        // Without a port as long as there is always room.
        if !self.ports.has_aside() {
            loop {
                ready!(poll_budget(cx));
                match send(&self.socket()) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    result => return Poll::Ready(result),
                }
            }
        }
        let room = self.ports.send_aside();
        room.poll_io(cx, Interest::Write, |_| send(&self.socket()))
    }
}

/// What of the slices one call may send; none if there is nothing.
pub(crate) fn sendable<'a, 'b>(bufs: &'a [IoSlice<'b>]) -> &'a [IoSlice<'b>] {
    // Else many empty ones in front would make it 0, which is no progress.
    let first = bufs.iter().position(|buf| !buf.is_empty());
    let bufs = &bufs[first.unwrap_or(bufs.len())..];
    &bufs[..bufs.len().min(MOST_SLICES)]
}
