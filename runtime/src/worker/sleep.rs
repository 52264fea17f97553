//! Who sleeps, and who has to be woken.
//!
//! Not waking matters more than how: a worker that runs is told nothing, and
//! a worker that sleeps is told once.
//!
//! # Rules
//!
//! 1. A worker that wants to sleep *publishes* that it is parked, passes a
//!    full fence, and looks for work everywhere once more ([`Sleep::prepare`]
//!    and what the worker does after it). Only then it sleeps.
//! 2. Who makes work passes a full fence after having published it, and then
//!    looks whether the worker is parked ([`Sleep::notify`]).
//!
//!    One of the two fences comes first in their total order. If the
//!    sleeper's does, the flag is seen and the sleeper is woken; if the other
//!    does, the work is seen and the sleeper does not sleep. Neither side may
//!    do with less: with the fence left out on either, both may read the old
//!    value.
//! 3. The change from parked to notified is made once, by whoever succeeds in
//!    it, and pays for one unpark.
//! 4. At most one worker is the *scout*: awake to search for work to steal, or
//!    asleep for a bounded nap, after which it searches again. Who offers
//!    work finds a scout, and may leave it at that, or claims the office and
//!    *summons* a parked worker to it. A worker that would sleep and sees work
//!    that is not worth stealing becomes the scout, or leaves it to the one
//!    that there is. Whose thread is with a host is never summoned: it may
//!    never come back, and would keep the office.
//! 5. Who gives the office up, to work or to sleep, passes a full fence
//!    ([`Scout::resign`]) and looks for work once more. It is rule 1 again,
//!    with the office in the place of the parked flag: either the offer finds
//!    no scout, and summons one, or the scout finds what was offered.

use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

const AWAKE: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;
const SUMMONED: u32 = 3;
/// Parked, outside of the worker's own loop.
const HOSTED: u32 = 4;

/// Why a worker is awake again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// By itself, or it never slept.
    Alone,
    Notified,
    /// Notified, and the scout.
    Summoned,
}

/// The flag of one worker.
#[derive(Debug)]
pub(crate) struct Sleep(AtomicU32);

/// How many workers are parked, and not with a host, and not yet notified.
#[derive(Debug)]
pub(crate) struct Sleepers(AtomicUsize);

impl Sleepers {
    pub(crate) fn new() -> Sleepers {
        Sleepers(AtomicUsize::new(0))
    }

    /// Whether some worker sleeps, after work was published. The fence is
    /// rule 2's.
    pub(crate) fn any(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Sleep {
    pub(crate) fn new() -> Sleep {
        Sleep(AtomicU32::new(AWAKE))
    }

    /// Publishes that this worker is parked. It has to look for work again
    /// before it sleeps (rule 1), and to call `wake_up` in any case.
    pub(crate) fn prepare(&self, sleepers: &Sleepers) {
        // The count first, so that whoever notifies takes off what is there.
        sleepers.0.fetch_add(1, Ordering::Relaxed);
        // Release: who sees the flag sees the count.
        self.0.store(PARKED, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// As `prepare`, of a worker whose thread goes back to a host: who publishes
    /// work for it notifies it, and nobody summons it (rule 4). The host looks
    /// for work again (rule 1).
    pub(crate) fn leave_to_host(&self) {
        // Relaxed: nothing goes with it; the fence is rule 1's.
        self.0.store(HOSTED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// This worker is awake again, by itself or notified.
    pub(crate) fn wake_up(&self, sleepers: &Sleepers) -> Woken {
        // Acquire: what the notifier wrote before.
        let before = self.0.swap(AWAKE, Ordering::Acquire);
        if before == PARKED {
            sleepers.0.fetch_sub(1, Ordering::Relaxed);
        }
        match before {
            NOTIFIED => Woken::Notified,
            SUMMONED => Woken::Summoned,
            _ => Woken::Alone,
        }
    }

    /// Whether it is parked, after a fence of the caller's.
    pub(crate) fn is_parked(&self) -> bool {
        self.0.load(Ordering::Relaxed) == PARKED
    }

    /// Whether it was told of work and is not awake yet, as it seems.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn is_waking(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Whether its thread is at work, as it seems.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn is_awake(&self) -> bool {
        self.0.load(Ordering::Relaxed) == AWAKE
    }

    /// Work for this worker was published. `true`: the caller has to unpark
    /// it (rules 2 and 3).
    #[must_use]
    pub(crate) fn notify(&self, sleepers: &Sleepers) -> bool {
        fence(Ordering::SeqCst);
        // Relaxed: `leave` looks again.
        match self.0.load(Ordering::Relaxed) {
            HOSTED => self.leave(HOSTED, NOTIFIED),
            _ => self.leave_parked(NOTIFIED, sleepers),
        }
    }

    /// Makes it the scout, after `Sleepers::any` has passed the fence. `true`:
    /// the caller, who claimed the office for it, has to unpark it.
    #[must_use]
    pub(crate) fn summon(&self, sleepers: &Sleepers) -> bool {
        self.leave_parked(SUMMONED, sleepers)
    }

    fn leave_parked(&self, to: u32, sleepers: &Sleepers) -> bool {
        // Acquire: the count that `prepare` added.
        if self.0.load(Ordering::Acquire) != PARKED {
            return false;
        }
        let won = self.leave(PARKED, to);
        if won {
            sleepers.0.fetch_sub(1, Ordering::Relaxed);
        }
        won
    }

    fn leave(&self, from: u32, to: u32) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// Who is the scout (rule 4).
#[derive(Debug)]
pub(crate) struct Scout(AtomicU32);

const NOBODY: u32 = 0;
const SEARCHES: u32 = 1;
/// And the number of the worker.
const NAPS: u32 = 2;

/// What the scout does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Office {
    Vacant,
    Searches,
    /// The worker with this number, for a bounded time.
    Naps(usize),
}

impl Scout {
    pub(crate) fn new() -> Scout {
        Scout(AtomicU32::new(NOBODY))
    }

    /// What it does, after a fence of the caller's.
    pub(crate) fn office(&self) -> Office {
        match self.0.load(Ordering::Relaxed) {
            NOBODY => Office::Vacant,
            SEARCHES => Office::Searches,
            index => Office::Naps((index - NAPS) as usize),
        }
    }

    /// Takes the office, for the caller or for whom it summons. `false`:
    /// someone has it.
    #[must_use]
    pub(crate) fn claim(&self) -> bool {
        // Relaxed: the fences order it (rule 5).
        self.0
            .compare_exchange(NOBODY, SEARCHES, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// The scout is about to nap.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn nap(&self, index: usize) {
        self.0.store(NAPS + index as u32, Ordering::Relaxed);
    }

    /// The scout is awake.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn search(&self) {
        self.0.store(SEARCHES, Ordering::Relaxed);
    }

    /// The scout gives the office up, and has to look for work once more.
    pub(crate) fn resign(&self) {
        self.0.store(NOBODY, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
