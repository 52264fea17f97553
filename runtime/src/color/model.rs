//! Loom models of [`Ready`]: push against push, against a run, against idle.
//!
//! Whoever is told to schedule runs the color at once, on its own thread: a
//! run queue in between would only add edges. `Color::plain` stands for what
//! users keep under a color without a lock; loom fails a model in which two
//! accesses to it are not ordered.
//!
//! Threads are joined only to count, at the end, what was popped: a join
//! cannot bring a lost node back, and every ordering has been used by then.

use std::ptr::{self, NonNull};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use loom::thread;

use super::ready::{Linked, Ready};
use super::refs::Refs;
use crate::task::state::{State, Turn};

struct Node {
    link: AtomicPtr<Node>,
    /// Who pushed it, and as which of its pushes. Written just before.
    pushed: UnsafeCell<(usize, usize)>,
}

impl Linked for Node {
    fn link(&self) -> &AtomicPtr<Node> {
        &self.link
    }
}

struct Color {
    ready: Ready<Node>,
    /// The next number expected of each pusher.
    plain: UnsafeCell<[usize; 3]>,
    popped: AtomicUsize,
}

impl Color {
    fn new() -> Arc<Color> {
        Arc::new(Color {
            ready: Ready::new(),
            plain: UnsafeCell::new([0; 3]),
            popped: AtomicUsize::new(0),
        })
    }

    fn node(who: usize, number: usize) -> NonNull<Node> {
        let node = Node {
            link: AtomicPtr::new(ptr::null_mut()),
            pushed: UnsafeCell::new((0, 0)),
        };
        node.pushed.with_mut(|p| {
            // SAFETY: nobody else has seen it.
            unsafe { *p = (who, number) };
        });
        NonNull::from(Box::leak(Box::new(node)))
    }

    /// Pushes, and runs the color if that is the duty.
    fn push(&self, who: usize, number: usize) {
        // SAFETY: the node lives until it is popped.
        if unsafe { self.ready.push(Color::node(who, number)) } {
            self.run();
        }
    }

    /// Runs the color to idleness.
    fn run(&self) {
        loop {
            while self.step() {}
            // SAFETY: the caller was told to schedule.
            if unsafe { self.ready.finish() } {
                return;
            }
        }
    }

    /// Pops one node and looks at everything that a poll would.
    fn step(&self) -> bool {
        // SAFETY: the caller was told to schedule.
        let Some(node) = (unsafe { self.ready.pop() }) else {
            return false;
        };
        // SAFETY: popped, so ours; made by a box.
        let node = unsafe { Box::from_raw(node.as_ptr()) };
        // SAFETY: ours.
        let (who, number) = node.pushed.with(|p| unsafe { *p });
        self.plain.with_mut(|plain| {
            // SAFETY: this is what the model proves: one runner at a time.
            let next = unsafe { &mut (*plain)[who] };
            assert_eq!(*next, number, "first in, first out for each pusher");
            *next += 1;
        });
        self.popped.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn assert_popped(&self, all: usize) {
        assert_eq!(self.popped.load(Ordering::Relaxed), all, "a node was lost");
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// Guards: exclusion, one schedule for each idle period, FIFO, and every
/// ordering of `push`, `take_chain` and `finish`.
#[test]
fn two_pushers_run_it_one_at_a_time() {
    model(|| {
        let color = Color::new();
        let other = {
            let color = color.clone();
            thread::spawn(move || {
                color.push(1, 0);
                color.push(1, 1);
            })
        };
        color.push(0, 0);
        color.push(0, 1);
        other.join().unwrap();
        color.assert_popped(4);
    });
}

/// Guards: as above, and that a runner passes on what *earlier* runners did,
/// through an idle period that a third thread ends (rule 2).
#[test]
fn three_pushers_hand_over_through_idle() {
    model(|| {
        let color = Color::new();
        let others = [1, 2].map(|who| {
            let color = color.clone();
            thread::spawn(move || color.push(who, 0))
        });
        color.push(0, 0);
        for other in others {
            other.join().unwrap();
        }
        color.assert_popped(3);
    });
}

/// Guards: nothing is lost between the last `pop` and `finish`: a push there
/// makes `finish` fail.
#[test]
fn a_push_against_finish_is_seen_by_one_of_them() {
    model(|| {
        let color = Color::new();
        // SAFETY: the node lives until it is popped.
        let duty = unsafe { color.ready.push(Color::node(0, 0)) };
        assert!(duty, "it was idle");
        let other = {
            let color = color.clone();
            thread::spawn(move || color.push(1, 0))
        };
        assert!(color.step());
        // SAFETY: we are the runner.
        if !unsafe { color.ready.finish() } {
            assert!(color.step(), "finish said that something is left");
            color.run();
        }
        other.join().unwrap();
        color.assert_popped(2);
    });
}

/// Guards: the look at the chain in `push_local` (rule 3): a push that
/// happened before comes out before.
#[test]
fn push_local_comes_after_a_push_that_happened_before() {
    model(|| {
        let color = Color::new();
        let pushed = Arc::new(AtomicBool::new(false));
        // SAFETY: the node lives until it is popped.
        assert!(unsafe { color.ready.push(Color::node(0, 0)) });
        let other = {
            let (color, pushed) = (color.clone(), pushed.clone());
            thread::spawn(move || {
                // The numbers are of one sequence: first this, then the local.
                color.push(2, 0);
                pushed.store(true, Ordering::Release);
            })
        };
        assert!(color.step());
        if pushed.load(Ordering::Acquire) {
            // SAFETY: we are the runner; the node lives until it is popped.
            unsafe { color.ready.push_local(Color::node(2, 1)) };
            color.run();
            other.join().unwrap();
            color.assert_popped(3);
        } else {
            color.run();
            other.join().unwrap();
        }
    });
}

/// Guards: local pushes and a concurrent chain keep each pusher's order, and
/// lose nothing, when the chain is taken behind the list.
#[test]
fn push_local_against_a_concurrent_push() {
    model(|| {
        let color = Color::new();
        // SAFETY: the node lives until it is popped.
        assert!(unsafe { color.ready.push(Color::node(0, 0)) });
        let other = {
            let color = color.clone();
            thread::spawn(move || {
                color.push(1, 0);
                color.push(1, 1);
            })
        };
        assert!(color.step());
        // SAFETY: we are the runner; the nodes live until they are popped.
        unsafe {
            color.ready.push_local(Color::node(0, 1));
            color.ready.push_local(Color::node(0, 2));
        }
        color.run();
        other.join().unwrap();
        color.assert_popped(5);
    });
}

/// The block of a task with its color in it: freed once, after every access.
struct Block {
    task: State,
    color: Refs,
    freed: UnsafeCell<bool>,
}

impl Block {
    /// A reference to the color, made as `ColorRef` makes one.
    fn up(&self) {
        if self.color.up() {
            self.task.add_ref();
        }
    }

    fn down(&self) {
        // SAFETY: that no write is concurrent is what the model proves.
        self.freed.with(|freed| assert!(unsafe { !*freed }));
        if self.color.down() {
            self.release();
        }
    }

    fn release(&self) {
        // SAFETY: as above.
        self.freed.with(|freed| assert!(unsafe { !*freed }));
        if self.task.release() {
            self.freed.with_mut(|freed| {
                // SAFETY: as above.
                assert!(!std::mem::replace(unsafe { &mut *freed }, true));
            });
        }
    }
}

/// Guards: AcqRel in `Refs::down`, and that the references together hold one to
/// the task, however the first and the last of them cross.
#[test]
fn references_to_a_color_keep_its_block() {
    model(|| {
        let block = Arc::new(Block {
            task: State::new(),
            color: Refs::new(0),
            freed: UnsafeCell::new(false),
        });
        // Its task runs, and nobody waits for it.
        assert!(block.task.drop_join());
        block.release();
        assert_eq!(block.task.start_poll(), Turn::Poll);
        let hand_out = || {
            block.up();
            let block = block.clone();
            thread::spawn(move || block.down())
        };
        // The first may be gone when the second is made, or not.
        let others = [hand_out(), hand_out()];
        assert!(block.task.complete().release);
        block.release();
        for other in others {
            other.join().unwrap();
        }
        // SAFETY: joined.
        block
            .freed
            .with(|freed| assert!(unsafe { *freed }, "leaked"));
    });
}
