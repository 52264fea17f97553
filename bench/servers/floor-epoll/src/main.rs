//! The floor of the reactor: an echo server on edge-triggered epoll, without a
//! runtime. What a runtime costs is what it adds to this.
//!
//! One thread, one epoll instance, one `epoll_wait` per turn. A connection is
//! registered once. On readiness it receives into the thread's one scratch
//! buffer and stops at a short read, since that proves the socket empty; what
//! was received is sent at once. Only if the socket does not take it all does
//! the connection own memory: it keeps the rest, receives no more, and asks
//! for EPOLLOUT until the rest is gone. So a connection never holds more than
//! one scratch buffer.
//!
//! ```text
//!               EAGAIN on send: MOD to OUT
//!    reading --------------------------------> writing
//!        ^ <-------------------------------------+
//!               the rest is sent: MOD to IN (which reports anew what is there)
//! ```
//!
//! `--workers N` is N such threads that share nothing but the port.

mod sys;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread;

use server_common::{
    AFTER_AN_ERROR, Args, Protocol, Spec, accepted, closed, fail, listen_each, said,
};

/// As large as the driver of a runtime could afford per worker.
const SCRATCH: usize = 64 * 1024;

/// How many events one `epoll_wait` may report.
const EVENTS: usize = 1024;

/// How many full reads one connection gets before the others get their turn.
const READS: usize = 16;

/// How long accepting rests at the most when there is no descriptor left. Less
/// if something else happens: it may have been that a connection closed.
const REST_MS: i32 = AFTER_AN_ERROR.as_millis() as i32;

const READING: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
const WRITING: u32 = (libc::EPOLLOUT | libc::EPOLLET) as u32;
/// With one of these a short read does not prove that nothing follows: the
/// end of the stream, or an error, makes no further edge.
const LAST_WORDS: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

fn main() {
    let args = Args::parse(Spec {
        variants: &[],
        protocols: &[Protocol::Echo],
        parallel: true,
    });
    let mut listeners = listen_each(args.addr, args.workers());
    said(&listeners[0]);
    let own = listeners.remove(0);
    for listener in listeners {
        thread::spawn(move || run(listener));
    }
    run(own);
}

fn run(listener: TcpListener) {
    if let Err(e) = Server::new(listener).and_then(|mut server| server.run()) {
        fail("epoll", e);
    }
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    scratch: Box<[u8]>,
    /// Those that had their share of reads; they go on in the next turn. With
    /// what they were ready for, as no edge will tell it again.
    unfinished: Vec<(RawFd, u32)>,
    /// Out of descriptors: the listener is not registered.
    resting: bool,
}

/// An open connection.
#[derive(Default)]
struct Connection {
    /// What the socket did not take, from `sent` on.
    rest: Vec<u8>,
    sent: usize,
}

/// What became of a connection.
enum Next {
    /// It waits for its next event.
    Wait,
    /// It had its share of reads.
    Later,
    Close,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let server = Server {
            epoll: sys::epoll()?,
            listener,
            connections: Vec::new(),
            scratch: vec![0; SCRATCH].into(),
            unfinished: Vec::new(),
            resting: false,
        };
        let fd = server.listener.as_raw_fd();
        sys::control(&server.epoll, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32)?;
        Ok(server)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let mut unfinished = Vec::new();
        loop {
            let timeout = match (self.unfinished.is_empty(), self.resting) {
                (false, _) => 0,
                (true, true) => REST_MS,
                (true, false) => -1,
            };
            let n = sys::wait(&self.epoll, &mut events, timeout)?;
            if self.resting {
                self.rest(false)?;
            }
            // Before the events: a descriptor that is closed in this turn may
            // be another connection's at its end.
            std::mem::swap(&mut self.unfinished, &mut unfinished);
            for (fd, ready) in unfinished.drain(..) {
                self.serve(fd, ready);
            }
            for event in &events[..n] {
                let (fd, ready) = (event.u64 as RawFd, event.events);
                if fd == self.listener.as_raw_fd() {
                    self.accept()?;
                } else {
                    self.serve(fd, ready);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match sys::accept(&self.listener) {
                Ok(fd) => self.admit(fd),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        return self.rest(true);
                    }
                    // A connection that was gone before it was accepted.
                    _ => {}
                },
            }
        }
    }

    /// Stops or starts to listen for connections.
    fn rest(&mut self, resting: bool) -> io::Result<()> {
        self.resting = resting;
        let events = if resting { 0 } else { libc::EPOLLIN as u32 };
        let fd = self.listener.as_raw_fd();
        sys::control(&self.epoll, libc::EPOLL_CTL_MOD, fd, events)
    }

    fn admit(&mut self, fd: RawFd) {
        accepted();
        let at = fd as usize;
        if self.connections.len() <= at {
            self.connections.resize_with(at + 1, || None);
        }
        self.connections[at] = Some(Connection::default());
        let admitted = sys::set_nodelay(fd)
            .and_then(|()| sys::control(&self.epoll, libc::EPOLL_CTL_ADD, fd, READING));
        if admitted.is_err() {
            self.close(fd);
        }
    }

    fn close(&mut self, fd: RawFd) {
        if self.connections[fd as usize].take().is_some() {
            // It leaves the epoll instance with its last descriptor.
            sys::close(fd);
            closed();
        }
    }

    fn serve(&mut self, fd: RawFd, ready: u32) {
        let Some(connection) = &mut self.connections[fd as usize] else {
            return; // closed earlier in this turn
        };
        match connection.run(&self.epoll, fd, ready, &mut self.scratch) {
            Ok(Next::Wait) => {}
            Ok(Next::Later) => self.unfinished.push((fd, ready)),
            Ok(Next::Close) | Err(_) => self.close(fd),
        }
    }
}

impl Connection {
    fn run(
        &mut self,
        epoll: &OwnedFd,
        fd: RawFd,
        ready: u32,
        scratch: &mut [u8],
    ) -> io::Result<Next> {
        if !self.rest.is_empty() {
            return self.write_rest(epoll, fd);
        }
        for _ in 0..READS {
            let n = match sys::recv(fd, scratch) {
                Ok(0) => return Ok(Next::Close),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Wait),
                Err(e) => return Err(e),
            };
            let sent = match sys::send(fd, &scratch[..n]) {
                Ok(sent) => sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(e) => return Err(e),
            };
            if sent < n {
                self.rest.extend_from_slice(&scratch[sent..n]);
                sys::control(epoll, libc::EPOLL_CTL_MOD, fd, WRITING)?;
                return Ok(Next::Wait);
            }
            if n < scratch.len() && ready & LAST_WORDS == 0 {
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Later)
    }

    fn write_rest(&mut self, epoll: &OwnedFd, fd: RawFd) -> io::Result<Next> {
        while self.sent < self.rest.len() {
            match sys::send(fd, &self.rest[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Wait),
                Err(e) => return Err(e),
            }
        }
        *self = Connection::default();
        sys::control(epoll, libc::EPOLL_CTL_MOD, fd, READING)?;
        Ok(Next::Wait)
    }
}
