//! Sends that end with the enter that takes them.
//!
//! What is fed, nobody waits for. So its entry asks for no completion, and not
//! to be kept waiting: the enter that takes it sends what there is room for,
//! before it sleeps. Then it is over, if nothing says otherwise. That spares a
//! completion, and where little goes on an enter: one that submits an ordinary
//! send returns at once, because that completes.
//!
//! # Rules
//!
//! 1. With MSG_DONTWAIT the kernel neither waits for room nor hands the send to
//!    a thread. With SKIP_SUCCESS it completes only if it failed or fell short,
//!    and then before the enter returns or sleeps ([`trial`](crate::trial) has
//!    seen it).
//! 2. So what an enter has taken is settled when all completions were handled
//!    that were there after it: those that came to nothing else have sent all.
//!    Not while some are kept back because their queue is full. (One that the
//!    kernel has no memory to keep back is lost, as any other is then.)
//! 3. Until it is settled a send is in flight: nothing of it is freed. One that
//!    fell short goes on as an ordinary operation; its slot is taken meanwhile,
//!    so that nothing overtakes it. When the driver shuts down it ends.
//! 4. A worker may sleep with sends that are not settled, for as long as nobody
//!    waits for their end. Who does, or gives one up, hurries the driver: then
//!    the enter that takes them does not sleep.

use std::io;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use isochrome_runtime::buf::Lent;
use isochrome_runtime::op::{InFlight, Op};

use crate::Proactor;
use crate::driver::canceled;
use crate::operation::{MOST, Operation};
use crate::table::Key;

/// The sends that are not settled.
pub(crate) struct Prompt {
    /// With how much each sends; `None`: it goes on as an operation, or failed.
    /// No more than there is room for from the beginning.
    sends: Vec<Option<(InFlight, usize)>>,
    /// Somebody waits for one.
    hurry: bool,
}

impl Prompt {
    /// For a ring with so many entries.
    pub(crate) fn new(entries: u32) -> Prompt {
        Prompt {
            sends: Vec::with_capacity(entries as usize),
            hurry: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    pub(crate) fn hurry(&mut self) {
        self.hurry = !self.is_empty();
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurry
    }

    /// Takes all of them out, for one that shuts down.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = InFlight> {
        self.hurry = false;
        self.sends.drain(..).flatten().map(|(op, _)| op)
    }
}

/// The entry of such a send (rule 1).
#[inline]
pub(crate) fn prompt_entry(fd: Fd, data: &Lent, key: Key) -> squeue::Entry {
    opcode::Send::new(fd, data.as_ptr(), data.len() as u32)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(key.raw())
}

impl Proactor {
    /// Pushes a send that nobody waits for; gives it back if it has to be an
    /// ordinary operation.
    #[inline]
    pub(crate) fn push_prompt(&mut self, op: InFlight) -> Result<(), InFlight> {
        let index = self.prompt.sends.len();
        let room = self.backlog.is_empty() && index < self.prompt.sends.capacity();
        if !room || self.closed || !self.ring.is_prompt() {
            return Err(op);
        }
        let key = Key::prompt(index);
        let (fd, ring) = (Fd(op.fd()), &mut self.ring);
        let len = op.begin(key.raw(), |op| match op {
            Op::Send { data, from: 0, .. } if data.len() <= MOST => {
                // SAFETY: the operation keeps the memory, and stays in `sends`
                // until it is settled (rule 3).
                let pushed = unsafe { ring.push(&prompt_entry(fd, data, key)) };
                pushed.then_some(data.len())
            }
            _ => None,
        });
        match len {
            Some(len) => self.prompt.sends.push(Some((op, len))),
            None => return Err(op),
        }
        Ok(())
    }

    /// A send of these has failed, or fell short.
    #[cold]
    pub(crate) fn fell_short(&mut self, index: usize, result: i32) {
        let Some((op, _)) = self.prompt.sends.get_mut(index).and_then(Option::take) else {
            return self.is_strange();
        };
        // At the end nobody fills the submission queue any more, should it be full.
        let goes_on = !self.closed && !op.is_abandoned();
        match -result {
            ..=0 | libc::EAGAIN | libc::EINTR if goes_on => {
                let made = |key| (Operation::new(op, key, |_| false), ());
                let (key, ()) = self.table.insert_with(made);
                self.send_on(key, 0, result.max(0) as usize);
            }
            ..=0 | libc::EAGAIN | libc::EINTR => op.finish(Err(canceled())),
            errno => op.finish(Err(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Ends those that nothing was heard of, when an enter has taken all and all
    /// that completed was handled (rule 2). Says how many.
    #[inline]
    pub(crate) fn settle(&mut self) -> usize {
        self.prompt.hurry = false;
        let settled = self.prompt.sends.len();
        for (op, len) in self.prompt.sends.drain(..).flatten() {
            op.sent(len);
        }
        settled
    }
}
