//! UDP.

mod message;
mod options;

pub use message::{Arrival, Transmit};

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use libc::c_int;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::addr::{ToAddrs, first_of};
use crate::datagram::{self, Ports, Received, message_socket, recv, send, send_to};

/// A UDP socket.
///
/// All calls take `&self`; several tasks may send and receive. Each call moves
/// one datagram as a whole, or nothing: dropping a future of this type at any
/// moment neither loses nor duplicates one. A socket that waits owns no buffer.
///
/// Datagrams longer than the buffer are cut, as ever, and [`Received`] tells:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use isochrome_net::UdpSocket;
///
/// async fn echo(socket: &UdpSocket) -> std::io::Result<()> {
///     let mut buf = [0; 1500];
///     loop {
///         let (got, from) = socket.recv_from(&mut buf).await?;
///         if !got.truncated() {
///             socket.send_to(&buf[..got.len], from).await?;
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Options that have to be set before the address is bound (SO_REUSEPORT, say)
/// are set on a socket of the crate `socket2`, which is turned into one of std
/// and taken over by [`from_std`](UdpSocket::from_std).
///
/// # Errors
///
/// Beside those that a call names, any call may answer with an error that an
/// earlier datagram met: what a peer's host said by ICMP about a connected
/// socket's datagram (ECONNREFUSED, mostly) is told once, to whoever asks next.
/// After the runtime has ended every call that waits answers ECANCELED.
pub struct UdpSocket {
    ports: Ports,
}

message_socket!(UdpSocket);

impl UdpSocket {
    /// Binds the first of the addresses that `on` stands for that can be had.
    /// Port 0 asks the system for one.
    ///
    /// Dropping the future abandons the look-up of a name.
    ///
    /// # Errors
    ///
    /// That of the last address: in use, mostly, or not of this host; or of
    /// the look-up (see [`resolve`](crate::resolve)); if called outside a
    /// runtime.
    pub async fn bind(on: impl ToAddrs) -> io::Result<UdpSocket> {
        let runtime = crate::runtime()?;
        let bind = |addr: SocketAddr| {
            let kind = Type::DGRAM.cloexec();
            let socket = Socket::new_raw(Domain::for_address(addr), kind, Some(Protocol::UDP))?;
            socket.bind(&addr.into())?;
            let ports = Ports::on(socket.into(), &runtime)?;
            Ok(UdpSocket { ports })
        };
        first_of(on, bind).await
    }

    /// Takes a std socket over.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        let ports = Ports::on(socket.into(), &crate::runtime()?)?;
        Ok(UdpSocket { ports })
    }

    /// The socket as one of std, in blocking mode, when the last wait that was
    /// given up has ended. Datagrams that wait in the kernel stay there.
    ///
    /// Dropping the future closes the socket.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set. The socket is closed then.
    pub async fn into_std(self) -> io::Result<std::net::UdpSocket> {
        self.ports.leave().await.map(From::from)
    }

    /// Names the peer: datagrams of others are not received any more, and
    /// [`send`](UdpSocket::send) goes to it. The first of the addresses that
    /// can be had; nothing is sent by this.
    ///
    /// Dropping the future abandons the look-up of a name.
    ///
    /// # Errors
    ///
    /// That of the last address: no route to it, or of another family than the
    /// socket; or of the look-up (see [`resolve`](crate::resolve)).
    pub async fn connect(&self, to: impl ToAddrs) -> io::Result<()> {
        first_of(to, |addr| self.socket().connect(&addr.into())).await
    }

    // -- receiving --------------------------------------------------------

    /// Receives a datagram, and says where it came from.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What recvfrom(2) answers; see the [type](UdpSocket).
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(Received, SocketAddr)> {
        self.ports.reading(|fd| recv_from(fd, buf, 0)).await
    }

    /// As [`recv_from`](UdpSocket::recv_from), without the address: mostly of
    /// use on connected sockets.
    ///
    /// # Errors
    ///
    /// What recv(2) answers; see the [type](UdpSocket).
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.ports.reading(|fd| recv(fd, buf, 0)).await
    }

    /// As [`recv_from`](UdpSocket::recv_from), but leaves the datagram where it
    /// is. An empty buffer will do to learn how long it is, and of whom.
    ///
    /// # Errors
    ///
    /// As for `recv_from`.
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(Received, SocketAddr)> {
        let call = |fd: BorrowedFd<'_>| recv_from(fd, buf, libc::MSG_PEEK);
        self.ports.reading(call).await
    }

    /// As [`recv`](UdpSocket::recv), but leaves the datagram where it is.
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<Received> {
        let call = |fd: BorrowedFd<'_>| recv(fd, buf, libc::MSG_PEEK);
        self.ports.reading(call).await
    }

    /// [`recv_from`](UdpSocket::recv_from) on the spot.
    ///
    /// # Errors
    ///
    /// As for `recv_from`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing
    /// is there.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(Received, SocketAddr)> {
        recv_from(self.as_fd(), buf, 0)
    }

    /// [`recv`](UdpSocket::recv) on the spot.
    ///
    /// # Errors
    ///
    /// As for `recv`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is
    /// there.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        recv(self.as_fd(), buf, 0)
    }

    /// [`peek_from`](UdpSocket::peek_from) on the spot.
    ///
    /// # Errors
    ///
    /// As for `peek_from`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing
    /// is there.
    pub fn try_peek_from(&self, buf: &mut [u8]) -> io::Result<(Received, SocketAddr)> {
        recv_from(self.as_fd(), buf, libc::MSG_PEEK)
    }

    /// [`peek`](UdpSocket::peek) on the spot.
    ///
    /// # Errors
    ///
    /// As for `peek`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is
    /// there.
    pub fn try_peek(&self, buf: &mut [u8]) -> io::Result<Received> {
        recv(self.as_fd(), buf, libc::MSG_PEEK)
    }

    /// The poll form of [`recv_from`](UdpSocket::recv_from), for a single
    /// receiver: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `recv_from`.
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(Received, SocketAddr)>> {
        self.ports.poll_read(cx, |fd| recv_from(fd, buf, 0))
    }

    /// The poll form of [`recv`](UdpSocket::recv), for a single receiver: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        self.ports.poll_read(cx, |fd| recv(fd, buf, 0))
    }

    /// The poll form of [`peek_from`](UdpSocket::peek_from), for a single
    /// receiver: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `peek_from`.
    pub fn poll_peek_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(Received, SocketAddr)>> {
        let call = |fd: BorrowedFd<'_>| recv_from(fd, buf, libc::MSG_PEEK);
        self.ports.poll_read(cx, call)
    }

    /// The poll form of [`peek`](UdpSocket::peek), for a single receiver: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `peek`.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        let call = |fd: BorrowedFd<'_>| recv(fd, buf, libc::MSG_PEEK);
        self.ports.poll_read(cx, call)
    }

    // -- sending ----------------------------------------------------------

    /// Sends a datagram, and says how long it was. It waits for room in the
    /// send buffer; that the datagram arrives is not known.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// What sendto(2) answers: too long (EMSGSIZE), mostly, or not allowed, as
    /// broadcasts are by default; see the [type](UdpSocket).
    pub async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        let to = to.into();
        self.ports.writing(|fd| send_to(fd, data, &to)).await
    }

    /// As [`send_to`](UdpSocket::send_to), to the peer of a connected socket.
    ///
    /// # Errors
    ///
    /// As for `send_to`; EDESTADDRREQ if the socket is not connected.
    pub async fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.ports.writing(|fd| send(fd, data)).await
    }

    /// [`send_to`](UdpSocket::send_to) on the spot.
    ///
    /// # Errors
    ///
    /// As for `send_to`; [`WouldBlock`](io::ErrorKind::WouldBlock) if there is
    /// no room.
    pub fn try_send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        send_to(self.as_fd(), data, &to.into())
    }

    /// The poll form of [`send_to`](UdpSocket::send_to), for a single sender:
    /// only the last waker is kept. What is pending has sent nothing.
    ///
    /// # Errors
    ///
    /// As for `send_to`.
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let to = to.into();
        self.ports.poll_write(cx, |fd| send_to(fd, data, &to))
    }

    // -- the rest ---------------------------------------------------------

    /// The address that it is bound to, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// What getsockname(2) answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        inet(&self.socket().local_addr()?)
    }

    /// The peer that [`connect`](UdpSocket::connect) named.
    ///
    /// # Errors
    ///
    /// ENOTCONN if it named none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        inet(&self.socket().peer_addr()?)
    }
}

fn inet(addr: &SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an IP socket"))
}

fn recv_from(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: c_int,
) -> io::Result<(Received, SocketAddr)> {
    let (received, from) = datagram::recv_from(fd, buf, flags)?;
    Ok((received, inet(&from)?))
}
