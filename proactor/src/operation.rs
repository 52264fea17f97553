//! One operation in the table: what it is, where it is, and what a completion
//! means for it.
//!
//! ```text
//!            start, SQ full            fill               complete: Finish,
//!   submit ----------------> Queued ---------> Pushed ---------------------> gone
//!      |                       |  \             ^  |     Pause
//!      +-----------------------|---\------------+  | complete: Starve
//!        start                 |    \ start     |  v
//!                       cancel |     +------- Starved
//!                              v   feed_starved |
//!                           Doomed <------------+
//!                              |       cancel
//!                              +-------------------> gone
//!                                 end_doomed
//! ```
//!
//! Only in `Pushed` may the kernel know of it, and touch its memory: in every
//! other stage it can be finished on the spot. `complete: Resend` leads from
//! `Pushed` through `start` again.

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, squeue};
use isochrome_runtime::buf::Lent;
use isochrome_runtime::op::{InFlight, Interest, Op};

use crate::buffers::{GROUP, Private};
use crate::family::{has_ended, hides_the_end};
use crate::file;
use crate::table::{Key, Table, Tenant};

/// `IORING_RECVSEND_POLL_FIRST` of `linux/io_uring.h`.
const POLL_FIRST: u16 = 1 << 0;
/// `IORING_RECV_MULTISHOT`, likewise.
const MULTISHOT: u16 = 1 << 1;

/// More than this is not sent at once: the kernel's own `MAX_RW_COUNT`.
pub(crate) const MOST: usize = 0x7fff_f000;

/// Which [`Op`] it is, without asking the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Accept,
    Connect,
    Recv,
    Send,
    Edges,
    File(file::Kind),
}

impl Kind {
    /// How many untaken completions make a subscription pause; `plenty`: of
    /// receive buffers there are.
    ///
    /// For receives, so that one connection with a slow task does not take the
    /// buffers of all. A pause costs two entries and a completion, and quick
    /// tasks run into it too, since one wake brings many completions at once:
    /// with a cap of 4, four streams of 4 KiB messages, 16 under way on each,
    /// paused for every fourth send; with 8 they never do, and take 7% less of
    /// the processor (with 16 or 32 as much). For accepts the figure is from
    /// thin air.
    pub(crate) fn cap(self, plenty: bool) -> usize {
        match self {
            Kind::Accept => 64,
            Kind::Recv if plenty => 8,
            Kind::Recv => 4,
            Kind::Connect | Kind::Send | Kind::Edges | Kind::File(_) => usize::MAX,
        }
    }

    #[inline]
    fn is_subscription(self) -> bool {
        matches!(self, Kind::Accept | Kind::Recv)
    }

    /// Whether it is cancelled when nobody wants it any more.
    pub(crate) fn can_be_cancelled(self) -> bool {
        self != Kind::File(file::Kind::Close)
    }

    /// What it ended with if a signal came when a kernel thread had begun it.
    pub(crate) fn interrupted(self) -> i32 {
        match self.can_be_cancelled() {
            true => libc::ECANCELED,
            // As close(2) has it, which is not to be done again.
            false => libc::EINTR,
        }
    }
}

/// Where it is; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Queued,
    Pushed,
    Starved,
    Doomed,
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To go on.
    Go,
    /// To stop for now, because too much of it is untaken. Nobody is told: it
    /// ends as if it had nothing more to say.
    Pause,
    /// To end: it was cancelled from outside.
    End,
}

/// What a completion asks of the driver.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Hand it over; more will come.
    Deliver,
    /// Hand it over as the last.
    Finish,
    /// Tell of an edge; more will come.
    Edge,
    /// Tell of an edge, and end without a word: who waits then asks anew.
    LastEdge,
    /// End without a word ([`Wish::Pause`]).
    Pause,
    /// Wait for a buffer.
    Starve,
    /// Send the rest.
    Resend,
    /// Nothing: a one-shot operation that is not over yet.
    Wait,
}

pub(crate) struct Operation {
    pub(crate) op: InFlight,
    generation: u32,
    /// How much is still to be sent before it is done: all that is left or, if
    /// any will do, one. `u32::MAX` for that much and more: no completion tells
    /// of so much, so that more is asked for before this is known better.
    left: u32,
    /// With `TOLD`: what a send without a copy came to, as the kernel says it,
    /// which still has the memory: its last completion says that it has not.
    result: i32,
    pub(crate) kind: Kind,
    pub(crate) stage: Stage,
    pub(crate) wish: Wish,
    flags: Flags,
}

/// What is true of an operation.
type Flags = u8;

/// It has told what it came to, in `result`.
const TOLD: Flags = 1;
/// A receive that goes on by itself.
const GOES_ON: Flags = 1 << 1;
/// It may have found an end beside the data, and not told (`family`).
const MAY_HIDE: Flags = 1 << 2;
/// A receive that starved, and has not received since.
const HUNGRY: Flags = 1 << 3;
/// There is an [`Apart`] of it.
const HAS_APART: Flags = 1 << 4;

/// What few operations have, kept by key, so that the others have no room for
/// it. It is there as long as it is needed, and no longer than the operation.
pub(crate) enum Apart {
    /// Where a hungry receive receives to if the ring is empty.
    Buffer(Private),
    /// How much was sent by earlier steps.
    Sent(usize),
}

impl Tenant for Operation {
    #[inline]
    fn generation(&self) -> u32 {
        self.generation
    }
}

impl Operation {
    /// The operation, which the kernel has heard of if its first entry could be
    /// `push`ed.
    #[inline(always)]
    pub(crate) fn new(
        op: InFlight,
        key: Key,
        mut push: impl FnMut(&squeue::Entry) -> bool,
    ) -> Operation {
        let fd = op.fd();
        let tcp = op.descriptor().is_tcp();
        let (kind, left, multishot, pushed) = op.begin(key.raw(), |op| {
            if let Op::Send { data, from, all } = op {
                // What nearly every round trip has, without the questions.
                let left = left(data, *from, *all);
                let pushed = push(&send_entry(Fd(fd), data, *from, *all, key));
                return (Kind::Send, left, false, pushed);
            }
            first_entry(Fd(fd), tcp, op, key, &mut push)
        });
        let stage = match pushed {
            true => Stage::Pushed,
            false => Stage::Queued,
        };
        Operation {
            op,
            generation: key.generation(),
            left: at_most(left),
            result: 0,
            kind,
            stage,
            wish: Wish::Go,
            flags: if multishot { GOES_ON | MAY_HIDE } else { 0 },
        }
    }

    #[inline]
    fn is(&self, flag: Flags) -> bool {
        self.flags & flag != 0
    }

    /// Whether it is a receive that goes on by itself.
    #[inline]
    pub(crate) fn goes_on(&self) -> bool {
        self.is(GOES_ON)
    }

    /// Whether it is a receive that starved, and has not received since.
    pub(crate) fn is_hungry(&self) -> bool {
        self.is(HUNGRY)
    }

    pub(crate) fn starves(&mut self) {
        self.flags |= HUNGRY;
    }

    #[inline]
    pub(crate) fn has_eaten(&mut self) {
        self.flags &= !HUNGRY;
    }

    pub(crate) fn has_apart(&self) -> bool {
        self.is(HAS_APART)
    }

    /// There is something of it apart now, or no longer.
    pub(crate) fn set_apart(&mut self, there: bool) {
        self.flags &= !HAS_APART;
        if there {
            self.flags |= HAS_APART;
        }
    }

    /// A send without a copy says what it came to.
    pub(crate) fn tell(&mut self, result: i32) {
        self.flags |= TOLD;
        self.result = result;
    }

    pub(crate) fn has_told(&self) -> bool {
        self.is(TOLD)
    }

    /// What it has told.
    pub(crate) fn take_told(&mut self) -> Option<i32> {
        let told = self.has_told().then_some(self.result);
        self.flags &= !TOLD;
        told
    }

    /// Whether this completion, the last, of `count` bytes, is all there is to
    /// say of a send.
    #[inline]
    pub(crate) fn is_sent_by(&self, count: usize) -> bool {
        self.kind == Kind::Send && count >= self.left as usize && !self.is(TOLD | HAS_APART)
    }

    /// Keeps the place after `n` bytes of a [`Duty::Resend`].
    pub(crate) fn advance(&mut self, n: usize) {
        let left = self.op.with_op(|op| match op {
            Op::Send { data, from, all } => {
                *from += n;
                left(data, *from, *all)
            }
            Op::SendZc { data, from } => {
                *from += n;
                left(data, *from, true)
            }
            Op::SendVectored(data) => {
                data.advance(n);
                data.len() - data.sent()
            }
            _ => 0,
        });
        self.left = at_most(left);
    }

    /// Whether a send without a copy cannot be done here, and was made a plain
    /// one, to be started: the kernel is too old, the socket is of the wrong
    /// kind, or no memory can be locked.
    pub(crate) fn falls_back(&mut self, result: Result<usize, i32>) -> bool {
        let cannot = matches!(
            result,
            Err(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM | libc::ENOBUFS)
        );
        if !cannot || self.kind != Kind::Send || self.wish != Wish::Go {
            return false;
        }
        self.op.with_op(|op| match std::mem::replace(op, Op::Recv) {
            Op::SendZc { data, from } => {
                let all = true;
                *op = Op::Send { data, from, all };
                true
            }
            other => {
                *op = other;
                false
            }
        })
    }

    /// Whether a receive that goes on and has `emptied` its socket, or not, is
    /// to begin anew, because it hides the end.
    pub(crate) fn hides_the_end(&mut self, emptied: bool) -> bool {
        let look = emptied && self.is(MAY_HIDE);
        if look {
            self.flags &= !MAY_HIDE;
        }
        look && has_ended(self.op.fd())
    }

    /// What to do about a completion with this result.
    pub(crate) fn duty(&self, result: Result<usize, i32>, more: bool) -> Duty {
        duty(self.kind, self.wish, self.left as usize, result, more)
    }

    /// The entry that starts it again, into what it has `apart`, if that is a
    /// buffer.
    ///
    /// What it points to is owned by the [`InFlight`] and by `apart`, and
    /// neither moves it.
    pub(crate) fn entry(&mut self, key: Key, apart: Option<&mut Apart>) -> squeue::Entry {
        let goes_on = self.goes_on();
        if goes_on {
            self.flags |= MAY_HIDE;
        }
        let fd = Fd(self.op.fd());
        let receive = Receive {
            multishot: goes_on,
            hungry: self.is_hungry(),
            private: match apart {
                Some(Apart::Buffer(private)) => Some(private),
                _ => None,
            },
        };
        self.op.with_op(|op| entry(fd, op, receive, key))
    }
}

/// How a receive is to be done.
struct Receive<'a> {
    multishot: bool,
    hungry: bool,
    private: Option<&'a mut Private>,
}

// Each connection that waits has one in the table.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(Table::<Operation>::ENTRY <= 24);

/// Makes the first entry of any operation. Says what it is, how much it sends,
/// whether it is a multishot receive, and whether it was pushed.
#[inline(never)]
fn first_entry(
    fd: Fd,
    tcp: bool,
    op: &mut Op,
    key: Key,
    push: &mut dyn FnMut(&squeue::Entry) -> bool,
) -> (Kind, usize, bool, bool) {
    let (kind, left) = match op {
        Op::Accept => (Kind::Accept, 0),
        Op::Connect(_) => (Kind::Connect, 0),
        Op::Recv => (Kind::Recv, 0),
        Op::Send { data, from, all } => (Kind::Send, left(data, *from, *all)),
        Op::SendZc { data, from } => (Kind::Send, left(data, *from, true)),
        Op::SendVectored(data) => (Kind::Send, data.len()),
        Op::File(op) => (Kind::File(file::Kind::of(op)), 0),
        Op::Edges(_) => (Kind::Edges, 0),
    };
    let multishot = kind == Kind::Recv && (tcp || !hides_the_end(fd.0));
    let receive = Receive {
        multishot,
        hungry: false,
        private: None,
    };
    let pushed = push(&entry(fd, op, receive, key));
    (kind, left, multishot, pushed)
}

/// How much is to be sent.
#[inline]
fn left(data: &Lent, from: usize, all: bool) -> usize {
    let rest = data.len().saturating_sub(from);
    if all { rest } else { rest.min(1) }
}

/// As much as [`Operation::left`] can say.
#[inline]
fn at_most(left: usize) -> u32 {
    u32::try_from(left).unwrap_or(u32::MAX)
}

/// What is sent of `data` by one entry: all that is left, within reason.
#[inline]
fn rest(data: &Lent, from: usize) -> (*const u8, u32) {
    let rest = data.len().saturating_sub(from);
    let start = data.as_ptr().wrapping_add(data.len() - rest);
    (start, rest.min(MOST) as u32)
}

#[inline]
fn send_entry(fd: Fd, data: &Lent, from: usize, all: bool, key: Key) -> squeue::Entry {
    let (start, len) = rest(data, from);
    let wait_all = if all { libc::MSG_WAITALL } else { 0 };
    opcode::Send::new(fd, start, len)
        .flags(libc::MSG_NOSIGNAL | wait_all)
        .build()
        .user_data(key.raw())
}

fn entry(fd: Fd, op: &mut Op, receive: Receive<'_>, key: Key) -> squeue::Entry {
    let entry = match op {
        Op::Accept => opcode::AcceptMulti::new(fd)
            .flags(libc::SOCK_CLOEXEC)
            .build(),
        Op::Connect(address) => opcode::Connect::new(fd, address.as_ptr(), address.size()).build(),
        Op::Recv => match receive.private {
            Some(private) => {
                let (to, len) = private.space();
                opcode::Recv::new(fd, to, len).build()
            }
            None => recv_entry(fd, receive.multishot, receive.hungry),
        },
        Op::Send { data, from, all } => return send_entry(fd, data, *from, *all, key),
        Op::SendZc { data, from } => {
            let (start, len) = rest(data, *from);
            opcode::SendZc::new(fd, start, len)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .build()
        }
        Op::SendVectored(data) => opcode::SendMsg::new(fd, data.header())
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
            .build(),
        // Edge-triggered, as all that goes on by themselves are; what is ready
        // now is the first edge.
        Op::Edges(interest) => opcode::PollAdd::new(fd, events(*interest))
            .multi(true)
            .build(),
        Op::File(op) => file::entry(fd, op),
    };
    entry.user_data(key.raw())
}

fn events(interest: Interest) -> u32 {
    match interest {
        Interest::Read => libc::POLLIN as u32,
        Interest::Write => libc::POLLOUT as u32,
    }
}

/// What a completion means for an operation with `left` bytes to be sent.
///
/// Whether it is the last is told by `more` and by nothing else. A result that
/// is no error counts, whatever was wished.
fn duty(kind: Kind, wish: Wish, left: usize, result: Result<usize, i32>, more: bool) -> Duty {
    match (kind, result, wish) {
        (Kind::Edges, Ok(_), _) => match more {
            true => Duty::Edge,
            false => Duty::LastEdge,
        },
        _ if more && kind.is_subscription() => Duty::Deliver,
        _ if more => Duty::Wait,
        // If nothing was sent, sending again would send nothing again.
        (Kind::Send, Ok(n), Wish::Go) if n > 0 && n < left => Duty::Resend,
        (Kind::Recv, Err(libc::ENOBUFS), Wish::Go) => Duty::Starve,
        (Kind::Recv, Err(libc::ENOBUFS), Wish::Pause) => Duty::Pause,
        (_, Err(libc::ECANCELED), Wish::Pause) => Duty::Pause,
        _ => Duty::Finish,
    }
}

/// A receive into the ring's buffers.
///
/// A new one waits for data before it looks for a buffer: an idle socket would
/// otherwise get ENOBUFS when the ring is empty, and would try a receive in
/// vain when it is not. A hungry one knows that data is there. (Built by hand
/// because the crate's multishot entry has no such flag.)
pub(crate) fn recv_entry(fd: Fd, multishot: bool, hungry: bool) -> squeue::Entry {
    let mut flags = 0;
    if multishot {
        flags |= MULTISHOT;
    }
    if !hungry {
        flags |= POLL_FIRST;
    }
    opcode::Recv::new(fd, std::ptr::null_mut(), 0)
        .buf_group(GROUP)
        .ioprio(flags)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

/// The entry that cancels an operation. It completes only if it finds nothing.
pub(crate) fn cancel_entry(key: Key) -> squeue::Entry {
    opcode::AsyncCancel::new(key.raw())
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(key.cancel().raw())
}

/// The entry that cancels everything. It completes only if it fails, so that
/// waiting for a completion after it waits for those that it cancelled.
pub(crate) fn cancel_all_entry() -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any().all())
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(Key::CANCEL_ALL.raw())
}

/// The entry that waits for wakes from other threads.
pub(crate) fn wake_entry(fd: Fd) -> squeue::Entry {
    opcode::PollAdd::new(fd, libc::POLLIN as u32)
        .multi(true)
        .build()
        .user_data(Key::WAKE.raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Wish::{End, Go, Pause};

    const CANCELED: Result<usize, i32> = Err(libc::ECANCELED);
    const NO_BUFFER: Result<usize, i32> = Err(libc::ENOBUFS);

    #[test]
    fn a_subscription_goes_on_by_more_alone() {
        for kind in [Kind::Accept, Kind::Recv] {
            for wish in [Go, Pause, End] {
                // Even an end of file, and even after a cancel.
                for n in [0, 7] {
                    assert_eq!(duty(kind, wish, 0, Ok(n), true), Duty::Deliver);
                    assert_eq!(duty(kind, wish, 0, Ok(n), false), Duty::Finish);
                }
            }
        }
    }

    #[test]
    fn a_pause_is_no_error_and_a_cancel_is() {
        assert_eq!(duty(Kind::Recv, Pause, 0, CANCELED, false), Duty::Pause);
        assert_eq!(duty(Kind::Recv, Pause, 0, NO_BUFFER, false), Duty::Pause);
        assert_eq!(duty(Kind::Recv, End, 0, CANCELED, false), Duty::Finish);
        assert_eq!(duty(Kind::Recv, End, 0, NO_BUFFER, false), Duty::Finish);
        assert_eq!(duty(Kind::Recv, Go, 0, CANCELED, false), Duty::Finish);
        assert_eq!(duty(Kind::Recv, Go, 0, NO_BUFFER, false), Duty::Starve);
        // Of no other kind is a buffer a matter.
        assert_eq!(duty(Kind::Send, Go, 1, NO_BUFFER, false), Duty::Finish);
        let reset = Err(libc::ECONNRESET);
        assert_eq!(duty(Kind::Recv, Pause, 0, reset, false), Duty::Finish);
    }

    #[test]
    fn edges_end_by_an_error_or_are_asked_for_again() {
        for wish in [Go, End] {
            assert_eq!(duty(Kind::Edges, wish, 0, Ok(1), true), Duty::Edge);
            assert_eq!(duty(Kind::Edges, wish, 0, Ok(1), false), Duty::LastEdge);
            assert_eq!(duty(Kind::Edges, wish, 0, CANCELED, false), Duty::Finish);
        }
    }

    #[test]
    fn a_short_send_goes_on_unless_cancelled_or_stuck() {
        assert_eq!(duty(Kind::Send, Go, 10, Ok(4), false), Duty::Resend);
        assert_eq!(duty(Kind::Send, Go, 10, Ok(10), false), Duty::Finish);
        assert_eq!(duty(Kind::Send, Go, 1, Ok(4), false), Duty::Finish);
        assert_eq!(duty(Kind::Send, Go, 10, Ok(0), false), Duty::Finish);
        assert_eq!(duty(Kind::Send, End, 10, Ok(4), false), Duty::Finish);
        assert_eq!(duty(Kind::Send, Go, 10, Ok(4), true), Duty::Wait);
    }
}
