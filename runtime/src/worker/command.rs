//! What other threads ask of a worker's driver.
//!
//! Behind a lock, because it is the rare case: a socket used from another
//! worker than the one it is registered with, or from a foreign thread.

use std::fmt;

use crate::descriptor::Legacy;
use crate::driver::Successor;
use crate::op::{InFlight, SlotRef};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

pub(crate) enum Command {
    Submit(InFlight),
    /// Cancel what is abandoned in this slot, or hurry what is fed.
    Cancel(SlotRef),
    /// `Driver::forget` with this token.
    Forget(u64),
    /// `Driver::hand_over` of what is in flight in this slot.
    HandOver(SlotRef, Successor),
    /// What this token was adopted for did not come.
    Disown(SlotRef, u64),
    /// `Driver::release` with this token.
    Release(u64, Legacy),
}

pub(crate) struct Commands {
    queue: Mutex<Queue>,
    /// Whether the queue may hold something, to be asked without the lock.
    pending: AtomicBool,
}

struct Queue {
    commands: Vec<Command>,
    closed: bool,
}

impl Commands {
    pub(crate) fn new() -> Commands {
        Commands {
            queue: Mutex::new(Queue {
                commands: Vec::new(),
                closed: false,
            }),
            pending: AtomicBool::new(false),
        }
    }

    /// Adds one. If the worker has ended, the command is dropped, and an
    /// operation in it finished with ECANCELED.
    pub(crate) fn push(&self, command: Command) {
        let mut queue = self.queue.lock().unwrap_or_else(|e| e.into_inner());
        if queue.closed {
            drop(queue);
            drop(command);
            return;
        }
        queue.commands.push(command);
        // Relaxed: the lock publishes the command, and the fences in
        // `worker::sleep` order this flag against the sleeper's look.
        self.pending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.pending.load(Ordering::Relaxed)
    }

    /// Moves all to `into`, which is empty and keeps its memory.
    pub(crate) fn take(&self, into: &mut Vec<Command>) {
        let mut queue = self.queue.lock().unwrap_or_else(|e| e.into_inner());
        self.pending.store(false, Ordering::Relaxed);
        std::mem::swap(&mut queue.commands, into);
    }

    /// Takes no more, and returns the rest.
    pub(crate) fn close(&self) -> Vec<Command> {
        let mut queue = self.queue.lock().unwrap_or_else(|e| e.into_inner());
        queue.closed = true;
        std::mem::take(&mut queue.commands)
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commands")
    }
}
