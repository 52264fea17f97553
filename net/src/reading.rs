//! Receiving into borrowed memory, beyond `read`: looking, trying, filling.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSliceMut};
use std::task::{Context, Poll, ready};

use crate::family::Family;
use crate::stream::StreamSocket;

impl<F: Family> StreamSocket<F> {
    /// Looks at what comes next without taking it: what the next
    /// [`read`](StreamSocket::read) or [`recv`](StreamSocket::recv) gives
    /// begins with these bytes. 0 is the end of the stream, or an empty `buf`.
    ///
    /// It waits until anything is there, not until `buf` is full, and may see
    /// less than has arrived.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As for [`recv`](StreamSocket::recv). An error is told once, here or
    /// there.
    pub fn peek<'a>(
        &'a self,
        buf: &'a mut [u8],
    ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut waiter = self.ports.recv().waiter();
        poll_fn(move |cx| {
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            waiter.poll_peek(cx, buf)
        })
    }

    /// The poll form of [`peek`](StreamSocket::peek), for a single reader: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `peek`.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.ports.recv().poll_peek(cx, buf)
    }

    /// Reads what is there at this moment, without waiting. 0 is the end of
    /// the stream, or an empty `buf`.
    ///
    /// On the proactor, when a receive has been begun before, what has arrived
    /// since is there when the task has let the worker go on
    /// ([`yield_now`](isochrome_runtime::yield_now)).
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) if nothing is there; else as for
    /// [`recv`](StreamSocket::recv).
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.ports.recv().try_recv(buf)
    }

    /// As [`try_read`](StreamSocket::try_read), into several slices, each filled
    /// before the next is begun.
    ///
    /// # Errors
    ///
    /// As for `try_read`.
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let tried = self.fill(bufs, |buf| match self.ports.recv().try_recv(buf) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        });
        match tried {
            Poll::Ready(result) => result,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Fills `buf`.
    ///
    /// Dropping the future loses what is in `buf` by then.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](ErrorKind::UnexpectedEof) if the stream ends before;
    /// else as for [`recv`](StreamSocket::recv). What was read is in `buf`, and
    /// how much is not known.
    pub async fn read_exact(&self, buf: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            filled += match self.read(&mut buf[filled..]).await? {
                0 => return Err(ended_early()),
                n => n,
            };
        }
        Ok(())
    }

    /// Appends all that comes until the end of the stream, and says how many
    /// bytes that was. How many may come is up to the other end.
    ///
    /// Dropping the future loses nothing: what was read is in `to`.
    ///
    /// # Errors
    ///
    /// As for [`recv`](StreamSocket::recv); what was read is in `to`.
    pub async fn read_to_end(&self, to: &mut Vec<u8>) -> io::Result<usize> {
        let before = to.len();
        loop {
            let data = self.recv().await?;
            if data.is_empty() {
                return Ok(to.len() - before);
            }
            to.extend_from_slice(&data);
        }
    }

    /// Appends all that comes until the end of the stream, which has to be
    /// UTF-8, and says how many bytes that was. How many may come is up to the
    /// other end.
    ///
    /// Dropping the future loses what was read by then.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](ErrorKind::InvalidData) if it is not UTF-8: it is lost
    /// then, and `to` as it was. Else as for [`recv`](StreamSocket::recv); what
    /// was read is in `to`, if it is UTF-8.
    pub async fn read_to_string(&self, to: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let read = self.read_to_end(&mut bytes).await;
        append(to, bytes, read)
    }

    /// Reads into several slices, each filled before the next is begun, and
    /// returns how many bytes. It takes a receive for each slice that it fills,
    /// and waits for the first only: on the proactor the bytes are copied out
    /// of a lease in any case.
    ///
    /// Dropping the future loses nothing: what has arrived stays here.
    ///
    /// # Errors
    ///
    /// As for [`recv`](StreamSocket::recv).
    pub async fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut waiter = self.ports.recv().waiter();
        poll_fn(|cx| self.fill(bufs, |buf| waiter.poll_recv(cx, buf))).await
    }

    /// The poll form of [`read_vectored`](StreamSocket::read_vectored), for a
    /// single reader: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `read_vectored`.
    pub fn poll_read_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.fill(bufs, |buf| self.ports.recv().poll_recv(cx, buf))
    }

    /// Waits for the first bytes by `poll`, and takes what else is there.
    fn fill(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        poll: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut bufs = bufs.iter_mut().filter(|buf| !buf.is_empty());
        let Some(first) = bufs.next() else {
            return Poll::Ready(Ok(0));
        };
        let mut filled = ready!(poll(first))?;
        let mut full = filled == first.len();
        for buf in bufs {
            if !full {
                break;
            }
            match self.ports.recv().try_recv(buf) {
                Ok(n) => {
                    filled += n;
                    full = n == buf.len();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // What was read goes first. (The end is there for the next
                // read too.)
                Err(e) => {
                    self.ports.recv().put_error_back(e);
                    break;
                }
            }
        }
        Poll::Ready(Ok(filled))
    }
}

/// Appends the bytes that were read as text, and says how that went: an error
/// of the reading comes first.
pub(crate) fn append(
    to: &mut String,
    bytes: Vec<u8>,
    read: io::Result<usize>,
) -> io::Result<usize> {
    match String::from_utf8(bytes) {
        Ok(text) => {
            to.push_str(&text);
            read
        }
        Err(_) => {
            let message = "what came until the end of the stream is not UTF-8";
            read.and(Err(io::Error::new(ErrorKind::InvalidData, message)))
        }
    }
}

pub(crate) fn ended_early() -> io::Error {
    let message = "the stream ended before the buffer was full";
    io::Error::new(ErrorKind::UnexpectedEof, message)
}
