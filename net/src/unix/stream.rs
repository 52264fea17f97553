//! Streams of bytes between local processes.

use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::task::Poll;

use isochrome_runtime::op::Interest;
use isochrome_runtime::{Descriptor, Handle};
use socket2::{SockAddr, Type};

use super::addr::{ToUnixAddr, local};
use super::cred::peer_process;
use super::{bind, connected, fds};
use crate::datagram::pair;
use crate::family::{Family, sealed};
use crate::listener::Listener;
use crate::options::{buffer_options, take_error};
use crate::stream::StreamSocket;
use crate::sys;

/// The family of local sockets that are streams of bytes.
#[derive(Debug)]
pub enum Unix {}

impl sealed::Sealed for Unix {}

impl Family for Unix {
    type Addr = SocketAddr;
    type Connection = UnixStream;
    const CONNECTION: &'static str = "UnixStream";
    const LISTENER: &'static str = "UnixListener";

    fn addr(addr: SockAddr) -> io::Result<SocketAddr> {
        local(&addr)
    }

    fn accepted(fd: OwnedFd, runtime: &Handle) -> UnixStream {
        UnixStream::on(Descriptor::local(fd, runtime))
    }
}

/// A connection between local processes.
///
/// # Descriptors
///
/// Descriptors travel with bytes ([`send_with_fds`](UnixStream::send_with_fds)),
/// and the kernel closes those whose bytes are received by a call that does not
/// ask for them. As receives may take more bytes than they were asked for (the
/// rest waits in the socket for the next), a socket on which descriptors are
/// expected is to be read by [`recv_with_fds`](UnixStream::recv_with_fds) alone.
pub type UnixStream = StreamSocket<Unix>;

/// A local socket that listens. Its file stays behind when it is closed, unless
/// a [`SocketFile`](crate::SocketFile) sees to it.
pub type UnixListener = Listener<Unix>;

buffer_options!(UnixStream);
peer_process!(UnixStream);
take_error!(UnixStream);
take_error!(UnixListener);

impl UnixStream {
    /// Connects to a listener. If its queue is full, it is tried again until
    /// there is room.
    ///
    /// Dropping the future gives the attempt up and closes its socket.
    ///
    /// # Errors
    ///
    /// What connect(2) answers: no such file, not allowed, or refused, and then
    /// whether the file is stale; if the name is none; outside a runtime.
    pub async fn connect(to: impl ToUnixAddr) -> io::Result<UnixStream> {
        let runtime = crate::runtime()?;
        let socket = connected(bind::socket(Type::STREAM)?, to, &runtime).await?;
        Ok(UnixStream::on(Descriptor::new(socket.into(), &runtime)?))
    }

    /// As [`connect`](UnixStream::connect), from a name of one's own, which the other
    /// end is told as its peer's. Its file stays behind when the connection is
    /// closed, unless a [`SocketFile`](crate::SocketFile) sees to it.
    ///
    /// Dropping the future gives the attempt up and closes its socket; the file
    /// stays.
    ///
    /// # Errors
    ///
    /// As for `connect`, and as for the `bind` of a listener.
    pub async fn connect_from(
        from: impl ToUnixAddr,
        to: impl ToUnixAddr,
    ) -> io::Result<UnixStream> {
        let runtime = crate::runtime()?;
        let socket = connected(bind::bound(Type::STREAM, from)?, to, &runtime).await?;
        Ok(UnixStream::on(Descriptor::new(socket.into(), &runtime)?))
    }

    /// Both ends of a new connection without a name: socketpair(2).
    ///
    /// # Errors
    ///
    /// If no descriptor is left, or outside a runtime.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        pair(Type::STREAM, |fd, runtime| {
            Ok(UnixStream::on(Descriptor::new(fd, runtime)?))
        })
    }

    /// The connection as one of std, in blocking mode, and what was received
    /// from it and not taken yet: on the proactor the runtime receives ahead,
    /// and what it had, the connection does not give again. It comes when what
    /// was fed is sent, and the last operation that was given up has ended.
    ///
    /// Halves are to be [reunited](crate::ReadHalf::reunite) first.
    ///
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    ///
    /// An error that the connection has met and that nobody was told of yet,
    /// mostly a reset: what was received before it is lost then. If its mode
    /// cannot be set. The connection is closed.
    pub async fn into_std(self) -> io::Result<(std::os::unix::net::UnixStream, Vec<u8>)> {
        let (fd, received) = self.leave().await?;
        Ok((fd.into(), received))
    }

    /// Takes a connected std socket over.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
        let descriptor = Descriptor::new(stream.into(), &crate::runtime()?)?;
        Ok(UnixStream::on(descriptor))
    }

    /// Sends some of the bytes, with copies of the descriptors, which the
    /// other end gets with the first of them. Returns how many bytes: the rest
    /// is to be sent without them. Waits for room.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// What sendmsg(2) answers, also for what was fed; ETOOMANYREFS if too many
    /// descriptors are under way. InvalidInput for more than 253, or for some without any byte.
    pub async fn send_with_fds(
        &self,
        data: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        if data.is_empty() && !descriptors.is_empty() {
            let message = "descriptors travel with bytes: send at least one";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.flush().await?;
        let mut waiter = self.ports.send_aside().waiter();
        let mut call = |fd: BorrowedFd<'_>| fds::send(fd, data, None, descriptors);
        poll_fn(move |cx| waiter.poll_io(cx, Interest::Write, &mut call)).await
    }

    /// Receives some bytes, and the descriptors that came with them, which are
    /// close-on-exec. 0 bytes are the end of the stream, or an empty `buf`.
    ///
    /// The kernel never gives the bytes of two messages with descriptors at
    /// once. What was received by other calls and waits in the socket comes
    /// first, without descriptors: see the [type](UnixStream).
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) answers. The inner error: descriptors are lost, because
    /// the process may not have as many; those that did come are closed then,
    /// and the bytes are there nevertheless.
    pub async fn recv_with_fds(
        &self,
        buf: &mut [u8],
    ) -> io::Result<(usize, io::Result<Vec<OwnedFd>>)> {
        let mut ahead = self.ports.recv().waiter();
        let mut waiter = self.ports.recv_aside().waiter();
        poll_fn(move |cx| {
            if buf.is_empty() {
                return Poll::Ready(Ok((0, Ok(Vec::new()))));
            }
            if self.ports.recv().is_ahead() {
                let bytes = ahead.poll_recv(cx, buf);
                return bytes.map_ok(|n| (n, Ok(Vec::new())));
            }
            let received = waiter.poll_io(cx, Interest::Read, |fd| {
                sys::recv_local(fd, buf, libc::MSG_DONTWAIT)
            });
            received.map_ok(|(n, beside)| (n, beside.fds))
        })
        .await
    }
}

impl UnixListener {
    /// Listens on a path, or an abstract name (see [`ToUnixAddr`]).
    ///
    /// Who may connect is said by the permissions of the file, which the umask
    /// decides. To say it in another way without a gap, put the file into a
    /// directory that is closed to others. An abstract name is open to all of
    /// the network namespace.
    ///
    /// # Errors
    ///
    /// What bind(2) answers. If it is in use, the error says by what: a living
    /// process, or a file that one left behind when it ended, which is to be
    /// removed. If the name is none; outside a runtime.
    pub fn bind(on: impl ToUnixAddr) -> io::Result<UnixListener> {
        let runtime = crate::runtime()?;
        let socket = bind::listening(Type::STREAM, on)?;
        UnixListener::on(socket.into(), &runtime)
    }

    /// The socket as one of std, in blocking mode, and the connections that
    /// were accepted and not taken yet: on the proactor the runtime accepts
    /// ahead. It comes when the last accept that was given up has ended.
    ///
    /// Dropping the future closes all of them.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set. The socket is closed then.
    pub async fn into_std(self) -> io::Result<(std::os::unix::net::UnixListener, Vec<UnixStream>)> {
        let (fd, accepted) = self.leave().await?;
        Ok((fd.into(), accepted))
    }

    /// Takes a listening std socket over.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
        UnixListener::on(listener.into(), &crate::runtime()?)
    }
}
