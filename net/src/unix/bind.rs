//! Making local sockets, and saying what stands in the way.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockRef, Socket, Type};

use super::addr::{Name, ToUnixAddr, local};

/// Connections that the kernel completes before they are accepted; it caps the
/// figure at net.core.somaxconn, 4096 by default, see listen(2).
const BACKLOG: i32 = 4096;

pub(super) fn socket(kind: Type) -> io::Result<Socket> {
    Socket::new_raw(Domain::UNIX, kind.cloexec().nonblocking(), None)
}

pub(super) fn bound(kind: Type, on: impl ToUnixAddr) -> io::Result<Socket> {
    let name = Name::of(on)?;
    let socket = socket(kind)?;
    socket
        .bind(&name.addr)
        .map_err(|e| explain_bind(&name, e))?;
    Ok(socket)
}

pub(super) fn listening(kind: Type, on: impl ToUnixAddr) -> io::Result<Socket> {
    let socket = bound(kind, on)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// What is in use, and what to do about it.
fn explain_bind(name: &Name, error: io::Error) -> io::Error {
    if error.kind() != ErrorKind::AddrInUse {
        return error;
    }
    let why = match name.file() {
        None => format!(
            "the abstract name `@{}` is in use",
            name.to_string().trim_start_matches('\0')
        ),
        Some(file) => match what_is(file) {
            Found::Stale => format!(
                "the socket file `{name}` is stale: nobody has it open, so it was left behind by \
                 a process that has ended; remove the file, and bind again"
            ),
            Found::Open => format!("the socket file `{name}` is in use by a living process"),
            Found::Other => format!("`{name}` exists, and is not a socket"),
            Found::Unknown => format!("`{name}` exists, and may be in use"),
        },
    };
    io::Error::new(ErrorKind::AddrInUse, why)
}

/// What connect(2) answered, and what it means.
pub(super) fn explain_connect(name: &Name, error: io::Error) -> io::Error {
    let (kind, Some(file)) = (error.kind(), name.file()) else {
        return error;
    };
    if kind != ErrorKind::ConnectionRefused {
        return error;
    }
    let why = match what_is(file) {
        Found::Stale => format!(
            "the socket file `{name}` is stale: nobody has it open, so it was left behind by a \
             process that has ended"
        ),
        Found::Other => format!("`{name}` is not a socket"),
        Found::Open | Found::Unknown => {
            format!("the socket file `{name}` is open, but nobody listens on it")
        }
    };
    io::Error::new(kind, why)
}

enum Found {
    /// A socket's file, with no socket.
    Stale,
    Open,
    /// Not a socket's file.
    Other,
    /// It may not be looked at.
    Unknown,
}

/// Whether a socket is bound to this file: connect(2) of a datagram socket
/// knows, and a listener does not notice it. (It answers EPROTOTYPE then.)
fn what_is(file: &Path) -> Found {
    match std::fs::metadata(file) {
        Ok(data) if !data.file_type().is_socket() => return Found::Other,
        Ok(_) => {}
        Err(_) => return Found::Unknown,
    }
    let probe = || socket(Type::DGRAM)?.connect(&Name::of(file)?.addr);
    match probe() {
        Ok(()) => Found::Open,
        Err(e) => match e.raw_os_error() {
            Some(libc::ECONNREFUSED) => Found::Stale,
            Some(libc::EPROTOTYPE | libc::EPERM) => Found::Open,
            _ => Found::Unknown,
        },
    }
}

/// The file of a bound socket, removed when this is dropped: files of sockets
/// stay behind otherwise, and the next bind finds them in its way.
///
/// It is removed only if it is still the one that was bound: not what another
/// process has put there since.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number.
    identity: (u64, u64),
}

impl SocketFile {
    /// Of a socket that is bound to a path.
    ///
    /// # Errors
    ///
    /// If it is not bound to a path, or there is no file at it any more.
    pub fn of(socket: &impl AsFd) -> io::Result<SocketFile> {
        let addr = local(&SockRef::from(socket).local_addr()?)?;
        let path = addr.as_pathname().ok_or_else(|| {
            io::Error::new(
                ErrorKind::InvalidInput,
                "the socket has no file: it is not bound to a path",
            )
        })?;
        // Where it is found also from another directory.
        let path = std::path::absolute(path)?;
        let identity = identity(&path)?;
        Ok(SocketFile { path, identity })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let data = std::fs::symlink_metadata(path)?;
    Ok((data.dev(), data.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // An error says that it is gone, or to stay.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
