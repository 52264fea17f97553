//! The traits of the crate `tokio`, of which nothing else is taken. Behind the
//! feature `tokio-io`.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::custom::Async;
use crate::family::Family;
use crate::pipe::{Receiver, Sender};
use crate::poll_traits::{all_writes, writes};
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

reads!(StreamSocket<F>, StreamSocket, F);
reads!(&StreamSocket<F>, StreamSocket, F);
reads!(ReadHalf<F>, StreamSocket, F);
reads!(ReadRef<'_, F>, StreamSocket, F);
reads!(Receiver, Receiver);
reads!(&Receiver, Receiver);

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

all_writes!(poll_shutdown {
    fn is_write_vectored(&self) -> bool {
        true
    }
});
