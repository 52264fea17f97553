//! A connection that is a stream of bytes, of any family.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use isochrome_runtime::DescriptorRef;
use isochrome_runtime::buf::{Gather, IoBuf, IoBufMut, RecvBuf};
use isochrome_runtime::op::{Op, Ports, SendBuf, Yield, poll_budget};
use socket2::SockRef;

use crate::datagram::blocking;
use crate::family::Family;
use crate::split::{self, ReadHalf, ReadRef, WriteHalf, WriteRef};

/// A connection that is a stream of bytes: a [`TcpStream`](crate::TcpStream),
/// say. What depends on the family is said there; everything else is here, so
/// that code can be written for all of them at once.
///
/// All calls take `&self`; reading and writing may go on in different tasks,
/// and several tasks that read (or write) take turns, one operation at a time.
///
/// Dropping it closes the connection when the last operation in flight has
/// ended; the peer sees the end of the stream. What was
/// [fed](StreamSocket::feed) and not [flushed](StreamSocket::flush) may be lost
/// then. With bytes unread it sees a
/// reset, as with std; but on the proactor what was received ahead, and waits
/// here, is not unread to the kernel, and a connection that is dropped on the
/// runtime's own thread outside of `block_on` is closed by the next one.
pub struct StreamSocket<F> {
    /// One word: a task that serves a connection has it in its future, and may
    /// have it there several times.
    pub(crate) ports: Ports,
    family: PhantomData<fn() -> F>,
}

const _: () = assert!(size_of::<crate::TcpStream>() == size_of::<usize>());

impl<F: Family> StreamSocket<F> {
    pub(crate) fn on(descriptor: DescriptorRef) -> StreamSocket<F> {
        StreamSocket {
            ports: Ports::new(descriptor),
            family: PhantomData,
        }
    }

    // -- receiving --------------------------------------------------------

    /// Receives what is there, as a lease on a buffer of the runtime's: a
    /// connection that waits owns none. An empty lease is the end of the
    /// stream.
    ///
    /// Dropping the future loses nothing: what has arrived stays here.
    ///
    /// # Errors
    ///
    /// What recv(2) answers; a reset, mostly.
    pub fn recv(&self) -> impl Future<Output = io::Result<RecvBuf>> + Send + '_ {
        let mut waiter = self.ports.recv().waiter();
        poll_fn(move |cx| waiter.poll_lease(cx))
    }

    /// The poll form of [`recv`](StreamSocket::recv), for a single receiver: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<io::Result<RecvBuf>> {
        self.ports.recv().poll_lease(cx)
    }

    /// Reads into borrowed memory, and returns how many bytes: straight into
    /// it where the driver works by readiness, else a copy out of a lease. 0
    /// is the end of the stream, or an empty `buf`.
    ///
    /// Dropping the future loses nothing: what has arrived stays here.
    ///
    /// # Errors
    ///
    /// As for [`recv`](StreamSocket::recv).
    pub fn read<'a>(
        &'a self,
        buf: &'a mut [u8],
    ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut waiter = self.ports.recv().waiter();
        poll_fn(move |cx| {
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            waiter.poll_recv(cx, buf)
        })
    }

    /// The poll form of [`read`](StreamSocket::read), for a single reader: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `read`.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.descriptor().is_tcp() && !self.descriptor().by_readiness() {
            // What is there while no receive is in flight, because a stream
            // that is quicker than its reader has paused it, is received
            // without a copy: see "Borrowed reads" in ARCHITECTURE.md.
            ready!(poll_budget(cx));
            match self.ports.recv().try_recv(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        self.ports.recv().poll_recv(cx, buf)
    }

    /// Reads into a buffer that is handed over, as completion users know it,
    /// and hands it back with the number of bytes.
    ///
    /// Dropping the future drops the buffer, and loses nothing else.
    ///
    /// # Errors
    ///
    /// As for [`recv`](StreamSocket::recv).
    pub async fn read_owned<B: IoBufMut>(&self, mut buf: B) -> (io::Result<usize>, B) {
        let result = self.read(buf.bytes_mut()).await;
        (result, buf)
    }

    // -- sending ----------------------------------------------------------

    /// Sends some of the bytes, and hands the buffer back with their number: a
    /// lease, a `Vec<u8>`, or anything else that is [`IoBuf`]. Nothing is
    /// copied in user space.
    ///
    /// Dropping the future leaves open whether any of it was sent.
    ///
    /// # Errors
    ///
    /// What send(2) answers. A broken pipe is an error, never a signal.
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<usize>, B)> + Send {
        self.ports.send().send(buf, false)
    }

    /// Sends all bytes, and hands the buffer back.
    ///
    /// Dropping the future leaves open how much was sent: the stream is of no
    /// use afterwards but to be closed. (What of it is sent comes before the
    /// bytes of later sends, but perhaps behind those of borrowed writes.)
    ///
    /// # Errors
    ///
    /// As for [`send`](StreamSocket::send); how much was sent is not known then.
    #[inline]
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<()>, B)> + Send {
        all_of(self.ports.send().send(buf, true))
    }

    /// Sends all bytes without copying them into the kernel, where the driver,
    /// the kernel and the kind of socket can do that (io_uring's SEND_ZC);
    /// elsewhere as [`send_all`](StreamSocket::send_all) does. It hands the
    /// buffer back when the kernel is done with it, which on TCP is when the
    /// other end has acknowledged the bytes: the next sender waits for that.
    ///
    /// For large buffers on fast networks: what pinning the pages takes is more
    /// than copying a few kilobytes, and over loopback all is copied anyway.
    ///
    /// Dropping the future leaves open how much was sent: the stream is of no
    /// use afterwards but to be closed. The buffer is dropped when the kernel
    /// is done with it; neither the close nor the next sender waits for that.
    ///
    /// # Errors
    ///
    /// As for [`send`](StreamSocket::send); how much was sent is not known then.
    pub fn send_zc<B: IoBuf>(&self, buf: B) -> impl Future<Output = (io::Result<()>, B)> + Send {
        all_of(self.ports.send().send_zc(buf))
    }

    /// Sends all bytes of several buffers, one after another, and hands them
    /// back: head and body of an answer, say, with one operation (sendmsg(2))
    /// and without putting them together. Nothing is copied in user space.
    ///
    /// Dropping the future leaves open how much was sent: the stream is of no
    /// use afterwards but to be closed.
    ///
    /// # Errors
    ///
    /// As for [`send`](StreamSocket::send); how much was sent is not known then.
    pub async fn send_vectored<B: IoBuf>(&self, bufs: Vec<B>) -> (io::Result<()>, Vec<B>) {
        let data = Box::new(Gather::new(bufs));
        if data.is_empty() {
            return (Ok(()), data.into_inner());
        }
        let (completion, op) = self.ports.send().run(Op::SendVectored(data)).await;
        let Op::SendVectored(data) = op else {
            unreachable!("a port gives back the operation it was given")
        };
        let result = match completion {
            Ok(Yield::Done(n)) if n == data.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(e) => Err(e),
        };
        (result, data.into_inner())
    }

    // -- the rest ---------------------------------------------------------

    /// Ends one direction or both: shutdown(2). Ending the writing half tells
    /// the peer that no more will come. Ending the reading half is told to who
    /// waits to receive: they see the end of the stream, after what has arrived.
    ///
    /// A send that waits for room ends with a broken pipe; on a local socket
    /// the kernel tells of that only when the peer reads or closes, and not at
    /// once as it tells who blocks. But what was [fed](StreamSocket::feed) is
    /// sent first: while it is under way, the writing half ends behind it, for
    /// which this does not wait. (To give it up, drop the connection.)
    ///
    /// # Errors
    ///
    /// If the connection is gone already. What was fed and not sent, if that was
    /// not told yet: the direction is ended nevertheless.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let failure = match how {
            Shutdown::Read => None,
            Shutdown::Write | Shutdown::Both => self.ports.send().take_failure(),
        };
        let ended = self.end(how);
        failure.map_or(ended, Err)
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// What getsockname(2) answers.
    pub fn local_addr(&self) -> io::Result<F::Addr> {
        F::addr(self.socket().local_addr()?)
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// What getpeername(2) answers: the connection is gone, mostly.
    pub fn peer_addr(&self) -> io::Result<F::Addr> {
        F::addr(self.socket().peer_addr()?)
    }

    /// Another descriptor of the same connection: dup(2), of the same runtime
    /// and with a registration of its own. Options and the ends of
    /// [`shutdown`](StreamSocket::shutdown) are the connection's, and so those
    /// of both. It is closed with the last descriptor.
    ///
    /// **Receive by one of the two.** What one has received and not handed out
    /// stays with it, and is lost to the other if that one is dropped. On the
    /// proactor that may be more than was asked for: who has once begun to
    /// receive is given what comes next, whoever waits, until it is closed,
    /// which is a while after it is dropped.
    ///
    /// What both send has no order, and the end of the direction cuts off what
    /// the other has [fed](StreamSocket::feed): flush first.
    ///
    /// Tasks can share a connection by `&`, an [`Arc`](std::sync::Arc), or
    /// [`into_split`](StreamSocket::into_split), which take no descriptor and
    /// have one order for all. One of the two that is dropped on another
    /// thread, or outside of `block_on`, is closed when the worker gets to it.
    ///
    /// # Errors
    ///
    /// If no descriptor is left.
    pub fn try_clone(&self) -> io::Result<StreamSocket<F>> {
        Ok(StreamSocket::on(self.descriptor().duplicate()?))
    }

    /// Two borrowed halves, for code that wants one for each direction: both
    /// directions of `&self` can be used as well.
    pub fn split(&mut self) -> (ReadRef<'_, F>, WriteRef<'_, F>) {
        (ReadRef(self), WriteRef(self))
    }

    /// Two owned halves, for two tasks. (Sharing `&self`, or an `Arc`, does as
    /// well; the halves end their direction when they are dropped.)
    pub fn into_split(self) -> (ReadHalf<F>, WriteHalf<F>) {
        split::split(self)
    }

    /// The connection itself, blocking, and what was received and not taken.
    /// What was fed is sent before.
    pub(crate) async fn leave(self) -> io::Result<(OwnedFd, Vec<u8>)> {
        self.flush().await?;
        let mut received = Vec::new();
        // The other ports bring nothing.
        for completion in self.ports.recv().recall().await {
            if let Yield::Buf(lease) = completion? {
                received.extend_from_slice(&lease);
            }
        }
        let descriptor = self.descriptor().clone();
        drop(self);
        Ok((blocking(descriptor).await?, received))
    }

    pub(crate) fn descriptor(&self) -> &DescriptorRef {
        self.ports.descriptor()
    }

    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(&**self.ports.descriptor())
    }
}

/// Sending that is done only when all is sent.
#[inline]
fn all_of<B: IoBuf>(
    mut sending: SendBuf<'_, B>,
) -> impl Future<Output = (io::Result<()>, B)> + Send {
    poll_fn(move |cx| {
        let (result, buf) = ready!(Pin::new(&mut sending).poll(cx));
        let result = match result {
            Ok(n) if n == buf.bytes().len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(e) => Err(e),
        };
        Poll::Ready((result, buf))
    })
}

impl<F> AsFd for StreamSocket<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ports.descriptor().as_fd()
    }
}

impl<F> AsRawFd for StreamSocket<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.ports.descriptor().as_raw_fd()
    }
}

impl<F: Family> fmt::Debug for StreamSocket<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(F::CONNECTION)
            .field("fd", &self.as_raw_fd())
            .field("local", &self.local_addr().ok())
            .field("peer", &self.peer_addr().ok())
            .finish()
    }
}
