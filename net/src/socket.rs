//! A TCP socket before it is connected or listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use isochrome_runtime::{Descriptor, Handle, fast_open};
use socket2::{Protocol, SockRef, Socket};

use crate::family::Family;
use crate::options::{device_options, option, socket_options, stream_options};
use crate::tcp::{Tcp, TcpListener, TcpStream, new_socket};

/// A TCP socket that is neither connected nor listens yet, so that it can be
/// given options that these need before.
///
/// What is set here, connections that a listener accepts have too, but for the
/// times of acknowledgements: Linux hands options on.
///
/// ```no_run
/// # use isochrome_net::{Keepalive, TcpListener, TcpSocket, TcpStream};
/// # use std::time::Duration;
/// # async fn example() -> std::io::Result<()> {
/// let socket = TcpSocket::v4()?;
/// socket.set_reuse_address(true)?;
/// socket.set_keepalive(Some(Keepalive { time: Duration::from_secs(60), ..Keepalive::default() }))?;
/// socket.bind("0.0.0.0:7777".parse().unwrap())?;
/// let listener: TcpListener = socket.listen(1024)?;
///
/// let socket = TcpSocket::v4()?;
/// socket.set_nodelay(true)?;
/// let stream: TcpStream = socket.connect("192.0.2.1:80".parse().unwrap()).await?;
/// # Ok(())
/// # }
/// ```
pub struct TcpSocket {
    socket: Socket,
    runtime: Handle,
}

impl TcpSocket {
    /// A socket for IPv4.
    ///
    /// # Errors
    ///
    /// What socket(2) answers; if called outside a runtime.
    pub fn v4() -> io::Result<TcpSocket> {
        TcpSocket::like(([0; 4], 0).into())
    }

    /// A socket for IPv6.
    ///
    /// # Errors
    ///
    /// What socket(2) answers; if called outside a runtime.
    pub fn v6() -> io::Result<TcpSocket> {
        TcpSocket::like(([0; 16], 0).into())
    }

    /// A socket of the family of this address.
    ///
    /// # Errors
    ///
    /// What socket(2) answers; if called outside a runtime.
    pub fn like(address: SocketAddr) -> io::Result<TcpSocket> {
        let runtime = crate::runtime()?;
        Ok(TcpSocket {
            socket: new_socket(address, &runtime)?,
            runtime,
        })
    }

    /// Takes over a TCP socket that is neither connected nor listens: one that
    /// `socket2` has made and set, say.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is no TCP socket; if
    /// its mode cannot be set; if called outside a runtime.
    pub fn from_fd(fd: OwnedFd) -> io::Result<TcpSocket> {
        let runtime = crate::runtime()?;
        let socket = Socket::from(fd);
        if socket.protocol().ok().flatten() != Some(Protocol::TCP) {
            let message = "this descriptor is no TCP socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        socket.set_nonblocking(runtime.by_readiness())?;
        Ok(TcpSocket { socket, runtime })
    }

    /// Gives it an address on this host. Port 0 asks the system for one.
    ///
    /// # Errors
    ///
    /// What bind(2) answers: in use, not of this host, or not allowed.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        self.socket.bind(&address.into())
    }

    /// Connects it.
    ///
    /// Dropping the future gives the attempt up and closes the socket. For a
    /// time limit use [`timeout`](isochrome_runtime::time::timeout).
    ///
    /// # Errors
    ///
    /// What connect(2) answers; the socket is closed then, because its state
    /// is undefined.
    pub async fn connect(self, to: SocketAddr) -> io::Result<TcpStream> {
        let descriptor = Descriptor::tcp(self.socket.into(), &self.runtime);
        TcpStream::connected(descriptor, to).await
    }

    /// Listens. The kernel completes `backlog` connections, and no more than
    /// net.core.somaxconn, before they are accepted: listen(2).
    ///
    /// # Errors
    ///
    /// What listen(2) answers: the address is in use, mostly.
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        self.socket.listen(backlog)?;
        TcpListener::on(self.socket.into(), &self.runtime)
    }

    /// The address that it was bound to.
    ///
    /// # Errors
    ///
    /// What getsockname(2) answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Tcp::addr(self.socket.local_addr()?)
    }

    option!(
        /// Whether it may be bound to an address that old connections still
        /// have: SO_REUSEADDR in socket(7). Servers want it.
        set_reuse_address, reuse_address: bool,
        |s, on| s.set_reuse_address(on),
        |s| s.reuse_address()
    );
    option!(
        /// Whether several sockets may be bound to the same address, each with
        /// this option set: SO_REUSEPORT in socket(7). The kernel gives each of
        /// those that listen a share of the connections.
        set_reuse_port, reuse_port: bool,
        |s, on| s.set_reuse_port(on),
        |s| s.reuse_port()
    );
    option!(
        /// Whether an IPv6 socket keeps to IPv6: IPV6_V6ONLY in ipv6(7).
        set_only_v6, only_v6: bool,
        |s, on| s.set_only_v6(on),
        |s| s.only_v6()
    );
    option!(
        /// How many connections may wait at a listener that brought data with
        /// their SYN, as TCP Fast Open has it: TCP_FASTOPEN in tcp(7). Clients
        /// may repeat that data, and net.ipv4.tcp_fastopen has to allow it.
        set_fast_open_queue, fast_open_queue: u32,
        |s, len| fast_open::set_queue(s.as_fd(), len),
        |s| fast_open::queue(s.as_fd())
    );
    option!(
        /// Whether connecting is over at once, and the first data goes with the
        /// SYN if the other end allows it: TCP_FASTOPEN_CONNECT in tcp(7). What
        /// is wrong with the connection is then told by the first send.
        set_fast_open_connect, fast_open_connect: bool,
        |s, on| fast_open::set_connect(s.as_fd(), on),
        |s| fast_open::connect(s.as_fd())
    );

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.socket)
    }
}

socket_options!(TcpSocket);
stream_options!(TcpSocket);
device_options!(TcpSocket);

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl fmt::Debug for TcpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpSocket")
            .field("fd", &self.as_raw_fd())
            .field("local", &self.local_addr().ok())
            .finish()
    }
}
