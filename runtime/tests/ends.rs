//! The end of a runtime: every future is dropped once, under its color.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isochrome_runtime::{Builder, Color, Handle, JoinHandle, spawn, yield_now};
use support::{CountDrop, Event, OnDrop, World, foreign_block_on, runtime};

mod workers {
    crate::support::on_workers!(
        futures_are_dropped_once_under_their_color,
        wakers_outlive_the_runtime,
        tasks_that_wait_for_each_other_in_a_cycle,
        spawning_from_threads_during_the_end,
        spawning_in_drop_is_refused,
        handles_outlive_the_runtime,
        colors_and_handles_spawn_nothing_afterwards,
        ends_within_a_panic,
        ends_within_a_task_of_another,
        a_grace_period_without_end,
    );
}

fn count() -> Arc<AtomicUsize> {
    Arc::default()
}

fn futures_are_dropped_once_under_their_color(workers: usize) {
    let rt = runtime(workers);
    let drops = count();
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let colors = [rt.handle().color(), rt.handle().color_of(3), Color::DEFAULT];
    let mut spawned = 0;
    let mut keep = Vec::new();
    let make = |color: &Color, handle: &Handle, kind: usize| {
        let (expected, drops, wrong) = (color.clone(), drops.clone(), wrong.clone());
        let guard = OnDrop(move || {
            drops.fetch_add(1, Ordering::SeqCst);
            if Color::current() != Some(expected.clone()) {
                wrong
                    .lock()
                    .unwrap()
                    .push((kind, Color::current(), expected.clone()));
            }
        });
        let future = async move {
            let _guard = guard;
            match kind {
                0 => {}
                1 => yield_now().await,
                2 => panic_quietly(),
                _ => std::future::pending().await,
            }
        };
        if *color == Color::DEFAULT {
            handle.spawn(future)
        } else {
            color.spawn(future)
        }
    };
    rt.block_on(async {
        for i in 0..300 {
            spawned += 1;
            let task = make(&colors[i % 3], rt.handle(), i % 5);
            match i % 7 {
                0 => task.abort(),
                1 => keep.push(task),
                2 if i % 5 < 2 => task.await.unwrap(),
                _ => drop(task),
            }
        }
    });
    // And some that never see another block_on.
    for i in 0..30 {
        spawned += 1;
        drop(make(&colors[i % 3], rt.handle(), 3));
    }
    drop(colors);
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), spawned);
    assert_eq!(*wrong.lock().unwrap(), []);
    drop(keep);
    assert_eq!(drops.load(Ordering::SeqCst), spawned);
}

fn panic_quietly() {
    std::panic::resume_unwind(Box::new("on purpose"));
}

fn wakers_outlive_the_runtime(workers: usize) {
    let rt = runtime(workers);
    let event = Event::new();
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let event = event.clone();
            let color = if i % 2 == 0 {
                rt.handle().color()
            } else {
                rt.handle().color_of(i)
            };
            color.spawn(async move { event.wait().await })
        })
        .collect();
    let default = rt.handle().spawn({
        let event = event.clone();
        async move { event.wait().await }
    });
    rt.block_on(async {
        while event.waiting() < 21 {
            yield_now().await;
        }
    });
    let wakers = event.wakers();
    let stop = Arc::new(AtomicBool::new(false));
    let waking = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                wakers.iter().for_each(std::task::Waker::wake_by_ref);
            }
            wakers
        })
    };
    drop(rt);
    stop.store(true, Ordering::Relaxed);
    let wakers = waking.join().unwrap();
    wakers.iter().for_each(std::task::Waker::wake_by_ref);
    drop(tasks);
    default.abort();
    drop(default);
    wakers.into_iter().for_each(std::task::Waker::wake);
}

fn tasks_that_wait_for_each_other_in_a_cycle(workers: usize) {
    let rt = runtime(workers);
    let drops = count();
    type Mail = Arc<Mutex<Option<JoinHandle<()>>>>;
    let mails: Vec<Mail> = (0..5).map(|_| Mail::default()).collect();
    rt.block_on(async {
        let go = Event::new();
        for i in 0..5 {
            let (go, next, d) = (
                go.clone(),
                mails[(i + 1) % 5].clone(),
                CountDrop(drops.clone()),
            );
            let task = Color::new().spawn(async move {
                let _d = d;
                go.wait().await;
                let next = next.lock().unwrap().take().unwrap();
                let _ = next.await;
            });
            *mails[i].lock().unwrap() = Some(task);
        }
        go.set();
        while mails.iter().any(|m| m.lock().unwrap().is_some()) {
            yield_now().await;
        }
    });
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), 5);
}

fn spawning_from_threads_during_the_end(workers: usize) {
    for _ in 0..10 {
        let rt = runtime(workers);
        let (made, dropped) = (count(), count());
        let refused = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..3)
            .map(|i| {
                let (made, dropped) = (made.clone(), dropped.clone());
                let (handle, refused) = (rt.handle().clone(), refused.clone());
                std::thread::spawn(move || {
                    while !refused.load(Ordering::SeqCst) {
                        made.fetch_add(1, Ordering::SeqCst);
                        let d = CountDrop(dropped.clone());
                        let future = async move {
                            let _d = d;
                            std::future::pending::<()>().await;
                        };
                        let task = match i {
                            0 => handle.spawn(future),
                            1 => handle.color().spawn(future),
                            _ => handle.color_of(1).spawn(future),
                        };
                        if task.is_finished() {
                            let e = foreign_block_on(task).unwrap_err();
                            if e.is_shutdown() {
                                refused.store(true, Ordering::SeqCst);
                            } else {
                                assert!(e.is_aborted());
                            }
                        }
                    }
                })
            })
            .collect();
        while made.load(Ordering::SeqCst) < 20 {
            std::thread::yield_now();
        }
        drop(rt);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(made.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst));
    }
}

fn spawning_in_drop_is_refused(workers: usize) {
    let rt = runtime(workers);
    let (drops, errors) = (count(), count());
    for i in 0..10 {
        let color = if i % 2 == 0 {
            rt.handle().color()
        } else {
            rt.handle().color_of(i)
        };
        let (drops, errors) = (drops.clone(), errors.clone());
        drop(color.spawn(async move {
            let _guard = OnDrop(move || {
                let d = CountDrop(drops.clone());
                let task = spawn(async move {
                    let _d = d;
                    unreachable!("it must not run");
                });
                assert!(task.is_finished());
                let e = match foreign_block_on(task) {
                    Ok(()) => unreachable!("it must not run"),
                    Err(e) => e,
                };
                assert!(e.is_shutdown(), "{e}");
                errors.fetch_add(1, Ordering::SeqCst);
            });
            std::future::pending::<()>().await;
        }));
    }
    rt.block_on(yield_now());
    // All have begun: what never did drops no guard.
    rt.block_on(async {
        for i in 0..10 {
            let color = if i % 2 == 1 {
                Color::of(i)
            } else {
                Color::new()
            };
            color.spawn(async {}).await.unwrap();
        }
    });
    drop(rt);
    assert!(errors.load(Ordering::SeqCst) > 0);
    assert_eq!(drops.load(Ordering::SeqCst), errors.load(Ordering::SeqCst));
}

fn handles_outlive_the_runtime(workers: usize) {
    let rt = runtime(workers);
    let done = rt.handle().color().spawn(async { vec![1, 2, 3] });
    let never = rt.handle().color().spawn(std::future::pending::<()>());
    let in_default = rt.handle().spawn(std::future::pending::<()>());
    let waiting = std::thread::spawn(move || foreign_block_on(in_default));
    rt.block_on(async {
        while !done.is_finished() {
            yield_now().await;
        }
    });
    drop(rt);
    assert!(waiting.join().unwrap().unwrap_err().is_aborted());
    assert_eq!(foreign_block_on(done).unwrap(), [1, 2, 3]);
    assert!(foreign_block_on(never).unwrap_err().is_aborted());
}

fn colors_and_handles_spawn_nothing_afterwards(workers: usize) {
    let rt = runtime(workers);
    let handle = rt.handle().clone();
    let (color, number) = (handle.color(), handle.color_of(2));
    drop(rt);
    for task in [
        handle.spawn(async {}),
        color.spawn(async {}),
        number.spawn(async {}),
    ] {
        assert!(foreign_block_on(task).unwrap_err().is_shutdown());
    }
    let blocking = handle.spawn_blocking(|| ());
    assert!(foreign_block_on(blocking).unwrap_err().is_shutdown());
    assert_eq!(handle.color_of(2), number);
}

fn ends_within_a_panic(workers: usize) {
    let drops = count();
    let d = CountDrop(drops.clone());
    let caught = std::panic::catch_unwind(move || {
        let rt = runtime(workers);
        drop(rt.handle().color().spawn(async move {
            let _d = d;
            std::future::pending::<()>().await;
        }));
        rt.block_on(async { panic_quietly() });
    });
    assert!(caught.is_err());
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

fn ends_within_a_task_of_another(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::new();
        let expected = color.clone();
        let task = color.spawn(async move {
            let drops = count();
            let d = CountDrop(drops.clone());
            let inner = runtime(workers);
            drop(inner.handle().spawn(async move {
                let _d = d;
                std::future::pending::<()>().await;
            }));
            drop(inner);
            assert_eq!(drops.load(Ordering::SeqCst), 1);
            assert_eq!(Color::current(), Some(expected));
        });
        task.await.unwrap();
    });
}

fn a_grace_period_without_end(workers: usize) {
    let grace = Duration::MAX;
    let rt = World::new().build(Builder::new().workers(workers).shutdown_grace(grace));
    let (begun, begin) = std::sync::mpsc::channel();
    let closure = rt.handle().spawn_blocking(move || {
        begun.send(()).unwrap();
        std::thread::yield_now();
        1
    });
    begin.recv().unwrap();
    assert_eq!(rt.shutdown(), 0);
    assert!(closure.is_finished(), "it was waited for");
}
