//! TCP: what is its own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use isochrome_runtime::op::{Address, Op};
use isochrome_runtime::{Descriptor, DescriptorRef, Handle};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::addr::{ToAddrs, first_of};
use crate::connect;
use crate::family::{Family, sealed};
use crate::listener::Listener;
use crate::options::{socket_options, stream_options};
use crate::stream::StreamSocket;

/// Connections that the kernel completes before they are accepted; it caps the
/// figure at net.core.somaxconn, 4096 by default, see listen(2).
const BACKLOG: i32 = 4096;

/// The family of TCP sockets.
#[derive(Debug)]
pub enum Tcp {}

impl sealed::Sealed for Tcp {}

impl Family for Tcp {
    type Addr = SocketAddr;
    type Connection = TcpStream;
    const CONNECTION: &'static str = "TcpStream";
    const LISTENER: &'static str = "TcpListener";

    fn addr(addr: SockAddr) -> io::Result<SocketAddr> {
        addr.as_socket()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an IP socket"))
    }

    fn accepted(fd: OwnedFd, runtime: &Handle) -> TcpStream {
        TcpStream::on(Descriptor::tcp(fd, runtime))
    }

    fn as_tcp(connection: &TcpStream) -> Option<&TcpStream> {
        Some(connection)
    }
}

/// A TCP connection.
pub type TcpStream = StreamSocket<Tcp>;

/// A TCP socket that listens.
pub type TcpListener = Listener<Tcp>;

impl TcpStream {
    /// Connects to one of the addresses that `to` stands for. Of several, the
    /// families take turns; an attempt that has no result after 250 ms goes on
    /// beside the next, and the first connection wins: RFC 8305, "Happy
    /// Eyeballs".
    ///
    /// Dropping the future gives the attempts up and closes their sockets.
    ///
    /// # Errors
    ///
    /// Of one address, what connect(2) answers. Of several, a
    /// [`ConnectError`](crate::ConnectError) that has each address's error; its
    /// kind is that of the last that got as far as the other host. Those of the
    /// look-up (see [`resolve`](crate::resolve)); if called outside a runtime.
    pub async fn connect(to: impl ToAddrs) -> io::Result<TcpStream> {
        connect::connect(to).await
    }

    /// As [`connect`](TcpStream::connect), within a time limit: of all
    /// attempts together, and of the look-up of the name.
    ///
    /// # Errors
    ///
    /// As for `connect`, and `TimedOut` when the time is over: it says what
    /// took so long, and of several addresses what the others had answered. A
    /// limit of zero is refused, as std does.
    pub async fn connect_timeout(to: impl ToAddrs, limit: Duration) -> io::Result<TcpStream> {
        connect::connect_timeout(to, limit).await
    }

    /// Connects a socket, which is closed if that fails or is given up.
    pub(crate) async fn connected(
        descriptor: DescriptorRef,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        let stream = TcpStream::on(descriptor);
        let address = Box::new(Address::from(to));
        let (connected, _) = stream.ports.send().run(Op::Connect(address)).await;
        connected.map(|_| stream)
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
    pub async fn into_std(self) -> io::Result<(std::net::TcpStream, Vec<u8>)> {
        let (fd, received) = self.leave().await?;
        Ok((fd.into(), received))
    }

    /// Takes a connected std socket over.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        let descriptor = Descriptor::new(stream.into(), &crate::runtime()?)?;
        Ok(TcpStream::on(descriptor))
    }
}

socket_options!(TcpStream);
stream_options!(TcpStream);
socket_options!(TcpListener);

impl TcpListener {
    /// Listens on the first of the addresses that `on` stands for that can be
    /// had. Port 0 asks the system for one. SO_REUSEADDR is set, as in std, so
    /// that a server can be restarted at once.
    ///
    /// Dropping the future abandons the look-up of a name.
    ///
    /// # Errors
    ///
    /// That of the last address: in use, mostly, or not allowed; or of the
    /// look-up (see [`resolve`](crate::resolve)); if called outside a runtime.
    pub async fn bind(on: impl ToAddrs) -> io::Result<TcpListener> {
        let runtime = crate::runtime()?;
        first_of(on, |addr| bind_one(addr, false, &runtime)).await
    }

    /// A listener for each worker, all on one address (SO_REUSEPORT): the
    /// kernel gives each a share of the connections, by a hash of the addresses
    /// of both ends. Each is to be accepted from, best on its worker:
    ///
    /// ```no_run
    /// # async fn serve(_: isochrome_net::TcpStream) {}
    /// # async fn example() -> std::io::Result<()> {
    /// use isochrome_net::TcpListener;
    /// use isochrome_runtime::{Handle, spawn_apart};
    ///
    /// let runtime = Handle::current().expect("in a task");
    /// let group = TcpListener::bind_group("0.0.0.0:7777").await?;
    /// for (worker, listener) in group.into_iter().enumerate() {
    ///     drop(runtime.spawn_pinned(worker, async move {
    ///         while let Ok((stream, _)) = listener.accept().await {
    ///             drop(spawn_apart(serve(stream)));
    ///         }
    ///     }));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A connection's task begins where it was accepted then, and its I/O is
    /// with that worker's driver; an idle worker may still take the task over.
    /// Without stealing, or with
    /// [`spawn_local`](isochrome_runtime::spawn_local), it stays.
    ///
    /// Closing one of them resets the connections that wait at it. Dropping the
    /// future abandons the look-up of a name.
    ///
    /// # Errors
    ///
    /// As for [`bind`](TcpListener::bind).
    pub async fn bind_group(on: impl ToAddrs) -> io::Result<Vec<TcpListener>> {
        let runtime = crate::runtime()?;
        let first = first_of(on, |addr| bind_one(addr, true, &runtime)).await?;
        let address = first.local_addr()?;
        let mut group = vec![first];
        while group.len() < runtime.workers() {
            group.push(bind_one(address, true, &runtime)?);
        }
        Ok(group)
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
    pub async fn into_std(self) -> io::Result<(std::net::TcpListener, Vec<TcpStream>)> {
        let (fd, accepted) = self.leave().await?;
        Ok((fd.into(), accepted))
    }

    /// Takes a listening std socket over.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        TcpListener::on(listener.into(), &crate::runtime()?)
    }
}

fn bind_one(addr: SocketAddr, shared: bool, runtime: &Handle) -> io::Result<TcpListener> {
    let socket = new_socket(addr, runtime)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::on(socket.into(), runtime)
}

/// A TCP socket in the mode that the runtime's driver needs.
pub(crate) fn new_socket(addr: SocketAddr, runtime: &Handle) -> io::Result<Socket> {
    let mut kind = Type::STREAM.cloexec();
    if runtime.by_readiness() {
        kind = kind.nonblocking();
    }
    Socket::new_raw(Domain::for_address(addr), kind, Some(Protocol::TCP))
}
