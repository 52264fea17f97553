//! Where an operation is, who may have its memory, and who has to end it: a
//! pure state, under the lock of the slot.
//!
//! ```text
//!            start                  end (one-shot)           take_finished
//!   Idle ------------> InFlight ---------------------> Finished ----------> Idle
//!    ^                  |    |                             |
//!    |  end             |    | abandon, disarm             | abandon
//!    |  (subscription)  |    v                             v
//!    +------------------+  InFlight, abandoned            Idle
//!    |                       |
//!    +-----------------------+ end: unwanted
//!
//!         start_fed                  end_fed: failed            take_finished
//!   Idle ------------> InFlight, fed ---------------> Failed ------------------> Idle
//!    ^                  |    |                          |
//!    |  end_fed         |    | abandon                  | abandon
//!    +------------------+    v                          v
//!                       InFlight, abandoned            Idle
//! ```
//!
//! # Rules
//!
//! 1. The memory of an operation is the driver's while it is in flight,
//!    abandoned or not. `end` says whose it is afterwards: the asker's, who
//!    takes it by `take_finished` or `abandon`, or nobody's, and then whoever
//!    called `end` drops it.
//! 2. An operation has a worker from when it is sent, and a key from when that
//!    worker's driver has begun it. A cancel needs both.
//! 3. A cancel that comes too early is not lost. Who abandons asks the worker
//!    that `sent_to` named; but that may be read before the operation is on its
//!    way there, or be none yet. So whoever gives a driver an operation that
//!    came from elsewhere looks afterwards whether it was abandoned meanwhile
//!    (`cancel_key`). What a worker gives its own driver needs no such look: a
//!    cancel is then a command, obeyed after that.
//! 4. A stale cancel does nothing: `start` and `end` clear the marks that
//!    `cancel_key` looks for, and a slot that was abandoned again has its new
//!    key cancelled, which is right, twice perhaps.
//! 5. What is recalled is cancelled in the same way, and still the asker's: it
//!    ends as any other, so that nothing it brings is lost.
//! 6. What is fed has no asker: its memory is nobody's when it has ended, and
//!    whoever called `end_fed` drops it. That it failed is anybody's: the phase
//!    stays until one of them takes it.
//! 7. The end of the direction, asked for while something fed is in flight, is
//!    an order to whoever ends that. Either `end_after_fed` comes first, and then
//!    `end_fed` says so; or the asker does it.
//! 8. What follows its asker to another worker is ended in that way too, by the
//!    driver that has begun it, if it is wanted as before by then.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    InFlight,
    Finished,
    /// What was fed failed, and nobody was told yet.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Lifecycle {
    /// What the driver calls the operation; [`NO_KEY`] until it has begun it.
    /// In two halves, so that it needs no padding.
    key: [u32; 2],
    /// The worker whose driver has it, or will.
    worker: u16,
    phase: Phase,
    marks: Marks,
}

/// What else is known of the operation, in one byte, because every idle
/// connection has two of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks(u8);

impl Marks {
    const NONE: Marks = Marks(0);
    /// The operation is one `Run`'s.
    const OWNED: Marks = Marks(1);
    /// Nobody wants the result any more.
    const ABANDONED: Marks = Marks(2);
    /// It is to end, and what it brings until then is wanted.
    const RECALLED: Marks = Marks(4);
    /// It has no asker.
    const FED: Marks = Marks(8);
    /// The direction ends with what is fed.
    const LAST: Marks = Marks(16);
    /// It was asked to end, to begin anew with another worker's driver.
    const FOLLOWS: Marks = Marks(32);
    /// What is cleared when it ends.
    const OF_THE_END: Marks = Marks(Marks::RECALLED.0 | Marks::FOLLOWS.0);

    #[inline]
    fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 != 0
    }

    /// Returns whether it was there already.
    #[inline]
    fn add(&mut self, mark: Marks) -> bool {
        let had = self.has(mark);
        self.0 |= mark.0;
        had
    }

    /// Returns whether it was there.
    #[inline]
    fn take(&mut self, mark: Marks) -> bool {
        let had = self.has(mark);
        self.0 &= !mark.0;
        had
    }
}

/// No driver calls an operation so.
const NO_KEY: [u32; 2] = [u32::MAX; 2];

/// No worker has this number.
const NOWHERE: u16 = u16::MAX;

/// Whose the result and the memory of an operation are that has ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody's: to be dropped.
    Unwanted,
    /// The asker's, to be taken with the result.
    Finished,
    /// Of a subscription: the result is anyone's, and there is no memory.
    Idle,
}

impl Lifecycle {
    pub(super) const fn new() -> Lifecycle {
        Lifecycle {
            key: NO_KEY,
            worker: NOWHERE,
            phase: Phase::Idle,
            marks: Marks::NONE,
        }
    }

    /// An operation begins, `owned` by one `Run` or anyone's. The driver of
    /// `worker`, if this thread is one, is the first to be asked.
    #[inline]
    pub(super) fn start(&mut self, owned: bool, worker: Option<usize>) {
        debug_assert_eq!(self.phase, Phase::Idle);
        self.phase = Phase::InFlight;
        self.marks = if owned { Marks::OWNED } else { Marks::NONE };
        self.worker = worker.map_or(NOWHERE, |index| index as u16);
        self.key = NO_KEY;
    }

    /// As `start`, of something that nobody waits for.
    #[inline]
    pub(super) fn start_fed(&mut self, worker: Option<usize>) {
        self.start(false, worker);
        self.marks = Marks::FED;
    }

    /// It is on its way to another worker.
    pub(crate) fn sent_to(&mut self, worker: usize) {
        self.worker = worker as u16;
    }

    /// It is carried out where nothing can cancel it: by a thread of the
    /// blocking pool.
    pub(super) fn sent_to_nobody(&mut self) {
        self.worker = NOWHERE;
    }

    /// The driver calls it so from now on.
    #[inline]
    pub(super) fn begin(&mut self, key: u64) {
        self.key = [key as u32, (key >> 32) as u32];
    }

    /// The last completion is there.
    #[inline]
    pub(super) fn end(&mut self, subscription: bool) -> Ended {
        self.marks.take(Marks::OF_THE_END);
        if self.marks.take(Marks::ABANDONED) {
            self.marks.take(Marks::FED);
            self.phase = Phase::Idle;
            return Ended::Unwanted;
        }
        if subscription {
            self.phase = Phase::Idle;
            return Ended::Idle;
        }
        self.phase = Phase::Finished;
        Ended::Finished
    }

    /// The last completion of what is fed is there. `true`: the direction is to
    /// be ended (rule 7).
    #[inline]
    #[must_use]
    pub(super) fn end_fed(&mut self, failed: bool) -> bool {
        debug_assert!(self.is_fed());
        self.phase = if failed { Phase::Failed } else { Phase::Idle };
        let last = self.marks.has(Marks::LAST);
        self.marks = Marks::NONE;
        last
    }

    /// Has the direction ended with what is fed. `false`: nothing is.
    #[must_use]
    pub(super) fn end_after_fed(&mut self) -> bool {
        let fed = self.is_fed();
        if fed {
            self.marks.add(Marks::LAST);
        }
        fed
    }

    /// The asker takes a one-shot operation that has finished, or anybody the
    /// word that what was fed has failed. `false`: there is none.
    #[inline]
    #[must_use]
    pub(super) fn take_finished(&mut self) -> bool {
        let finished = self.is_finished();
        if finished {
            self.phase = Phase::Idle;
        }
        finished
    }

    /// The asker goes away. `true`: it is in flight, and has to be cancelled;
    /// else what there is of it is the caller's, to be dropped.
    #[inline]
    #[must_use]
    pub(super) fn abandon(&mut self) -> bool {
        let in_flight = self.phase == Phase::InFlight;
        if in_flight {
            self.marks.add(Marks::ABANDONED);
        } else {
            self.phase = Phase::Idle;
        }
        in_flight
    }

    /// As `abandon`, for what is in flight only, and said once.
    #[must_use]
    pub(super) fn disarm(&mut self) -> bool {
        self.phase == Phase::InFlight && !self.marks.add(Marks::ABANDONED)
    }

    /// The asker wants it to end, and what it brings until then. `true`: it
    /// has to be cancelled; said once.
    #[must_use]
    pub(super) fn recall(&mut self) -> bool {
        let goes_on = self.phase == Phase::InFlight && !self.is_abandoned();
        goes_on && !self.marks.add(Marks::RECALLED)
    }

    /// Who waits for a subscription would have it with another worker's driver:
    /// the worker to be asked for it. Said once; `None` also if nobody could
    /// end it yet, or it is to end anyway.
    #[must_use]
    pub(super) fn follow(&mut self) -> Option<usize> {
        let lasts = self.phase == Phase::InFlight && self.marks == Marks::NONE;
        let from = self.worker().filter(|_| lasts && self.key != NO_KEY)?;
        self.marks.add(Marks::FOLLOWS);
        Some(from)
    }

    /// The key to end it by, if it is still to follow.
    pub(crate) fn follow_key(&self, worker: usize) -> Option<u64> {
        let follows = self.phase == Phase::InFlight && self.marks == Marks::FOLLOWS;
        self.key_at(worker).filter(|_| follows)
    }

    /// The worker to be asked for the cancel; `None`: it is on its way to none
    /// yet, and will be looked at where it arrives (rule 3), or to none at all.
    pub(crate) fn worker(&self) -> Option<usize> {
        (self.worker != NOWHERE).then_some(self.worker as usize)
    }

    /// The key to cancel by, if this worker's driver has begun it and the
    /// operation in flight is still the abandoned or recalled one.
    pub(crate) fn cancel_key(&self, worker: usize) -> Option<u64> {
        let to_end = self.is_abandoned() || self.marks.has(Marks::RECALLED);
        self.key_at(worker).filter(|_| to_end)
    }

    /// The key, if this worker's driver has begun it.
    fn key_at(&self, worker: usize) -> Option<u64> {
        let begun = self.key != NO_KEY && self.is_with(worker);
        let [low, high] = self.key.map(u64::from);
        begun.then_some(high << 32 | low)
    }

    /// It is, or was, with this worker's driver, or on its way there.
    #[inline]
    pub(super) fn is_with(&self, worker: usize) -> bool {
        self.worker as usize == worker
    }

    /// As `is_with`, of a worker or of none.
    #[inline(always)]
    pub(super) fn is_with_number(&self, worker: u16) -> bool {
        self.worker == worker
    }

    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    #[inline]
    pub(super) fn is_in_flight(&self) -> bool {
        self.phase == Phase::InFlight
    }

    #[inline]
    pub(super) fn is_abandoned(&self) -> bool {
        self.marks.has(Marks::ABANDONED)
    }

    #[inline]
    fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished | Phase::Failed)
    }

    /// What is in flight is fed, and was not abandoned.
    #[inline]
    pub(crate) fn is_fed(&self) -> bool {
        self.marks.0 & (Marks::FED.0 | Marks::ABANDONED.0) == Marks::FED.0
    }

    /// What is in flight is fed, and there is no more to be known of it.
    #[inline]
    pub(super) fn is_only_fed(&self) -> bool {
        self.marks == Marks::FED
    }

    /// What was fed failed, and nobody was told yet.
    #[inline]
    pub(super) fn has_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    /// What is in flight is one `Run`'s.
    #[inline]
    pub(super) fn is_owned(&self) -> bool {
        self.marks.has(Marks::OWNED)
    }

    /// What is there is one `Run`'s, or the end of a one-shot operation.
    #[inline]
    pub(super) fn is_owned_or_finished(&self) -> bool {
        self.is_owned() || self.is_finished()
    }
}
