//! Who is at the other end.

use std::io;
use std::os::fd::AsFd;

use crate::sys;

/// The process that a local socket was connected to, as it was then:
/// SO_PEERCRED in unix(7). For a listener's connections, that is the process
/// that called connect(2); for the other end, the one that called listen(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCred {
    /// Its number; `None` if it is not one of this PID namespace. The process
    /// may have ended, and the number may be another's by now.
    pub pid: Option<i32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

pub(super) fn peer(socket: &impl AsFd) -> io::Result<PeerCred> {
    let cred: libc::ucred = sys::get(socket, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    // What a socket without a peer has: no process, and nobody's user.
    if cred.pid == 0 && cred.uid == u32::MAX {
        return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    }
    Ok(PeerCred {
        pid: (cred.pid != 0).then_some(cred.pid),
        uid: cred.uid,
        gid: cred.gid,
    })
}
