//! Loom models of what workers share: the run queue, the inbox, the sleep.
//!
//! Items carry a loom cell that the pusher writes before and the taker writes
//! after: taken twice, or not published, is a race that loom reports.

use std::ptr::{self, NonNull};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use loom::thread;

use super::inbox::Inbox;
use super::queue::{BATCH, RunQueue};
use super::sleep::{Office, Scout, Sleep, Sleepers, Woken};
use crate::color::Linked;

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

struct Item {
    link: AtomicPtr<Item>,
    number: UnsafeCell<usize>,
}

impl Linked for Item {
    fn link(&self) -> &AtomicPtr<Item> {
        &self.link
    }
}

impl Item {
    fn new(number: usize) -> NonNull<Item> {
        let item = Item {
            link: AtomicPtr::new(ptr::null_mut()),
            number: UnsafeCell::new(0),
        };
        // SAFETY: nobody else has seen it.
        item.number.with_mut(|n| unsafe { *n = number });
        NonNull::from(Box::leak(Box::new(item)))
    }

    /// Takes it out of the world and returns its number.
    fn take(item: NonNull<Item>) -> usize {
        // SAFETY: that there is one taker is what the models prove; made by a
        // box.
        let item = unsafe { Box::from_raw(item.as_ptr()) };
        // SAFETY: ours.
        item.number.with_mut(|n| unsafe { *n })
    }
}

/// Numbers taken by one thread, in order.
type Taken = Vec<usize>;

fn assert_each_once(takers: &[&Taken], count: usize) {
    for taken in takers {
        assert!(taken.is_sorted(), "order is kept for each taker: {taken:?}");
    }
    let mut all: Vec<usize> = takers.iter().flat_map(|t| t.iter().copied()).collect();
    all.sort_unstable();
    let expected: Vec<usize> = (0..count).collect();
    assert_eq!(all, expected, "every item once");
}

fn push(queue: &RunQueue<Item>, number: usize) {
    // SAFETY: called by the owner's thread.
    unsafe { queue.push(Item::new(number)) };
}

fn pop_into(queue: &RunQueue<Item>, taken: &mut Taken) {
    taken.extend(queue.pop().map(Item::take));
}

fn steal(queue: &RunQueue<Item>) -> Taken {
    let mut into = [ptr::null_mut(); BATCH];
    let count = queue.steal(&mut into);
    let items = into[..count].iter().map(|i| NonNull::new(*i).unwrap());
    items.map(Item::take).collect()
}

fn drain(queue: &RunQueue<Item>, taken: &mut Taken) {
    while let Some(item) = queue.pop() {
        taken.push(Item::take(item));
    }
    assert_eq!(queue.len(), 0);
}

/// Guards: the Release of `back` and the Acquire of takers, and that one wins
/// `front`.
#[test]
fn pop_against_a_thief() {
    model(|| {
        let queue = Arc::new(RunQueue::new());
        let thief = {
            let queue = queue.clone();
            thread::spawn(move || steal(&queue))
        };
        let mut mine = Taken::new();
        push(&queue, 0);
        push(&queue, 1);
        pop_into(&queue, &mut mine);
        let theirs = thief.join().unwrap();
        drain(&queue, &mut mine);
        assert_each_once(&[&mine, &theirs], 2);
    });
}

/// Guards: growth (four items in a first buffer of two) against a thief: the
/// Release of the buffer, or of `back` after it, and rule 4.
#[test]
fn growth_against_a_thief() {
    model(|| {
        let queue = Arc::new(RunQueue::new());
        push(&queue, 0);
        push(&queue, 1);
        let thief = {
            let queue = queue.clone();
            thread::spawn(move || {
                let mut theirs = steal(&queue);
                theirs.extend(steal(&queue));
                theirs
            })
        };
        let mut mine = Taken::new();
        push(&queue, 2);
        push(&queue, 3);
        pop_into(&queue, &mut mine);
        let theirs = thief.join().unwrap();
        drain(&queue, &mut mine);
        assert_each_once(&[&mine, &theirs], 4);
    });
}

/// Guards: rule 2 at the wrap: a slot is overwritten only after the item in it
/// was taken, and what a thief read from it before its failed step counts for
/// nothing.
///
/// Loom does not see the Acquire of `front` in `push` left out: it executes
/// loads in program order and knows no load buffering, so that a taker never
/// reads what is written after its compare-exchange. That one is by hand.
#[test]
fn wrap_against_a_thief() {
    model(|| {
        let queue = Arc::new(RunQueue::new());
        push(&queue, 0);
        push(&queue, 1);
        let thief = {
            let queue = queue.clone();
            thread::spawn(move || steal(&queue))
        };
        let mut mine = Taken::new();
        pop_into(&queue, &mut mine);
        push(&queue, 2);
        pop_into(&queue, &mut mine);
        push(&queue, 3);
        let theirs = thief.join().unwrap();
        drain(&queue, &mut mine);
        assert_each_once(&[&mine, &theirs], 4);
    });
}

/// Guards: two thieves and no owner: one of them wins each item.
#[test]
fn two_thieves() {
    model(|| {
        let queue = Arc::new(RunQueue::new());
        for number in 0..3 {
            push(&queue, number);
        }
        let thief = {
            let queue = queue.clone();
            thread::spawn(move || steal(&queue))
        };
        let mut mine = steal(&queue);
        let theirs = thief.join().unwrap();
        drain(&queue, &mut mine);
        assert_each_once(&[&mine, &theirs], 3);
    });
}

/// Guards: the Release of `Inbox::push` and the Acquire of `take`; the oldest
/// first; two takers never see one item.
#[test]
fn inbox_push_against_two_takers() {
    model(|| {
        let inbox = Arc::new(Inbox::new());
        let taker = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                let mut taken = Taken::new();
                inbox.take(|item| taken.push(Item::take(item)));
                taken
            })
        };
        let pusher = {
            let inbox = inbox.clone();
            thread::spawn(move || {
                for number in 0..2 {
                    // SAFETY: the item lives until it is taken.
                    unsafe { inbox.push(Item::new(number)) };
                }
            })
        };
        let mut mine = Taken::new();
        inbox.take(|item| mine.push(Item::take(item)));
        let theirs = taker.join().unwrap();
        pusher.join().unwrap();
        inbox.take(|item| mine.push(Item::take(item)));
        assert!(inbox.is_empty());
        assert_each_once(&[&mine, &theirs], 2);
    });
}

/// Guards: two pushers lose nothing.
#[test]
fn inbox_two_pushers_against_a_taker() {
    model(|| {
        let inbox = Arc::new(Inbox::new());
        let pushers = [0, 1].map(|number| {
            let inbox = inbox.clone();
            // SAFETY: the item lives until it is taken.
            thread::spawn(move || unsafe { inbox.push(Item::new(number)) })
        });
        let mut mine = Taken::new();
        inbox.take(|item| mine.push(Item::take(item)));
        for pusher in pushers {
            pusher.join().unwrap();
        }
        inbox.take(|item| mine.push(Item::take(item)));
        mine.sort_unstable();
        assert_each_once(&[&mine], 2);
    });
}

struct Bed {
    sleep: Sleep,
    sleepers: Sleepers,
    work: AtomicUsize,
}

impl Bed {
    fn new() -> Arc<Bed> {
        Arc::new(Bed {
            sleep: Sleep::new(),
            sleepers: Sleepers::new(),
            work: AtomicUsize::new(0),
        })
    }

    /// What a worker does before it sleeps. `true`: it found work.
    fn prepare_and_look(&self) -> bool {
        self.sleep.prepare(&self.sleepers);
        self.work.load(Ordering::Relaxed) != 0
    }

    fn assert_nobody_sleeps(&self) {
        assert!(!self.sleepers.any(), "the count of sleepers is off");
    }
}

/// Guards: rules 1 and 2: the fence of `prepare` and that of `notify`. A
/// worker that sleeps with work published is one that was told.
#[test]
fn work_is_seen_or_the_sleeper_is_told() {
    model(|| {
        let bed = Bed::new();
        let notifier = {
            let bed = bed.clone();
            thread::spawn(move || {
                bed.work.store(1, Ordering::Relaxed);
                bed.sleep.notify(&bed.sleepers)
            })
        };
        let found = bed.prepare_and_look();
        let told = notifier.join().unwrap();
        assert!(found || told, "it sleeps with work published");
        bed.sleep.wake_up(&bed.sleepers);
        bed.assert_nobody_sleeps();
    });
}

/// Guards: as above for `Sleepers::any`, whose fence stands for that of
/// `notify`, before `summon`: the count and the flag are both seen.
#[test]
fn an_offer_is_seen_or_the_sleeper_is_told() {
    model(|| {
        let bed = Bed::new();
        let notifier = {
            let bed = bed.clone();
            thread::spawn(move || {
                bed.work.store(1, Ordering::Relaxed);
                bed.sleepers.any() && bed.sleep.summon(&bed.sleepers)
            })
        };
        let found = bed.prepare_and_look();
        let told = notifier.join().unwrap();
        assert!(found || told, "it sleeps with work published");
        bed.sleep.wake_up(&bed.sleepers);
        bed.assert_nobody_sleeps();
    });
}

/// Guards: rule 3: of two notifiers one pays for the unpark, and the count
/// ends at zero also when the worker wakes by itself meanwhile.
///
/// Loom does not see the Release of `prepare`'s store left out, nor the
/// Acquire of `try_notify`: its read-modify-writes read the newest value, so
/// the count cannot be taken down before it went up. Nor the Acquire of
/// `wake_up`: the fence of the next `prepare`, and the Acquire of the queues,
/// stand in for it.
#[test]
fn one_unpark_for_each_parked_period() {
    model(|| {
        let bed = Bed::new();
        let notifiers = [1, 2].map(|work| {
            let bed = bed.clone();
            thread::spawn(move || {
                bed.work.store(work, Ordering::Relaxed);
                usize::from(bed.sleep.notify(&bed.sleepers))
            })
        });
        if bed.prepare_and_look() {
            bed.sleep.wake_up(&bed.sleepers);
        }
        let told: usize = notifiers.into_iter().map(|n| n.join().unwrap()).sum();
        assert!(told <= 1, "told twice");
        bed.sleep.wake_up(&bed.sleepers);
        bed.assert_nobody_sleeps();
    });
}

/// Guards: a second parked period starts clean: no unpark of the first is
/// counted for it, and none of its own is missing.
#[test]
fn two_parked_periods_against_a_notifier() {
    model(|| {
        let bed = Bed::new();
        let notifier = {
            let bed = bed.clone();
            thread::spawn(move || {
                bed.work.store(1, Ordering::Relaxed);
                bed.sleep.notify(&bed.sleepers)
            })
        };
        // Woken by a timer, say.
        bed.prepare_and_look();
        bed.sleep.wake_up(&bed.sleepers);
        let found = bed.prepare_and_look();
        // It may have been told in the first period: who is still parked was
        // not told in the second.
        let _ = notifier.join().unwrap();
        assert!(
            found || !bed.sleepers.any(),
            "it sleeps with work published"
        );
        bed.sleep.wake_up(&bed.sleepers);
        bed.assert_nobody_sleeps();
    });
}

/// Two beds and the scout's office.
struct Camp {
    beds: [Sleep; 2],
    sleepers: Sleepers,
    scout: Scout,
    work: AtomicUsize,
}

impl Camp {
    fn new() -> Arc<Camp> {
        Arc::new(Camp {
            beds: [Sleep::new(), Sleep::new()],
            sleepers: Sleepers::new(),
            scout: Scout::new(),
            work: AtomicUsize::new(0),
        })
    }

    fn sees_work(&self) -> bool {
        self.work.load(Ordering::Relaxed) != 0
    }

    /// As `Shared::offer`: somebody is, or becomes, the scout, or all are
    /// awake.
    fn offer(&self) {
        if !self.sleepers.any() || self.scout.office() != Office::Vacant {
            return;
        }
        while self.scout.claim() {
            if self.beds.iter().any(|bed| bed.summon(&self.sleepers)) {
                return;
            }
            self.scout.resign();
            if !self.beds.iter().any(Sleep::is_parked) {
                return;
            }
        }
    }

    /// As a worker that would sleep: `true`: it does, for good.
    fn sleeps(&self, bed: usize) -> bool {
        self.beds[bed].prepare(&self.sleepers);
        !self.sees_work() || !self.scout.claim()
    }

    /// Nobody sleeps for good with work in sight, but if a scout is there.
    fn assert_covered(&self, asleep: bool) {
        let covered = self.scout.office() != Office::Vacant || !self.sleepers.any();
        assert!(!asleep || !self.sees_work() || covered, "work is stranded");
    }
}

/// Guards: rule 5: an offer against a scout that goes to sleep for good: the
/// fence of `resign`, and that of `any`.
#[test]
fn an_offer_against_a_scout_that_resigns() {
    model(|| {
        let camp = Camp::new();
        assert!(camp.scout.claim());
        let offers = {
            let camp = camp.clone();
            thread::spawn(move || {
                camp.work.store(1, Ordering::Relaxed);
                camp.offer();
            })
        };
        camp.beds[0].prepare(&camp.sleepers);
        let mut asleep = !camp.sees_work();
        if asleep {
            camp.scout.resign();
            asleep = !camp.sees_work() || !camp.scout.claim();
        }
        offers.join().unwrap();
        camp.assert_covered(asleep);
    });
}

/// Guards: rule 5: a worker that leaves work in sight to the scout, against
/// the scout that goes to work: it looks again, and offers what it sees.
#[test]
fn a_sleeper_against_a_scout_that_goes_to_work() {
    model(|| {
        let camp = Camp::new();
        camp.work.store(1, Ordering::Relaxed);
        assert!(camp.scout.claim());
        let scout = {
            let camp = camp.clone();
            thread::spawn(move || {
                camp.scout.resign();
                if camp.sees_work() {
                    camp.offer();
                }
            })
        };
        let asleep = camp.sleeps(1);
        scout.join().unwrap();
        camp.assert_covered(asleep);
    });
}

/// Guards: an offer that claimed the office and found nobody to summon gives
/// it back and looks again at who sleeps.
#[test]
fn an_offer_that_finds_nobody_to_summon() {
    model(|| {
        let camp = Camp::new();
        camp.beds[1].prepare(&camp.sleepers);
        let offers = {
            let camp = camp.clone();
            thread::spawn(move || {
                camp.work.store(1, Ordering::Relaxed);
                camp.offer();
            })
        };
        // One wakes by itself, one goes to sleep.
        let woken = camp.beds[1].wake_up(&camp.sleepers);
        let asleep = camp.sleeps(0);
        offers.join().unwrap();
        if woken != Woken::Summoned {
            camp.assert_covered(asleep);
        }
    });
}

/// Guards: rule 4: an offer against a worker whose thread goes back to a host,
/// and does not return: the office is not left to it. (With `prepare` in the
/// place of `leave_to_host` it is, also if the offer looks before whether the
/// thread is away.) And the fence of `leave_to_host`: who has work for the
/// worker itself is seen, or notifies it.
#[test]
fn a_host_that_leaves_is_notified_and_not_summoned() {
    model(|| {
        let camp = Camp::new();
        camp.beds[0].prepare(&camp.sleepers);
        let offers = {
            let camp = camp.clone();
            thread::spawn(move || {
                camp.work.store(1, Ordering::Relaxed);
                camp.offer();
                camp.beds[0].notify(&camp.sleepers)
            })
        };
        if camp.beds[0].wake_up(&camp.sleepers) == Woken::Summoned {
            camp.scout.resign();
        }
        camp.beds[0].leave_to_host();
        // As the host does, by `next_deadline`.
        let found = camp.sees_work();
        let told = offers.join().unwrap();
        assert_eq!(camp.scout.office(), Office::Vacant, "nobody has it");
        assert!(found || told, "it is away with work published");
        camp.beds[0].wake_up(&camp.sleepers);
        assert!(!camp.sleepers.any(), "the count of sleepers is off");
    });
}
