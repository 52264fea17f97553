//! The connections, and the states they are in.

use std::collections::VecDeque;
use std::io;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use server_common::{accepted, closed};

use crate::buffers::Buffers;
use crate::ring::Ring;
use crate::{Kind, QUEUE, receive};

/// The state of a connection's receive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recv {
    /// In flight.
    Armed,
    /// In flight, and a cancel as well: too much was received.
    Cancelling,
    /// Not in flight: too much was received.
    Paused,
    /// Not in flight: there was no buffer.
    Starved,
    /// Not in flight, and never again: the end of the stream, or a failure.
    Over,
}

/// Received bytes that are to be sent.
struct Piece {
    buffer: u16,
    from: usize,
    len: usize,
}

impl Piece {
    fn rest(&self) -> usize {
        self.len - self.from
    }
}

struct Connection {
    fd: i32,
    recv: Recv,
    /// The first one is in flight, if there is one.
    queue: VecDeque<Piece>,
    /// The first one was sent if no completion comes.
    silent: bool,
    /// Nothing is sent any more.
    failed: bool,
}

/// All of them.
#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Slots in the state `Starved`, the longest first. A slot may have died
    /// since, and be another's.
    starved: VecDeque<usize>,
    /// Something waits for the end of a send that was queued.
    hurry: bool,
    /// Slots whose sends were queued, and those whose sends were taken.
    queued: Vec<usize>,
    taken: Vec<usize>,
}

impl Connections {
    pub fn admit(&mut self, fd: i32, ring: &mut Ring) -> io::Result<()> {
        accepted();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(Connection {
            fd,
            recv: Recv::Armed,
            queue: VecDeque::new(),
            silent: false,
            failed: false,
        });
        set_nodelay(fd);
        // SAFETY: it refers to no memory but the shared buffers, which stay.
        unsafe { ring.push(&receive(fd, slot)) }
    }

    /// Arms starved receives, as many as there are buffers.
    pub fn feed(&mut self, ring: &mut Ring, buffers: &Buffers) -> io::Result<()> {
        for _ in 0..self.starved.len().min(buffers.free()) {
            let Some(slot) = self.starved.pop_front() else {
                break;
            };
            if let Some(connection) = &mut self.slots[slot]
                && connection.recv == Recv::Starved
            {
                connection.arm(slot, ring)?;
            }
        }
        Ok(())
    }

    pub fn received(
        &mut self,
        slot: usize,
        result: i32,
        buffer: Option<u16>,
        more: bool,
        ring: &mut Ring,
        buffers: &mut Buffers,
    ) -> io::Result<()> {
        let Some(connection) = &mut self.slots[slot] else {
            unreachable!("a connection stays until its receive has ended");
        };
        if let Some(buffer) = buffer {
            buffers.taken();
            if result > 0 && !connection.failed {
                connection.queue.push_back(Piece {
                    buffer,
                    from: 0,
                    len: result as usize,
                });
                if connection.queue.len() == 1 {
                    connection.send(slot, ring, buffers)?;
                    self.queued.push(slot);
                } else {
                    self.hurry |= connection.silent;
                }
            } else {
                buffers.give_back(buffer);
            }
        }
        let full = connection.queue.len() >= QUEUE;
        if more {
            if full && connection.recv == Recv::Armed {
                connection.cancel(slot, ring)?;
            }
            return Ok(());
        }
        match result {
            _ if connection.failed => connection.recv = Recv::Over,
            // Ended by our cancel, or, with data, by something like a full
            // completion queue.
            _ if full && (result > 0 || result == -libc::ECANCELED) => {
                connection.recv = Recv::Paused;
            }
            1.. => connection.arm(slot, ring)?,
            n if n == -libc::ECANCELED => connection.arm(slot, ring)?,
            n if n == -libc::ENOBUFS => {
                connection.recv = Recv::Starved;
                self.starved.push_back(slot);
            }
            0 => connection.recv = Recv::Over,
            _ => {
                connection.recv = Recv::Over;
                connection.fail(buffers);
            }
        }
        self.bury(slot);
        Ok(())
    }

    /// Whether the next enter must not sleep: a send that it takes has another
    /// behind it.
    pub fn hurry(&mut self) -> bool {
        std::mem::take(&mut self.hurry)
    }

    /// An enter has taken what was queued.
    pub fn taken(&mut self) {
        std::mem::swap(&mut self.queued, &mut self.taken);
    }

    /// Ends the sends that were taken and of which nothing was heard.
    pub fn settle(&mut self, ring: &mut Ring, buffers: &mut Buffers) -> io::Result<()> {
        for i in 0..self.taken.len() {
            let slot = self.taken[i];
            if let Some(connection) = &mut self.slots[slot]
                && std::mem::take(&mut connection.silent)
            {
                let all = connection.queue.front().map_or(0, |piece| piece.rest());
                self.sent(slot, all as i32, ring, buffers)?;
            }
        }
        self.taken.clear();
        Ok(())
    }

    pub fn sent(
        &mut self,
        slot: usize,
        result: i32,
        ring: &mut Ring,
        buffers: &mut Buffers,
    ) -> io::Result<()> {
        let Some(connection) = &mut self.slots[slot] else {
            unreachable!("a connection stays until its send has ended");
        };
        let Some(piece) = connection.queue.front_mut() else {
            unreachable!("what is sent stays in the queue");
        };
        connection.silent = false;
        match usize::try_from(result) {
            Err(_) if result == -libc::EAGAIN && !connection.failed => {
                return connection.send_on(slot, ring, buffers);
            }
            Ok(n) if !connection.failed && n > 0 => {
                piece.from += n;
                if piece.from < piece.len {
                    return connection.send_on(slot, ring, buffers);
                }
                buffers.give_back(piece.buffer);
                connection.queue.pop_front();
                if !connection.queue.is_empty() {
                    connection.send(slot, ring, buffers)?;
                    self.queued.push(slot);
                    self.hurry |= connection.queue.len() > 1;
                }
                if connection.recv == Recv::Paused && connection.queue.len() <= QUEUE / 2 {
                    connection.arm(slot, ring)?;
                }
            }
            _ => {
                buffers.give_back(piece.buffer);
                connection.queue.pop_front();
                connection.fail_idle(buffers);
            }
        }
        self.bury(slot);
        Ok(())
    }

    /// Closes a connection that has nothing in flight and nothing to do.
    fn bury(&mut self, slot: usize) {
        let over = |c: &Connection| c.recv == Recv::Over && c.queue.is_empty();
        if let Some(connection) = self.slots[slot].take_if(|c| over(c)) {
            // SAFETY: the descriptor is the connection's, and no operation
            // on it is in flight.
            unsafe { libc::close(connection.fd) };
            self.free.push(slot);
            closed();
        }
    }
}

impl Connection {
    fn arm(&mut self, slot: usize, ring: &mut Ring) -> io::Result<()> {
        self.recv = Recv::Armed;
        // SAFETY: it refers to no memory but the shared buffers, which stay.
        unsafe { ring.push(&receive(self.fd, slot)) }
    }

    fn cancel(&mut self, slot: usize, ring: &mut Ring) -> io::Result<()> {
        self.recv = Recv::Cancelling;
        let entry = opcode::AsyncCancel::new(Kind::Recv.of(slot))
            .build()
            .user_data(Kind::Cancel.of(slot));
        // SAFETY: it refers to no memory.
        unsafe { ring.push(&entry) }
    }

    /// Sends the first piece, if there is room, and completes only if there is
    /// not.
    fn send(&mut self, slot: usize, ring: &mut Ring, buffers: &Buffers) -> io::Result<()> {
        self.silent = true;
        let entry = self.entry(slot, libc::MSG_DONTWAIT, buffers);
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the buffer is given back only when the send has ended.
        unsafe { ring.push(&entry) }
    }

    /// Sends what is left of it, and waits for room.
    fn send_on(&mut self, slot: usize, ring: &mut Ring, buffers: &Buffers) -> io::Result<()> {
        let entry = self.entry(slot, 0, buffers);
        // SAFETY: the buffer is given back only when the send has completed.
        unsafe { ring.push(&entry) }
    }

    /// MSG_WAITALL lets the kernel go on after a partial send, and makes one
    /// that ends so a failure.
    fn entry(&self, slot: usize, flags: i32, buffers: &Buffers) -> squeue::Entry {
        let piece = &self.queue[0];
        // SAFETY: `from` is within the buffer.
        let at = unsafe { buffers.address(piece.buffer).add(piece.from) };
        opcode::Send::new(Fd(self.fd), at, piece.rest() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | flags)
            .build()
            .user_data(Kind::Send.of(slot))
    }

    /// Gives up. A send in flight keeps its piece until it has completed.
    fn fail(&mut self, buffers: &mut Buffers) {
        self.failed = true;
        for piece in self.queue.drain(self.queue.len().min(1)..) {
            buffers.give_back(piece.buffer);
        }
        match self.recv {
            // Shutting down ends it.
            Recv::Armed | Recv::Cancelling => {}
            _ => self.recv = Recv::Over,
        }
        // SAFETY: no pointers; the descriptor is still the connection's.
        unsafe { libc::shutdown(self.fd, libc::SHUT_RDWR) };
    }

    /// The same, with no send in flight.
    fn fail_idle(&mut self, buffers: &mut Buffers) {
        for piece in self.queue.drain(..) {
            buffers.give_back(piece.buffer);
        }
        self.fail(buffers);
    }
}

/// A connection without it is slow and no worse.
fn set_nodelay(fd: i32) {
    let on: i32 = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer is to a local int, of the size given.
    unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            len,
        );
    }
}
