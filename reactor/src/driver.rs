//! The driver itself: who is tried when.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use isochrome_runtime::Descriptor;
use isochrome_runtime::buf::Pool;
use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::eventfd::EventFd;
use isochrome_runtime::op::{InFlight, Interest, Op};

use crate::attempt::{self, Attempt, Left};
use crate::epoll::{self, Epoll};
use crate::registration::{Registration, Waiter};
use crate::sys;
use crate::table::Table;

/// The receive buffers of a worker. 16 KiB is where the gain of larger ones
/// flattens (4 KiB messages: 6.3, 2.1 and 1.1 us with 4, 16 and 64 KiB) at a
/// size that many can be on lease; 256 of them are 4 MiB at the very most,
/// and the memory is touched only when so many leases are out at a time.
const BUFFER: usize = 16 * 1024;
const BUFFERS: u16 = 256;

/// The share of a direction in a turn, in system calls (rule 6 of the crate).
/// From thin air: enough that the rest of a turn costs less than the calls,
/// and at some 16 KiB a call far from the time that others would notice.
const SHARE: usize = 32;

/// The name of the eventfd in the epoll set: none that a table gives.
const WAKE: u64 = u64::MAX;

/// An epoll(7) driver for one worker. See the [crate] for its rules.
pub struct Reactor {
    /// Which worker: that is how descriptors know where they are registered.
    worker: usize,
    epoll: Epoll,
    wake: Arc<EventFd>,
    pool: Arc<Pool>,
    registrations: Table<Registration>,
    /// The operations that wait, by the key that cancels them.
    waiters: Table<Waiter>,
    /// Directions whose share was used up before their readiness was.
    busy: Vec<(u64, Interest)>,
    /// The other list, while this one is worked off. Empty else.
    spare: Vec<(u64, Interest)>,
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
            pool: Pool::new(BUFFERS, BUFFER),
            wake,
            registrations: Table::new(),
            waiters: Table::new(),
            busy: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// What the descriptor is called here, if it is registered here.
    fn registered(&mut self, descriptor: &Descriptor) -> Option<u64> {
        let token = descriptor.token()?;
        // It has a token, so that its home is decided: this only asks.
        let here = descriptor.home(self.worker) == self.worker;
        (here && self.registrations.contains(token)).then_some(token)
    }

    /// Whether it may be registered here, which then is where it stays.
    fn is_home(&self, descriptor: &Descriptor) -> bool {
        descriptor.home(self.worker) == self.worker
    }

    fn register(&mut self, descriptor: &Descriptor) -> io::Result<u64> {
        let fd = descriptor.as_raw_fd();
        let token = self
            .registrations
            .insert(Registration::new(sys::is_tcp(fd)));
        if let Err(e) = self.epoll.add(fd, token, epoll::BOTH) {
            self.registrations.remove(token);
            return Err(e);
        }
        descriptor.set_token(token);
        Ok(token)
    }

    /// A transfer of up to `len` bytes by `call`, now or not at all.
    fn now(
        &mut self,
        descriptor: &Descriptor,
        interest: Interest,
        len: usize,
        call: impl FnOnce(RawFd) -> io::Result<usize>,
    ) -> Option<Poll<io::Result<usize>>> {
        let fd = descriptor.as_raw_fd();
        let Some(token) = self.registered(descriptor) else {
            let read = interest == Interest::Read;
            if read && descriptor.token().is_some() {
                // Its home knows what there is to read.
                return None;
            }
            let result = call(fd);
            if !result.as_ref().is_err_and(sys::would_block) {
                return Some(Poll::Ready(result));
            }
            if !read {
                // The operation that follows sees to the registration.
                return None;
            }
            return Some(match self.register(descriptor) {
                // So that the poll which follows knows that there is nothing.
                Ok(token) => {
                    self.blocked(token, interest);
                    Poll::Pending
                }
                Err(e) => Poll::Ready(Err(e)),
            });
        };
        let direction = self.registrations.get_mut(token)?.direction(interest);
        if !direction.readiness.is_ready() || !direction.waiting.is_empty() {
            return Some(Poll::Pending);
        }
        let at = direction.readiness.attempt();
        let result = call(fd);
        match &result {
            Ok(n) => {
                let left = match interest {
                    Interest::Read => attempt::left_to_read(*n, len),
                    Interest::Write => attempt::left(*n, len),
                };
                direction.used(at, left);
            }
            Err(e) if sys::would_block(e) => {
                direction.readiness.blocked(at);
                return Some(Poll::Pending);
            }
            Err(_) => direction.used(at, Left::Unknown),
        }
        Some(Poll::Ready(result))
    }

    /// An operation on a descriptor that is registered here.
    fn submit_registered(&mut self, token: u64, interest: Interest, op: InFlight) {
        let Some(registration) = self.registrations.get_mut(token) else {
            return;
        };
        let direction = registration.direction(interest);
        let now = match op.with_op(|op| Place::of(op)) {
            Place::Immediate => true,
            Place::Any => direction.readiness.is_ready(),
            Place::Line => direction.readiness.is_ready() && direction.waiting.is_empty(),
        };
        let attempts = if now { SHARE } else { 0 };
        for _ in 0..attempts {
            let at = direction.readiness.attempt();
            match attempt::first(&op, &self.pool) {
                Attempt::Done(completion, left) => {
                    direction.used(at, left);
                    op.finish(completion);
                    return;
                }
                Attempt::Progress(left) => direction.used(at, left),
                Attempt::Blocked => direction.readiness.blocked(at),
            }
            if !direction.readiness.is_ready() {
                break;
            }
        }
        self.wait(token, interest, op);
    }

    /// An operation on a descriptor that is registered elsewhere or nowhere.
    fn submit_unregistered(&mut self, interest: Interest, op: InFlight) -> Result<(), InFlight> {
        // A connect is begun only where it can also wait, and a poll is there
        // to wait. The others take the short way first: most sends are done
        // at once, from any worker.
        let transfers = op.with_op(|op| Place::of(op) == Place::Line);
        if !transfers && !self.is_home(op.descriptor()) {
            return Err(op);
        }
        let mut blocked = false;
        for _ in 0..SHARE {
            match attempt::first(&op, &self.pool) {
                Attempt::Done(completion, _) => {
                    op.finish(completion);
                    return Ok(());
                }
                // Short or not: nothing would tell of the room to come.
                Attempt::Progress(_) => {}
                Attempt::Blocked => {
                    blocked = true;
                    break;
                }
            }
        }
        if !self.is_home(op.descriptor()) {
            return Err(op);
        }
        match self.register(op.descriptor()) {
            Ok(token) => {
                if blocked {
                    self.blocked(token, interest);
                }
                self.wait(token, interest, op);
            }
            Err(e) => op.finish(Err(e)),
        }
        Ok(())
    }

    /// The descriptor was just registered, after an attempt met EAGAIN: if
    /// something came in between, the first event tells.
    fn blocked(&mut self, token: u64, interest: Interest) {
        if let Some(registration) = self.registrations.get_mut(token) {
            let readiness = &mut registration.direction(interest).readiness;
            let at = readiness.attempt();
            readiness.blocked(at);
        }
    }

    /// Puts an operation at the end of its line.
    fn wait(&mut self, token: u64, interest: Interest, op: InFlight) {
        let Some(registration) = self.registrations.get_mut(token) else {
            return;
        };
        let direction = registration.direction(interest);
        let waiter = Waiter::new(op, token, interest);
        let key = direction.waiting.push(&mut self.waiters, waiter);
        if let Some(waiter) = self.waiters.get_mut(key) {
            waiter.op.set_key(key);
        }
        if direction.becomes_busy() {
            self.busy.push((token, interest));
        }
    }

    /// Tries those who wait, in their order, until the direction is blocked
    /// or has had its share.
    fn advance(&mut self, token: u64, interest: Interest) {
        let Some(registration) = self.registrations.get_mut(token) else {
            return;
        };
        let direction = registration.direction(interest);
        for _ in 0..SHARE {
            if !direction.readiness.is_ready() {
                return;
            }
            let Some(key) = direction.waiting.front() else {
                return;
            };
            let Some(waiter) = self.waiters.get_mut(key) else {
                return;
            };
            let at = direction.readiness.attempt();
            match attempt::again(&waiter.op, &self.pool) {
                Attempt::Done(completion, left) => {
                    direction.used(at, left);
                    if let Some(waiter) = direction.waiting.remove(&mut self.waiters, key) {
                        waiter.op.finish(completion);
                    }
                }
                Attempt::Progress(left) => direction.used(at, left),
                Attempt::Blocked => direction.readiness.blocked(at),
            }
        }
        if direction.becomes_busy() {
            self.busy.push((token, interest));
        }
    }

    /// One event of the last wait.
    fn event(&mut self, i: usize) {
        let event = self.epoll.event(i);
        // Not there: the wake source, or a descriptor that is gone.
        let Some(registration) = self.registrations.get_mut(event.token) else {
            return;
        };
        let (read, write) = (event.readable(), event.writable());
        if read {
            let direction = registration.direction(Interest::Read);
            direction.readiness.event(event.read_exceptional());
        }
        if write {
            let direction = registration.direction(Interest::Write);
            direction.readiness.event(event.write_exceptional());
        }
        if read {
            self.advance(event.token, Interest::Read);
        }
        if write {
            self.advance(event.token, Interest::Write);
        }
    }
}

#[cfg(test)]
impl Reactor {
    pub(crate) fn registrations(&self) -> usize {
        self.registrations.len()
    }

    pub(crate) fn waiters(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn busy(&self) -> usize {
        self.busy.len()
    }

    pub(crate) fn free_buffers(&self) -> usize {
        self.pool.free_count()
    }
}

/// What an operation's place in the line means (rule 4 of the crate).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Takes from the stream or adds to it: after those who came before.
    Line,
    /// Takes nothing: whenever the direction is ready.
    Any,
    /// Is begun before it can wait, whatever is known of the direction.
    Immediate,
}

impl Place {
    fn of(op: &Op) -> Place {
        match op {
            Op::Accept | Op::Recv | Op::Send { .. } => Place::Line,
            Op::Poll(_) => Place::Any,
            Op::Connect(_) => Place::Immediate,
        }
    }
}

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

impl Driver for Reactor {
    fn name(&self) -> &'static str {
        "reactor"
    }

    fn nonblocking(&self) -> bool {
        true
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        let interest = op.with_op(|op| attempt::interest(op));
        match self.registered(op.descriptor()) {
            Some(token) => {
                self.submit_registered(token, interest, op);
                Ok(())
            }
            None => self.submit_unregistered(interest, op),
        }
    }

    fn cancel(&mut self, key: u64) {
        let Some(waiter) = self.waiters.get_mut(key) else {
            return;
        };
        let (token, interest) = (waiter.token, waiter.interest);
        let Some(registration) = self.registrations.get_mut(token) else {
            return;
        };
        let waiting = &mut registration.direction(interest).waiting;
        if let Some(waiter) = waiting.remove(&mut self.waiters, key) {
            waiter.op.finish(Err(cancelled()));
        }
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let wait = if self.busy.is_empty() {
            wait
        } else {
            Some(Duration::ZERO)
        };
        let count = self.epoll.wait(wait)?;
        // Those of the last turn go after the events, and those who become
        // busy by them wait for the next: everybody gets one share a turn.
        let spare = mem::take(&mut self.spare);
        let mut busy = mem::replace(&mut self.busy, spare);
        for i in 0..count {
            self.event(i);
        }
        for (token, interest) in busy.drain(..) {
            if let Some(registration) = self.registrations.get_mut(token) {
                registration.direction(interest).left_busy();
                self.advance(token, interest);
            }
        }
        self.spare = busy;
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn is_due(&self) -> bool {
        !self.busy.is_empty()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.wake.clone()
    }

    fn recv_now(
        &mut self,
        descriptor: &Descriptor,
        buf: &mut [u8],
    ) -> Option<Poll<io::Result<usize>>> {
        if descriptor.token().is_none() && !self.is_home(descriptor) {
            return None;
        }
        let len = buf.len();
        self.now(descriptor, Interest::Read, len, |fd| {
            // SAFETY: the slice is borrowed for this call, in which the kernel
            // writes and after which it knows nothing of it.
            unsafe { sys::recv(fd, buf.as_mut_ptr(), len) }
        })
    }

    fn send_now(
        &mut self,
        descriptor: &Descriptor,
        data: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        self.now(descriptor, Interest::Write, data.len(), |fd| {
            // SAFETY: the slice is borrowed for this call, in which the kernel
            // reads it.
            unsafe { sys::send(fd, data.as_ptr(), data.len()) }
        })
    }

    fn forget(&mut self, token: u64) {
        let Some(mut registration) = self.registrations.remove(token) else {
            return;
        };
        for interest in [Interest::Read, Interest::Write] {
            let waiting = &mut registration.direction(interest).waiting;
            while let Some(key) = waiting.front() {
                let Some(waiter) = waiting.remove(&mut self.waiters, key) else {
                    break;
                };
                waiter.op.finish(Err(cancelled()));
            }
        }
    }

    fn shutdown(&mut self, _grace: Duration) -> usize {
        self.busy.clear();
        self.registrations.clear();
        for waiter in self.waiters.drain() {
            waiter.op.finish(Err(cancelled()));
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
