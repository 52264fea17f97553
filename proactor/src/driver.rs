//! The driver: what the runtime calls.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use isochrome_runtime::buf::Pool;
use isochrome_runtime::driver::{Driver, Successor, Unpark};
use isochrome_runtime::eventfd::EventFd;
use isochrome_runtime::op::InFlight;

use crate::Proactor;
use crate::buffers::{Buffers, Private};
use crate::faults::Ring;
use crate::operation::{Apart, Operation, Stage, Wish, cancel_all_entry, cancel_entry, wake_entry};
use crate::prompt::Prompt;
use crate::ring::Entered;
use crate::setup::{Config, SetupError, Step};
use crate::table::{Key, Table};
use crate::wake::Wake;

/// How long a sleep is when the kernel is out of memory or of room: it may
/// have both again without a completion that tells.
const BREATH: Duration = Duration::from_millis(1);

/// Between two rounds of cancels at shutdown: what ran in a kernel thread when
/// the first came may be cancelled by the next.
const ROUND: Duration = Duration::from_millis(10);

/// As good as for ever, and no overflow.
const LONGEST_GRACE: Duration = Duration::from_secs(1_000_000);

/// For a driver that is dropped and was not shut down.
const SHORT_GRACE: Duration = Duration::from_millis(200);

impl Proactor {
    pub(crate) fn with_config(config: &Config) -> Result<Proactor, SetupError> {
        let ring = Ring::new(config)?;
        let wake = EventFd::new().map_err(|e| SetupError::new(Step::Wake, e))?;
        let wake = Arc::new(Wake::new(wake));
        let pool = Pool::new(config.buffers, config.buffer_size);
        let buffers =
            Buffers::register(&ring, pool).map_err(|e| SetupError::new(Step::Buffers, e))?;
        Ok(Proactor {
            ring,
            buffers,
            table: Table::new(),
            apart: BTreeMap::new(),
            kept: BTreeMap::new(),
            prompt: Prompt::new(config.entries),
            wake,
            wake_armed: false,
            cancels: VecDeque::new(),
            backlog: VecDeque::new(),
            starved: VecDeque::new(),
            doomed: Vec::new(),
            strangers: Arc::default(),
            batch: Duration::ZERO,
            closed: false,
            leaked: 0,
        })
    }

    /// What a host loop waits for: an eventfd that the kernel writes to when
    /// there are completions, or work that makes them.
    ///
    /// The ring's own descriptor will not do: with DEFER_TASKRUN, poll(2) on it
    /// is not woken by work that nobody waits for in an enter (seen on 6.18).
    fn host_bell(&self) -> Option<&EventFd> {
        self.wake.bell_or(|| {
            let bell = EventFd::new().ok()?;
            let registered = self.ring.register_bell(bell.as_raw_fd());
            registered.ok().map(|()| bell)
        })
    }

    /// Registers the bell again, after it may have rung.
    ///
    /// What is completed by a write to an eventfd of the user's rings it once
    /// and never again: the kernel defers such a ring, and does not note that
    /// it was done (seen on 6.18).
    fn renew_bell(&self) {
        if let Some(bell) = self.wake.bell() {
            // What refuses this has refused the first one.
            let _ = self.ring.submitter().unregister_eventfd();
            let _ = self.ring.register_bell(bell.as_raw_fd());
        }
    }

    /// Pushes an operation, or queues it if there is no room or a queue.
    pub(crate) fn start(&mut self, key: Key) {
        if self.backlog.is_empty() && self.push(key) {
            return;
        }
        if let Some(operation) = self.table.get_mut(key) {
            operation.stage = Stage::Queued;
            self.backlog.push_back(key);
        }
    }

    /// Pushes an operation, if it still is to be; `false` for want of room.
    fn push(&mut self, key: Key) -> bool {
        let Some(operation) = self.table.get_mut(key) else {
            return true;
        };
        if operation.stage == Stage::Doomed {
            return true;
        }
        let apart = match operation.has_apart() {
            true => self.apart.get_mut(&key.raw()),
            false => None,
        };
        let entry = operation.entry(key, apart);
        // SAFETY: what the entry points to belongs to the operation, which
        // stays in the table, with what it has apart, until its last
        // completion, or is leaked.
        let pushed = unsafe { self.ring.push(&entry) };
        if pushed {
            operation.stage = Stage::Pushed;
        }
        pushed
    }

    /// Moves what waits into the submission queue; `false` if some of it has
    /// no room there. Cancels go first, so that no crowd of new operations
    /// keeps an old one alive.
    fn fill(&mut self, arm_wake: bool) -> bool {
        if arm_wake && !self.wake_armed {
            let entry = wake_entry(Fd(self.wake.source()));
            // SAFETY: a poll points to nothing.
            self.wake_armed = unsafe { self.ring.push(&entry) };
            if !self.wake_armed {
                return false;
            }
        }
        while let Some(&key) = self.cancels.front() {
            // SAFETY: a cancel points to nothing.
            if self.table.contains(key) && !unsafe { self.ring.push(&cancel_entry(key)) } {
                return false;
            }
            self.cancels.pop_front();
        }
        while let Some(&key) = self.backlog.front() {
            if !self.push(key) {
                return false;
            }
            self.backlog.pop_front();
        }
        true
    }

    /// Finishes what was cancelled before the kernel heard of it, or when it
    /// had nothing but the memory left. Not in `cancel` itself, which is no
    /// place to wake anybody.
    fn end_doomed(&mut self) -> usize {
        let mut ended = 0;
        while let Some(key) = self.doomed.pop() {
            let Some(operation) = self.table.get_mut(key) else {
                continue;
            };
            if operation.stage == Stage::Pushed {
                ended += usize::from(self.part(key));
            } else if let Some(operation) = self.remove(key) {
                match operation.wish {
                    Wish::Pause => operation.op.pause(),
                    Wish::Go | Wish::End => operation.op.finish(Err(canceled())),
                }
                ended += 1;
            }
        }
        ended
    }

    /// Keeps only the memory of a send without a copy that has told its result,
    /// if nobody waits for that: the peer may acknowledge it late or never, and
    /// neither the socket's close nor its next operation is to wait so long.
    pub(crate) fn part(&mut self, key: Key) -> bool {
        let parts = |o: &mut Operation| o.has_told() && o.op.is_abandoned();
        if !self.table.get_mut(key).is_some_and(parts) {
            return false;
        }
        if let Some(operation) = self.remove(key) {
            self.kept.insert(key.raw(), operation.op.part());
        }
        true
    }

    /// Takes an operation out that the kernel does not know of, or no more.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Operation> {
        let operation = self.table.remove(key)?;
        if operation.has_apart() {
            self.apart.remove(&key.raw());
        }
        Some(operation)
    }

    /// Starts the receives again that found no buffer in an earlier turn.
    ///
    /// Tasks have run since, and may have given buffers back: as many receives
    /// as there are buffers go on with those, the longest waiting first. The
    /// others, and those that starve for the second time in a row, because
    /// quicker ones keep taking the buffers, get one of their own. Nobody
    /// starves longer than a turn, so a worker never sleeps on it.
    fn feed_starved(&mut self) {
        let mut buffers = self.buffers.lent();
        while let Some(key) = self.starved.pop_front() {
            let Some(operation) = self.table.get_mut(key) else {
                continue;
            };
            if buffers > 0 && !operation.is_hungry() {
                buffers -= 1;
            } else {
                let private = Private::new(self.buffers.size());
                self.apart.insert(key.raw(), Apart::Buffer(private));
                operation.set_apart(true);
            }
            operation.starves();
            self.start(key);
        }
    }

    /// Leaves the kernel some time for what it could not do just now.
    fn take_breath(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let breath = wait.map_or(BREATH, |wait| wait.min(BREATH));
        // Busy or not, the next park tries again.
        let _: Entered = self.ring.sleep(breath)?;
        self.reap();
        Ok(())
    }

    /// Cancels everything and waits for it to end, until `deadline`.
    fn drain(&mut self, deadline: Instant) {
        loop {
            self.reap();
            if self.table.len() == 0 && self.kept.is_empty() && self.prompt.is_empty() {
                return;
            }
            // SAFETY: a cancel points to nothing. (If there is no room, the
            // queue is submitted now, and the next round has room.)
            let _ = unsafe { self.ring.push(&cancel_all_entry()) };
            let left = deadline.saturating_duration_since(Instant::now());
            let entered = if self.ring.ready() > 0 || !self.prompt.is_empty() {
                self.ring.submit()
            } else {
                self.ring
                    .submit_and_sleep(Some(left.min(ROUND)), Duration::ZERO)
            };
            let done = match entered {
                Ok(Entered::Done) => self.reap() > 0,
                Ok(Entered::Busy) => self.ring.sleep(left.min(BREATH)).is_err(),
                // Not ours to enter any more, or forbidden: nothing will come.
                Err(_) => return,
            };
            if left.is_zero() && !done {
                return;
            }
        }
    }
}

// SAFETY: `operation` and `file` change places within operations, and make one
// send another; what is lent stays in them. The bell is made once, and kept.
unsafe impl Driver for Proactor {
    fn name(&self) -> &'static str {
        "proactor"
    }

    fn by_readiness(&self) -> bool {
        false
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        if self.closed {
            op.finish(Err(canceled()));
            return Ok(());
        }
        let (ring, room) = (&mut self.ring, self.backlog.is_empty());
        let (key, pushed) = self.table.insert_with(|key| {
            // SAFETY: as in `push`; the operation goes into the table here.
            let push = |entry: &_| room && unsafe { ring.push(entry) };
            let operation = Operation::new(op, key, push);
            let pushed = operation.stage == Stage::Pushed;
            (operation, pushed)
        });
        if !pushed {
            self.backlog.push_back(key);
        }
        Ok(())
    }

    fn feed(&mut self, op: InFlight) -> Result<(), InFlight> {
        match self.push_prompt(op) {
            Ok(()) => Ok(()),
            Err(op) => self.submit(op),
        }
    }

    fn hurry(&mut self) {
        self.prompt.hurry();
    }

    fn cancel(&mut self, key: u64) {
        let key = Key::from_raw(key);
        if key.is_prompt() {
            // It ends with the next enter, which is to come soon.
            return self.prompt.hurry();
        }
        let Some(operation) = self.table.get_mut(key) else {
            return;
        };
        if operation.stage == Stage::Pushed && !operation.kind.can_be_cancelled() {
            return;
        }
        let wish = std::mem::replace(&mut operation.wish, Wish::End);
        if operation.has_told() {
            self.doomed.push(key);
            return;
        }
        match operation.stage {
            // If it was to pause, its cancel is on the way.
            Stage::Pushed if wish == Wish::Go => self.cancels.push_back(key),
            Stage::Pushed | Stage::Doomed => {}
            Stage::Queued | Stage::Starved => {
                operation.stage = Stage::Doomed;
                self.doomed.push(key);
            }
        }
    }

    fn hand_over(&mut self, key: u64, _to: Successor) -> bool {
        let key = Key::from_raw(key);
        let Some(operation) = self.table.get_mut(key) else {
            return false;
        };
        if operation.wish != Wish::Go {
            // It is about to end.
            return true;
        }
        operation.wish = Wish::Pause;
        match operation.stage {
            Stage::Pushed => self.cancels.push_back(key),
            Stage::Doomed => {}
            Stage::Queued | Stage::Starved => {
                operation.stage = Stage::Doomed;
                self.doomed.push(key);
            }
        }
        true
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let may_sleep = wait != Some(Duration::ZERO);
        let bell = self.wake.bell();
        let hosted = bell.is_some();
        // Who sleeps in a loop of their own sleeps there for single events.
        let batch = if hosted { Duration::ZERO } else { self.batch };
        if let Some(bell) = bell {
            // Before the look at what it may have rung for.
            bell.clear();
        }
        let mut seen = self.end_doomed();
        self.buffers.refill();
        self.feed_starved();
        loop {
            let complete = self.fill(may_sleep);
            // Whoever gets something now must not wait for the rest, and what
            // has no room yet must not wait for what has (rule 3 of the crate).
            let waited_for = self.prompt.is_hurried() || self.ring.ready() > 0;
            let sleep = may_sleep && complete && seen == 0 && !waited_for;
            let entered = if sleep {
                self.ring.submit_and_sleep(wait, batch)?
            } else if self.ring.due() {
                self.ring.submit()?
            } else {
                Entered::Done
            };
            let reaped = self.reap();
            seen += reaped;
            if hosted && reaped > 0 {
                self.renew_bell();
            }
            match entered {
                Entered::Done if complete => return Ok(()),
                Entered::Done => {}
                // What was reaped may have made room: the next park sees.
                Entered::Busy if seen > 0 || !may_sleep => return Ok(()),
                Entered::Busy => return self.take_breath(wait),
            }
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.host_bell().map(AsFd::as_fd)
    }

    fn is_due(&self) -> bool {
        // What is queued, here or in the ring, after an enter that was refused,
        // took less, or had no room for all completions; and what came while
        // the bell was renewed. None of that rings it.
        let idle = self.doomed.is_empty()
            && self.starved.is_empty()
            && self.cancels.is_empty()
            && self.backlog.is_empty()
            && self.prompt.is_empty();
        !idle || self.ring.due() || self.ring.has_ready()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.wake.clone()
    }

    fn unknown_completions(&self) -> Option<Arc<AtomicU64>> {
        Some(self.strangers.clone())
    }

    fn shutdown(&mut self, grace: Duration) -> usize {
        if !self.closed {
            self.closed = true;
            // What the kernel has not heard of ends here.
            let idle: Vec<Key> = self.table.keys().collect();
            for key in idle {
                if let Some(operation) = self.table.get_mut(key) {
                    operation.wish = Wish::End;
                    if operation.has_told() {
                        self.doomed.push(key);
                    } else if operation.stage != Stage::Pushed {
                        operation.stage = Stage::Doomed;
                        self.doomed.push(key);
                    }
                }
            }
            self.end_doomed();
        }
        self.drain(Instant::now() + grace.min(LONGEST_GRACE));
        let mut leaked = 0;
        for operation in self.table.drain() {
            operation.op.leak();
            leaked += 1;
        }
        // What is left is of those.
        let apart = std::mem::take(&mut self.apart);
        apart.into_values().for_each(std::mem::forget);
        for op in self.prompt.drain() {
            op.leak();
            leaked += 1;
        }
        for kept in std::mem::take(&mut self.kept).into_values() {
            std::mem::forget(kept);
            leaked += 1;
        }
        self.leaked += leaked;
        // Else the kernel may still receive into them: they stay for ever.
        if self.leaked == 0 {
            self.buffers.unregister(&self.ring);
        }
        leaked
    }
}

impl Drop for Proactor {
    fn drop(&mut self) {
        self.shutdown(SHORT_GRACE);
    }
}

pub(crate) fn canceled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}
