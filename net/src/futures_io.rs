//! The traits of the crate `futures-io`. Behind the feature of that name.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

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
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                $of::poll_read(&self, cx, buf)
            }

            fn poll_read_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                $of::poll_read_vectored(&self, cx, bufs)
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
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |mut io| io.read(buf))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |mut io| io.read_vectored(bufs))
    }
}

all_writes!(poll_close {});
