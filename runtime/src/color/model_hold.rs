//! Loom models of the runner's role outside of a worker's loop: taken from an
//! idle color ([`Ready::try_take`]), granted to one who waits ([`Grant`]), and
//! given back.
//!
//! As in `model`, `plain` is what users keep under the color, and whoever is
//! told to schedule runs the color at once, but in the models with a run queue.

use std::ptr::{self, NonNull};
use std::task::{Context, Poll, Waker};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use loom::thread;

use super::grant::Grant;
use super::ready::{Linked, Ready};
use crate::worker::Inbox;

struct Node {
    link: AtomicPtr<Node>,
    /// Grants the role to the hold, instead of doing work.
    turn: bool,
}

impl Linked for Node {
    fn link(&self) -> &AtomicPtr<Node> {
        &self.link
    }
}

struct Color {
    ready: Ready<Node>,
    link: AtomicPtr<Color>,
    /// Steps made under the color, by tasks and holds.
    plain: UnsafeCell<usize>,
    /// The same, for the end of the model.
    steps: AtomicUsize,
    grant: Grant<()>,
}

impl Linked for Color {
    fn link(&self) -> &AtomicPtr<Color> {
        &self.link
    }
}

#[derive(PartialEq, Eq)]
enum Ran {
    Idle,
    /// Something is left: to be scheduled, or run on.
    Left,
    /// The role is the hold's now.
    Granted,
}

impl Color {
    fn new() -> Arc<Color> {
        Arc::new(Color {
            ready: Ready::new(),
            link: AtomicPtr::new(ptr::null_mut()),
            plain: UnsafeCell::new(0),
            steps: AtomicUsize::new(0),
            grant: Grant::new(),
        })
    }

    fn node(turn: bool) -> NonNull<Node> {
        let link = AtomicPtr::new(ptr::null_mut());
        NonNull::from(Box::leak(Box::new(Node { link, turn })))
    }

    /// `true`: the caller has to schedule the color.
    fn push(&self, turn: bool) -> bool {
        // SAFETY: the node lives until it is popped.
        unsafe { self.ready.push(Color::node(turn)) }
    }

    fn step(&self) {
        // SAFETY: this is what the models prove: one runner at a time.
        self.plain.with_mut(|plain| unsafe { *plain += 1 });
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// What a worker does with a color.
    fn run(&self) -> Ran {
        // SAFETY: the caller has the role.
        while let Some(node) = unsafe { self.ready.pop() } {
            // SAFETY: popped, so ours; made by a box.
            let node = unsafe { Box::from_raw(node.as_ptr()) };
            if !node.turn {
                self.step();
            } else if self.grant.give(|| ()) {
                return Ran::Granted;
            }
        }
        self.finish()
    }

    fn finish(&self) -> Ran {
        // SAFETY: the caller has the role.
        if unsafe { self.ready.finish() } {
            Ran::Idle
        } else {
            Ran::Left
        }
    }

    /// Runs until the role is gone.
    fn run_on(&self) {
        while self.run() == Ran::Left {}
    }

    fn push_and_run(&self) {
        if self.push(false) {
            self.run_on();
        }
    }

    /// Waits for the role. Not for ever: loom runs each thread fairly enough
    /// after a yield.
    fn wait(&self) {
        let cx = Context::from_waker(Waker::noop());
        while self.grant.poll_take(&cx) == Poll::Pending {
            thread::yield_now();
        }
    }

    /// What a hold does: steps, among them one of its own task, and the end.
    fn hold(&self) {
        self.step();
        // SAFETY: the caller has the role; the node lives until it is popped.
        unsafe { self.ready.push_local(Color::node(false)) };
        self.step();
    }

    fn assert_idle_after(&self, steps: usize) {
        assert_eq!(self.steps.load(Ordering::Relaxed), steps, "a step was lost");
        assert!(self.ready.try_take(), "the color was lost");
    }
}

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// Guards: the Acquire of `try_take`, whose partner is `finish`; that it takes
/// an idle color only; and that what is pushed meanwhile makes `finish` fail.
#[test]
fn a_step_against_pushes() {
    model(|| {
        let color = Color::new();
        let other = {
            let color = color.clone();
            thread::spawn(move || {
                color.push_and_run();
                color.push_and_run();
            })
        };
        let mut steps = 2;
        for _ in 0..2 {
            if color.ready.try_take() {
                color.step();
                steps += 1;
                if color.finish() == Ran::Left {
                    color.run_on();
                }
            }
        }
        other.join().unwrap();
        color.assert_idle_after(steps);
    });
}

/// Guards: two steps against each other, and a push: one of the two takes it.
#[test]
fn two_steps_and_a_push() {
    model(|| {
        let color = Color::new();
        let step = |color: &Color| {
            let took = color.ready.try_take();
            if took {
                color.step();
                if color.finish() == Ran::Left {
                    color.run_on();
                }
            }
            usize::from(took)
        };
        let other = {
            let color = color.clone();
            thread::spawn(move || step(&color))
        };
        let pusher = {
            let color = color.clone();
            thread::spawn(move || color.push_and_run())
        };
        let steps = step(&color) + other.join().unwrap();
        pusher.join().unwrap();
        color.assert_idle_after(steps + 1);
    });
}

/// Guards: a runner that has granted its role does not finish the run (rule 3
/// in `color::hold`): what is pushed then waits for the hold, and nobody
/// touches the color beside it.
#[test]
fn a_grant_against_a_push() {
    model(|| {
        let color = Color::new();
        assert!(color.push(true));
        let hold = {
            let color = color.clone();
            thread::spawn(move || {
                color.wait();
                color.hold();
                color.run_on();
            })
        };
        let pusher = {
            let color = color.clone();
            thread::spawn(move || color.push_and_run())
        };
        color.run_on();
        hold.join().unwrap();
        pusher.join().unwrap();
        color.assert_idle_after(4);
    });
}

/// Guards: the release of a hold against pushes: each is run by the hold's
/// thread (where it is scheduled, that is), or by the pusher.
#[test]
fn a_release_against_pushes() {
    model(|| {
        let color = Color::new();
        assert!(color.ready.try_take());
        let pusher = {
            let color = color.clone();
            thread::spawn(move || {
                color.push_and_run();
                color.push_and_run();
            })
        };
        color.hold();
        if color.finish() == Ran::Left {
            color.run_on();
        }
        pusher.join().unwrap();
        color.assert_idle_after(5);
    });
}

/// Guards: rules 1 and 2 in `color::grant`: a waiter that leaves either keeps
/// the runner running, or takes the role along and gives it back.
#[test]
fn a_waiter_that_leaves_against_the_grant() {
    model(|| {
        let color = Color::new();
        assert!(color.push(true));
        assert!(!color.push(false));
        let waiter = {
            let color = color.clone();
            thread::spawn(move || {
                if color.grant.leave().is_some() {
                    color.run_on();
                }
            })
        };
        color.run_on();
        waiter.join().unwrap();
        color.assert_idle_after(1);
    });
}

/// Guards: rule 1 in `color::ready` with a run queue between: two workers that
/// take what they find there never run a color that is held, also not when it
/// is pushed to while it is.
#[test]
fn takers_of_the_queue_never_run_a_held_color() {
    model(|| {
        let color = Color::new();
        let queue = Arc::new(Inbox::new());
        let schedule = |queue: &Inbox<Color>, color: &Arc<Color>| {
            // SAFETY: the color outlives the threads.
            unsafe { queue.push(NonNull::from(&**color)) };
        };
        assert!(color.push(true));
        schedule(&queue, &color);
        let work = move |queue: &Inbox<Color>, color: &Arc<Color>| {
            queue.take(|_| {
                if color.run() == Ran::Left {
                    schedule(queue, color);
                }
            });
        };
        let thief = {
            let (color, queue) = (color.clone(), queue.clone());
            thread::spawn(move || {
                if color.push(false) {
                    schedule(&queue, &color);
                }
                work(&queue, &color);
            })
        };
        let hold = {
            let (color, queue) = (color.clone(), queue.clone());
            thread::spawn(move || {
                color.wait();
                color.step();
                color.step();
                if color.finish() == Ran::Left {
                    schedule(&queue, &color);
                }
            })
        };
        work(&queue, &color);
        thief.join().unwrap();
        hold.join().unwrap();
        while color.steps.load(Ordering::Relaxed) < 3 {
            work(&queue, &color);
        }
        work(&queue, &color);
        color.assert_idle_after(3);
    });
}
