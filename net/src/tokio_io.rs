//! The traits of the crate `tokio`, of which nothing else is taken. Behind the
//! feature `tokio-io`.
//!
//! Reading copies out of a lease where the driver works by completion, and is
//! a recv(2) into the caller's memory where it works by readiness. Writing
//! sends on the spot (see `borrowed`), and flushing has nothing to do. Shutting
//! down ends the writing direction; of a pipe it does nothing, because there the
//! end is told by dropping the last sender. Each direction has one poller at a
//! time: only the last waker is kept.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::custom::Async;
use crate::family::Family;
use crate::pipe::{Receiver, Sender};
use crate::split::{ReadHalf, ReadRef, WriteHalf, WriteRef};
use crate::stream::StreamSocket;

macro_rules! reads {
    ($t:ty, $of:ident $(, $family:ident)?) => {
        impl$(<$family: Family>)? AsyncRead for $t {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let read = $of::poll_read(&self, cx, buf.initialize_unfilled());
                buf.advance(ready!(read)?);
                Poll::Ready(Ok(()))
            }
        }
    };
}

macro_rules! writes {
    ($t:ty, $of:ident $(, $family:ident)?) => {
        impl$(<$family: Family>)? AsyncWrite for $t {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                $of::poll_write(&self, cx, buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                $of::poll_write_vectored(&self, cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.end_writing())
            }
        }
    };
}

reads!(StreamSocket<F>, StreamSocket, F);
reads!(&StreamSocket<F>, StreamSocket, F);
reads!(ReadHalf<F>, StreamSocket, F);
reads!(ReadRef<'_, F>, StreamSocket, F);
reads!(Receiver, Receiver);
reads!(&Receiver, Receiver);
writes!(StreamSocket<F>, StreamSocket, F);
writes!(&StreamSocket<F>, StreamSocket, F);
writes!(WriteHalf<F>, StreamSocket, F);
writes!(WriteRef<'_, F>, StreamSocket, F);
writes!(Sender, Sender);
writes!(&Sender, Sender);

impl<T: Unpin> AsyncRead for Async<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.poll_read_with(cx, |mut io| io.read(buf.initialize_unfilled()));
        buf.advance(ready!(read)?);
        Poll::Ready(Ok(()))
    }
}

impl<T: Unpin> AsyncWrite for Async<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut io| io.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut io| io.write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(cx, |mut io| io.flush())
    }

    /// Flushes. What a peer sees of the end it sees when the value is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
