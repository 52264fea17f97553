//! The floor of the proactor: an echo server on io_uring, without a runtime.
//! What a runtime costs is what it adds to this.
//!
//! One thread, one ring, one `io_uring_enter` per turn. Accept is one
//! multishot operation, and so is the receive of each connection; the kernel
//! takes the buffers of all of them out of one shared ring, and what it
//! received is sent from where it lies. When the send is done the buffer goes
//! back. An idle connection owns no memory.
//!
//! A send completes only if it failed or fell short, and does not wait for room:
//! so it is over when an enter has taken it and nothing else was heard. One that
//! fell short is sent on by one that waits.
//!
//! # What is bounded
//!
//! * A connection holds at most [`QUEUE`] received buffers: with more, its
//!   receive is cancelled until half of them are sent.
//! * There are [`buffers::COUNT`] buffers. When all are taken, receives end
//!   with ENOBUFS, the idle ones too; their connections starve, and are armed
//!   again, as many as buffers came back. No data is lost by that. But clients
//!   that send and never read can keep all of them, and everybody else from
//!   being served: a runtime has to do better here than its floor.
//! * One send per connection is in flight.
//!
//! # The end of a connection
//!
//! Its descriptor is closed when neither receive nor send is in flight any
//! more, and not before: a completion may still name its slot. On a mistake it
//! is shut down, which ends both.
//!
//! `--workers N` is N such threads that share nothing but the port.

mod buffers;
mod connection;
mod ring;

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use io_uring::{cqueue, opcode, types::Fd};
use server_common::{AFTER_AN_ERROR as REST, Args, Protocol, Spec, fail, listen_each, said};

use buffers::{Buffers, GROUP};
use connection::Connections;
use ring::Ring;

/// Received buffers that one connection may hold (thin air: 256 KiB).
const QUEUE: usize = 16;

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
        fail("io_uring", e);
    }
}

/// What an operation is: the upper half of its `user_data`. The lower half is
/// the slot of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Kind {
    Accept = 1,
    Recv,
    Send,
    Cancel,
}

impl Kind {
    fn of(self, slot: usize) -> u64 {
        (self as u64) << 32 | slot as u64
    }
}

struct Server {
    ring: Ring,
    listener: TcpListener,
    buffers: Buffers,
    connections: Connections,
    accepting: bool,
    /// Out of descriptors: until when accept is not armed.
    resting: Option<Instant>,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Server> {
        let ring = Ring::new()?;
        Ok(Server {
            buffers: Buffers::new(&ring)?,
            ring,
            listener,
            connections: Connections::default(),
            accepting: false,
            resting: None,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut turn = Vec::new();
        loop {
            if !self.accepting {
                self.resting = self.resting.filter(|end| Instant::now() < *end);
                if self.resting.is_none() {
                    self.accept()?;
                }
            }
            self.connections.feed(&mut self.ring, &self.buffers)?;
            match self.connections.hurry() {
                true => self.ring.submit()?,
                false => self.ring.enter(self.resting.map(|_| REST))?,
            }
            let taken = self.ring.has_taken_all();
            if taken {
                self.connections.taken();
            }
            turn.extend(self.ring.completions());
            for completion in turn.drain(..) {
                self.complete(&completion)?;
            }
            if taken {
                self.connections.settle(&mut self.ring, &mut self.buffers)?;
            }
            self.buffers.publish();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(Kind::Accept.of(0));
        // SAFETY: it refers to no memory, and the listener stays open.
        unsafe { self.ring.push(&entry)? };
        self.accepting = true;
        Ok(())
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (tag, result) = (completion.user_data(), completion.result());
        let (ring, buffers) = (&mut self.ring, &mut self.buffers);
        let more = cqueue::more(completion.flags());
        let slot = tag as u32 as usize;
        match tag >> 32 {
            k if k == Kind::Recv as u64 => {
                let buffer = cqueue::buffer_select(completion.flags());
                self.connections
                    .received(slot, result, buffer, more, ring, buffers)
            }
            k if k == Kind::Send as u64 => self.connections.sent(slot, result, ring, buffers),
            k if k == Kind::Accept as u64 => {
                self.accepting = more;
                match -result {
                    ..=0 => return self.connections.admit(result, ring),
                    libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                        self.resting = Some(Instant::now() + REST);
                    }
                    // A connection that was gone before it was accepted.
                    _ => {}
                }
                Ok(())
            }
            // A cancel: its receive tells how it ended.
            _ => Ok(()),
        }
    }
}

/// A receive for the connection in `slot`.
fn receive(fd: i32, slot: usize) -> io_uring::squeue::Entry {
    opcode::RecvMulti::new(Fd(fd), GROUP)
        .build()
        .user_data(Kind::Recv.of(slot))
}
