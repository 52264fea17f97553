//! What other threads reach of a worker.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use super::command::{Command, Commands};
use super::figures::Figures;
use super::inbox::Inbox;
use super::local::Worker;
use super::pace;
use super::queue::RunQueue;
use super::sleep::Sleep;
use crate::color::Core;
use crate::descriptor::Legacy;
use crate::driver::Unpark;
use crate::op::{InFlight, Slot, SlotRef};
use crate::runtime::{Handle, Shared};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::task::Header;
use crate::time::Timers;

/// On cache lines of its own: the neighbours are other workers.
#[repr(align(128))]
pub(crate) struct WorkerShared {
    /// Ready colors. The worker pushes, everyone takes.
    pub(crate) queue: RunQueue<Core>,
    /// Ready colors that others sent home. Everyone may empty it.
    pub(crate) inbox: Inbox<Core>,
    /// Ready colors that only this worker may run.
    pub(crate) pinned: Inbox<Core>,
    /// Tasks that this worker spawned and others completed.
    pub(crate) finished: Inbox<Header>,
    /// How many these were, ever. It wraps.
    pub(super) sent_back: AtomicU32,
    pub(super) commands: Commands,
    pub(super) sleep: Sleep,
    pub(super) unpark: OnceLock<Arc<dyn Unpark>>,
    pub(crate) timers: Timers,
    /// Nanoseconds of a color's turn here, on average; [`AWAY`].
    pub(super) pace: AtomicU32,
    pub(super) figures: Figures,
    /// The driver's count of completions that it did not know.
    pub(super) unknown: OnceLock<Arc<AtomicU64>>,
}

/// The pace of a worker whose thread is elsewhere.
const AWAY: u32 = u32::MAX;

impl WorkerShared {
    pub(crate) fn new() -> WorkerShared {
        WorkerShared {
            queue: RunQueue::new(),
            inbox: Inbox::new(),
            pinned: Inbox::new(),
            finished: Inbox::new(),
            sent_back: AtomicU32::new(0),
            commands: Commands::new(),
            sleep: Sleep::new(),
            unpark: OnceLock::new(),
            timers: Timers::new(),
            pace: AtomicU32::new(pace::UNKNOWN),
            figures: Figures::default(),
            unknown: OnceLock::new(),
        }
    }

    /// Whether a thief finds something here.
    pub(super) fn has_stealable(&self) -> bool {
        self.queue.len() > 0 || !self.inbox.is_empty()
    }

    /// Whether its thread is elsewhere, outside `block_on`.
    pub(super) fn is_away(&self) -> bool {
        self.pace.load(Ordering::Relaxed) == AWAY
    }

    pub(super) fn set_away(&self) {
        self.pace.store(AWAY, Ordering::Relaxed);
    }

    pub(super) fn unpark(&self) {
        let unpark = self.unpark.get();
        unpark.expect("a worker that sleeps has a driver").unpark();
    }
}

impl Shared {
    /// Sends a color that has become ready to its home. `worker` is this
    /// thread's.
    #[inline(always)]
    pub(crate) fn schedule(&self, worker: Option<&Worker>, color: NonNull<Core>) {
        // SAFETY: scheduled from here on, so alive: it has a task queued.
        let core = unsafe { color.as_ref() };
        let ours = worker.filter(|worker| worker.is_of(self));
        match ours.filter(|worker| worker.index() == core.home()) {
            Some(worker) => worker.enqueue(color, core.is_pinned()),
            None => self.send_home(color, ours.is_some()),
        }
    }

    /// As `schedule`, from another worker (`ours`) or a foreign thread.
    fn send_home(&self, color: NonNull<Core>, ours: bool) {
        // SAFETY: as in `schedule`.
        let core = unsafe { color.as_ref() };
        let (home, pinned) = (core.home(), core.is_pinned());
        // A foreign thread has nothing else that keeps the runtime alive once
        // the color is on its way.
        let _keep = (!ours).then(|| self.handle());
        let worker = &self.workers[home];
        let inbox = if pinned {
            &worker.pinned
        } else {
            &worker.inbox
        };
        // SAFETY: a scheduled color is alive and in one queue (rule 1 in
        // `color::ready`).
        unsafe { inbox.push(color) };
        if !self.notify(home) && !pinned {
            // Home is busy; someone else may be free to take it.
            self.offer(home);
        }
    }

    /// Wakes a worker for what was just published for it. `false`: it is
    /// awake already, or has been told.
    pub(crate) fn notify(&self, index: usize) -> bool {
        let worker = &self.workers[index];
        let won = worker.sleep.notify(&self.sleepers);
        if won {
            worker.unpark();
        }
        won
    }

    pub(crate) fn notify_all(&self) {
        for index in 0..self.workers.len() {
            self.notify(index);
        }
    }

    pub(super) fn command(&self, index: usize, command: Command) {
        self.workers[index].commands.push(command);
        self.notify(index);
    }
}

impl Handle {
    /// Hands a slot's operation to a driver: this worker's, if it can, else
    /// the one of the descriptor's home.
    #[inline(always)]
    pub(crate) fn submit(&self, slot: &Slot) {
        self.submit_by(slot, Worker::submit);
    }

    /// As `submit`, of a send that nobody waits for.
    #[inline(always)]
    pub(crate) fn feed(&self, slot: &Slot) {
        self.submit_by(slot, Worker::feed);
    }

    #[inline(always)]
    fn submit_by(
        &self,
        slot: &Slot,
        submit: impl FnOnce(&Worker, InFlight) -> Result<(), InFlight>,
    ) {
        let op = InFlight::new(slot);
        Worker::with(|worker| {
            let worker = worker.filter(|w| w.is_of(self.shared()));
            let refused = match worker {
                Some(worker) => match submit(worker, op) {
                    Ok(()) => return,
                    Err(op) => op,
                },
                None => op,
            };
            self.submit_at_home(slot, refused, worker.map(Worker::index));
        });
    }

    #[cold]
    fn submit_at_home(&self, slot: &Slot, op: InFlight, or: Option<usize>) {
        let or = or.unwrap_or_else(|| self.shared().any_worker());
        let home = slot.descriptor().home(or);
        slot.lock().life.sent_to(home);
        self.shared().command(home, Command::Submit(op));
    }

    /// Asks for the end of the abandoned operation of a slot.
    pub(crate) fn cancel(&self, slot: &Slot) {
        let Some(index) = slot.lock().life.worker() else {
            // Rule 3 in `op::lifecycle`.
            return;
        };
        let here = Worker::with(|worker| {
            worker.is_some_and(|w| w.is_of(self.shared()) && w.index() == index && w.cancel(slot))
        });
        if !here {
            self.shared()
                .command(index, Command::Cancel(SlotRef::to(slot)));
        }
    }

    /// Somebody waits for the end of what is fed in a slot.
    #[cold]
    pub(crate) fn hurry(&self, slot: &Slot) {
        let Some(index) = slot.lock().life.worker() else {
            return;
        };
        let here = Worker::with(|worker| {
            worker.is_some_and(|w| w.is_of(self.shared()) && w.index() == index && w.hurry())
        });
        if !here {
            // There is nothing to be cancelled, and the look at what is fed
            // hurries its driver.
            self.shared()
                .command(index, Command::Cancel(SlotRef::to(slot)));
        }
    }

    /// A registered descriptor is about to be closed.
    pub(crate) fn forget(&self, index: usize, token: u64) {
        let here = Worker::with(|worker| {
            worker.is_some_and(|w| w.is_of(self.shared()) && w.index() == index && w.forget(token))
        });
        if !here {
            self.shared().command(index, Command::Forget(token));
        }
    }
    /// A registered descriptor is about to be its heir's.
    pub(crate) fn release(&self, index: usize, token: u64, legacy: Legacy) {
        let elsewhere = Worker::with(|worker| {
            match worker.filter(|w| w.is_of(self.shared()) && w.index() == index) {
                Some(worker) => worker.forget_for(token, legacy),
                None => Err(legacy),
            }
        });
        if let Err(legacy) = elsewhere {
            self.shared()
                .command(index, Command::Release(token, legacy));
        }
    }
}
