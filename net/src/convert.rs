//! `TryFrom` for who expects it: each is `from_std`, or `from_fd`. The other way
//! has to wait for what is in flight, and is `into_std`, `into_fd` or
//! `into_blocking_fd`: there is no `Into<OwnedFd>`, which cannot wait.

use std::io;
use std::os::fd::OwnedFd;

use crate::pipe::{Receiver, Sender};
use crate::{
    TcpListener, TcpSocket, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixSeqpacket,
    UnixSeqpacketListener, UnixStream,
};

macro_rules! try_from {
    ($($ours:ty, $from:ty: $how:ident;)*) => {$(
        impl TryFrom<$from> for $ours {
            type Error = io::Error;

            #[doc = concat!("[`", stringify!($how), "`](Self::", stringify!($how), ").")]
            fn try_from(from: $from) -> io::Result<Self> {
                Self::$how(from)
            }
        }
    )*};
}

try_from! {
    TcpStream, std::net::TcpStream: from_std;
    TcpListener, std::net::TcpListener: from_std;
    TcpSocket, OwnedFd: from_fd;
    UdpSocket, std::net::UdpSocket: from_std;
    UnixStream, std::os::unix::net::UnixStream: from_std;
    UnixListener, std::os::unix::net::UnixListener: from_std;
    UnixDatagram, std::os::unix::net::UnixDatagram: from_std;
    UnixSeqpacket, OwnedFd: from_fd;
    UnixSeqpacketListener, OwnedFd: from_fd;
    Receiver, std::process::ChildStdout: from_fd;
    Receiver, std::process::ChildStderr: from_fd;
    Sender, std::process::ChildStdin: from_fd;
}
