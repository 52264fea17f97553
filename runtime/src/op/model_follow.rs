//! Loom models of a subscription that follows who waits for it: the words of
//! the registrar, and the meeting of an edge at the old worker, the arming at
//! the new one, and somebody who gives up.
//!
//! What is known is the real [`Lifecycle`], [`Readiness`], [`Registrar`] and
//! [`Token`]. The kernel is a count of bytes and two sets; a registration
//! reports what is there, and each write raises an edge in every set.

use std::collections::VecDeque;

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::lifecycle::{Ended, Lifecycle};
use super::readiness::Readiness;
use super::registrar::{Registrar, Token};
use crate::sync::Mutex;

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// The worker that has the descriptor, and the one whose task waits for it.
const OLD: usize = 0;
const NEW: usize = 1;

/// What their drivers call it, and the subscription.
const TOKENS: [u64; 2] = [10, 20];
const KEYS: [u64; 2] = [11, 21];

struct World {
    kernel: Mutex<Kernel>,
    slot: Mutex<Slot>,
    commands: [Mutex<VecDeque<Command>>; 2],
    home: Registrar,
    token: Token,
}

#[derive(Default)]
struct Kernel {
    bytes: usize,
    sets: [bool; 2],
    edges: [bool; 2],
}

struct Slot {
    life: Lifecycle,
    readiness: Readiness,
    woken: bool,
}

#[derive(Clone, Copy)]
enum Command {
    Submit,
    Cancel,
    HandOver,
    Disown,
}

impl World {
    /// The old worker tells of edges, and the task waits.
    fn new() -> (Arc<World>, Driver) {
        let mut slot = Slot {
            life: Lifecycle::new(),
            readiness: Readiness::UNKNOWN,
            woken: false,
        };
        slot.life.start(false, Some(OLD));
        slot.life.begin(KEYS[OLD]);
        slot.readiness.blocked();
        let world = World {
            kernel: Mutex::default(),
            slot: Mutex::new(slot),
            commands: Default::default(),
            home: Registrar::new(),
            token: Token::new(),
        };
        assert_eq!(world.home.get_or(OLD), OLD);
        world.token.set(TOKENS[OLD]);
        world.kernel(|kernel| kernel.sets[OLD] = true);
        let driver = Driver {
            index: OLD,
            has: true,
        };
        (Arc::new(world), driver)
    }

    fn slot<R>(&self, f: impl FnOnce(&mut Slot) -> R) -> R {
        f(&mut self.slot.lock().unwrap())
    }

    fn kernel<R>(&self, f: impl FnOnce(&mut Kernel) -> R) -> R {
        f(&mut self.kernel.lock().unwrap())
    }

    fn command(&self, worker: usize, command: Command) {
        self.commands[worker].lock().unwrap().push_back(command);
    }

    /// The peer.
    fn write(&self) {
        self.kernel(|kernel| {
            kernel.bytes += 1;
            for set in [OLD, NEW] {
                kernel.edges[set] |= kernel.sets[set];
            }
        });
    }

    /// Somebody gives up: `abandon` in `port`, and `Handle::cancel`.
    fn give_up(&self) {
        if self.slot(|slot| slot.life.abandon()) {
            if let Some(worker) = self.slot(|slot| slot.life.worker()) {
                self.command(worker, Command::Cancel);
            }
        }
    }

    /// `InFlight::end`.
    fn end(&self) {
        self.slot(|slot| {
            let ended = slot.life.end(true);
            assert_ne!(ended, Ended::Finished);
            slot.woken = true;
        });
    }

    fn control(&self, set: usize, there: bool) {
        self.kernel(|kernel| {
            kernel.sets[set] = there;
            kernel.edges[set] = there && kernel.bytes > 0;
        });
    }
}

/// A worker's driver, and the worker's part in it.
struct Driver {
    index: usize,
    has: bool,
}

impl Driver {
    /// `Worker::obey`, and what `epoll_wait` brings.
    fn turn(&mut self, world: &World) {
        loop {
            let command = world.commands[self.index].lock().unwrap().pop_front();
            match command {
                None => break,
                Some(Command::Submit) => self.submit(world),
                Some(Command::Cancel) => {
                    let key = world.slot(|slot| slot.life.cancel_key(self.index));
                    if key == Some(KEYS[self.index]) && std::mem::take(&mut self.has) {
                        world.end();
                    }
                }
                Some(Command::HandOver) => self.hand_over(world),
                Some(Command::Disown) => {
                    world.control(self.index, false);
                    world.home.stays();
                }
            }
        }
        let edge = world.kernel(|kernel| std::mem::take(&mut kernel.edges[self.index]));
        if edge && self.has {
            self.edge(world);
        }
    }

    fn edge(&self, world: &World) {
        world.slot(|slot| {
            slot.readiness.event(false);
            slot.woken = true;
        });
    }

    fn submit(&mut self, world: &World) {
        let home = world.home.get_or(self.index);
        if home != self.index {
            world.slot(|slot| slot.life.sent_to(home));
            return world.command(home, Command::Submit);
        }
        // Rule 3 in `op::registrar`.
        assert_eq!(world.token.get(), Some(TOKENS[self.index]));
        world.slot(|slot| slot.life.begin(KEYS[self.index]));
        self.has = true;
        self.edge(world);
    }

    fn hand_over(&mut self, world: &World) {
        let key = world.slot(|slot| slot.life.follow_key(OLD));
        if key != Some(KEYS[OLD]) {
            return world.command(NEW, Command::Disown);
        }
        assert!(std::mem::take(&mut self.has));
        world.control(OLD, false);
        world.home.moves_to(NEW, &world.token, TOKENS[NEW]);
        world.end();
    }

    /// `poll_word` in `op::direct`, with the attempt inside: whether there was
    /// something to read. The driver is the new worker's.
    fn poll(&mut self, world: &World) -> bool {
        loop {
            let mut slot = world.slot.lock().unwrap();
            slot.woken = false;
            if slot.readiness.is_ready() {
                let read = world.kernel(|kernel| std::mem::take(&mut kernel.bytes));
                if read > 0 {
                    return true;
                }
                slot.readiness.blocked();
            }
            if slot.life.is_idle() {
                slot.life.start(false, Some(NEW));
                drop(slot);
                self.submit(world);
                continue;
            }
            if slot.life.is_with(NEW) {
                return false;
            }
            let from = slot.life.follow();
            drop(slot);
            // `Worker::take_over`.
            if let Some(from) = from.filter(|from| world.home.begin_move(*from)) {
                world.control(NEW, true);
                world.command(from, Command::HandOver);
            }
            return false;
        }
    }
}

/// Guards: rule 3 in `op::registrar`. (Seen to fail: with a Relaxed store in
/// `moves_to`; with a Relaxed load in `get_or`; with the two stores swapped.)
#[test]
fn who_finds_itself_there_finds_its_own_token() {
    model(|| {
        let (world, _) = World::new();
        let old = world.clone();
        let old = thread::spawn(move || old.home.moves_to(NEW, &old.token, TOKENS[NEW]));
        if world.home.get_or(NEW) == NEW {
            assert_eq!(world.token.get(), Some(TOKENS[NEW]));
        }
        old.join().unwrap();
    });
}

/// Guards: rule 2 in `op::registrar`. (Seen to fail: with a load and a store in
/// the place of the compare-exchange.)
#[test]
fn one_worker_at_a_time_gets_ready_to_take_over() {
    model(|| {
        let (world, _) = World::new();
        let other = world.clone();
        let other = thread::spawn(move || other.home.begin_move(OLD));
        let mine = world.home.begin_move(OLD);
        assert!(mine != other.join().unwrap());
        assert_eq!(world.home.get_or(NEW), OLD, "still there");
    });
}

/// Guards: rules 2 and 3 in `op::follow`. A byte comes while the subscription
/// moves: whoever waits is woken and reads it, and afterwards at most one
/// driver has the subscription, and one set the descriptor. (Seen to fail: with an end in
/// `hand_over` that wakes nobody; with a `submit` that tells no edge, so that
/// the next attempt is left to an edge that was told already.)
#[test]
fn an_edge_is_not_lost_on_a_move() {
    model(|| {
        let (world, mut old) = World::new();
        let mut new = Driver {
            index: NEW,
            has: false,
        };
        let peer = world.clone();
        let peer = thread::spawn(move || peer.write());
        let theirs = world.clone();
        let theirs = thread::spawn(move || {
            old.turn(&theirs);
            old
        });
        let mut read = new.poll(&world);
        peer.join().unwrap();
        let mut old = theirs.join().unwrap();
        for _ in 0..3 {
            old.turn(&world);
            new.turn(&world);
            if world.slot(|slot| slot.woken) {
                read |= new.poll(&world);
            }
        }
        assert!(read, "waits for ever");
        let idle = world.slot(|slot| slot.life.is_idle());
        assert!(!(old.has && new.has));
        assert_eq!(idle, !(old.has || new.has));
        let home = world.home.get_or(OLD);
        let sets = world.kernel(|kernel| kernel.sets);
        assert!(sets[home], "no edge will come");
        assert!(home == OLD || sets == [false, true], "told by both");
    });
}

/// Guards: rule 4 in `op::follow`. The subscription is given up while it moves:
/// it ends once, and what was got ready is undone. (Seen to fail: without the
/// `Disown`; with a `stays` that leaves the mark, so that it never moves again.)
#[test]
fn what_is_given_up_on_its_way_leaves_nothing_behind() {
    model(|| {
        let (world, mut old) = World::new();
        let mut new = Driver {
            index: NEW,
            has: false,
        };
        let other = world.clone();
        let other = thread::spawn(move || other.give_up());
        let theirs = world.clone();
        let theirs = thread::spawn(move || {
            old.turn(&theirs);
            old
        });
        // The task waits, and is not polled again.
        assert!(!new.poll(&world));
        other.join().unwrap();
        let mut old = theirs.join().unwrap();
        for _ in 0..3 {
            old.turn(&world);
            new.turn(&world);
        }
        let home = world.home.get_or(OLD);
        let sets = world.kernel(|kernel| kernel.sets);
        assert_eq!(sets, [home == OLD, home == NEW], "a registration is left");
        assert!(world.home.begin_move(home), "it can move again");
        let idle = world.slot(|slot| slot.life.is_idle());
        assert_eq!(idle, !(old.has || new.has));
        assert!(!old.has || home == OLD);
    });
}
