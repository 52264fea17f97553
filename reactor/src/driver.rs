//! The driver itself: registrations, and who is told of what.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use isochrome_runtime::Descriptor;
use isochrome_runtime::driver::{Driver, Successor, Unpark};
use isochrome_runtime::eventfd::EventFd;
use isochrome_runtime::op::{InFlight, Interest, Op};

use crate::epoll::{self, Epoll, Event};
use crate::registration::{Name, Others, Registration};
use crate::table::Table;

/// The name of the eventfd in the epoll set: none that a table gives.
const WAKE: u64 = u64::MAX;

/// An epoll(7) driver for one worker. See the [crate] for its rules.
pub struct Reactor {
    /// Which worker: that is how descriptors know where they are registered.
    worker: usize,
    epoll: Epoll,
    wake: Arc<EventFd>,
    registrations: Table<Registration>,
    /// Who is told of edges beside the first of each direction.
    others: Others,
    /// A host loop sleeps on the epoll set.
    hosted: Cell<bool>,
}

impl Reactor {
    /// Makes the driver of worker number `worker`.
    ///
    /// # Errors
    ///
    /// What epoll_create1(2), eventfd(2) or epoll_ctl(2) answer: out of
    /// descriptors, mostly.
    pub fn new(worker: usize) -> io::Result<Reactor> {
        let epoll = Epoll::new()?;
        let wake = Arc::new(EventFd::new()?);
        epoll.add(wake.as_raw_fd(), WAKE, epoll::WRITTEN)?;
        Ok(Reactor {
            worker,
            epoll,
            wake,
            registrations: Table::new(),
            others: Others::new(),
            hosted: Cell::new(false),
        })
    }

    /// What the descriptor is called here, from now on if need be.
    fn registered(&mut self, descriptor: &Descriptor) -> io::Result<u64> {
        if let Some(token) = descriptor.token() {
            return Ok(token);
        }
        let token = self.register(descriptor)?;
        descriptor.set_token(token);
        Ok(token)
    }

    fn register(&mut self, descriptor: &Descriptor) -> io::Result<u64> {
        let token = self.registrations.insert(Registration::new);
        let added = self.epoll.add(descriptor.as_raw_fd(), token, epoll::BOTH);
        if let Err(e) = added {
            self.registrations.remove(token);
            return Err(e);
        }
        Ok(token)
    }

    /// The registration of the subscriber with this name.
    fn token_of(&self, name: Name) -> Option<u64> {
        match name {
            Name::Only(token, _) => Some(token),
            Name::Other(key) => self.others.token(key),
        }
    }

    fn event(&mut self, event: Event) {
        // Not there: the wake source, or a descriptor that is gone.
        let Some(registration) = self.registrations.get_mut(event.token) else {
            return;
        };
        if event.readable() {
            let exceptional = event.read_exceptional();
            registration.edge(event.token, Interest::Read, &self.others, exceptional);
        }
        if event.writable() {
            let exceptional = event.write_exceptional();
            registration.edge(event.token, Interest::Write, &self.others, exceptional);
        }
    }
}

#[cfg(test)]
impl Reactor {
    pub(crate) fn registrations(&self) -> usize {
        self.registrations.len()
    }

    pub(crate) fn subscribers(&self) -> usize {
        let registrations = self.registrations.iter();
        self.others.len() + registrations.map(Registration::subscribers).sum::<usize>()
    }
}

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

// SAFETY: operations are looked at, and nothing is moved out of them; the epoll
// set is open as long as the driver.
unsafe impl Driver for Reactor {
    fn name(&self) -> &'static str {
        "reactor"
    }

    fn by_readiness(&self) -> bool {
        true
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        if op.descriptor().home(self.worker) != self.worker {
            return Err(op);
        }
        let Some(interest) = op.with_op(|op| match op {
            Op::Edges(interest) => Some(*interest),
            _ => None,
        }) else {
            op.finish(Err(io::ErrorKind::Unsupported.into()));
            return Ok(());
        };
        let token = match self.registered(op.descriptor()) {
            Ok(token) => token,
            Err(e) => {
                op.finish(Err(e));
                return Ok(());
            }
        };
        if let Some(registration) = self.registrations.get_mut(token) {
            registration.add(&mut self.others, op, token, interest);
        }
        Ok(())
    }

    fn cancel(&mut self, key: u64) {
        let name = Name::from_raw(key);
        let token = self.token_of(name);
        let registration = token.and_then(|token| self.registrations.get_mut(token));
        let gone = registration.and_then(|r| r.remove(&mut self.others, name));
        if let Some(op) = gone {
            op.finish(Err(cancelled()));
        }
    }

    fn adopt(&mut self, descriptor: &Descriptor) -> Option<u64> {
        self.register(descriptor).ok()
    }

    fn hand_over(&mut self, key: u64, to: Successor) -> bool {
        let name = Name::from_raw(key);
        let (Some(token), Some(new)) = (self.token_of(name), to.token) else {
            return false;
        };
        let registration = self.registrations.get_mut(token);
        let Some(registration) = registration.filter(|r| !r.is_exceptional()) else {
            return false;
        };
        let Some(first) = registration.remove(&mut self.others, name) else {
            return false;
        };
        self.epoll.remove(first.fd());
        // Before anybody is woken, who may submit it again.
        first.descriptor().moves_to(to.worker, new);
        if let Some(mut registration) = self.registrations.remove(token) {
            while let Some(op) = registration.pop(token, &mut self.others) {
                op.pause();
            }
        }
        first.pause();
        true
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        // Nobody waits for an edge, and a wake that is left untaken ends the
        // next sleep: which a host's loop, that polls the set, could not tell
        // from a new one.
        let nobody = self.registrations.is_empty() && !self.hosted.get();
        if nobody && wait == Some(Duration::ZERO) {
            return Ok(());
        }
        let count = self.epoll.wait(wait)?;
        for i in 0..count {
            self.event(self.epoll.event(i));
        }
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.hosted.set(true);
        Some(self.epoll.as_fd())
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.wake.clone()
    }

    fn forget(&mut self, token: u64) {
        let Some(mut registration) = self.registrations.remove(token) else {
            return;
        };
        while let Some(op) = registration.pop(token, &mut self.others) {
            op.finish(Err(cancelled()));
        }
    }

    fn release(&mut self, token: u64, fd: BorrowedFd<'_>) {
        self.epoll.remove(fd.as_raw_fd());
        self.forget(token);
    }

    fn shutdown(&mut self, _grace: Duration) -> usize {
        for (token, mut registration) in self.registrations.drain() {
            while let Some(op) = registration.pop(token, &mut self.others) {
                op.finish(Err(cancelled()));
            }
        }
        // The kernel has nothing of ours between two system calls.
        0
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("worker", &self.worker)
            .field("epoll", &self.epoll)
            .finish_non_exhaustive()
    }
}
