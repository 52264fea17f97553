//! Sending without waiting for the end of it.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::task::{Context, Poll};

use isochrome_runtime::buf::IoBuf;

use crate::family::Family;
use crate::stream::StreamSocket;

impl<F: Family> StreamSocket<F> {
    /// Hands a buffer over, to be sent whole and then dropped (a lease goes
    /// back to its pool), and is ready when that is under way: for who answers
    /// and goes on to the next request. It is cheaper than
    /// [`send_all`](StreamSocket::send_all), which runs the task once more, only
    /// to hear that all went well.
    ///
    /// One buffer at a time is under way: if the one before is, this waits for
    /// its end, in one line with all who send. What is sent later, in whatever
    /// way, comes behind it; so does the end of the stream, if the direction is
    /// [shut down](StreamSocket::shutdown).
    ///
    /// **[Flush](StreamSocket::flush) before you drop the connection.** As with
    /// a `BufWriter` that is forgotten, what the kernel has not taken by then is
    /// given up, in the middle of a buffer or before it, and no error tells.
    ///
    /// Where the driver works by readiness nothing is sent in the background:
    /// this sends at once, and waits for room itself.
    ///
    /// The buffer is dropped by the worker that hears of the end, under no
    /// color.
    ///
    /// Dropping the future drops the buffer, and what was fed before goes on. Of
    /// a future that is dropped before it was ready nothing was sent on a
    /// proactor; on a reactor it is open how much was, and the stream is of no
    /// use afterwards but to be closed.
    ///
    /// # Errors
    ///
    /// What send(2) answers: for *this* buffer where it is sent at once, and
    /// else for one that was fed before. Each is told once: by the next `feed`,
    /// `flush`, `shutdown`, or send of any kind, which does nothing else then.
    /// How much was sent is not known.
    ///
    /// ```no_run
    /// # async fn example(stream: isochrome_net::TcpStream) -> std::io::Result<()> {
    /// loop {
    ///     let data = stream.recv().await?;
    ///     if data.is_empty() {
    ///         return stream.flush().await;
    ///     }
    ///     stream.feed(data).await?;
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn feed<B: IoBuf>(&self, buf: B) -> impl Future<Output = io::Result<()>> + Send {
        self.ports.send().feed(buf)
    }

    /// Waits until the kernel has taken all that was
    /// [fed](StreamSocket::feed). Ready at once if nothing was.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What send(2) answered for it, if that was not told yet.
    pub fn flush(&self) -> impl Future<Output = io::Result<()>> + Send + '_ {
        self.ports.send().flush()
    }

    /// The poll form of [`flush`](StreamSocket::flush), for a single writer:
    /// only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `flush`.
    #[inline]
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ports.send().poll_flush(cx)
    }

    /// As `poll_flush`, of who does not wait.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        let port = self.ports.send();
        // In this order: what fails in between is told.
        if port.is_fed() {
            return Err(ErrorKind::WouldBlock.into());
        }
        port.take_failure().map_or(Ok(()), Err)
    }

    /// Ends directions, that of sending behind what was fed. An error of that
    /// stays to be told.
    pub(crate) fn end(&self, how: Shutdown) -> io::Result<()> {
        let later = how != Shutdown::Read && self.ports.send().end_after_fed();
        let now = match how {
            Shutdown::Write if later => return Ok(()),
            Shutdown::Both if later => Shutdown::Read,
            how => how,
        };
        self.socket().shutdown(now)
    }
}
