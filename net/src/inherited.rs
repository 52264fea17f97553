//! Listeners that a service manager hands over: systemd's socket activation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use isochrome_runtime::inherited;
use socket2::{Domain, Protocol, SockRef, Type};

use crate::tcp::TcpListener;
use crate::unix::UnixListener;

/// Takes the descriptors that were handed over to this process, as
/// sd_listen_fds(3) describes it: `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`.
/// The first call gets them all, later ones none; so does a process that was
/// given none. They are close-on-exec then, and the environment is left as it
/// is.
///
/// It has to be called before anyone else takes these descriptors over, best
/// first of all in `main`. What of them is not used is closed when it is
/// dropped.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use isochrome_net::{TcpListener, listen_fds};
///
/// let given = listen_fds()?.into_iter().find(|given| given.name() == "web");
/// let listener = match given {
///     Some(given) => given.into_tcp_listener()?,
///     None => TcpListener::bind("127.0.0.1:8080").await?,
/// };
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If a variable says what it must not, or a descriptor is not open.
pub fn listen_fds() -> io::Result<Vec<ListenFd>> {
    let taken = inherited::take()?.into_iter();
    Ok(taken.map(|(name, fd)| ListenFd { name, fd }).collect())
}

/// A descriptor that was handed over: [`listen_fds`]. One that is neither kind
/// of listener is had as an [`OwnedFd`]: a UDP socket, say, is
/// `UdpSocket::from_std(OwnedFd::from(given).into())`.
#[derive(Debug)]
pub struct ListenFd {
    name: String,
    fd: OwnedFd,
}

impl ListenFd {
    /// What the service manager calls it (`FileDescriptorName=`), `unknown` if
    /// it says nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a TCP socket that listens.
    pub fn is_tcp_listener(&self) -> bool {
        let socket = SockRef::from(&self.fd);
        let inet = socket
            .domain()
            .is_ok_and(|d| d == Domain::IPV4 || d == Domain::IPV6);
        let tcp = socket.protocol().is_ok_and(|p| p == Some(Protocol::TCP));
        inet && tcp && socket.is_listener().unwrap_or(false)
    }

    /// Accepts from it.
    ///
    /// # Errors
    ///
    /// If it is no TCP socket that listens: the error names it, and it is
    /// closed. If its mode cannot be set; outside a runtime.
    pub fn into_tcp_listener(self) -> io::Result<TcpListener> {
        if !self.is_tcp_listener() {
            return Err(self.is_no("listening TCP socket"));
        }
        TcpListener::on(self.fd, &crate::runtime()?)
    }

    /// Whether it is a local stream socket that listens.
    pub fn is_unix_listener(&self) -> bool {
        let socket = SockRef::from(&self.fd);
        let local = socket.domain().is_ok_and(|d| d == Domain::UNIX);
        let stream = socket.r#type().is_ok_and(|t| t == Type::STREAM);
        local && stream && socket.is_listener().unwrap_or(false)
    }

    /// As [`into_tcp_listener`](ListenFd::into_tcp_listener), for a local
    /// stream socket.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn into_unix_listener(self) -> io::Result<UnixListener> {
        if !self.is_unix_listener() {
            return Err(self.is_no("listening Unix stream socket"));
        }
        UnixListener::on(self.fd, &crate::runtime()?)
    }

    fn is_no(&self, kind: &str) -> io::Error {
        let message = format!("`{}`, which was handed over, is no {kind}", self.name);
        io::Error::new(io::ErrorKind::InvalidInput, message)
    }
}

impl AsFd for ListenFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<ListenFd> for OwnedFd {
    fn from(given: ListenFd) -> OwnedFd {
        given.fd
    }
}
