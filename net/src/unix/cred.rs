//! Who is at the other end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

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

pub(super) fn pidfd(socket: &impl AsFd) -> io::Result<OwnedFd> {
    sys::peer_pidfd(socket).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel gives no pidfd of a peer: SO_PEERPIDFD takes Linux 6.5",
        ),
        Some(libc::ENODATA) => io::Error::from_raw_os_error(libc::ENOTCONN),
        // What kernels before 6.15 say of a process that is gone.
        Some(libc::EINVAL) => io::Error::from_raw_os_error(libc::ESRCH),
        _ => e,
    })
}

/// Who is at the other end of sockets that can be connected.
macro_rules! peer_process {
    ($type:ident) => {
        impl $type {
            /// The process at the other end, as it was when they were connected.
            /// (Of datagram sockets the kernel knows it for the two of a pair
            /// only.)
            ///
            /// # Errors
            ///
            /// ENOTCONN if none is known.
            pub fn peer_cred(&self) -> ::std::io::Result<crate::PeerCred> {
                crate::unix::cred::peer(self)
            }

            /// The same process by a pidfd, which stays of that process and no
            /// other when it has ended and its number is used again: see
            /// pidfd_open(2), and SO_PEERPIDFD, which is in Linux since 6.5.
            /// It is readable when the process has ended
            /// ([`Async`](crate::Async)), and close-on-exec.
            ///
            /// # Errors
            ///
            /// [`Unsupported`](std::io::ErrorKind::Unsupported) on an older
            /// kernel; ENOTCONN if no process is known; ESRCH if it has ended
            /// and was waited for, which newer kernels do not mind; if no
            /// descriptor is left.
            pub fn peer_pidfd(&self) -> ::std::io::Result<::std::os::fd::OwnedFd> {
                crate::unix::cred::pidfd(self)
            }
        }
    };
}

pub(super) use peer_process;
