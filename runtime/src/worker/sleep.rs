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

use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

const AWAKE: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// The flag of one worker.
#[derive(Debug)]
pub(crate) struct Sleep(AtomicU32);

/// How many workers are parked and not yet notified.
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

    /// This worker is awake again, by itself or notified.
    pub(crate) fn wake_up(&self, sleepers: &Sleepers) {
        // Acquire: what the notifier wrote before.
        if self.0.swap(AWAKE, Ordering::Acquire) == PARKED {
            sleepers.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Work for this worker was published. `true`: the caller has to unpark
    /// it (rules 2 and 3).
    #[must_use]
    pub(crate) fn notify(&self, sleepers: &Sleepers) -> bool {
        fence(Ordering::SeqCst);
        self.try_notify(sleepers)
    }

    /// As `notify`, after `Sleepers::any` has passed the fence.
    #[must_use]
    pub(crate) fn try_notify(&self, sleepers: &Sleepers) -> bool {
        // Acquire: the count that `prepare` added.
        if self.0.load(Ordering::Acquire) != PARKED {
            return false;
        }
        let won = self
            .0
            .compare_exchange(PARKED, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if won {
            sleepers.0.fetch_sub(1, Ordering::Relaxed);
        }
        won
    }
}
