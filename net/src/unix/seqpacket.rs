//! Connections between local processes that keep the boundaries of messages.
//!
//! The kernel answers 0 for an empty message and for the end alike. They are
//! told apart by what comes beside: the socket asks for timestamps, and only a
//! message has one. (For local sockets that costs one look at the clock a
//! message, and nothing elsewhere in the system.)

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::task::{Context, Poll};

use isochrome_runtime::{Descriptor, DescriptorRef, Handle};
use socket2::{SockAddr, SockRef, Type};

use super::addr::{ToUnixAddr, local};
use super::cred::peer_process;
use super::{bind, connected, fds};
use crate::datagram::{Ports, RECV, Received, message_socket, pair, send};
use crate::family::{Family, sealed};
use crate::listener::Listener;
use crate::options::{buffer_options, take_error};
use crate::sys::{self, Beside};

/// The family of local sockets that are connections and keep the boundaries of
/// messages.
#[derive(Debug)]
pub enum Seqpacket {}

impl sealed::Sealed for Seqpacket {}

impl Family for Seqpacket {
    type Addr = SocketAddr;
    type Connection = UnixSeqpacket;
    const CONNECTION: &'static str = "UnixSeqpacket";
    const LISTENER: &'static str = "UnixSeqpacketListener";

    fn addr(addr: SockAddr) -> io::Result<SocketAddr> {
        local(&addr)
    }

    fn accepted(fd: OwnedFd, runtime: &Handle) -> UnixSeqpacket {
        UnixSeqpacket::on(Descriptor::local(fd, runtime))
    }
}

/// A local socket that listens for [`UnixSeqpacket`]. Its file stays behind when
/// it is closed, unless a [`SocketFile`](crate::SocketFile) sees to it.
pub type UnixSeqpacketListener = Listener<Seqpacket>;

/// A connection between local processes that keeps the boundaries of messages:
/// one send is one receive. They keep their order and are not lost: a sender
/// waits until the receiver has room.
///
/// All calls take `&self`; several tasks may send and receive. Each call moves
/// one message as a whole, or nothing: dropping a future of this type at any
/// moment neither loses nor duplicates one. A socket that waits owns no buffer.
///
/// Descriptors that come with a message are closed unless it is received by
/// [`recv_with_fds`](UnixSeqpacket::recv_with_fds).
pub struct UnixSeqpacket {
    ports: Ports,
}

message_socket!(UnixSeqpacket);
buffer_options!(UnixSeqpacket);
peer_process!(UnixSeqpacket);
take_error!(UnixSeqpacket);
take_error!(UnixSeqpacketListener);

impl UnixSeqpacket {
    /// Connects to a listener. If its queue is full, it is tried again until
    /// there is room.
    ///
    /// Dropping the future gives the attempt up and closes its socket.
    ///
    /// # Errors
    ///
    /// What connect(2) answers: no such file, not allowed, or refused, and then
    /// whether the file is stale; if the name is none; outside a runtime.
    pub async fn connect(to: impl ToUnixAddr) -> io::Result<UnixSeqpacket> {
        let runtime = crate::runtime()?;
        let socket = connected(bind::socket(Type::SEQPACKET)?, to, &runtime).await?;
        Ok(UnixSeqpacket::on(Descriptor::new(socket.into(), &runtime)?))
    }

    /// As [`connect`](UnixSeqpacket::connect), from a name of one's own, which the other
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
    ) -> io::Result<UnixSeqpacket> {
        let runtime = crate::runtime()?;
        let socket = connected(bind::bound(Type::SEQPACKET, from)?, to, &runtime).await?;
        Ok(UnixSeqpacket::on(Descriptor::new(socket.into(), &runtime)?))
    }

    /// Both ends of a new connection without a name: socketpair(2).
    ///
    /// # Errors
    ///
    /// If no descriptor is left, or outside a runtime.
    pub fn pair() -> io::Result<(UnixSeqpacket, UnixSeqpacket)> {
        pair(Type::SEQPACKET, |fd, runtime| {
            Ok(UnixSeqpacket::on(Descriptor::new(fd, runtime)?))
        })
    }

    /// Takes a connected socket over: std has no type for these.
    ///
    /// # Errors
    ///
    /// If it is not a local socket of this kind, if its mode cannot be set, or
    /// outside a runtime.
    pub fn from_fd(fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        check(&fd)?;
        let descriptor = Descriptor::new(fd, &crate::runtime()?)?;
        Ok(UnixSeqpacket::on(descriptor))
    }

    /// The socket itself, in blocking mode, when the last wait that was given
    /// up has ended: std has no type for these. Messages that wait in the
    /// kernel stay there, and timestamps are off (SO_TIMESTAMPNS): also for
    /// [clones](UnixSeqpacket::try_clone), to which an empty message looks like
    /// the end then.
    ///
    /// Dropping the future closes the socket.
    ///
    /// # Errors
    ///
    /// If its mode or the option cannot be set. The socket is closed then.
    pub async fn into_fd(self) -> io::Result<OwnedFd> {
        let fd = self.ports.leave().await?;
        sys::set(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)?;
        Ok(fd)
    }

    fn on(descriptor: DescriptorRef) -> UnixSeqpacket {
        // If this were refused, an empty message would be taken for the end.
        // It is not: every kernel has it, and it takes no memory.
        let _ = sys::set(&descriptor, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        UnixSeqpacket {
            ports: Ports::of(descriptor),
        }
    }

    /// Receives a message; `None` is the end: the peer has closed its side, and
    /// no message is left. (Empty messages are messages.)
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) answers. A peer that closed with messages unread makes
    /// it ECONNRESET, once.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<Option<Received>> {
        let received = self.ports.reading(|fd| recv(fd, buf, 0)).await?;
        Ok(received.map(|(received, _)| received))
    }

    /// As [`recv`](UnixSeqpacket::recv), but leaves the message where it is.
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<Option<Received>> {
        let call = |fd: BorrowedFd<'_>| recv(fd, buf, libc::MSG_PEEK);
        let received = self.ports.reading(call).await?;
        Ok(received.map(|(received, _)| received))
    }

    /// [`recv`](UnixSeqpacket::recv) on the spot.
    ///
    /// # Errors
    ///
    /// As for `recv`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is
    /// there.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<Option<Received>> {
        let received = recv(self.as_fd(), buf, 0)?;
        Ok(received.map(|(received, _)| received))
    }

    /// The poll form of [`recv`](UnixSeqpacket::recv), for a single receiver:
    /// only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<Option<Received>>> {
        let received = self.ports.poll_read(cx, |fd| recv(fd, buf, 0));
        received.map_ok(|received| received.map(|(received, _)| received))
    }

    /// Receives a message, and the descriptors that came with it, which are
    /// close-on-exec. `None` is the end.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As for [`recv`](UnixSeqpacket::recv). The inner error: descriptors are
    /// lost, because the process may not have as many; those that did come are
    /// closed then, and the message is there nevertheless.
    pub async fn recv_with_fds(
        &self,
        buf: &mut [u8],
    ) -> io::Result<Option<(Received, io::Result<Vec<OwnedFd>>)>> {
        let received = self.ports.reading(|fd| recv(fd, buf, 0)).await?;
        Ok(received.map(|(received, beside)| (received, beside.fds)))
    }

    /// Sends a message, and says how long it was. Waits for room at the
    /// receiver.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// What send(2) answers: EMSGSIZE for what is longer than the send buffer.
    /// A broken pipe is an error, never a signal.
    pub async fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.ports.writing(|fd| send(fd, data)).await
    }

    /// Sends a message with copies of the descriptors.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// As for [`send`](UnixSeqpacket::send); ETOOMANYREFS if too many
    /// descriptors are under way; InvalidInput for more than 253.
    pub async fn send_with_fds(
        &self,
        data: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        let call = |fd: BorrowedFd<'_>| fds::send(fd, data, None, descriptors);
        self.ports.writing(call).await
    }

    /// Ends one direction or both: shutdown(2). Ending the writing half tells
    /// the peer that no more will come.
    ///
    /// # Errors
    ///
    /// What shutdown(2) answers.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket().shutdown(how)
    }

    /// The name of this end.
    ///
    /// # Errors
    ///
    /// What getsockname(2) answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local(&self.socket().local_addr()?)
    }

    /// The name of the other end.
    ///
    /// # Errors
    ///
    /// What getpeername(2) answers.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        local(&self.socket().peer_addr()?)
    }
}

impl UnixSeqpacketListener {
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
    pub fn bind(on: impl ToUnixAddr) -> io::Result<UnixSeqpacketListener> {
        let runtime = crate::runtime()?;
        let socket = bind::listening(Type::SEQPACKET, on)?;
        UnixSeqpacketListener::on(socket.into(), &runtime)
    }

    /// Takes a listening socket over: std has no type for these.
    ///
    /// # Errors
    ///
    /// If it is not a local socket of this kind, if its mode cannot be set, or
    /// outside a runtime.
    pub fn from_fd(fd: OwnedFd) -> io::Result<UnixSeqpacketListener> {
        check(&fd)?;
        UnixSeqpacketListener::on(fd, &crate::runtime()?)
    }

    /// As [`UnixListener::into_std`](crate::UnixListener::into_std): std has no
    /// type for these.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn into_fd(self) -> io::Result<(OwnedFd, Vec<UnixSeqpacket>)> {
        self.leave().await
    }
}

/// Whether it is what its new type says.
fn check(fd: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(fd);
    if socket.domain()? == socket2::Domain::UNIX && socket.r#type()? == Type::SEQPACKET {
        return Ok(());
    }
    let message = "not a local socket of the type SOCK_SEQPACKET";
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// `None`: the end, of which nothing is told.
fn recv(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: libc::c_int,
) -> io::Result<Option<(Received, Beside)>> {
    let room = buf.len();
    let (size, beside) = sys::recv_local(fd, buf, RECV | flags)?;
    if size == 0 && !beside.told {
        return Ok(None);
    }
    Ok(Some((Received::of(size, room), beside)))
}
