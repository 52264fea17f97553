//! Sockets and names for isochrome.
//!
//! Everything here speaks [operations](isochrome_runtime::op) and knows no
//! driver. All calls take `&self`: a socket can be used by several tasks at
//! once, moved between colors, and polled by any executor; it works on the
//! runtime that it was made in.
//!
//! # What is not here
//!
//! And what to use instead, for who comes from std, tokio or smol:
//!
//! * Timeouts of a socket (`set_read_timeout`):
//!   [`timeout`](isochrome_runtime::time::timeout) around any call. What is
//!   given up is said at each; receiving loses nothing.
//! * `set_nonblocking`: the calls that begin with `try_`. The mode of a socket
//!   is the driver's.
//! * `ready`, `try_io`, `async_io`: `readable` and `writable`, then a call that
//!   tries. Nothing has to be cleared, because each wait asks anew. What they
//!   mean for system calls of one's own is said there; for a descriptor of
//!   another kind there is [`Async`].
//! * `Clone`: `&` and [`Arc`](std::sync::Arc) share a socket between tasks;
//!   `try_clone` makes a second descriptor.
//! * `Into<OwnedFd>`, `IntoRawFd`: `into_std`, which waits for what is in
//!   flight. `FromRawFd`, `From<OwnedFd>`: `from_std` of std's type, which is
//!   made of any descriptor.
//! * `read_buf`, `recv_buf`: [`recv`](StreamSocket::recv) of a stream lends a
//!   buffer of the runtime's; `read_owned` takes one's own along.
//! * Lines, and other buffered reading: the traits of futures or tokio by the
//!   features `futures-io` and `tokio-io`, and their `BufReader`.
//! * Names where datagrams go: [`resolve`] first.
//! * Options that have no method: `socket2::SockRef::from(&socket)`; before a
//!   UDP socket is bound: `socket2`, then `from_std`. Those of a listener
//!   (IPV6_V6ONLY): [`TcpSocket`].

// Allowed in `sys` alone.
#![deny(unsafe_code)]

mod addr;
mod borrowed;
mod connect;
mod control;
mod convert;
mod custom;
mod datagram;
mod family;
mod feed;
pub mod fs;
#[cfg(feature = "futures-io")]
mod futures_io;
mod inherited;
mod listener;
mod options;
pub mod pipe;
#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
mod poll_traits;
mod pressure;
pub mod process;
mod readiness;
mod reading;
mod serve;
mod socket;
mod split;
mod stream;
#[allow(unsafe_code, reason = "the one place for it")]
mod sys;
mod tcp;
#[cfg(feature = "tokio-io")]
mod tokio_io;
mod transfer;
mod udp;
mod unix;

pub use addr::{ToAddrs, resolve};
pub use connect::ConnectError;
pub use custom::Async;
pub use datagram::Received;
pub use family::Family;
pub use inherited::{ListenFd, listen_fds};
pub use isochrome_runtime::buf::{IoBuf, IoBufMut, RecvBuf};
pub use listener::{Incoming, Listener};
pub use options::Keepalive;
pub use serve::{Serve, ServeHandle, ServeStats, Session, serve};
pub use socket::TcpSocket;
pub use split::{ReadHalf, ReadRef, ReuniteError, WriteHalf, WriteRef};
pub use stream::StreamSocket;
pub use tcp::{Tcp, TcpListener, TcpStream};
pub use transfer::{copy, copy_bidirectional, sendfile};
pub use udp::{Arrival, Transmit, UdpSocket};
pub use unix::{
    PeerCred, Seqpacket, SocketFile, ToUnixAddr, Unix, UnixDatagram, UnixListener, UnixSeqpacket,
    UnixSeqpacketListener, UnixStream,
};

use std::io;

use isochrome_runtime::Handle;

/// The runtime that a new socket or file will belong to.
fn runtime() -> io::Result<Handle> {
    Handle::current().ok_or_else(|| {
        io::Error::other("no isochrome runtime on this thread: do this in a task, or in `block_on`")
    })
}
