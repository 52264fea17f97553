//! Atomic steps: `Color::run`.

#![allow(
    clippy::async_yields_async,
    reason = "futures are looked at outside of where they were made"
)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use isochrome_runtime::{Color, Handle, spawn, yield_now};
use support::{CountDrop, Event, Occupied, Plain, foreign_block_on, message, poll_once, runtime};

mod workers {
    crate::support::on_workers!(
        steps_of_many_tasks_and_threads_do_not_overlap,
        a_step_of_an_idle_color_runs_in_the_first_poll,
        a_step_of_the_own_color_runs_in_the_first_poll,
        queued_steps_run_in_order,
        a_step_dropped_in_the_queue_does_not_happen,
        a_panic_comes_out_and_harms_nobody,
        code_in_a_step_has_its_color,
        steps_of_the_default_color_stay_on_its_thread,
        what_is_pushed_during_a_step_runs_after_it,
        steps_in_steps,
        the_end_drops_what_waits_and_what_is_queued,
        steps_after_the_end,
        a_step_for_another_runtime,
    );
}

fn steps_of_many_tasks_and_threads_do_not_overlap(workers: usize) {
    const EACH: usize = 300;
    let rt = runtime(workers);
    let handle = rt.handle().clone();
    let (color, plain) = (handle.color(), Arc::<Plain>::default());
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (color, plain) = (color.clone(), plain.clone());
            thread::spawn(move || {
                for _ in 0..EACH {
                    let plain = plain.clone();
                    foreign_block_on(color.run(move || plain.step()));
                }
            })
        })
        .collect();
    rt.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|i| {
                let (color, plain) = (color.clone(), plain.clone());
                let own = if i % 8 == 0 {
                    color.clone()
                } else {
                    Color::new()
                };
                own.spawn(async move {
                    for n in 0..EACH {
                        let plain = plain.clone();
                        color.run(move || plain.step()).await;
                        if n % 16 == 0 {
                            yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    for thread in threads {
        // Steps that are queued at home need workers.
        while !thread.is_finished() {
            rt.block_on(yield_now());
        }
        thread.join().unwrap();
    }
    let all = foreign_block_on(color.run(move || plain.step()));
    assert_eq!(all, 66 * EACH, "a step was lost");
}

fn a_step_of_an_idle_color_runs_in_the_first_poll(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    // Outside, under another color, and under none on a worker's thread.
    assert_eq!(poll_once(&mut pin!(color.run(|| 1))), Poll::Ready(1));
    rt.block_on(async {
        assert_eq!(poll_once(&mut pin!(color.run(|| 2))), Poll::Ready(2));
        let c = color.clone();
        let other = Color::new().spawn(async move { poll_once(&mut pin!(c.run(|| 3))) });
        assert_eq!(other.await.unwrap(), Poll::Ready(3));
    });
}

fn a_step_of_the_own_color_runs_in_the_first_poll(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        assert_eq!(
            poll_once(&mut pin!(Color::DEFAULT.run(|| 1))),
            Poll::Ready(1)
        );
        let color = Color::new();
        let own = color.clone();
        let task = color.spawn(async move {
            // Another waits: inline all the same, it is the same poll.
            drop(own.spawn(async {}));
            poll_once(&mut pin!(own.run(|| 2)))
        });
        assert_eq!(task.await.unwrap(), Poll::Ready(2));
    });
}

fn queued_steps_run_in_order(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color_of(7);
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let note = |n| {
        let order = order.clone();
        move || order.lock().unwrap().push(n)
    };
    let occupied = Occupied::new(&color);
    let mut steps: Vec<Pin<Box<_>>> = (0..3).map(|n| Box::pin(color.run(note(2 * n)))).collect();
    let mut tasks = Vec::new();
    for (n, step) in steps.iter_mut().enumerate() {
        assert_eq!(poll_once(step), Poll::Pending);
        let note = note(2 * n + 1);
        tasks.push(color.spawn(async move { note() }));
    }
    drop(occupied);
    rt.block_on(async {
        for step in steps {
            step.await;
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
}

fn a_step_dropped_in_the_queue_does_not_happen(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let (ran, drops) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let step = || {
        let (ran, drops) = (ran.clone(), CountDrop(Arc::clone(&drops)));
        Box::pin(color.run(move || {
            let _drops = &drops;
            ran.fetch_add(1, Ordering::SeqCst)
        }))
    };
    // Never polled: dropped at once.
    drop(step());
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    let occupied = Occupied::new(&color);
    let [mut first, mut dropped, mut last] = [step(), step(), step()];
    for step in [&mut first, &mut dropped, &mut last] {
        assert_eq!(poll_once(step), Poll::Pending);
    }
    drop(dropped);
    drop(occupied);
    rt.block_on(async {
        assert_eq!(first.await, 0);
        assert_eq!(last.await, 1);
    });
    assert_eq!(ran.load(Ordering::SeqCst), 2);
    assert_eq!(drops.load(Ordering::SeqCst), 4);
}

fn a_panic_comes_out_and_harms_nobody(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let outer = Color::DEFAULT;
    let fails = |when: &'static str| color.run(move || -> usize { panic!("{when}") });
    let caught = catch_unwind(AssertUnwindSafe(|| rt.block_on(fails("inline"))));
    assert_eq!(message(caught.unwrap_err()), "inline");
    let occupied = Occupied::new(&color);
    let mut queued = Box::pin(fails("queued"));
    assert_eq!(poll_once(&mut queued), Poll::Pending);
    drop(occupied);
    let caught = catch_unwind(AssertUnwindSafe(|| rt.block_on(queued)));
    assert_eq!(message(caught.unwrap_err()), "queued");
    rt.block_on(async {
        // Caught by the task itself: its color is its own again.
        let idle = Color::new();
        let step = || idle.run(|| panic!("within"));
        let caught = catch_unwind(AssertUnwindSafe(|| poll_once(&mut pin!(step()))));
        assert_eq!(message(caught.unwrap_err()), "within");
        assert_eq!(Color::current(), Some(outer));
        assert_eq!(color.run(|| 3).await, 3);
    });
}

fn code_in_a_step_has_its_color(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::of(3);
        let seen = color.run(Color::current).await;
        assert_eq!(seen.as_ref(), Some(&color));
        assert_eq!(Color::current(), Some(Color::DEFAULT), "restored");
        let child = color.run(|| spawn(async { Color::current() })).await;
        assert_eq!(child.await.unwrap(), Some(color.clone()));
        // From another color, queued.
        let occupied = Occupied::new(&color);
        let mut queued = Box::pin(color.run(Color::current));
        assert!(poll_once(&mut queued).is_pending());
        drop(occupied);
        assert_eq!(queued.await, Some(color));
    });
}

fn steps_of_the_default_color_stay_on_its_thread(workers: usize) {
    let rt = runtime(workers);
    let here = thread::current().id();
    rt.block_on(async {
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                Color::new().spawn(async move {
                    for _ in 0..20 {
                        let ran = Color::DEFAULT.run(|| (thread::current().id(), Color::current()));
                        assert_eq!(ran.await, (here, Some(Color::DEFAULT)));
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn what_is_pushed_during_a_step_runs_after_it(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let spawned = foreign_block_on(color.run({
        let color = color.clone();
        move || color.spawn(async { 1 })
    }));
    let spawned = rt.block_on(spawned).unwrap();
    let handles = rt.block_on(async {
        let inner = color.clone();
        let step = color.run(move || [spawn(async { 2 }), inner.spawn(async { 3 })]);
        step.await
    });
    let [a, b] = handles;
    assert_eq!(
        rt.block_on(async { spawned + a.await.unwrap() + b.await.unwrap() }),
        6
    );
}

fn steps_in_steps(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let (a, b) = (Color::new(), Color::new());
        let (a2, b2) = (a.clone(), b.clone());
        let seen = a.run(move || {
            // The same color, and another, inline; and the first from there is
            // not: it is not the innermost.
            let own = poll_once(&mut pin!(a2.run(Color::current)));
            let a3 = a2.clone();
            let other = poll_once(&mut pin!(b2.run(move || {
                let queued = poll_once(&mut pin!(a3.run(|| ()))).is_pending();
                (Color::current(), queued)
            })));
            (own, other, Color::current())
        });
        let (own, other, after) = seen.await;
        assert_eq!(own, Poll::Ready(Some(a.clone())));
        assert_eq!(other, Poll::Ready((Some(b), true)));
        assert_eq!(after, Some(a.clone()));
        a.run(|| ()).await;
    });
}

fn the_end_drops_what_waits_and_what_is_queued(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let drops: Arc<AtomicUsize> = Arc::default();
    let (begun, never) = (Event::new(), Event::new());
    let hold = rt.block_on({
        let (color, begun, never) = (color.clone(), begun.clone(), never.clone());
        async move {
            let hold = color.hold(async move {
                begun.set();
                never.wait().await;
            });
            spawn(async { drop(hold.await) })
        }
    });
    rt.block_on(begun.wait());
    // The color is held for ever: steps queue up behind.
    rt.block_on(async {
        for _ in 0..4 {
            let (color, drops) = (color.clone(), drops.clone());
            let (count, step) = (CountDrop(drops.clone()), CountDrop(drops));
            drop(Color::new().spawn(async move {
                let _count = count;
                color.run(move || drop(step)).await;
            }));
        }
        for _ in 0..10 {
            yield_now().await;
        }
    });
    let mut foreign = Box::pin(color.run(|| ()));
    assert!(poll_once(&mut foreign).is_pending());
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), 8);
    // It may have had its turn between the end of the hold and its own.
    if let Err(caught) = catch_unwind(AssertUnwindSafe(|| foreign_block_on(foreign))) {
        let text = message(caught);
        assert!(text.contains("shut down"), "{text}");
    }
    drop(hold);
}

fn steps_after_the_end(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    drop(rt);
    assert_eq!(foreign_block_on(color.run(|| 5)), 5);
    let occupied = Occupied::new(&color);
    let refused = catch_unwind(AssertUnwindSafe(|| foreign_block_on(color.run(|| ()))));
    assert!(message(refused.unwrap_err()).contains("shut down"));
    drop(occupied);
}

fn a_step_for_another_runtime(workers: usize) {
    let (rt, far) = (runtime(workers), runtime(workers));
    let color = far.handle().color();
    let home: Handle = far.handle().clone();
    rt.block_on(async {
        let spawned = color.run(|| (Color::current(), spawn(async { Color::current() })));
        let (seen, spawned) = spawned.await;
        assert_eq!(seen.as_ref(), Some(&color));
        // It is a task of the other runtime.
        drop(home);
        assert_eq!(far.block_on(spawned).unwrap(), Some(color));
    });
}
