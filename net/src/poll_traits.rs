//! What the traits of the crates `futures-io` and `tokio` have in common.
//!
//! Reading copies out of a lease where the driver works by completion, and is
//! a recv(2) into the caller's memory where it works by readiness. Writing
//! sends on the spot (see `borrowed`), so that flushing has to do only with what
//! was fed. Closing, or shutting down, flushes and ends the writing direction; of a pipe it does nothing,
//! because there the end is told by dropping the last sender. Each direction has
//! one poller at a time: only the last waker is kept.

/// The `AsyncWrite` that is in scope, for a type that is used as an `$of`.
/// `$close` is what it calls the end of writing, and `$rest` what else it has.
macro_rules! writes {
    ($close:ident { $($rest:tt)* } $t:ty, $of:ident $(, $family:ident)?) => {
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

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                $of::poll_flush(&self, cx)
            }

            fn $close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                ready!($of::poll_flush(&self, cx))?;
                Poll::Ready(self.end_writing())
            }

            $($rest)*
        }
    };
}

/// The same for all that can be written to.
macro_rules! all_writes {
    ($close:ident $rest:tt) => {
        writes!($close $rest StreamSocket<F>, StreamSocket, F);
        writes!($close $rest &StreamSocket<F>, StreamSocket, F);
        writes!($close $rest WriteHalf<F>, StreamSocket, F);
        writes!($close $rest WriteRef<'_, F>, StreamSocket, F);
        writes!($close $rest Sender, Sender);
        writes!($close $rest &Sender, Sender);

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

            /// Flushes. What a peer sees of the end it sees when the value is
            /// dropped.
            fn $close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_flush(cx)
            }
        }
    };
}

pub(crate) use {all_writes, writes};
