//! What happens on a connection: from its connect to its end.
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, sockopt};

use super::Engine;
use super::conn::{Conn, State, open};
use crate::options::Protocol;

/// A session that was refused tries again after this long.
const RETRY_AFTER: u64 = 10_000_000;

impl Engine<'_> {
    pub(super) fn connect(&mut self, slot: usize) {
        self.clients.asked += 1;
        let now = self.now();
        let generation = self.conns[slot].generation.wrapping_add(1);
        let idle = self.conns[slot].idle;
        let old = std::mem::replace(&mut self.conns[slot], Conn::new(idle));
        let conn = &mut self.conns[slot];
        (conn.generation, conn.begun) = (generation, now);
        conn.served_in_window = old.served_in_window;
        match open(&self.epoll, self.options.addr, slot, generation) {
            Ok(socket) => {
                conn.socket = Some(socket);
                conn.state = State::Connecting;
                self.connecting += 1;
            }
            Err(e) => self.count_failed_connect(slot, e),
        }
    }

    fn count_failed_connect(&mut self, slot: usize, e: Errno) {
        if e == Errno::ECONNREFUSED || e == Errno::ECONNRESET {
            self.clients.refused += 1;
        } else {
            self.clients.failed += 1;
        }
        self.retry_if_session(slot);
    }

    fn retry_if_session(&mut self, slot: usize) {
        if self.options.session > 0 && self.running && !self.conns[slot].idle {
            self.retries.push_back((self.now() + RETRY_AFTER, slot));
        }
    }

    pub(super) fn on_event(&mut self, slot: usize, events: EpollFlags) {
        if self.conns[slot].state == State::Connecting {
            let Some(socket) = &self.conns[slot].socket else {
                return;
            };
            let error = getsockopt(socket, sockopt::SocketError).unwrap_or(0);
            if error != 0 {
                self.connecting -= 1;
                self.vacate(slot);
                self.count_failed_connect(slot, Errno::from_raw(error));
                return;
            }
            if !events.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLIN) {
                return;
            }
            self.connecting -= 1;
            self.clients.established += 1;
            self.last_progress = self.now();
            if self.options.protocol == Protocol::Delimited {
                self.greeting += 1;
                self.conns[slot].state = State::Greeting;
            } else {
                self.on_ready(slot);
            }
        } else if events.contains(EpollFlags::EPOLLOUT) {
            self.flush(slot);
        }
        let read = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLHUP
            | EpollFlags::EPOLLERR;
        if events.intersects(read) {
            let to_the_end = events.intersects(read.difference(EpollFlags::EPOLLIN));
            self.receive(slot, to_the_end);
        }
    }

    fn receive(&mut self, slot: usize, to_the_end: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(socket) = &self.conns[slot].socket {
            match recv(socket.as_raw_fd(), &mut scratch, MsgFlags::empty()) {
                Ok(0) => self.on_closed(slot),
                Ok(n) => {
                    let generation = self.conns[slot].generation;
                    self.on_bytes(slot, &scratch[..n]);
                    // Edge-triggered; a short read has emptied the socket. And
                    // the answer may have ended the session.
                    let is_new = self.conns[slot].generation != generation;
                    if is_new || (n < scratch.len() && !to_the_end) {
                        break;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => self.on_closed(slot),
            }
        }
        self.scratch = scratch;
    }

    fn on_closed(&mut self, slot: usize) {
        if self.conns[slot].state == State::Greeting {
            self.greeting -= 1;
        }
        if self.conns[slot].replies == 0 {
            self.clients.refused += 1;
        } else {
            self.clients.reset += 1;
        }
        self.last_progress = self.now();
        self.vacate(slot);
        self.retry_if_session(slot);
    }

    /// Gives the socket up. What it owed is lost.
    fn vacate(&mut self, slot: usize) {
        let conn = &mut self.conns[slot];
        conn.socket = None; // which also takes it out of the epoll set
        conn.state = State::Vacant;
        let owed = conn.in_flight.len() + conn.backlog.len();
        conn.in_flight.clear();
        conn.backlog.clear();
        self.outstanding -= owed;
        self.lost += owed as u64;
    }

    fn on_bytes(&mut self, slot: usize, mut bytes: &[u8]) {
        let now = self.now();
        if self.conns[slot].state == State::Greeting {
            self.greeting -= 1;
            self.last_progress = now;
            if bytes[0] != b'*' {
                self.wrong = Some(format!("connection {slot}: greeting is {:#x}", bytes[0]));
                return;
            }
            bytes = &bytes[1..];
            let Some(socket) = &self.conns[slot].socket else {
                return;
            };
            // One byte into an empty buffer: it fits, or the socket is dead,
            // which its next event tells.
            let _ = send(socket.as_raw_fd(), b"^", MsgFlags::MSG_NOSIGNAL);
            self.on_ready(slot);
        }
        if bytes.is_empty() {
            return;
        }
        let conn = &mut self.conns[slot];
        if conn.received + bytes.len() as u64 > conn.sent {
            self.wrong = Some(format!(
                "connection {slot}: more bytes came back than were sent"
            ));
            return;
        }
        if self.options.verify {
            let wrong = self.pattern.first_wrong(slot as u64, conn.received, bytes);
            if let Some(at) = wrong {
                self.wrong = Some(format!(
                    "connection {slot}: byte {at} of its stream is wrong"
                ));
                return;
            }
        }
        conn.received += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        self.last_progress = now;
        let size = self.options.size as u64;
        while conn.received >= (conn.replies + 1) * size {
            conn.replies += 1;
            self.clients.served += u64::from(conn.replies == 1);
            conn.served_in_window |= self.in_window;
            if let Some(intended) = conn.in_flight.pop_front() {
                self.histogram
                    .saturating_record(now.saturating_sub(intended).max(1));
                self.outstanding -= 1;
            }
            self.round_trips += 1;
            self.last_reply = now;
        }
        if conn.idle {
            return;
        }
        if self.options.session > 0 && conn.replies >= self.options.session {
            self.vacate(slot);
            if self.running {
                self.connect(slot);
            }
        } else {
            self.refill(slot, None);
        }
    }

    fn on_ready(&mut self, slot: usize) {
        let begun = self.conns[slot].begun;
        self.conns[slot].state = State::Ready;
        if self.conns[slot].idle {
            self.begin_message(slot, begun);
            self.flush(slot);
        } else {
            let first = (self.options.session > 0).then_some(begun);
            self.refill(slot, first);
        }
    }

    /// Begins as many messages as the loop and the depth allow. The first may
    /// have an intended time of its own.
    pub(super) fn refill(&mut self, slot: usize, mut first: Option<u64>) {
        let closed_loop = self.options.rate.is_none();
        let mut any = false;
        loop {
            let conn = &mut self.conns[slot];
            let session_full = self.options.session > 0 && conn.messages >= self.options.session;
            if conn.in_flight.len() >= self.options.pipeline || session_full {
                break;
            }
            if closed_loop && self.running {
                let intended = first.take().unwrap_or_else(|| self.now());
                self.begin_message(slot, intended);
            } else if let Some(intended) = conn.backlog.pop_front() {
                self.outstanding -= 1;
                self.begin_message(slot, intended);
            } else {
                break;
            }
            any = true;
        }
        if any {
            self.flush(slot);
        }
    }

    fn begin_message(&mut self, slot: usize, intended: u64) {
        let conn = &mut self.conns[slot];
        conn.in_flight.push_back(intended);
        conn.owed += self.options.size as u64;
        conn.messages += 1;
        self.outstanding += 1;
    }

    fn flush(&mut self, slot: usize) {
        let conn = &mut self.conns[slot];
        let Some(socket) = &conn.socket else { return };
        while conn.sent < conn.owed {
            let chunk = self
                .pattern
                .outgoing(slot as u64, conn.sent, conn.owed - conn.sent);
            match send(socket.as_raw_fd(), chunk, MsgFlags::MSG_NOSIGNAL) {
                Ok(n) => conn.sent += n as u64,
                Err(Errno::EINTR) => {}
                // EAGAIN: EPOLLOUT will come. Any other: so will EPOLLERR or HUP.
                Err(_) => return,
            }
        }
    }
}
