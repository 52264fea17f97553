//! What the families of sockets differ in, for the types that they share.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use isochrome_runtime::Handle;
use socket2::SockAddr;

use crate::tcp::TcpStream;

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// A family of sockets with connections, such as [`Tcp`](crate::Tcp). It is
/// sealed.
pub trait Family: sealed::Sealed + Sized + 'static {
    /// Its addresses.
    type Addr: Clone + fmt::Debug + Send + Sync;

    /// What a listener accepts.
    type Connection: AsFd + Send + Sync;

    /// What a connection is called.
    #[doc(hidden)]
    const CONNECTION: &'static str;

    /// What a listener is called.
    #[doc(hidden)]
    const LISTENER: &'static str;

    #[doc(hidden)]
    fn addr(addr: SockAddr) -> io::Result<Self::Addr>;

    /// What an accept gave, which is in the mode that the driver needs.
    #[doc(hidden)]
    fn accepted(fd: OwnedFd, runtime: &Handle) -> Self::Connection;

    /// The connection, if it is one of TCP, of which the kernel knows more.
    #[doc(hidden)]
    fn as_tcp(_: &Self::Connection) -> Option<&TcpStream> {
        None
    }
}
