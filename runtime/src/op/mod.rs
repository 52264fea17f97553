//! Operations: what is asked of a driver, as plain data.
//!
//! | [`Op`] | result | cancelling it may lose |
//! |---|---|---|
//! | `Accept` (subscription) | [`Yield::Socket`] | nothing: what was accepted waits in the [`Port`], and is closed with it |
//! | `Connect` | [`Yield::Done`]`(0)` | the attempt: the socket is in an undefined state |
//! | `Recv` (subscription) | [`Yield::Buf`], empty at the end | nothing: what was received waits in the [`Port`] |
//! | `Send` | [`Yield::Done`]`(bytes)` | knowledge: any prefix may have been sent |
//! | `SendZc` | [`Yield::Done`]`(bytes)`, when the kernel is done with the buffer | knowledge, likewise |
//! | `SendVectored` | [`Yield::Done`]`(bytes)` | knowledge, likewise |
//! | `File` | see [`FileOp`] | see [`FileOp`] |
//! | `Edges` (subscription) | nothing: [`InFlight::edge`] | nothing |
//!
//! A cancelled operation still ends, by its last completion, and only then its
//! memory and its descriptor are free: with ECANCELED, or with what it had done
//! before the cancel came. An abandoned one drops what it yields: a socket is
//! closed, a buffer goes back to its pool, a lent buffer is freed.
//!
//! A driver that works by completion carries all of them out, `Edges` for those
//! who try system calls of their own ([`Waiter::poll_io`]). One that works by
//! readiness ([`Driver::by_readiness`]) is asked for `Edges` only: the other operations are then carried out by the asking side, which
//! tries on its own thread and waits for edges. What is asked of a [`Port`] is
//! the same, and so is what comes out of it.
//!
//! [`Driver::by_readiness`]: crate::driver::Driver::by_readiness
//!
//! An operation lives in a slot, which owns its descriptor and everything the
//! kernel may touch. The asking side holds the slot by a [`Port`], the driver
//! by an [`InFlight`]; the memory is freed when both are gone. (The buffer of a
//! [`SendBuf`] is the slot's only when that is dropped in flight: see `send`.)
//!
//! | file | concept |
//! |---|---|
//! | `slot` | an operation shared by its two sides: [`InFlight`] is the driver's |
//! | `owner` | who keeps a slot alive, and where it lies |
//! | `lifecycle` | where the operation is: a pure state |
//! | `port`, `ports`, `send` | the asking side |
//! | `feed` | sends that nobody waits for |
//! | `flight` | what a slot needs while something is in flight |
//! | `line` | who waits |
//! | `ready` | how operations are carried out where the driver works by readiness |
//! | `readiness` | what is known of one direction: a pure state |
//! | `file`, `file_run`, `file_sys` | files: a ring, or the blocking pool |
//! | `attempt`, `sys` | one try: one system call |
//! | [`call`] | system calls for those without `unsafe` |
//! | `look` | receiving without taking, and without waiting |
//! | `follow` | subscriptions that move to the worker of who waits |
//! | `registrar` | which worker's driver has a descriptor: a pure state |
//! | `recall` | ending what is in flight without losing what it brings |
//! | `direct` | system calls of the asking side's own, on every driver |
//! | `address` | addresses as the kernel takes them |
//!
//! # Rules
//!
//! 1. A slot has one operation at a time. It is *idle*, then *in flight* from
//!    the submission to [`InFlight::finish`], then *finished* until the result
//!    is taken (one-shot) or idle again (subscription, and what is fed).
//! 2. An abandoned operation is cancelled, and retired by its last completion:
//!    what it yields (a socket, a lease) is dropped there, and so closed or
//!    given back. The next operation of the slot waits for that, but not for a
//!    kernel that still reads memory and does nothing else
//!    ([`InFlight::part`]).
//! 3. Wakers and everything that may run foreign code (drops of buffers too)
//!    are called with the slot unlocked.
//! 4. Users of a port wait in line. A completion that is anyone's wakes all who
//!    wait for any; a slot that becomes idle wakes the first who waits for a
//!    turn or, if nobody does, the first, who then submits. Who was woken keeps
//!    the place until they poll again or go away, and who goes away wakes the
//!    next.
//! 5. A subscription that ends (its last completion says so) is submitted
//!    again by the next poll that finds nothing. Only the `InFlight` tells
//!    whether more will come: nothing is concluded from a result.

mod address;
mod attempt;
pub mod call;
mod direct;
mod feed;
mod file;
mod file_run;
mod file_sys;
mod flight;
mod follow;
mod lifecycle;
mod line;
mod look;
mod owner;
mod port;
mod ports;
mod readiness;
mod ready;
mod recall;
mod registrar;
mod send;
mod slot;
mod sys;

pub use crate::budget::poll_budget;
pub use address::Address;
pub use feed::{Feed, Flush};
pub(crate) use file::carry_out;
pub use file::{FileOp, Inline, Stat, closed};
pub use file_run::FileRun;
pub use file_sys::{STAT_MASK, stat_flags};
pub(crate) use flight::Flights;
pub(crate) use owner::{Aside, SlotRef, Within};
pub use port::{Port, Run, Waiter};
pub use ports::Ports;
pub(crate) use registrar::{LAST_WORKER, Registrar, Token};
pub use send::SendBuf;
pub use slot::{InFlight, Kept, Slot};

use std::io;
use std::os::fd::OwnedFd;

use crate::buf::{Gather, Lent, RecvBuf};

/// What a driver is asked to do on a descriptor.
#[derive(Debug)]
pub enum Op {
    /// Accept connections: accept(2). A subscription; a driver that cannot go
    /// on by itself ends it after one. Sockets are close-on-exec, and
    /// non-blocking if the driver says so.
    Accept,
    /// Connect a stream socket: connect(2).
    Connect(Box<Address>),
    /// Receive into the driver's buffers: recv(2). A subscription, as above.
    Recv,
    /// Send: send(2), without SIGPIPE.
    Send {
        /// The bytes, and what owns them.
        data: Lent,
        /// How many of them were sent before. A driver that sends in several
        /// steps may keep its place here, and counts these too in the end.
        from: usize,
        /// Finish only when all is sent (or nothing more can be); else after
        /// the first bytes.
        all: bool,
    },
    /// Send all of it from where it is, without a copy into the kernel:
    /// IORING_OP_SEND_ZC. It is complete when the kernel is done with the
    /// memory too. A driver that cannot do it for this descriptor sends as
    /// `Send` does, and may make it one.
    SendZc {
        /// The bytes, and what owns them.
        data: Lent,
        /// As in `Send`.
        from: usize,
    },
    /// Send all of several buffers, one after another: sendmsg(2), without
    /// SIGPIPE.
    SendVectored(Box<Gather>),
    /// What may wait for a disk, and is told of by no readiness.
    File(FileOp),
    /// Tell of every edge of readiness, the one of what is ready at the
    /// beginning first: epoll(7), a poll of many shots on a ring. A
    /// subscription.
    Edges(Interest),
}

impl Op {
    /// The direction that it waits for.
    #[inline]
    fn interest(&self) -> Interest {
        match self {
            Op::Accept | Op::Recv => Interest::Read,
            Op::Connect(_)
            | Op::Send { .. }
            | Op::SendZc { .. }
            | Op::SendVectored(_)
            | Op::File(_) => Interest::Write,
            Op::Edges(interest) => *interest,
        }
    }

    /// Leaves the memory that it lends to the kernel, for ever, and goes on
    /// without. `false`: it lends a buffer, which its asker wants back.
    fn leave_memory(&mut self) -> bool {
        match self {
            Op::Accept | Op::Recv | Op::Edges(_) => true,
            Op::Connect(address) => {
                leave(address);
                true
            }
            Op::File(op) => op.leave_memory(),
            Op::Send { .. } | Op::SendZc { .. } | Op::SendVectored(_) => false,
        }
    }

    /// Whether it completes any number of times, and is anyone's.
    fn is_subscription(&self) -> bool {
        matches!(self, Op::Accept | Op::Recv | Op::Edges(_))
    }
}

/// Puts a copy in the place of a value that is never freed then.
fn leave<T: Clone>(value: &mut T) {
    let copy = value.clone();
    std::mem::forget(std::mem::replace(value, copy));
}

/// A direction of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// A read would not block: data, a connection, the end, or an error.
    Read,
    /// A write would not block: room, or an error.
    Write,
}

/// What a completion carries.
#[derive(Debug)]
pub enum Yield {
    /// Done, with the count that the system call returned.
    Done(usize),
    /// A connected socket.
    Socket(OwnedFd),
    /// An open file.
    File(OwnedFd),
    /// Received bytes; an empty lease is the end of the stream.
    Buf(RecvBuf),
}

/// What an operation ended with.
pub type Completion = io::Result<Yield>;
