//! Streams by readiness: waiting without transferring, and system calls of the
//! user's own.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use isochrome_runtime::op::Interest;

use crate::datagram::ready;
use crate::family::Family;
use crate::stream::StreamSocket;

impl<F: Family> StreamSocket<F> {
    /// Waits until there is something to receive: bytes, the end, or an error.
    /// Somebody else may have received it when the caller does.
    ///
    /// For [`try_read`](StreamSocket::try_read), not for system calls of one's
    /// own, nor on a local stream that gets descriptors: on the proactor this
    /// receives ahead, and what came waits in the socket.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// ECANCELED once the runtime has ended. An error of the connection is left
    /// to who receives.
    pub async fn readable(&self) -> io::Result<()> {
        let mut waiter = self.ports.recv().waiter();
        let looked = poll_fn(|cx| waiter.poll_peek(cx, &mut [0])).await;
        self.leave_error(looked)
    }

    /// Waits until there is room to send behind what was
    /// [fed](StreamSocket::feed), or an error. Somebody else may have used it
    /// when the caller does.
    ///
    /// For [`try_write`](StreamSocket::try_write), and for system calls of one's
    /// own on [`as_fd`](std::os::fd::AsFd::as_fd), which take MSG_DONTWAIT: the
    /// socket may be in blocking mode.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// ECANCELED once the runtime has ended. That of what was fed, which is told
    /// once; any other is left to who sends.
    pub async fn writable(&self) -> io::Result<()> {
        // Else who tries would be told to wait, and not wait.
        self.flush().await?;
        ready(self.ports.send_aside(), Interest::Write).await
    }

    /// The poll form of [`readable`](StreamSocket::readable), for a single
    /// reader: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `readable`.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let looked = ready!(self.ports.recv().poll_peek(cx, &mut [0]));
        Poll::Ready(self.leave_error(looked))
    }

    /// The poll form of [`writable`](StreamSocket::writable), for a single
    /// writer: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `writable`.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.ports.send_aside().poll_ready(cx, Interest::Write)
    }

    /// Looking has taken the error, which sockets tell once.
    fn leave_error(&self, looked: io::Result<usize>) -> io::Result<()> {
        match looked {
            Ok(_) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ECANCELED) => Err(e),
            Err(e) => {
                self.ports.recv().put_error_back(e);
                Ok(())
            }
        }
    }
}
