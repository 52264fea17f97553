//! What completions bring: the second half of the driver.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use io_uring::cqueue;
use isochrome_runtime::buf::RecvBuf;
use isochrome_runtime::op::{Completion, Yield};

use crate::Proactor;
use crate::buffers::{Buffers, Claimed};
use crate::driver::canceled;
use crate::file;
use crate::operation::{Apart, Duty, Kind, Operation, Stage, Wish};
use crate::table::Key;

/// Completions popped at a time: few enough to lie on the stack, enough that
/// the head of their queue is seldom published.
const BATCH: usize = 32;

/// Results at and beyond this are the kernel's own, for restarting system
/// calls; a cancelled operation that ran in a kernel thread leaks them.
const ERESTARTSYS: i32 = 512;

impl Proactor {
    /// Handles the completions that are there, ends the sends that come without
    /// one, and says how many both were.
    pub(crate) fn reap(&mut self) -> usize {
        // Before the completions, which may have more to be pushed.
        let taken = !self.prompt.is_empty() && self.ring.has_taken_all();
        // No more than are there now: without deferred completions the kernel
        // could go on for ever, and the tasks want their turn.
        let ready = self.ring.ready();
        let mut left = ready;
        let mut batch = [const { MaybeUninit::uninit() }; BATCH];
        while left > 0 {
            let room = left.min(BATCH);
            let entries = self.ring.pop(&mut batch[..room]);
            if entries.is_empty() {
                break;
            }
            left -= entries.len();
            for entry in entries {
                self.complete(entry);
            }
        }
        match taken {
            true => ready + self.settle(),
            false => ready,
        }
    }

    /// A cancel did not find its operation. If that has not completed, it was
    /// between two places: a send that found no room is submitted, but waits
    /// for room only after the batch that brought the cancel too (seen on
    /// 6.18). So it is sent again.
    fn cancel_failed(&mut self, key: Option<Key>, result: i32) {
        let Some(key) = key.filter(|_| result == -libc::ENOENT) else {
            return;
        };
        let found = self.table.get_mut(key);
        // What has told its result cannot be cancelled, and ends by itself.
        let open = |o: &mut Operation| o.stage == Stage::Pushed && !o.has_told();
        if found.is_some_and(|o| open(o) && o.wish != Wish::Go) {
            self.cancels.push_back(key);
        }
    }

    /// A completion of the driver's own business, or of nothing known.
    fn no_operation(&mut self, key: Key, result: i32, more: bool) {
        match key {
            Key::WAKE => self.wake_armed = more,
            Key::CANCEL_ALL => {}
            key if key.is_prompt() => self.fell_short(key.prompt_index(), result),
            key if key.cancels().is_some() => self.cancel_failed(key.cancels(), result),
            // The kernel is done with it.
            _ if self.kept.remove(&key.raw()).is_some() => {}
            _ => self.is_strange(),
        }
    }

    /// A completion of nothing that is known.
    pub(crate) fn is_strange(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// What nearly all completions come to has a direct path here.
    #[inline]
    pub(crate) fn complete(&mut self, entry: &cqueue::Entry) {
        let key = Key::from_raw(entry.user_data());
        let Ok(count) = usize::try_from(entry.result()) else {
            return self.complete_any(key, entry);
        };
        let more = cqueue::more(entry.flags());
        let (buffers, cancels) = (&mut self.buffers, &mut self.cancels);
        let mut delivered = false;
        let over = self.table.remove_if(key, |operation| {
            // Of a receive, and one that is still multishot.
            if more && operation.goes_on() && count > 0 {
                if let Some(claimed) = buffers.claim(entry.flags()) {
                    operation.has_eaten();
                    let lease = Ok(Yield::Buf(buffers.lease(claimed, count)));
                    deliver(operation, lease, key, entry.flags(), buffers, cancels);
                    delivered = true;
                }
                return false;
            }
            !more && operation.is_sent_by(count)
        });
        if let Some(operation) = over {
            operation.op.finish(Ok(Yield::Done(count)));
        } else if !delivered {
            self.complete_any(key, entry);
        }
    }

    /// All others, and what has no operation.
    #[inline(never)]
    fn complete_any(&mut self, key: Key, entry: &cqueue::Entry) {
        let more = cqueue::more(entry.flags());
        let claimed = self.buffers.claim(entry.flags());
        let Some(operation) = self.table.get_mut(key) else {
            if let Some(claimed) = claimed {
                self.buffers.put(claimed);
            }
            return self.no_operation(key, entry.result(), more);
        };

        if more && operation.kind == Kind::Send {
            // Sent without a copy: another completion says that the kernel is
            // done with the memory.
            operation.tell(entry.result());
            self.part(key);
            return;
        }
        let result = match operation.take_told().unwrap_or(entry.result()) {
            n @ 0.. => Ok(n as usize),
            e if e <= -ERESTARTSYS => Err(operation.kind.interrupted()),
            e => Err(-e),
        };
        if operation.falls_back(result) {
            return self.start(key);
        }
        let duty = operation.duty(result, more);
        let mut apart = None;
        if !more && operation.has_apart() {
            apart = self.apart.remove(&key.raw());
            operation.set_apart(false);
        }
        let before = match apart {
            Some(Apart::Sent(before)) => before,
            _ => 0,
        };
        let completion = yielded(operation, result, claimed, apart, &self.buffers);
        let (flags, buffers, cancels) = (entry.flags(), &self.buffers, &mut self.cancels);
        match duty {
            Duty::Deliver => deliver(operation, completion, key, flags, buffers, cancels),
            Duty::Edge => operation.op.edge(false),
            Duty::LastEdge => {
                if let Some(operation) = self.remove(key) {
                    operation.op.edge(false);
                    operation.op.pause();
                }
            }
            Duty::Finish => {
                if let Some(operation) = self.remove(key) {
                    operation.op.finish(completion);
                }
            }
            Duty::Pause => {
                if let Some(operation) = self.remove(key) {
                    operation.op.pause();
                }
            }
            Duty::Starve => {
                operation.stage = Stage::Starved;
                self.starved.push_back(key);
            }
            Duty::Resend => {
                self.send_on(key, before, result.unwrap_or(0));
            }
            Duty::Wait => {}
        }
    }

    /// Sends what is left after `sent` bytes; `before` these were others.
    pub(crate) fn send_on(&mut self, key: Key, before: usize, sent: usize) {
        let Some(operation) = self.table.get_mut(key) else {
            return;
        };
        operation.advance(sent);
        self.apart.insert(key.raw(), Apart::Sent(before + sent));
        operation.set_apart(true);
        self.start(key);
    }
}

/// Hands a completion over that more will follow, or a pause, if nobody takes
/// what comes.
#[inline(always)]
fn deliver(
    operation: &mut Operation,
    completion: Completion,
    key: Key,
    flags: u32,
    buffers: &Buffers,
    cancels: &mut VecDeque<Key>,
) {
    let emptied = !cqueue::sock_nonempty(flags);
    let hidden = operation.hides_the_end(emptied);
    let untaken = operation.op.deliver(completion);
    // One is below every cap.
    let cap = |plenty| operation.kind.cap(plenty);
    let pause = hidden || untaken > 1 && untaken >= cap(buffers.are_plenty());
    if pause && operation.wish == Wish::Go {
        operation.wish = Wish::Pause;
        cancels.push_back(key);
    }
}

/// Makes of a result what the asker gets, and adopts what it brings.
fn yielded(
    operation: &mut Operation,
    result: Result<usize, i32>,
    claimed: Option<Claimed>,
    apart: Option<Apart>,
    buffers: &Buffers,
) -> Completion {
    let value = match (operation.kind, result) {
        (Kind::Recv, Ok(n)) => {
            operation.has_eaten();
            return Ok(Yield::Buf(received(n, claimed, apart, buffers)));
        }
        (Kind::Accept, Ok(fd)) => {
            // SAFETY: the kernel has just opened it for this operation, and
            // told nobody else.
            Ok(Yield::Socket(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
        }
        (Kind::Send, Ok(n)) => Ok(Yield::Done(match apart {
            Some(Apart::Sent(before)) => before + n,
            _ => n,
        })),
        // For a poll, the events that are there: each is an answer.
        (Kind::Connect | Kind::Edges, Ok(_)) => Ok(Yield::Done(0)),
        (Kind::File(kind), result) => {
            let ends = operation.wish == Wish::End;
            file::yielded(kind, &operation.op, result, ends)
        }
        // Whoever still wants it waits for a buffer. This one was cancelled, and
        // that there was none is nobody's business.
        (Kind::Recv, Err(libc::ENOBUFS)) => Err(canceled()),
        (_, Err(errno)) => Err(io::Error::from_raw_os_error(errno)),
    };
    if let Some(claimed) = claimed {
        buffers.put(claimed);
    }
    value
}

fn received(
    len: usize,
    claimed: Option<Claimed>,
    apart: Option<Apart>,
    buffers: &Buffers,
) -> RecvBuf {
    match (claimed, apart) {
        (Some(claimed), _) if len > 0 => buffers.lease(claimed, len),
        (None, Some(Apart::Buffer(private))) if len > 0 => {
            // SAFETY: this is the completion of the one-shot receive into
            // `private`, and the last that it has.
            unsafe { private.lease(len) }
        }
        (claimed, _) => {
            if let Some(claimed) = claimed {
                buffers.put(claimed);
            }
            RecvBuf::empty()
        }
    }
}
