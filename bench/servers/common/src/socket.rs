//! The listening socket and the limits around it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd};

/// How many connections may wait to be accepted. More than most programs ask
/// for: a measurement that opens thousands at once is about serving them.
pub const BACKLOG: i32 = 4096;

/// A socket that listens on `addr`. Does not return if there is none to be
/// had.
pub fn listen(addr: SocketAddr) -> TcpListener {
    one(addr, false).unwrap_or_else(|e| crate::fail(&format!("cannot listen on {addr}"), e))
}

/// One listening socket for each of `n` threads that share nothing, all on one
/// address: SO_REUSEPORT lets the kernel deal the connections out, which it
/// does by a hash and not evenly.
pub fn listen_each(addr: SocketAddr, n: usize) -> Vec<TcpListener> {
    let all = || -> io::Result<Vec<TcpListener>> {
        let first = one(addr, n > 1)?;
        let addr = first.local_addr()?;
        let mut all = vec![first];
        while all.len() < n {
            all.push(one(addr, true)?);
        }
        Ok(all)
    };
    all().unwrap_or_else(|e| crate::fail(&format!("cannot listen on {addr}"), e))
}

/// Says where the server listens, on stdout and at once; from then on it can
/// be told to end.
pub fn said(listener: &TcpListener) {
    crate::end::when_told();
    match listener.local_addr() {
        Ok(addr) => {
            let mut out = io::stdout().lock();
            // If nobody reads it, that is no reason not to serve.
            let _ = writeln!(out, "listening on {addr}").and_then(|()| out.flush());
        }
        Err(e) => crate::fail("no address", e),
    }
}

fn one(addr: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let SocketAddr::V4(addr) = addr else {
        let what = "the yardstick measures on IPv4";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    };
    // SAFETY: no pointers; the descriptor that comes back is owned at once.
    let listener = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        TcpListener::from_raw_fd(check(libc::socket(libc::AF_INET, kind, 0))?)
    };
    let fd = listener.as_raw_fd();
    set(fd, libc::SO_REUSEADDR)?;
    if share {
        set(fd, libc::SO_REUSEPORT)?;
    }
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*addr.ip()).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the pointer is to a local `sockaddr_in`, of the size given.
    unsafe {
        let len = size_of_val(&name) as libc::socklen_t;
        check(libc::bind(fd, (&raw const name).cast(), len))?;
        check(libc::listen(fd, BACKLOG))?;
    }
    Ok(listener)
}

fn set(fd: i32, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the pointer is to a local int, of the size given.
    check(unsafe {
        let len = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const on).cast(), len)
    })
    .map(drop)
}

fn check(answer: i32) -> io::Result<i32> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        n => Ok(n),
    }
}

/// Raises the soft limit of descriptors to the hard one. A refusal is no
/// error: the server runs with what it has.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls take a pointer to this local, which is an `rlimit`.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
