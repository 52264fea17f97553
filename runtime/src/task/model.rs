//! Loom models of the state word of a task, one handshake each.
//!
//! Loom's cells stand for the fields that the word guards: an access that is
//! not ordered fails the model. Results of the transitions are compared after
//! the joins: a result is a fact by then, which a join cannot change.

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use super::state::{State, Turn, Wake};

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// The memory of a task: freed once, after every other access.
struct Memory(UnsafeCell<bool>);

impl Memory {
    fn new() -> Memory {
        Memory(UnsafeCell::new(false))
    }

    fn touch(&self) {
        // SAFETY: that no write is concurrent is what the model proves.
        self.0
            .with(|freed| assert!(unsafe { !*freed }, "used after it was freed"));
    }

    fn free(&self) {
        self.0.with_mut(|freed| {
            // SAFETY: as above.
            let freed = unsafe { &mut *freed };
            assert!(!std::mem::replace(freed, true), "freed twice");
        });
    }

    fn is_freed(&self) -> bool {
        // SAFETY: as above.
        self.0.with(|freed| unsafe { *freed })
    }
}

/// Guards: rule 2. A wake that finds the task notified still publishes, and
/// the poll that follows sees it. Release in `wake`, Acquire in `start_poll`.
#[test]
fn a_wake_of_a_notified_task_is_seen_by_the_next_poll() {
    model(|| {
        let state = Arc::new((State::new(), AtomicUsize::new(0)));
        let waker = {
            let state = state.clone();
            thread::spawn(move || {
                state.1.store(1, Ordering::Relaxed);
                state.0.wake()
            })
        };
        assert_eq!(state.0.start_poll(), Turn::Poll);
        let seen = state.1.load(Ordering::Relaxed);
        let woken = waker.join().unwrap();
        assert!(seen == 1 || woken == Wake::Queue, "a wake was lost");
    });
}

/// As above for the wake that gives its reference up.
#[test]
fn a_consumed_wake_of_a_notified_task_is_seen_too() {
    model(|| {
        let state = Arc::new((State::new(), AtomicUsize::new(0)));
        state.0.add_ref();
        let waker = {
            let state = state.clone();
            thread::spawn(move || {
                state.1.store(1, Ordering::Relaxed);
                state.0.wake_and_release()
            })
        };
        assert_eq!(state.0.start_poll(), Turn::Poll);
        let seen = state.1.load(Ordering::Relaxed);
        let woken = waker.join().unwrap();
        assert!(seen == 1 || woken == Wake::Queue, "a wake was lost");
    });
}

/// Guards: rules 1 and 2 with two wakers: one of them queues the task, and no
/// value is missing in the last poll. Who is told to queue polls at once.
///
/// No model fails without the Acquire of `wake`, or the Release of
/// `start_poll`: the queue of the color orders one poll before the next.
#[test]
fn two_wakers_queue_it_once_and_both_are_seen() {
    model(|| {
        let state = Arc::new((State::new(), [AtomicUsize::new(0), AtomicUsize::new(0)]));
        assert_eq!(state.0.start_poll(), Turn::Poll);
        let run = |who: usize, state: &(State, [AtomicUsize; 2])| {
            state.1[who].store(1, Ordering::Relaxed);
            match state.0.wake() {
                Wake::Queue => {
                    assert_eq!(state.0.start_poll(), Turn::Poll);
                    let saw = [0, 1].map(|i| state.1[i].load(Ordering::Relaxed) == 1);
                    assert!(saw[who]);
                    Some(saw)
                }
                Wake::Nothing => None,
                Wake::Free => unreachable!("nothing was given up"),
            }
        };
        let other = {
            let state = state.clone();
            thread::spawn(move || run(1, &state))
        };
        let polls = [run(0, &state), other.join().unwrap()];
        for who in [0, 1] {
            let seen = polls.iter().flatten().any(|saw| saw[who]);
            assert!(seen, "wake {who} was lost");
        }
    });
}

/// Guards: rules 4 and 7: a wake that consumes its waker against the
/// completion. Freed once, after every access; AcqRel in `release` and
/// `wake_and_release`.
///
/// Nothing fails without the Acquire in the success of `update`: its first load
/// acquires what the compare-exchange then finds unchanged.
#[test]
fn a_consumed_wake_against_completion_frees_once() {
    model(|| {
        let task = Arc::new((State::new(), Memory::new(), AtomicBool::new(false)));
        task.0.add_ref();
        assert!(task.0.drop_join(), "not complete yet");
        assert!(!task.0.release());
        assert_eq!(task.0.start_poll(), Turn::Poll);
        let waker = {
            let task = task.clone();
            thread::spawn(move || {
                task.1.touch();
                match task.0.wake_and_release() {
                    // The queue's own edge, from push to pop.
                    Wake::Queue => task.2.store(true, Ordering::Release),
                    Wake::Nothing => {}
                    Wake::Free => task.1.free(),
                }
            })
        };
        task.1.touch();
        let completed = task.0.complete();
        assert!(!completed.joined && !completed.wake);
        if !completed.release {
            while !task.2.load(Ordering::Acquire) {
                thread::yield_now();
            }
            assert_eq!(task.0.start_poll(), Turn::Stale);
        }
        task.1.touch();
        if task.0.release() {
            task.1.free();
        }
        waker.join().unwrap();
        assert!(task.1.is_freed(), "leaked");
    });
}

/// Guards: rule 7: handle, waker and runner let go at the same time.
#[test]
fn the_last_of_three_references_frees() {
    model(|| {
        let task = Arc::new((State::new(), Memory::new()));
        task.0.add_ref();
        assert_eq!(task.0.start_poll(), Turn::Poll);
        let others = [true, false].map(|handle| {
            let task = task.clone();
            thread::spawn(move || {
                if handle {
                    let _ = task.0.drop_join();
                }
                task.1.touch();
                if task.0.release() {
                    task.1.free();
                }
            })
        });
        task.1.touch();
        assert!(task.0.complete().release);
        if task.0.release() {
            task.1.free();
        }
        for other in others {
            other.join().unwrap();
        }
        assert!(task.1.is_freed(), "leaked");
    });
}

/// Guards: rule 6: the handle's waker is seen by the completion, or the handle
/// sees COMPLETE, and then the output. AcqRel in `complete`, Release in the
/// success and Acquire in the failure of `set_join_waker`.
#[test]
fn a_join_waker_is_woken_or_the_output_is_seen() {
    model(|| {
        let task = Arc::new((State::new(), UnsafeCell::new(0), UnsafeCell::new(0)));
        assert_eq!(task.0.start_poll(), Turn::Poll);
        let handle = {
            let task = task.clone();
            thread::spawn(move || {
                // SAFETY: JOIN_WAKER is clear: the handle's.
                task.1.with_mut(|waker| unsafe { *waker = 1 });
                let waits = task.0.set_join_waker();
                if !waits {
                    // SAFETY: complete: the handle's.
                    task.2.with(|output| assert_eq!(unsafe { *output }, 1));
                    // SAFETY: JOIN_WAKER is clear: the handle's.
                    task.1.with_mut(|waker| unsafe { *waker = 0 });
                }
                waits
            })
        };
        // SAFETY: not complete: the runner's.
        task.2.with_mut(|output| unsafe { *output = 1 });
        let completed = task.0.complete();
        assert!(completed.joined);
        if completed.wake {
            // SAFETY: set before COMPLETE: the runner's.
            let waker = task
                .1
                .with_mut(|waker| std::mem::take(unsafe { &mut *waker }));
            assert_eq!(waker, 1);
        }
        let waits = handle.join().unwrap();
        assert_eq!(
            waits, completed.wake,
            "the handle waits for ever, or is woken for nothing"
        );
        // SAFETY: joined.
        task.1
            .with(|waker| assert_eq!(unsafe { *waker }, 0, "left behind"));
    });
}

/// Guards: rule 6 when the handle changes its waker: the field has one owner at
/// a time, and no waker stays in it.
#[test]
fn a_join_waker_is_replaced_against_completion() {
    model(|| {
        let task = Arc::new((State::new(), UnsafeCell::new(1)));
        assert_eq!(task.0.start_poll(), Turn::Poll);
        assert!(task.0.set_join_waker() && task.0.has_join_waker());
        let handle = {
            let task = task.clone();
            thread::spawn(move || {
                if !task.0.clear_join_waker() {
                    return false;
                }
                // SAFETY: JOIN_WAKER is clear: the handle's.
                task.1.with_mut(|waker| unsafe { *waker = 2 });
                let waits = task.0.set_join_waker();
                if !waits {
                    // SAFETY: as above.
                    task.1.with_mut(|waker| unsafe { *waker = 0 });
                }
                waits
            })
        };
        let completed = task.0.complete();
        let woken = completed.wake.then(|| {
            // SAFETY: set before COMPLETE: the runner's.
            task.1
                .with_mut(|waker| std::mem::take(unsafe { &mut *waker }))
        });
        let waits = handle.join().unwrap();
        if waits {
            assert_eq!(woken, Some(2), "the new waker is the one that is woken");
        }
        // SAFETY: joined.
        task.1
            .with(|waker| assert_eq!(unsafe { *waker }, 0, "left behind"));
    });
}

/// Guards: Acquire in `is_complete`: who sees COMPLETE may read the output.
#[test]
fn a_look_at_complete_sees_the_output() {
    model(|| {
        let task = Arc::new((State::new(), UnsafeCell::new(0)));
        assert_eq!(task.0.start_poll(), Turn::Poll);
        let handle = {
            let task = task.clone();
            thread::spawn(move || {
                if task.0.is_complete() {
                    // SAFETY: complete: the handle's.
                    task.1.with(|output| assert_eq!(unsafe { *output }, 1));
                }
            })
        };
        // SAFETY: not complete: the runner's.
        task.1.with_mut(|output| unsafe { *output = 1 });
        assert!(task.0.complete().joined);
        handle.join().unwrap();
    });
}

/// Guards: rule 5: the output is dropped once, by the handle or the runner,
/// and the waker field is the handle's when it leaves first (rule 6).
#[test]
fn the_output_is_dropped_once_when_the_handle_goes() {
    model(|| {
        let task = Arc::new((State::new(), UnsafeCell::new(0), UnsafeCell::new(1)));
        assert_eq!(task.0.start_poll(), Turn::Poll);
        assert!(task.0.set_join_waker());
        let handle = {
            let task = task.clone();
            thread::spawn(move || {
                if task.0.drop_join() {
                    // SAFETY: JOIN_WAKER is clear: the handle's.
                    task.2.with_mut(|waker| unsafe { *waker = 0 });
                } else {
                    // SAFETY: complete, and JOIN was set: the handle's.
                    task.1.with_mut(|output| unsafe { *output -= 1 });
                }
            })
        };
        // SAFETY: not complete: the runner's.
        task.1.with_mut(|output| unsafe { *output += 1 });
        let completed = task.0.complete();
        if completed.wake {
            // SAFETY: set before COMPLETE: the runner's.
            let waker = task
                .2
                .with_mut(|waker| std::mem::take(unsafe { &mut *waker }));
            assert_eq!(waker, 1);
        }
        if !completed.joined {
            // SAFETY: JOIN was clear: the runner's.
            task.1.with_mut(|output| unsafe { *output -= 1 });
        }
        handle.join().unwrap();
        // SAFETY: joined.
        task.1
            .with(|output| assert_eq!(unsafe { *output }, 0, "dropped once"));
        // SAFETY: as above.
        task.2
            .with(|waker| assert_eq!(unsafe { *waker }, 0, "left behind"));
    });
}

/// Guards: an abort is carried out by the turn that follows, or it queues the
/// task for one that will; if the task was faster, it completes once.
#[test]
fn an_abort_against_a_turn_is_carried_out_once() {
    model(|| {
        let task = Arc::new((State::new(), AtomicBool::new(false)));
        let aborter = {
            let task = task.clone();
            thread::spawn(move || {
                let wake = task.0.abort();
                if wake == Wake::Queue {
                    // The queue's own edge, from push to pop.
                    task.1.store(true, Ordering::Release);
                }
                wake
            })
        };
        let cancelled = match task.0.start_poll() {
            Turn::Cancel => true,
            Turn::Poll => false,
            Turn::Stale => unreachable!("not complete"),
        };
        // The future was ready, or was dropped.
        let completed = task.0.complete();
        if !completed.release {
            while !task.1.load(Ordering::Acquire) {
                thread::yield_now();
            }
            assert_eq!(task.0.start_poll(), Turn::Stale);
        }
        let wake = aborter.join().unwrap();
        assert_eq!(
            completed.release,
            wake != Wake::Queue,
            "one entry for each queueing"
        );
        assert!(
            !cancelled || wake == Wake::Nothing,
            "carried out by the entry that was there"
        );
    });
}

/// Guards: as above for a future that stays pending: the abort is never lost.
#[test]
fn an_abort_of_a_pending_task_cancels_it() {
    model(|| {
        let task = Arc::new(State::new());
        let aborter = {
            let task = task.clone();
            thread::spawn(move || task.abort())
        };
        let first = task.start_poll();
        let wake = aborter.join().unwrap();
        match wake {
            Wake::Nothing => assert_eq!(first, Turn::Cancel, "an abort was lost"),
            Wake::Queue => {
                assert_eq!(first, Turn::Poll);
                assert_eq!(task.start_poll(), Turn::Cancel, "an abort was lost");
            }
            Wake::Free => unreachable!("nothing was given up"),
        }
    });
}

/// Guards: a closure that runs once is queued by nobody, and an abort that
/// happened before it began cancels it.
#[test]
fn an_abort_of_a_closure_queues_nothing() {
    model(|| {
        let task = Arc::new((State::new(), AtomicBool::new(false)));
        let aborter = {
            let task = task.clone();
            thread::spawn(move || {
                assert_eq!(task.0.abort(), Wake::Nothing);
                task.1.store(true, Ordering::Release);
            })
        };
        let before = task.1.load(Ordering::Acquire);
        let turn = task.0.start_once();
        assert!(turn == Turn::Cancel || (turn == Turn::Poll && !before));
        assert!(
            !task.0.complete().release,
            "the closure's runner knows better"
        );
        aborter.join().unwrap();
    });
}
