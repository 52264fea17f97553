//! Datagrams between local processes.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use isochrome_runtime::Handle;
use libc::c_int;
use socket2::Type;

use super::addr::{Name, ToUnixAddr, local};
use super::cred::peer_process;
use super::{bind, fds};
use crate::datagram::{self, Ports, RECV, Received, message_socket, pair, recv, send, send_to};
use crate::options::{buffer_options, take_error};
use crate::sys;

/// A local socket for datagrams. Unlike UDP's, they keep their order and are
/// not lost: a sender waits until the receiver has room.
///
/// All calls take `&self`; several tasks may send and receive. Each call moves
/// one datagram as a whole, or nothing: dropping a future of this type at any
/// moment neither loses nor duplicates one. A socket that waits owns no buffer.
///
/// Descriptors that come with a datagram are closed unless it is received by
/// [`recv_with_fds`](UnixDatagram::recv_with_fds).
pub struct UnixDatagram {
    ports: Ports,
    /// No more is to be received: to who does not block the kernel does not
    /// say so, but EAGAIN for ever.
    ended: Arc<AtomicBool>,
}

message_socket!(UnixDatagram, ended);
buffer_options!(UnixDatagram);
peer_process!(UnixDatagram);
take_error!(UnixDatagram);

impl UnixDatagram {
    /// A socket with a path, or an abstract name (see [`ToUnixAddr`]). Its file
    /// stays behind when it is closed, unless a
    /// [`SocketFile`](crate::SocketFile) sees to it.
    ///
    /// # Errors
    ///
    /// What bind(2) answers. If it is in use, the error says by what: a living
    /// process, or a file that one left behind when it ended, which is to be
    /// removed. If the name is none; outside a runtime.
    pub fn bind(on: impl ToUnixAddr) -> io::Result<UnixDatagram> {
        let runtime = crate::runtime()?;
        UnixDatagram::on(bind::bound(Type::DGRAM, on)?.into(), &runtime)
    }

    /// A socket without a name, to send from.
    ///
    /// # Errors
    ///
    /// If no descriptor is left, or outside a runtime.
    pub fn unbound() -> io::Result<UnixDatagram> {
        let runtime = crate::runtime()?;
        UnixDatagram::on(bind::socket(Type::DGRAM)?.into(), &runtime)
    }

    /// Two sockets without names, connected to each other: socketpair(2).
    ///
    /// # Errors
    ///
    /// If no descriptor is left, or outside a runtime.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        pair(Type::DGRAM, UnixDatagram::on)
    }

    /// Takes a std socket over.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(socket: std::os::unix::net::UnixDatagram) -> io::Result<UnixDatagram> {
        UnixDatagram::on(socket.into(), &crate::runtime()?)
    }

    /// The socket as one of std, in blocking mode, when the last wait that was
    /// given up has ended. Datagrams that wait in the kernel stay there.
    ///
    /// Dropping the future closes the socket.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set. The socket is closed then.
    pub async fn into_std(self) -> io::Result<std::os::unix::net::UnixDatagram> {
        self.ports.leave().await.map(From::from)
    }

    /// Names the peer: [`send`](UnixDatagram::send) goes to it, and it alone
    /// can send to this socket.
    ///
    /// # Errors
    ///
    /// What connect(2) answers: no such file, not allowed, or refused, and then
    /// whether the file is stale; EPERM if that socket has another peer; if the
    /// name is none.
    pub fn connect(&self, to: impl ToUnixAddr) -> io::Result<()> {
        let name = Name::of(to)?;
        let connected = self.socket().connect(&name.addr);
        connected.map_err(|e| bind::explain_connect(&name, e))
    }

    fn on(fd: OwnedFd, runtime: &Handle) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram {
            ports: Ports::on(fd, runtime)?,
            ended: Arc::default(),
        })
    }

    // -- receiving --------------------------------------------------------

    /// Receives a datagram, and says where it came from: an unnamed address if
    /// the sender has none.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What recvfrom(2) answers.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(Received, SocketAddr)> {
        let call = |fd: BorrowedFd<'_>| self.or_end(recv_from(fd, buf, 0), from_nobody);
        self.ports.reading(call).await
    }

    /// As [`recv_from`](UnixDatagram::recv_from), without the address.
    ///
    /// # Errors
    ///
    /// What recv(2) answers.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        let call = |fd: BorrowedFd<'_>| self.or_end(recv(fd, buf, 0), || Ok(NOTHING));
        self.ports.reading(call).await
    }

    /// As [`recv_from`](UnixDatagram::recv_from), but leaves the datagram where
    /// it is.
    ///
    /// # Errors
    ///
    /// As for `recv_from`.
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(Received, SocketAddr)> {
        let call = |fd: BorrowedFd<'_>| {
            let looked = recv_from(fd, buf, libc::MSG_PEEK);
            self.or_end(looked, from_nobody)
        };
        self.ports.reading(call).await
    }

    /// As [`recv`](UnixDatagram::recv), but leaves the datagram where it is.
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<Received> {
        let call = |fd: BorrowedFd<'_>| self.or_end(recv(fd, buf, libc::MSG_PEEK), || Ok(NOTHING));
        self.ports.reading(call).await
    }

    /// [`recv_from`](UnixDatagram::recv_from) on the spot.
    ///
    /// # Errors
    ///
    /// As for `recv_from`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing
    /// is there.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(Received, SocketAddr)> {
        recv_from(self.as_fd(), buf, 0)
    }

    /// [`recv`](UnixDatagram::recv) on the spot.
    ///
    /// # Errors
    ///
    /// As for `recv`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is
    /// there.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        recv(self.as_fd(), buf, 0)
    }

    /// The poll form of [`recv_from`](UnixDatagram::recv_from), for a single
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
        let call = |fd: BorrowedFd<'_>| self.or_end(recv_from(fd, buf, 0), from_nobody);
        self.ports.poll_read(cx, call)
    }

    /// The poll form of [`recv`](UnixDatagram::recv), for a single receiver:
    /// only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `recv`.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        let call = |fd: BorrowedFd<'_>| self.or_end(recv(fd, buf, 0), || Ok(NOTHING));
        self.ports.poll_read(cx, call)
    }

    /// Receives a datagram, and the descriptors that came with it, which are
    /// close-on-exec.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) answers. The inner error: descriptors are lost, because
    /// the process may not have as many; those that did come are closed then,
    /// and the datagram is there nevertheless.
    pub async fn recv_with_fds(
        &self,
        buf: &mut [u8],
    ) -> io::Result<(Received, SocketAddr, io::Result<Vec<OwnedFd>>)> {
        let room = buf.len();
        let call = |fd: BorrowedFd<'_>| {
            let received = sys::recv_local(fd, buf, RECV).and_then(|(size, beside)| {
                let received = Received::of(size, room);
                Ok((received, local(&beside.from)?, beside.fds))
            });
            let nothing = || from_nobody().map(|(nothing, from)| (nothing, from, Ok(Vec::new())));
            self.or_end(received, nothing)
        };
        self.ports.reading(call).await
    }

    // -- sending ----------------------------------------------------------

    /// Sends a datagram, and says how long it was. Waits for room at the
    /// receiver.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// What sendto(2) answers: no such file, refused (nobody has it open),
    /// EMSGSIZE for what is longer than the send buffer; if the name is none.
    pub async fn send_to(&self, data: &[u8], to: impl ToUnixAddr) -> io::Result<usize> {
        let to = Name::of(to)?.addr;
        self.ports.writing(|fd| send_to(fd, data, &to)).await
    }

    /// As [`send_to`](UnixDatagram::send_to), to the peer of a connected
    /// socket.
    ///
    /// # Errors
    ///
    /// As for `send_to`; ENOTCONN if the socket is not connected.
    pub async fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.ports.writing(|fd| send(fd, data)).await
    }

    /// [`send_to`](UnixDatagram::send_to) on the spot.
    ///
    /// # Errors
    ///
    /// As for `send_to`; [`WouldBlock`](io::ErrorKind::WouldBlock) if there is
    /// no room.
    pub fn try_send_to(&self, data: &[u8], to: impl ToUnixAddr) -> io::Result<usize> {
        send_to(self.as_fd(), data, &Name::of(to)?.addr)
    }

    /// The poll form of [`send_to`](UnixDatagram::send_to), for a single
    /// sender: only the last waker is kept. What is pending has sent nothing.
    ///
    /// # Errors
    ///
    /// As for `send_to`.
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
        to: impl ToUnixAddr,
    ) -> Poll<io::Result<usize>> {
        let to = Name::of(to)?.addr;
        self.ports.poll_write(cx, |fd| send_to(fd, data, &to))
    }

    /// Sends a datagram with copies of the descriptors, to the peer of a
    /// connected socket.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// As for [`send`](UnixDatagram::send); ETOOMANYREFS if too many
    /// descriptors are under way; InvalidInput for more than 253.
    pub async fn send_with_fds(
        &self,
        data: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        let call = |fd: BorrowedFd<'_>| fds::send(fd, data, None, descriptors);
        self.ports.writing(call).await
    }

    /// As [`send_with_fds`](UnixDatagram::send_with_fds), to a name.
    ///
    /// # Errors
    ///
    /// As for `send_with_fds` and [`send_to`](UnixDatagram::send_to).
    pub async fn send_to_with_fds(
        &self,
        data: &[u8],
        to: impl ToUnixAddr,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        let to = Name::of(to)?.addr;
        let call = |fd: BorrowedFd<'_>| fds::send(fd, data, Some(&to), descriptors);
        self.ports.writing(call).await
    }

    // -- the rest ---------------------------------------------------------

    /// Ends one direction or both: shutdown(2). After the reading half was
    /// ended, what is there is received, and then empty datagrams of nobody,
    /// as in std; by the calls that try, `WouldBlock`. (Its
    /// [clones](UnixDatagram::try_clone) know; who has a descriptor of their own,
    /// say by std, tells nobody here.)
    ///
    /// # Errors
    ///
    /// What shutdown(2) answers.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Write {
            // Before the kernel wakes who waits.
            self.ended.store(true, Ordering::SeqCst);
        }
        self.socket().shutdown(how)
    }

    /// What the kernel tells who blocks, once nothing more comes.
    fn or_end<T>(
        &self,
        received: io::Result<T>,
        end: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match received {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                match self.ended.load(Ordering::SeqCst) {
                    true => end(),
                    false => Err(e),
                }
            }
            received => received,
        }
    }

    /// The name of this socket.
    ///
    /// # Errors
    ///
    /// What getsockname(2) answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local(&self.socket().local_addr()?)
    }

    /// The name of the peer that this socket is connected to.
    ///
    /// # Errors
    ///
    /// ENOTCONN if there is none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        local(&self.socket().peer_addr()?)
    }
}

const NOTHING: Received = Received { len: 0, size: 0 };

fn from_nobody() -> io::Result<(Received, SocketAddr)> {
    Ok((NOTHING, SocketAddr::from_pathname("")?))
}

fn recv_from(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: c_int,
) -> io::Result<(Received, SocketAddr)> {
    let (received, from) = datagram::recv_from(fd, buf, flags)?;
    Ok((received, local(&from)?))
}
