//! Exclusion across awaits: `Color::hold`.

#![allow(
    clippy::async_yields_async,
    reason = "futures are looked at outside of where they were made"
)]

mod support;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use isochrome_runtime::{Builder, Color, Hold, spawn, yield_now};
use support::{
    CountDrop, Event, Occupied, OnDrop, Plain, Rng, World, foreign_block_on, keep_for_ever,
    message, poll_once, runtime,
};

mod workers {
    crate::support::on_workers!(
        nobody_comes_between_the_awaits_of_a_block,
        tasks_and_steps_wait_for_the_end_of_a_hold,
        code_in_a_block_has_the_color,
        a_hold_has_its_place_in_the_queue,
        a_hold_asked_for_in_its_own_color,
        a_dropped_hold_drops_its_block_under_the_color,
        a_dropped_waiter_leaves_the_line,
        holds_dropped_at_random_lose_no_color,
        a_forgotten_hold_goes_on,
        a_panic_comes_out_and_the_color_is_free,
        the_end_drops_holds_that_live_wait_and_are_queued,
        holds_after_the_end,
        the_default_color_is_held_on_its_thread,
        a_foreign_thread_holds,
        a_hold_of_another_runtime,
        a_task_of_the_held_color_cannot_be_joined_inside,
        the_held_color_cannot_be_held_inside,
        a_step_for_a_hold_further_out_panics,
        two_holds_that_wait_for_each_other,
        three_holds_that_wait_in_a_circle,
        holds_that_only_wait_make_no_circle,
        a_hold_that_ended_is_in_no_circle,
        a_block_that_yields_lets_the_driver_run,
    );
}

fn nobody_comes_between_the_awaits_of_a_block(workers: usize) {
    const EACH: usize = 20;
    let rt = runtime(workers);
    let (color, plain) = (rt.handle().color(), Arc::<Plain>::default());
    let inside: Arc<AtomicBool> = Arc::default();
    rt.block_on(async {
        let tasks: Vec<_> = (0..32)
            .map(|i| {
                let (color, plain, inside) = (color.clone(), plain.clone(), inside.clone());
                let own = if i % 4 == 0 {
                    color.clone()
                } else {
                    Color::new()
                };
                own.spawn(async move {
                    for n in 0..EACH {
                        let (plain, inside) = (plain.clone(), inside.clone());
                        let alone = move || {
                            // Relaxed: the color orders it.
                            assert!(!inside.load(Ordering::Relaxed), "between two awaits");
                            plain.step();
                            inside.clone()
                        };
                        if (i + n) % 3 == 0 {
                            color.run(move || drop(alone())).await;
                            continue;
                        }
                        let block = color.hold(async move {
                            let inside = alone();
                            inside.store(true, Ordering::Relaxed);
                            for _ in 0..n % 4 {
                                yield_now().await;
                            }
                            inside.store(false, Ordering::Relaxed);
                            n
                        });
                        assert_eq!(block.await.unwrap(), n);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(
        foreign_block_on(color.run(move || plain.step())),
        32 * EACH,
        "a step was lost"
    );
}

/// A hold that has begun, and goes on until the event is set.
async fn begun(
    color: &Color,
) -> (
    Pin<Box<Hold<impl Future<Output = ()> + Send + use<>>>>,
    Event,
) {
    let (begun, end) = (Event::new(), Event::new());
    let (begin, ended) = (begun.clone(), end.clone());
    let mut hold = Box::pin(color.hold(async move {
        begin.set();
        ended.wait().await;
    }));
    assert!(poll_once(&mut hold).is_pending());
    begun.wait().await;
    (hold, end)
}

fn tasks_and_steps_wait_for_the_end_of_a_hold(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::new();
        let (hold, end) = begun(&color).await;
        let ran = Arc::new(AtomicUsize::new(0));
        let add = || {
            let ran = ran.clone();
            move || ran.fetch_add(1, Ordering::SeqCst)
        };
        let (in_task, in_step) = (add(), add());
        let task = color.spawn(async move { in_task() });
        let mut step = Box::pin(color.run(in_step));
        assert!(poll_once(&mut step).is_pending());
        for _ in 0..20 {
            yield_now().await;
        }
        assert_eq!(ran.load(Ordering::SeqCst), 0, "the color is held");
        end.set();
        hold.await.unwrap();
        assert_eq!(task.await.unwrap(), 0);
        assert_eq!(step.await, 1);
    });
}

fn code_in_a_block_has_the_color(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::of(5);
        let (own, cell) = (color.clone(), color.cell(1));
        let block = color.hold(async move {
            assert_eq!(Color::current().as_ref(), Some(&own));
            yield_now().await;
            assert_eq!(Color::current().as_ref(), Some(&own));
            *cell.get().unwrap() += 1;
            assert_eq!(poll_once(&mut Box::pin(own.run(|| 3))), Poll::Ready(3));
            cell.with(|n| *n += 1).await;
            let other = Color::new().run(Color::current).await;
            assert_ne!(other.as_ref(), Some(&own));
            let child = spawn(async { Color::current() });
            let n = *cell.get().unwrap();
            (n, child)
        });
        let (n, child) = block.await.unwrap();
        assert_eq!(n, 3);
        assert_eq!(child.await.unwrap(), Some(color));
        assert_eq!(Color::current(), Some(Color::DEFAULT));
    });
}

fn a_hold_has_its_place_in_the_queue(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let occupied = Occupied::new(&color);
    rt.block_on(async {
        let mut holds = Vec::new();
        let mut steps = Vec::new();
        for n in 0..4 {
            let (at_hold, at_step) = (order.clone(), order.clone());
            let mut hold = Box::pin(color.hold(async move {
                at_hold.lock().unwrap().push(2 * n);
                yield_now().await;
                yield_now().await;
                at_hold.lock().unwrap().push(2 * n);
            }));
            assert!(poll_once(&mut hold).is_pending());
            holds.push(hold);
            let step = move || at_step.lock().unwrap().push(2 * n + 1);
            let mut step = Box::pin(color.run(step));
            assert!(poll_once(&mut step).is_pending());
            steps.push(step);
        }
        drop(occupied);
        for hold in holds {
            hold.await.unwrap();
        }
        for step in steps {
            step.await;
        }
    });
    assert_eq!(*order.lock().unwrap(), [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7]);
}

fn a_hold_asked_for_in_its_own_color(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::new();
        let own = color.clone();
        let task = color.spawn(async move {
            let hold = own.hold(async {
                yield_now().await;
                7
            });
            hold.await.unwrap()
        });
        assert_eq!(task.await.unwrap(), 7);
    });
}

type Seen = Arc<Mutex<Vec<Option<Color>>>>;

fn noted(drops: &Seen) -> OnDrop<impl FnMut() + Send + use<>> {
    let drops = drops.clone();
    OnDrop(move || drops.lock().unwrap().push(Color::current()))
}

fn a_dropped_hold_drops_its_block_under_the_color(workers: usize) {
    let rt = runtime(workers);
    // Not in the default color, which is held.
    let task = rt.handle().color().spawn(async {
        for color in [Color::of(9), Color::DEFAULT] {
            let (drops, begun) = (Seen::default(), Event::new());
            let (kept, begin) = (noted(&drops), begun.clone());
            let mut hold = Box::pin(color.hold(async move {
                let _kept = kept;
                begin.set();
                std::future::pending::<()>().await;
            }));
            assert!(poll_once(&mut hold).is_pending());
            begun.wait().await;
            drop(hold);
            // The color is free again, after the drop.
            color.run(|| ()).await;
            while drops.lock().unwrap().is_empty() {
                yield_now().await;
            }
            assert_eq!(*drops.lock().unwrap(), [Some(color)]);
        }
    });
    rt.block_on(task).unwrap();
}

fn a_dropped_waiter_leaves_the_line(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::new();
        let (hold, end) = begun(&color).await;
        let ran: Arc<AtomicUsize> = Arc::default();
        let mut waiters: Vec<_> = (0..4)
            .map(|_| {
                let ran = ran.clone();
                Box::pin(color.hold(async move {
                    yield_now().await;
                    ran.fetch_add(1, Ordering::SeqCst)
                }))
            })
            .collect();
        for waiter in &mut waiters {
            assert!(poll_once(waiter).is_pending());
        }
        drop(waiters.remove(2));
        drop(waiters.remove(0));
        end.set();
        hold.await.unwrap();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        color.run(|| ()).await;
        assert_eq!(ran.load(Ordering::SeqCst), 2);
    });
}

/// Holds given up at any moment: before they begin, between the grant and the
/// first poll, inside, after.
fn holds_dropped_at_random_lose_no_color(workers: usize) {
    let rng = Mutex::new(Rng::seeded("holds_dropped_at_random_lose_no_color"));
    let below = |n| rng.lock().unwrap().below(n);
    let rt = runtime(workers);
    let drops: Arc<AtomicUsize> = Arc::default();
    rt.block_on(async {
        let colors: Vec<_> = (0..3).map(|_| Color::new()).collect();
        let plains: Vec<_> = (0..3).map(|_| Arc::<Plain>::default()).collect();
        let mut tasks = Vec::new();
        for _ in 0..300 {
            let which = below(3);
            let (color, plain) = (colors[which].clone(), plains[which].clone());
            let (awaits, patience) = (below(4), below(12));
            let count = CountDrop(drops.clone());
            tasks.push(Color::new().spawn(async move {
                let mut hold = Box::pin(color.hold(async move {
                    let _count = count;
                    for _ in 0..awaits {
                        plain.step();
                        yield_now().await;
                    }
                    plain.step();
                }));
                for _ in 0..patience {
                    if poll_once(&mut hold).is_ready() {
                        return;
                    }
                    yield_now().await;
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        for color in colors {
            color.hold(async { yield_now().await }).await.unwrap();
        }
        while drops.load(Ordering::SeqCst) < 300 {
            yield_now().await;
        }
    });
}

fn a_forgotten_hold_goes_on(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::new();
        let (hold, end) = begun(&color).await;
        keep_for_ever(hold);
        end.set();
        color.run(|| ()).await;
    });
}

fn a_panic_comes_out_and_the_color_is_free(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let failed = color.hold(async {
        yield_now().await;
        panic!("inside")
    });
    let caught = catch_unwind(AssertUnwindSafe(|| rt.block_on(failed)));
    assert_eq!(message(caught.expect_err("it panics")), "inside");
    rt.block_on(async {
        assert_eq!(color.run(|| 1).await, 1);
        assert_eq!(Color::current(), Some(Color::DEFAULT));
        // So it does when the block panics in its drop.
        let begun = Event::new();
        let (begin, bomb) = (begun.clone(), OnDrop(|| panic!("in the drop")));
        let mut hold = Box::pin(color.hold(async move {
            let _bomb = bomb;
            begin.set();
            std::future::pending::<()>().await;
        }));
        assert!(poll_once(&mut hold).is_pending());
        begun.wait().await;
        drop(hold);
        assert_eq!(color.hold(async { 2 }).await.unwrap(), 2);
    });
}

fn the_end_drops_holds_that_live_wait_and_are_queued(workers: usize) {
    let rt = runtime(workers);
    let drops: Arc<AtomicUsize> = Arc::default();
    let foreign = rt.block_on(async {
        for color in [Color::new(), Color::of(1), Color::DEFAULT] {
            for _ in 0..4 {
                let (color, count) = (color.clone(), CountDrop(drops.clone()));
                drop(Color::new().spawn(async move {
                    let block = async move {
                        let _count = count;
                        std::future::pending::<()>().await;
                    };
                    drop(color.hold(block).await);
                }));
            }
            // Not the default color: nobody would come back.
            if color != Color::DEFAULT {
                for _ in 0..4 {
                    yield_now().await;
                }
            }
        }
        let (count, color) = (CountDrop(drops.clone()), Color::of(1));
        let mut hold = Box::pin(color.hold(async move {
            let _count = count;
            std::future::pending::<()>().await;
        }));
        assert!(poll_once(&mut hold).is_pending());
        hold
    });
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), 13);
    assert!(foreign_block_on(foreign).unwrap_err().is_shutdown());
}

fn holds_after_the_end(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let pinned = rt.block_on(async {
        let mut hold = Box::pin(Color::DEFAULT.hold(async {}));
        let _ = poll_once(&mut hold);
        hold.await.unwrap();
        Box::pin(Color::DEFAULT.hold(async {}))
    });
    drop(rt);
    let refused = foreign_block_on(color.hold(async {})).unwrap_err();
    assert!(refused.is_shutdown() && !refused.is_deadlock());
    let text = refused.to_string();
    assert_eq!(std::io::Error::from(refused).to_string(), text);
    assert!(foreign_block_on(pinned).unwrap_err().is_shutdown());
    // The color was given back.
    assert_eq!(foreign_block_on(color.run(|| 1)), 1);
}

fn the_default_color_is_held_on_its_thread(workers: usize) {
    let rt = runtime(workers);
    let here = thread::current().id();
    let plain = Arc::<Plain>::default();
    rt.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let plain = plain.clone();
                let asker = if i % 2 == 0 {
                    Color::new()
                } else {
                    Color::DEFAULT
                };
                asker.spawn(async move {
                    let hold = Color::DEFAULT.hold(async move {
                        for _ in 0..10 {
                            assert_eq!(thread::current().id(), here);
                            assert_eq!(Color::current(), Some(Color::DEFAULT));
                            plain.step();
                            yield_now().await;
                        }
                    });
                    hold.await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(plain.step(), 80);
}

fn a_foreign_thread_holds(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let plain = Arc::<Plain>::default();
    let thread = thread::spawn({
        let (color, plain) = (color.clone(), plain.clone());
        move || {
            for _ in 0..20 {
                let plain = plain.clone();
                let hold = color.hold(async move {
                    plain.step();
                    yield_now().await;
                    plain.step();
                });
                foreign_block_on(hold).unwrap();
            }
        }
    });
    while !thread.is_finished() {
        let plain = plain.clone();
        rt.block_on(color.run(move || plain.step()));
    }
    thread.join().unwrap();
}

fn a_hold_of_another_runtime(workers: usize) {
    let (rt, far) = (runtime(workers), runtime(workers));
    let color = far.handle().color();
    let own = color.clone();
    let mut hold = Box::pin(color.hold(async move {
        yield_now().await;
        assert_eq!(Color::current(), Some(own));
        1
    }));
    let ended = rt.block_on(async {
        match poll_once(&mut hold) {
            Poll::Ready(ended) => ended,
            Poll::Pending => far.block_on(hold),
        }
    });
    assert_eq!(ended.unwrap(), 1);
}

fn a_task_of_the_held_color_cannot_be_joined_inside(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::new();
        let spawn_line = format!("{}:{}", file!(), line!() + 3);
        let hold_line = format!("{}:{}", file!(), line!() + 1);
        let hold = color.hold(async {
            let mut child = spawn(async { 5 });
            // Also when it is wrapped, and further in.
            let wrapped = poll_fn(|cx| Pin::new(&mut child).poll(cx)).await;
            let error = wrapped.unwrap_err();
            assert!(error.is_deadlock() && !error.is_aborted());
            let inner = Color::new().hold(async move {
                assert!((&mut child).await.unwrap_err().is_deadlock());
                child
            });
            let child = inner.await.unwrap();
            // Tasks of other colors can be joined.
            Color::new().spawn(async {}).await.unwrap();
            (error.to_string(), child)
        });
        let (text, child) = hold.await.unwrap();
        for part in ["deadlock", &spawn_line, &hold_line] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        // It was not lost.
        assert_eq!(child.await.unwrap(), 5);
    });
}

fn the_held_color_cannot_be_held_inside(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        for color in [Color::new(), Color::DEFAULT] {
            let own = color.clone();
            let line = format!("{}:{}", file!(), line!() + 1);
            let hold = color.hold(async move {
                yield_now().await;
                let again = own.clone();
                let direct = own.hold(async {}).await.unwrap_err();
                // Through another one.
                let nested = Color::new().hold(async move {
                    yield_now().await;
                    again.hold(async {}).await.unwrap_err()
                });
                [direct, nested.await.unwrap()]
            });
            for error in hold.await.unwrap() {
                assert!(error.is_deadlock() && !error.is_shutdown());
                assert!(error.to_string().contains(&line), "{error}");
            }
            color.run(|| ()).await;
        }
    });
}

fn a_step_for_a_hold_further_out_panics(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let own = color.clone();
    let hold = color.hold(async move {
        let nested = Color::new().hold(async move { own.run(|| ()).await });
        nested.await.unwrap();
    });
    let caught = catch_unwind(AssertUnwindSafe(|| rt.block_on(hold)));
    let text = message(caught.expect_err("it panics"));
    assert!(text.contains("deadlock"), "{text}");
    rt.block_on(color.run(|| ()));
}

/// Holds each color and, when all are held, asks inside for the next one.
/// Returns how many of the inner holds were errors.
async fn circle(colors: &[Color]) -> Vec<String> {
    let held = Arc::new((AtomicUsize::new(0), Event::new()));
    let holds: Vec<_> = colors
        .iter()
        .enumerate()
        .map(|(n, color)| {
            let (next, held) = (colors[(n + 1) % colors.len()].clone(), held.clone());
            let count = colors.len();
            let color = color.clone();
            Color::new().spawn(async move {
                let hold = color.hold(async move {
                    if held.0.fetch_add(1, Ordering::SeqCst) + 1 == count {
                        held.1.set();
                    }
                    held.1.wait().await;
                    next.hold(yield_now()).await
                });
                hold.await.unwrap().err()
            })
        })
        .collect();
    let mut errors = Vec::new();
    for hold in holds {
        if let Some(error) = hold.await.unwrap() {
            assert!(error.is_deadlock());
            errors.push(error.to_string());
        }
    }
    errors
}

fn two_holds_that_wait_for_each_other(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let errors = circle(&[Color::of(1), Color::of(2)]).await;
        assert_eq!(errors.len(), 1, "one side gives way: {errors:?}");
        assert_eq!(errors[0].matches(file!()).count(), 3, "{errors:?}");
    });
}

fn three_holds_that_wait_in_a_circle(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        for _ in 0..10 {
            let colors = [Color::new(), Color::new(), Color::new()];
            assert_eq!(circle(&colors).await.len(), 1);
        }
    });
}

/// Always in the same order: none is an error.
fn holds_that_only_wait_make_no_circle(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let colors: Vec<_> = (0..3).map(|_| Color::new()).collect();
        let tasks: Vec<_> = (0..24)
            .map(|n| {
                let [a, b, c] = [0, 1, 2].map(|i| colors[i].clone());
                Color::new().spawn(async move {
                    let b = if n % 2 == 0 { b } else { c.clone() };
                    let further = b != c;
                    let inner = async move {
                        yield_now().await;
                        if further {
                            c.hold(yield_now()).await.unwrap();
                        }
                    };
                    let middle = async move {
                        let inner = b.hold(inner);
                        inner.await.unwrap();
                    };
                    a.hold(middle).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// A hold that waits, and has outlived the block in which it was asked for,
/// keeps nobody from the color of that block.
fn a_hold_that_ended_is_in_no_circle(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let (a, b) = (Color::new(), Color::new());
        let (begin, ask) = (Event::new(), Event::new());
        let (begun_b, asked, outer) = (begin.clone(), ask.clone(), a.clone());
        let mut in_b = Box::pin(b.hold(async move {
            begin.set();
            asked.wait().await;
            outer.hold(yield_now()).await
        }));
        assert!(poll_once(&mut in_b).is_pending());
        begun_b.wait().await;
        let inside = b.clone();
        let left = a.hold(async move {
            let mut dropped = Box::pin(inside.hold(async {}));
            assert!(poll_once(&mut dropped).is_pending());
            drop(dropped);
            let mut kept = Box::pin(inside.hold(async {}));
            assert!(poll_once(&mut kept).is_pending());
            kept
        });
        // It waits for b, but nothing of a any more for it.
        let left = left.await.unwrap();
        let (hold_a, end) = begun(&a).await;
        ask.set();
        for _ in 0..10 {
            yield_now().await;
        }
        end.set();
        hold_a.await.unwrap();
        in_b.await.unwrap().unwrap();
        left.await.unwrap();
    });
}

fn a_block_that_yields_lets_the_driver_run(workers: usize) {
    let world = World::new();
    // Thieves may run what yielded earlier.
    let rt = world.build(Builder::new().workers(workers).stealing(false));
    let color = rt.handle().color();
    rt.block_on(async {
        let block = async move {
            for _ in 0..20 {
                let before = world.parks.load(Ordering::SeqCst);
                yield_now().await;
                let after = world.parks.load(Ordering::SeqCst);
                assert!(after > before, "it ran again without the driver's turn");
            }
        };
        color.hold(block).await.unwrap();
    });
}
