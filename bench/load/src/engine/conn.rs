//! A connection: its socket, its place in the stream, what it owes.
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No socket: not begun, lost, or between two sessions.
    Vacant,
    Connecting,
    /// Connected; the protocol's greeting has not come.
    Greeting,
    Ready,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) socket: Option<OwnedFd>,
    pub(super) state: State,
    pub(super) generation: u32,
    pub(super) idle: bool,
    /// When its connect began.
    pub(super) begun: u64,
    /// Stream offsets: written, to be written, received.
    pub(super) sent: u64,
    pub(super) owed: u64,
    pub(super) received: u64,
    /// Messages begun and answered on this socket.
    pub(super) messages: u64,
    pub(super) replies: u64,
    /// Intended times of what was sent, and of what waits for its turn.
    pub(super) in_flight: VecDeque<u64>,
    pub(super) backlog: VecDeque<u64>,
    pub(super) served_in_window: bool,
}

impl Conn {
    pub(super) fn new(idle: bool) -> Self {
        Self {
            socket: None,
            state: State::Vacant,
            generation: 0,
            idle,
            begun: 0,
            sent: 0,
            owed: 0,
            received: 0,
            messages: 0,
            replies: 0,
            in_flight: VecDeque::new(),
            backlog: VecDeque::new(),
            served_in_window: false,
        }
    }
}

/// Begins a connect, and asks for the events of it.
pub(super) fn open(
    epoll: &Epoll,
    addr: SocketAddr,
    slot: usize,
    generation: u32,
) -> nix::Result<OwnedFd> {
    let family = if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    // Registered once the connect has begun: a new socket reports HUP.
    let events =
        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    epoll.add(
        &socket,
        EpollEvent::new(events, slot as u64 | u64::from(generation) << 32),
    )?;
    Ok(socket)
}
