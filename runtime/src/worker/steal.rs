//! Which work an idle worker takes from others, and who looks for it.
//!
//! Whole colors are moved, ready ones that are not pinned, half of what waits
//! (Mely: Gaud et al., ICDCS 2010), and only when that pays: the colors that
//! wait, times what a color's turn takes there on average, against the cost of
//! a steal. The average is published by the busy worker.
//!
//! It may be wrong: a worker may be stuck in one long poll. So nobody sleeps
//! for good with work in sight: the scout (rule 4 in `worker::sleep`) naps for
//! a bounded time and looks again, and what a worker has not touched
//! meanwhile is taken at any price. An offer of little work therefore costs
//! one wake for each time that there was no scout, however much is offered
//! while there is one; and an offer of much work wakes the scout from its nap.
//!
//! A busy worker cannot do with less: nothing that it might do later, at the
//! end of its poll or turn, happens if the poll does not end. Refused: a thread
//! that looks at all workers now and then (a second thing that wakes an idle
//! process, or has to be woken too), and a wake for every second ready color
//! (a write to an eventfd and a switch of threads, for work that is mostly gone
//! when they are paid for).

use std::ptr::{self, NonNull};
use std::time::Duration;

use super::local::Worker;
use super::queue::BATCH;
use super::shared::WorkerShared;
use crate::color::Core;
use crate::runtime::Shared;
use crate::sync::atomic::Ordering;

/// What a steal costs, in nanoseconds: the moves, and the misses of the caches
/// that the moved work has on the other processor.
const STEAL: u64 = 4_000;

/// What it costs until a sleeping worker has taken over: a write to an
/// eventfd, and the way out of the kernel on the other side.
const WAKE: u64 = 20_000;

/// The first nap of a scout, and how often it is doubled while there is only
/// little work. Work that a stuck worker made ready waits for one nap.
const NAP: Duration = Duration::from_micros(250);
const DOUBLED: u32 = 4;

/// How late a timer is when others than its own worker look after it: late
/// enough that a busy worker's turn has ended.
const LATE: Duration = Duration::from_millis(2);

impl WorkerShared {
    /// Whether what is ready here takes longer than `cost` when so many are
    /// taken of it.
    fn is_worth(&self, cost: u64, taken: impl Fn(usize) -> usize) -> bool {
        let ready = match self.queue.len() {
            0 => usize::from(!self.inbox.is_empty()),
            queued => queued,
        };
        let pace = u64::from(self.pace.load(Ordering::Relaxed));
        taken(ready) as u64 * pace >= cost
    }
}

impl Worker {
    fn others(&self) -> impl Iterator<Item = (usize, &WorkerShared)> {
        let workers = self.runtime.shared().workers.iter().map(|other| &**other);
        let numbered = workers.enumerate();
        numbered.filter(|(index, _)| *index != self.index)
    }

    fn sees_work_of_others(&self) -> bool {
        self.others().any(|(_, other)| other.has_stealable())
    }

    /// Whether a worker has begun no color since the scout's last look.
    fn is_stuck(&self, index: usize, other: &WorkerShared) -> bool {
        self.scouting.get() && self.seen.borrow().get(index) == Some(&other.figures.progress())
    }

    /// Takes work where it pays, or is stranded. `true`: there is some now.
    pub(super) fn steal(&self) -> bool {
        let half = |ready: usize| ready.div_ceil(2).min(BATCH);
        let pays = |index, other: &WorkerShared| {
            other.has_stealable()
                && (other.sleep.is_waking()
                    || other.is_worth(STEAL, half)
                    || self.is_stuck(index, other))
        };
        let paying = self.others().filter(|(index, other)| pays(*index, other));
        let Some((index, victim)) = paying.max_by_key(|(_, other)| other.queue.len()) else {
            return false;
        };
        let queue = &self.shared().queue;
        // SAFETY: a scheduled color is alive, and it is in no queue now: it is
        // ours alone (rule 1 in `color::figures`).
        let took = |color: NonNull<Core>| unsafe { color.as_ref() }.stolen();
        let mut batch = [ptr::null_mut(); BATCH];
        let mut count = victim.queue.steal(&mut batch);
        for color in &batch[..count] {
            let color = NonNull::new(*color).expect("queued colors are not null");
            took(color);
            // SAFETY: this is the owner of the queue.
            unsafe { queue.push(color) };
        }
        // A worker that is busy with one color does not look at its inbox. One
        // that was just woken does, but who is awake is there sooner, and has
        // the memory of the waker at hand.
        let leaves_it = self.is_stuck(index, victim) || victim.is_away();
        if count == 0 && (leaves_it || victim.sleep.is_waking()) {
            victim.inbox.take(|color| {
                count += 1;
                took(color);
                // SAFETY: as above.
                unsafe { queue.push(color) };
            });
        }
        self.unoffered.set(true);
        if count > 0 {
            self.shared().figures.stole(&victim.figures, count);
        }
        count > 0
    }

    /// Before a worker without work sleeps: how long at most, if there is
    /// something to look after.
    pub(super) fn watch(&self) -> Option<Duration> {
        let shared = self.runtime.shared();
        let mut in_sight = self.sees_work_of_others();
        if self.scouting.get() && !in_sight && !shared.rung.swap(false, Ordering::Relaxed) {
            // Rule 5 in `worker::sleep`.
            self.scouting.set(false);
            shared.scout.resign();
            in_sight = self.sees_work_of_others();
            if !in_sight {
                return self.timers_of_others();
            }
        }
        if !self.scouting.get() {
            if !in_sight || !shared.scout.claim() {
                return self.timers_of_others();
            }
            self.become_scout();
        }
        let mut seen = self.seen.borrow_mut();
        seen.clear();
        seen.extend(shared.workers.iter().map(|worker| {
            // Who sleeps is not stuck: it cannot have this number later.
            let awake = worker.sleep.is_awake();
            worker.figures.progress().wrapping_sub(u64::from(!awake))
        }));
        shared.scout.nap(self.index);
        let naps = self.naps.get();
        self.naps.set((naps + 1).min(DOUBLED));
        Some(NAP * (1 << naps))
    }

    /// By summons, or by itself. It stays for a nap at least: where there was
    /// work for two there will be again.
    pub(super) fn become_scout(&self) {
        if !self.scouting.replace(true) {
            self.naps.set(0);
            self.seen.borrow_mut().clear();
            (self.runtime.shared().rung).store(true, Ordering::Relaxed);
        }
    }

    /// The scout goes to work. What it leaves behind it offers to the next.
    #[inline]
    pub(super) fn stop_scouting(&self) {
        if self.scouting.replace(false) {
            self.resign();
        }
    }

    #[cold]
    fn resign(&self) {
        let shared = self.runtime.shared();
        // Rule 5 in `worker::sleep`.
        shared.scout.resign();
        if let Some((index, _)) = self.others().find(|(_, other)| other.has_stealable()) {
            shared.offer(index);
        }
    }

    /// How long until a timer of a worker that is awake is late.
    fn timers_of_others(&self) -> Option<Duration> {
        let clock = self.runtime.shared().clock();
        let busy = self.others().filter(|(_, other)| other.sleep.is_awake());
        let next = busy.filter_map(|(_, other)| other.timers.until_next(clock));
        next.min().map(|next| next + LATE)
    }

    /// Fires what a worker that is stuck has not fired.
    pub(super) fn fire_late_timers(&self) {
        let shared = self.runtime.shared();
        for (_, other) in self.others() {
            if other.sleep.is_awake() && other.timers.is_late(shared.clock(), LATE) {
                self.fire(&other.timers);
            }
        }
    }
}

impl Shared {
    /// Sees to it that someone finds what was just published and `busy` may
    /// not come to: at once if it is worth a wake, else within a nap.
    pub(crate) fn offer(&self, busy: usize) {
        use super::sleep::Office;
        if !self.steals() {
            return;
        }
        if !self.sleepers.any() {
            return;
        }
        match self.scout.office() {
            Office::Searches => return,
            Office::Naps(index) => {
                if !self.rung.load(Ordering::Relaxed) {
                    self.rung.store(true, Ordering::Relaxed);
                }
                let napping = &self.workers[index];
                if self.workers[busy].is_worth(WAKE, |ready| ready)
                    && napping.sleep.summon(&self.sleepers)
                {
                    napping.unpark();
                }
                return;
            }
            Office::Vacant => {}
        }
        while self.scout.claim() {
            let mut workers = self.workers.iter();
            if let Some(worker) = workers.find(|worker| worker.sleep.summon(&self.sleepers)) {
                worker.unpark();
                return;
            }
            // All have woken up meanwhile; but who lay down again may have
            // left the work to us.
            self.scout.resign();
            if !self.workers.iter().any(|worker| worker.sleep.is_parked()) {
                return;
            }
        }
    }
}
