//! Loom models of the life of an operation, one meeting each: who completes
//! it, who gives it up, who cancels it, and the end of the worker.
//!
//! The lock is the slot's, what it guards is the real [`Lifecycle`], and what
//! is around it here is as little as stands for the slot, for a worker's
//! commands and for its driver. A loom cell stands for what the kernel may
//! touch: an access that is not ordered, or comes after it was freed, fails.

use std::collections::VecDeque;

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

/// What an operation lends to the kernel.
struct Memory(UnsafeCell<bool>);

impl Memory {
    fn new() -> Memory {
        Memory(UnsafeCell::new(false))
    }

    fn touch(&self) {
        // SAFETY: that nobody else is there is what the model proves.
        self.0
            .with_mut(|freed| assert!(unsafe { !*freed }, "used after it was freed"));
    }

    fn free(&self) {
        self.0.with_mut(|freed| {
            // SAFETY: as above.
            let freed = unsafe { &mut *freed };
            assert!(!std::mem::replace(freed, true), "freed twice");
        });
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        let freed = self.0.with(|freed| unsafe { *freed });
        assert!(freed || std::thread::panicking(), "leaked");
    }
}

/// A slot with one operation, a worker's commands, and its driver.
struct World {
    slot: Mutex<Slot>,
    commands: Mutex<Commands>,
    memory: Memory,
}

struct Slot {
    life: Lifecycle,
    result: bool,
    waker: bool,
    woken: bool,
}

struct Commands {
    queue: VecDeque<Command>,
    closed: bool,
}

#[derive(Clone, Copy)]
enum Command {
    Submit,
    Cancel,
}

/// The worker that has the driver.
const WORKER: usize = 0;
/// What the driver calls the operation.
const KEY: u64 = 7;

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            slot: Mutex::new(Slot {
                life: Lifecycle::new(),
                result: false,
                waker: false,
                woken: false,
            }),
            commands: Mutex::new(Commands {
                queue: VecDeque::new(),
                closed: false,
            }),
            memory: Memory::new(),
        })
    }

    fn slot<R>(&self, f: impl FnOnce(&mut Slot) -> R) -> R {
        f(&mut self.slot.lock().unwrap())
    }

    /// A foreign thread submits: `Handle::submit`.
    fn submit(&self) {
        self.slot(|slot| slot.life.start(true, None));
        self.send();
    }

    fn send(&self) {
        self.slot(|slot| slot.life.sent_to(WORKER));
        self.command(Command::Submit);
    }

    fn command(&self, command: Command) {
        let mut commands = self.commands.lock().unwrap();
        if !commands.closed {
            commands.queue.push_back(command);
            return;
        }
        drop(commands);
        // The drop of an `InFlight` finishes it.
        if let Command::Submit = command {
            self.end();
        }
    }

    /// The asker goes away: `abandon` in `port`, and `Handle::cancel`.
    fn abandon(&self) {
        if !self.slot(|slot| slot.life.abandon()) {
            return self.memory.free();
        }
        self.cancel();
    }

    /// Another user of the slot ends what its driver tells of.
    fn disarm(&self) {
        if self.slot(|slot| slot.life.disarm()) {
            self.cancel();
        }
    }

    /// The asker ends it, and takes what it brings: `poll_end` in `recall`.
    fn recall(&self) {
        let to_end = self.slot(|slot| {
            slot.waker = true;
            slot.life.recall()
        });
        if to_end {
            self.cancel();
        }
    }

    fn cancel(&self) {
        if let Some(worker) = self.slot(|slot| slot.life.worker()) {
            assert_eq!(worker, WORKER);
            self.command(Command::Cancel);
        }
    }

    /// `poll_owned`: `true` if it has finished.
    fn poll(&self) -> bool {
        let finished = self.slot(|slot| {
            let finished = slot.life.take_finished();
            if !finished {
                slot.waker = true;
            }
            finished
        });
        if finished {
            self.memory.free();
        }
        finished
    }

    /// `InFlight::finish`.
    fn end(&self) {
        let ended = self.slot(|slot| {
            let ended = slot.life.end(false);
            slot.result = ended == Ended::Finished;
            slot.woken |= slot.waker;
            ended
        });
        if ended == Ended::Unwanted {
            self.memory.free();
        }
    }
}

/// A driver that completes nothing by itself: what it has ends by a cancel or
/// by the end.
#[derive(Default)]
struct Driver {
    has: bool,
}

impl Driver {
    /// `Worker::obey`.
    fn obey(&mut self, world: &World) {
        loop {
            let command = world.commands.lock().unwrap().queue.pop_front();
            let Some(command) = command else { return };
            if let Command::Submit = command {
                world.slot(|slot| slot.life.begin(KEY));
                world.memory.touch();
                self.has = true;
            }
            let key = world.slot(|slot| slot.life.cancel_key(WORKER));
            if key == Some(KEY) && std::mem::take(&mut self.has) {
                world.memory.touch();
                world.end();
            }
        }
    }

    /// `Worker::close`.
    fn close(&mut self, world: &World) {
        self.obey(world);
        if std::mem::take(&mut self.has) {
            world.memory.touch();
            world.end();
        }
        let mut commands = world.commands.lock().unwrap();
        commands.closed = true;
        let rest = std::mem::take(&mut commands.queue);
        drop(commands);
        for command in rest {
            if let Command::Submit = command {
                world.end();
            }
        }
    }
}

/// Guards: rule 1. A completion meets the asker who goes away: one of them, and
/// no other, frees the memory, after the kernel's last touch. (Seen to fail:
/// with `end` deaf to `abandoned`; with `abandon` taking what is in flight.)
#[test]
fn complete_and_abandon_free_the_memory_once() {
    model(|| {
        let world = World::new();
        world.slot(|slot| {
            slot.life.start(true, Some(WORKER));
            slot.life.begin(KEY);
        });
        let driver = {
            let world = world.clone();
            thread::spawn(move || {
                world.memory.touch();
                world.end();
            })
        };
        world.abandon();
        driver.join().unwrap();
    });
}

/// Guards: rule 1, and that whoever polls is woken. A completion meets a poll:
/// either the poll has it, or the waker that it left is woken, and the next
/// poll has it. (Seen to fail: with the waker left in a second lock.)
#[test]
fn complete_and_poll_do_not_miss_each_other() {
    model(|| {
        let world = World::new();
        world.slot(|slot| {
            slot.life.start(true, Some(WORKER));
            slot.life.begin(KEY);
        });
        let driver = {
            let world = world.clone();
            thread::spawn(move || {
                world.memory.touch();
                world.end();
            })
        };
        if !world.poll() {
            driver.join().unwrap();
            assert!(world.slot(|slot| slot.woken && slot.result), "not woken");
            assert!(world.poll());
        } else {
            driver.join().unwrap();
        }
    });
}

/// Guards: rule 3. The operation is on its way from a foreign thread to a
/// worker while another gives it up: the driver that gets it ends it. (Seen to
/// fail: with only a `Command::Cancel` looking for the key; with the worker
/// told only after the command was sent.)
#[test]
fn a_cancel_from_another_thread_finds_what_is_on_its_way() {
    model(|| {
        let world = World::new();
        world.slot(|slot| slot.life.start(true, None));
        let sender = {
            let world = world.clone();
            thread::spawn(move || world.send())
        };
        let canceller = {
            let world = world.clone();
            thread::spawn(move || world.disarm())
        };
        let mut driver = Driver::default();
        driver.obey(&world);
        sender.join().unwrap();
        canceller.join().unwrap();
        // Whoever sent a command has woken the worker.
        driver.obey(&world);
        assert!(!driver.has, "nobody ends it");
        assert!(world.slot(|slot| slot.life.is_idle()));
    });
}

/// Guards: rules 3 and 5. What is recalled while it is on its way to a worker is
/// ended there too, and is the asker's, who is woken. (Seen to fail: with
/// `cancel_key` deaf to `recalled`; with `recall` as `disarm`.)
#[test]
fn a_recall_finds_what_is_on_its_way_and_loses_nothing() {
    model(|| {
        let world = World::new();
        world.slot(|slot| slot.life.start(true, None));
        let sender = {
            let world = world.clone();
            thread::spawn(move || world.send())
        };
        let asker = {
            let world = world.clone();
            thread::spawn(move || world.recall())
        };
        let mut driver = Driver::default();
        driver.obey(&world);
        sender.join().unwrap();
        asker.join().unwrap();
        driver.obey(&world);
        assert!(!driver.has, "nobody ends it");
        assert!(world.slot(|slot| slot.woken && slot.result), "lost");
        assert!(world.poll());
    });
}

/// Guards: rule 4. A cancel that comes after the operation ended does not hit
/// the next one of the slot, which somebody wants. (Seen to fail: with
/// `abandoned` kept by `end` and `start`.)
#[test]
fn a_late_cancel_spares_the_next_operation() {
    model(|| {
        let world = World::new();
        world.slot(|slot| {
            slot.life.start(true, Some(WORKER));
            slot.life.begin(KEY);
        });
        let asker = {
            let world = world.clone();
            thread::spawn(move || world.abandon())
        };
        // It completes; and the slot's next operation is begun by the driver.
        world.memory.touch();
        world.end();
        asker.join().unwrap();
        world.slot(|slot| {
            slot.life.start(true, Some(WORKER));
            slot.life.begin(KEY + 1);
        });
        Driver::default().obey(&world);
        let hit = world.slot(|slot| slot.life.cancel_key(WORKER));
        assert_eq!(hit, None, "the next one was hit");
        let _ = world.slot(|slot| slot.life.end(false));
    });
}

/// Guards: what a worker that ends leaves nobody waiting for. A foreign thread
/// submits and another gives up while the worker closes: the operation ends,
/// and its memory is freed once. (Seen to fail: with the commands that are
/// left dropped without `end`.)
#[test]
fn whatever_meets_the_close_ends() {
    model(|| {
        let world = World::new();
        let asker = {
            let world = world.clone();
            thread::spawn(move || {
                world.submit();
                world.abandon();
            })
        };
        Driver::default().close(&world);
        asker.join().unwrap();
        assert!(world.slot(|slot| slot.life.is_idle()));
    });
}

/// As above, with somebody who waits.
#[test]
fn who_waits_hears_of_the_close() {
    model(|| {
        let world = World::new();
        let asker = {
            let world = world.clone();
            thread::spawn(move || {
                world.submit();
                world.poll()
            })
        };
        Driver::default().close(&world);
        if !asker.join().unwrap() {
            assert!(world.slot(|slot| slot.woken), "waits for ever");
            assert!(world.poll());
        }
    });
}
