//! Loom models of what is fed: its end meets whoever is next in the line, goes
//! away, asks whether it failed, or ends the direction.
//!
//! As in `model`: the lock is the slot's, what it guards is the real
//! [`Lifecycle`], and a loom cell stands for the buffer.

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::lifecycle::{Ended, Lifecycle};
use crate::sync::Mutex;

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// The buffer of what is fed; whether it is dropped.
struct Buffer(UnsafeCell<bool>);

impl Buffer {
    fn touch(&self) {
        // SAFETY: that nobody else is there is what the model proves.
        self.0
            .with_mut(|dropped| assert!(unsafe { !*dropped }, "used after it was dropped"));
    }

    fn drop_it(&self) {
        self.0.with_mut(|dropped| {
            // SAFETY: as above.
            let dropped = unsafe { &mut *dropped };
            assert!(!std::mem::replace(dropped, true), "dropped twice");
        });
    }
}

/// A slot with something fed in flight, which a driver has.
struct World {
    slot: Mutex<Slot>,
    buffer: Buffer,
    wire: Mutex<Wire>,
}

struct Slot {
    life: Lifecycle,
    /// The flight has the buffer.
    lent: bool,
    /// Who waits in the line, by their numbers: whether they were woken.
    waiting: [Option<bool>; 2],
}

#[derive(Default)]
struct Wire {
    sent: bool,
    ends: usize,
}

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Pending,
    /// That what was fed before failed.
    Told,
    Done,
}

impl World {
    fn new() -> Arc<World> {
        let mut life = Lifecycle::new();
        life.start_fed(Some(0));
        life.begin(7);
        Arc::new(World {
            slot: Mutex::new(Slot {
                life,
                lent: true,
                waiting: [None; 2],
            }),
            buffer: Buffer(UnsafeCell::new(false)),
            wire: Mutex::new(Wire::default()),
        })
    }

    fn slot<R>(&self, f: impl FnOnce(&mut Slot) -> R) -> R {
        f(&mut self.slot.lock().unwrap())
    }

    fn end_direction(&self) {
        let mut wire = self.wire.lock().unwrap();
        assert!(wire.sent, "the end came first");
        wire.ends += 1;
    }

    /// `abandon` in `port`.
    fn abandon(&self) {
        let lent = self.slot(|slot| {
            let in_flight = slot.life.abandon();
            !in_flight && std::mem::take(&mut slot.lent)
        });
        if lent {
            self.buffer.drop_it();
        }
    }

    /// One who waits for a turn and is told of a failure instead, or has
    /// nothing to do with it (`poll_turn`, `Flush`).
    fn poll(&self, number: usize) -> Poll {
        self.slot(|slot| {
            if slot.life.is_fed() {
                slot.waiting[number] = Some(false);
                return Poll::Pending;
            }
            let told = slot.life.has_failed() && slot.life.take_finished();
            slot.waiting[number] = None;
            slot.wake_next();
            if told { Poll::Told } else { Poll::Done }
        })
    }

    /// `StreamSocket::end`.
    fn shutdown(&self) {
        if !self.slot(|slot| slot.life.end_after_fed()) {
            self.end_direction();
        }
    }
}

/// A driver that sends, and ends what it has: `Slot::end_fed`, and
/// `InFlight::end` if it was given up.
fn drive(world: &Arc<World>, fails: bool) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || {
        world.buffer.touch();
        world.wire.lock().unwrap().sent = true;
        let lent = world.slot(|slot| {
            if slot.life.is_fed() {
                if slot.life.end_fed(fails) {
                    world.end_direction();
                }
            } else {
                assert_eq!(slot.life.end(false), Ended::Unwanted);
            }
            slot.wake_next();
            std::mem::take(&mut slot.lent)
        });
        if lent {
            world.buffer.drop_it();
        }
    })
}

impl Slot {
    /// Of those who wait, the first that was not woken yet.
    fn wake_next(&mut self) {
        let free = self.life.is_idle() || self.life.has_failed();
        let next = self.waiting.iter_mut().flatten().find(|woken| !**woken);
        if let Some(woken) = next.filter(|_| free) {
            *woken = true;
        }
    }
}

/// Guards: rule 6 in `op::lifecycle`. The end meets the asking side that goes
/// away: the buffer is dropped once, after the last touch. (Seen to fail: with
/// `abandon` taking what is in flight; with the flight left in the slot by the
/// end.)
#[test]
fn what_is_fed_and_given_up_is_dropped_once() {
    model(|| {
        let world = World::new();
        let driver = drive(&world, false);
        world.abandon();
        driver.join().unwrap();
        assert!(world.slot(|slot| slot.life.is_idle() && !slot.lent));
        // SAFETY: nobody else has it.
        assert!(world.buffer.0.with(|dropped| unsafe { *dropped }));
    });
}

/// Guards: rule 4 in `op`, for what is fed. Who comes next finds the slot free, or
/// is woken by the end. (Seen to fail: with the place taken under a lock of its
/// own, after the look.)
#[test]
fn the_end_and_the_next_do_not_miss_each_other() {
    model(|| {
        let world = World::new();
        let driver = drive(&world, false);
        let polled = world.poll(0);
        driver.join().unwrap();
        if polled == Poll::Pending {
            assert_eq!(world.slot(|slot| slot.waiting[0]), Some(true), "not woken");
            assert_eq!(world.poll(0), Poll::Done);
        }
    });
}

/// Guards: rule 6 in `op::lifecycle`, and rule 3 in `op::feed`. Of two who ask,
/// on two threads, one is told that it failed, and the other is not left
/// waiting. (Seen to fail: with the phase left by who is told; with `end_fed`
/// deaf to `failed`; with nobody woken by who was told.)
#[test]
fn one_of_two_is_told_that_it_failed() {
    model(|| {
        let world = World::new();
        let driver = drive(&world, true);
        let other = {
            let world = world.clone();
            thread::spawn(move || world.poll(1))
        };
        let mine = world.poll(0);
        driver.join().unwrap();
        let mut polled = [mine, other.join().unwrap()];
        // Whoever was woken polls again.
        while let Some(woken) = (0..2).find(|&i| world.slot(|s| s.waiting[i]) == Some(true)) {
            assert_eq!(polled[woken], Poll::Pending);
            polled[woken] = world.poll(woken);
        }
        polled.sort_by_key(|polled| *polled != Poll::Told);
        assert_eq!(polled, [Poll::Told, Poll::Done]);
        assert!(world.slot(|slot| slot.life.is_idle()));
    });
}

/// Guards: rule 7 in `op::lifecycle`. The end of the direction comes once, and
/// behind what is fed. (Seen to fail: with `end_fed` deaf to the mark; with
/// `end_after_fed` looking in one step and marking in another.)
#[test]
fn the_direction_ends_once_and_behind() {
    model(|| {
        let world = World::new();
        let driver = drive(&world, false);
        world.shutdown();
        driver.join().unwrap();
        assert_eq!(world.wire.lock().unwrap().ends, 1);
    });
}
