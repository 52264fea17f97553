//! Descriptors in the epoll set, and the operations that wait for them.

use std::mem;

use isochrome_runtime::op::{InFlight, Interest};

use crate::attempt::Left;
use crate::readiness::{Readiness, Tick};
use crate::table::Table;

/// A descriptor in the epoll set.
#[derive(Debug)]
pub(crate) struct Registration {
    read: Direction,
    write: Direction,
}

impl Registration {
    pub(crate) fn new(tcp: bool) -> Registration {
        Registration {
            read: Direction::new(tcp),
            write: Direction::new(tcp),
        }
    }

    pub(crate) fn direction(&mut self, interest: Interest) -> &mut Direction {
        match interest {
            Interest::Read => &mut self.read,
            Interest::Write => &mut self.write,
        }
    }
}

/// One direction of it.
#[derive(Debug)]
pub(crate) struct Direction {
    pub(crate) readiness: Readiness,
    pub(crate) waiting: Line,
    /// On the driver's list of the same name.
    busy: bool,
}

impl Direction {
    fn new(tcp: bool) -> Direction {
        Direction {
            readiness: Readiness::unknown(tcp),
            waiting: Line::default(),
            busy: false,
        }
    }

    /// After an attempt that was not blocked.
    pub(crate) fn used(&mut self, at: Tick, left: Left) {
        if left == Left::Short {
            self.readiness.short(at);
        }
    }

    /// Whether it has to be put on the busy list: there is something to try,
    /// nobody else remembers it, and it is not there yet.
    #[must_use]
    pub(crate) fn becomes_busy(&mut self) -> bool {
        let busy = self.readiness.is_ready() && !self.waiting.is_empty();
        busy && !mem::replace(&mut self.busy, true)
    }

    /// It was taken from the busy list.
    pub(crate) fn left_busy(&mut self) {
        self.busy = false;
    }
}

/// An operation that waits, and its place in the line.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) op: InFlight,
    /// The registration and the direction that it waits for.
    pub(crate) token: u64,
    pub(crate) interest: Interest,
    /// Its neighbours in the line.
    before: Option<u64>,
    after: Option<u64>,
}

impl Waiter {
    pub(crate) fn new(op: InFlight, token: u64, interest: Interest) -> Waiter {
        Waiter {
            op,
            token,
            interest,
            before: None,
            after: None,
        }
    }
}

/// Waiters in the order of their arrival: a list threaded through the table
/// that holds them, so that a line takes no memory of its own and a cancel no
/// search.
#[derive(Debug, Default)]
pub(crate) struct Line {
    ends: Option<(u64, u64)>,
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(crate) fn front(&self) -> Option<u64> {
        self.ends.map(|(front, _)| front)
    }

    /// Puts a waiter at the end. Returns its key.
    pub(crate) fn push(&mut self, waiters: &mut Table<Waiter>, mut waiter: Waiter) -> u64 {
        let back = self.ends.map(|(_, back)| back);
        waiter.before = back;
        let key = waiters.insert(waiter);
        if let Some(last) = back.and_then(|back| waiters.get_mut(back)) {
            last.after = Some(key);
        }
        self.ends = Some((self.front().unwrap_or(key), key));
        key
    }

    /// Takes a waiter out, wherever it stands in this line.
    pub(crate) fn remove(&mut self, waiters: &mut Table<Waiter>, key: u64) -> Option<Waiter> {
        let waiter = waiters.remove(key)?;
        if let Some(before) = waiter.before.and_then(|k| waiters.get_mut(k)) {
            before.after = waiter.after;
        }
        if let Some(after) = waiter.after.and_then(|k| waiters.get_mut(k)) {
            after.before = waiter.before;
        }
        self.ends = self.ends.and_then(|(front, back)| {
            let front = if front == key { waiter.after? } else { front };
            let back = if back == key { waiter.before? } else { back };
            Some((front, back))
        });
        Some(waiter)
    }
}
