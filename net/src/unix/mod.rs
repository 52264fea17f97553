//! Local sockets: unix(7).

mod addr;
mod bind;
mod cred;
mod datagram;
mod fds;
mod seqpacket;
mod stream;

pub use addr::ToUnixAddr;
pub use bind::SocketFile;
pub use cred::PeerCred;
pub use datagram::UnixDatagram;
pub use seqpacket::{Seqpacket, UnixSeqpacket, UnixSeqpacketListener};
pub use stream::{Unix, UnixListener, UnixStream};

use std::io;
use std::time::Duration;

use isochrome_runtime::Handle;
use socket2::Socket;

use addr::Name;

/// Between two attempts to connect to a listener whose queue is full: at first,
/// and at most. From thin air: short beside what a full queue means for the
/// time until a connection is accepted.
const REST: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// Connects a socket, which is non-blocking. connect(2) of a local socket is done on the spot or not at all;
/// if the listener's queue is full, the kernel tells nobody when that is over,
/// so that it is tried again and again.
async fn connected(socket: Socket, to: impl ToUnixAddr, runtime: &Handle) -> io::Result<Socket> {
    let name = Name::of(to)?;
    let (mut rest, longest) = REST;
    loop {
        match socket.connect(&name.addr) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(bind::explain_connect(&name, e)),
            Ok(()) => return Ok(socket),
        }
        runtime.sleep_until(std::time::Instant::now() + rest).await;
        rest = (rest * 2).min(longest);
    }
}
