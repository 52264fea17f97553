//! Loom models of readiness: events against attempts, within the lock and
//! outside of it, against new waiters, and against the end.
//!
//! What is known is the real [`Readiness`], under a lock that stands for the
//! slot's. The kernel is a count of bytes; each write raises an edge, which is
//! delivered at some later moment, as epoll's are.

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::readiness::{Left, Readiness};
use crate::sync::Mutex;

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// A descriptor, and two who read from it.
struct World {
    kernel: Mutex<usize>,
    slot: Mutex<Slot>,
}

struct Slot {
    readiness: Readiness,
    /// The subscription is over: nothing will be told any more.
    ended: bool,
    /// Who waits to be woken.
    waiting: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Bytes(usize),
    Pending,
    End,
}

impl World {
    /// With so many bytes there, and whether that was told.
    fn new(bytes: usize, told: bool) -> Arc<World> {
        let mut readiness = Readiness::UNKNOWN;
        if !told {
            readiness.blocked();
        }
        Arc::new(World {
            kernel: Mutex::new(bytes),
            slot: Mutex::new(Slot {
                readiness,
                ended: false,
                waiting: [false; 2],
            }),
        })
    }

    fn slot<R>(&self, f: impl FnOnce(&mut Slot) -> R) -> R {
        f(&mut self.slot.lock().unwrap())
    }

    /// The peer writes, and the driver delivers the edge: `InFlight::edge`.
    fn write(&self) {
        *self.kernel.lock().unwrap() += 1;
        self.slot(|slot| {
            slot.readiness.event(false);
            slot.waiting = [false; 2];
        });
    }

    /// The driver ends: `InFlight::end`.
    fn end(&self) {
        self.slot(|slot| {
            slot.ended = true;
            slot.waiting = [false; 2];
        });
    }

    /// read(2), of at most `room` bytes. `None`: EAGAIN.
    fn read(&self, room: usize) -> Option<usize> {
        let mut bytes = self.kernel.lock().unwrap();
        let read = (*bytes).min(room);
        *bytes -= read;
        (read > 0).then_some(read)
    }

    /// An attempt within the lock: `op::ready`, of a TCP socket.
    fn poll_locked(&self, who: usize, room: usize) -> Answer {
        self.slot(|slot| {
            while slot.readiness.is_ready() {
                match self.read(room) {
                    Some(read) => {
                        let left = match read < room {
                            true => Left::Short,
                            false => Left::Unknown,
                        };
                        slot.readiness.used(left, || true);
                        return Answer::Bytes(read);
                    }
                    None => slot.readiness.blocked(),
                }
            }
            slot.wait(who)
        })
    }

    /// An attempt outside of it: `op::direct`.
    fn poll_direct(&self, who: usize, room: usize) -> Answer {
        loop {
            let word = self.slot(|slot| match slot.readiness.take() {
                true => None,
                false => Some(slot.wait(who)),
            });
            if let Some(answer) = word {
                return answer;
            }
            if let Some(read) = self.read(room) {
                self.slot(|slot| {
                    slot.readiness.event(false);
                    slot.waiting = [false; 2];
                });
                return Answer::Bytes(read);
            }
        }
    }

    /// Nobody may wait for what is there: whoever does would wait for ever.
    fn check(&self) {
        let bytes = *self.kernel.lock().unwrap();
        self.slot(|slot| {
            let waits = slot.waiting.contains(&true);
            assert!(!waits || bytes == 0, "waits, with {bytes} bytes there");
            assert!(!waits || !slot.ended, "waits after the end");
        });
    }
}

impl Slot {
    fn wait(&mut self, who: usize) -> Answer {
        if self.ended {
            return Answer::End;
        }
        self.waiting[who] = true;
        Answer::Pending
    }
}

#[test]
fn an_event_is_not_lost_on_an_attempt_within_the_lock() {
    model(|| {
        let world = World::new(0, true);
        let peer = world.clone();
        let peer = thread::spawn(move || peer.write());
        let answer = world.poll_locked(0, 1);
        peer.join().unwrap();
        world.check();
        if answer == Answer::Pending {
            assert_eq!(world.poll_locked(0, 1), Answer::Bytes(1));
        }
    });
}

#[test]
fn an_event_is_not_lost_on_a_short_read() {
    model(|| {
        let world = World::new(1, true);
        let peer = world.clone();
        let peer = thread::spawn(move || peer.write());
        // Less than there is room for proves that it is drained, unless more
        // has come since, which is told.
        let mut read = 0;
        while let Answer::Bytes(n) = world.poll_locked(0, 8) {
            read += n;
        }
        peer.join().unwrap();
        world.check();
        if let Answer::Bytes(n) = world.poll_locked(0, 8) {
            read += n;
        }
        assert_eq!(read, 2);
    });
}

#[test]
fn an_event_is_not_lost_on_an_attempt_outside_of_the_lock() {
    model(|| {
        let world = World::new(0, true);
        let peer = world.clone();
        let peer = thread::spawn(move || peer.write());
        let answer = world.poll_direct(0, 1);
        peer.join().unwrap();
        world.check();
        if answer == Answer::Pending {
            assert_eq!(world.poll_direct(0, 1), Answer::Bytes(1));
        }
    });
}

#[test]
fn who_finds_the_word_gone_is_woken_by_who_has_it() {
    model(|| {
        let world = World::new(2, true);
        let other = world.clone();
        let other = thread::spawn(move || other.poll_direct(1, 1));
        let mine = world.poll_direct(0, 1);
        let theirs = other.join().unwrap();
        world.check();
        assert!(mine != Answer::Pending || theirs != Answer::Pending);
    });
}

#[test]
fn attempts_of_both_kinds_and_an_event() {
    model(|| {
        let world = World::new(1, true);
        let (peer, other) = (world.clone(), world.clone());
        let peer = thread::spawn(move || peer.write());
        let other = thread::spawn(move || other.poll_direct(1, 1));
        world.poll_locked(0, 1);
        other.join().unwrap();
        peer.join().unwrap();
        world.check();
    });
}

#[test]
fn nobody_waits_after_the_end() {
    model(|| {
        let world = World::new(0, false);
        let (driver, other) = (world.clone(), world.clone());
        let driver = thread::spawn(move || driver.end());
        let other = thread::spawn(move || other.poll_direct(1, 1));
        world.poll_locked(0, 1);
        other.join().unwrap();
        driver.join().unwrap();
        world.check();
    });
}
