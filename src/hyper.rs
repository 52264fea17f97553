//! What [hyper](https://docs.rs/hyper) needs of a runtime: [`Io`], [`Timer`]
//! and [`Executor`]. Behind the feature `hyper`.
//!
//! A connection that is served in a color of its own runs in parallel with all
//! others, and everything that belongs to it, parsing and answering, one after
//! another:
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! use ::hyper::server::conn::http1;
//! use ::hyper::service::service_fn;
//! use ::hyper::{Request, Response, body::Incoming};
//! use isochrome::hyper::{Io, Timer};
//! use isochrome::net::TcpListener;
//! use isochrome::{Runtime, spawn_apart};
//!
//! async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("hello\n".into()))
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     Runtime::new()?.block_on(async {
//!         let listener = TcpListener::bind("127.0.0.1:8080").await?;
//!         loop {
//!             let (stream, _) = listener.accept().await?;
//!             let connection = http1::Builder::new()
//!                 .timer(Timer) // closes clients that never finish a request's head
//!                 .serve_connection(Io::new(stream), service_fn(hello));
//!             drop(spawn_apart(connection));
//!         }
//!     })
//! }
//! ```
//!
//! hyper itself is not re-exported: depend on it with the features that you
//! use, `server` and `http1` above.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::hyper::rt;

use crate::net::{Family, RecvBuf, StreamSocket, Tcp};
use crate::{spawn, time};

/// A connection as hyper reads and writes it: of TCP, or a local stream.
///
/// Received bytes are copied once, out of a lease into hyper's buffer: a
/// connection that waits owns none of the runtime's. Writes are sent from
/// hyper's memory, several pieces in one system call, and shutting down ends
/// the writing half only.
#[derive(Debug)]
pub struct Io<F: Family = Tcp> {
    stream: StreamSocket<F>,
    /// Received, and more than hyper had room for.
    rest: RecvBuf,
}

impl<F: Family> Io<F> {
    /// Gives a connection to hyper.
    pub fn new(stream: StreamSocket<F>) -> Io<F> {
        Io {
            stream,
            rest: RecvBuf::empty(),
        }
    }

    /// The connection, for its addresses and options. What is received from it
    /// past hyper is missing there.
    pub fn get_ref(&self) -> &StreamSocket<F> {
        &self.stream
    }

    /// Takes the connection back, after an upgrade for example, with what was
    /// received from it and not yet read by hyper (which may have read more
    /// than it used, and gives that back itself). Empty if there is nothing.
    pub fn into_parts(self) -> (StreamSocket<F>, RecvBuf) {
        (self.stream, self.rest)
    }
}

impl<F: Family> From<StreamSocket<F>> for Io<F> {
    fn from(stream: StreamSocket<F>) -> Io<F> {
        Io::new(stream)
    }
}

impl<F: Family> rt::Read for Io<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing read would be the end.
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.rest.is_empty() {
            self.rest = ready!(self.stream.poll_recv(cx))?;
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        if self.rest.is_empty() {
            // Gives the buffer back.
            self.rest = RecvBuf::empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl<F: Family> rt::Write for Io<F> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, buf)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write_vectored(cx, bufs)
    }

    /// Nothing is kept back but what was fed before hyper had the connection.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.stream.shutdown(Shutdown::Write) {
            // The peer was faster.
            Err(e) if e.kind() == ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}

/// hyper's timeouts on the runtime's [timers](crate::time): hand it to the
/// `timer` of hyper's builders, which have no timeouts without one.
///
/// Its sleeps panic when they are polled outside of a runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep(time::sleep(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep(time::sleep_until(deadline)))
    }

    /// In its place: hyper resets the timeout of a request's head with each
    /// request.
    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(mut ours) => ours.0 = time::sleep_until(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

#[derive(Debug)]
struct Sleep(time::Sleep);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl rt::Sleep for Sleep {}

/// Spawns what hyper wants to have run beside a connection, in the color of
/// the connection: as the connection itself, it is serial with it.
///
/// Panics outside of a runtime, as [`spawn`] does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // Detached: hyper has its own ways to hear of the end.
        drop(spawn(future));
    }
}
