//! Sockets and names for isochrome.
//!
//! Everything here speaks [operations](isochrome_runtime::op) and knows no
//! driver. All calls take `&self`: a socket can be used by several tasks at
//! once, moved between colors, and polled by any executor; it works on the
//! runtime that it was made in.

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

/// The runtime that a new socket will belong to.
fn runtime() -> io::Result<Handle> {
    Handle::current().ok_or_else(|| {
        io::Error::other(
            "no isochrome runtime on this thread: make sockets in a task, or in `block_on`",
        )
    })
}
