//! Colors that stay with their worker, and futures that are not `Send`.

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use isochrome_runtime::{Builder, Color, spawn_apart, spawn_local, time, yield_now};
use support::{Event, OnDrop, World, runtime};

mod workers {
    crate::support::on_workers!(
        rc_stays_on_one_thread_under_stealing,
        woken_and_aborted_from_other_threads,
        dropped_at_the_end_on_their_own_thread,
        the_color_of_a_local_task,
        outputs_that_are_not_send,
        who_sleeps_keeps_few_tasks_that_have_ended,
    );
}

fn here() -> ThreadId {
    thread::current().id()
}

/// An `Rc` that knows its thread.
#[derive(Clone)]
struct Local(Rc<(ThreadId, Cell<u64>)>);

impl Local {
    fn new() -> Local {
        Local(Rc::new((here(), Cell::new(0))))
    }

    fn touch(&self) {
        assert_eq!(self.0.0, here(), "it has left its thread");
        self.0.1.set(self.0.1.get() + 1);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        assert_eq!(self.0.0, here(), "dropped on another thread");
    }
}

/// On every worker a family of tasks that share an `Rc`, between colors that
/// are stolen.
fn rc_stays_on_one_thread_under_stealing(workers: usize) {
    let rt = runtime(workers);
    let stop = Arc::new(AtomicBool::new(false));
    rt.block_on(async {
        let noise: Vec<_> = (0..8)
            .map(|_| {
                let stop = stop.clone();
                spawn_apart(async move {
                    while !stop.load(Ordering::Relaxed) {
                        spawn_apart(async { yield_now().await }).await.unwrap();
                        yield_now().await;
                    }
                })
            })
            .collect();
        let families: Vec<_> = (0..3 * workers)
            .map(|_| {
                rt.handle().spawn_apart(async {
                    // This task may move; what it makes here does not.
                    spawn_local(async {
                        let local = Local::new();
                        let members: Vec<_> = (0..5)
                            .map(|_| {
                                let local = local.clone();
                                spawn_local(async move {
                                    for i in 0..50 {
                                        local.touch();
                                        yield_now().await;
                                        if i % 16 == 0 {
                                            time::sleep(std::time::Duration::from_micros(10)).await;
                                        }
                                    }
                                    local
                                })
                            })
                            .collect();
                        for member in members {
                            member.await.unwrap().touch();
                        }
                        local.0.1.get()
                    })
                    .await
                    .unwrap()
                })
            })
            .collect();
        for family in families {
            assert_eq!(family.await.unwrap(), 5 * 51);
        }
        stop.store(true, Ordering::Relaxed);
        for task in noise {
            task.await.unwrap();
        }
    });
}

fn woken_and_aborted_from_other_threads(workers: usize) {
    let rt = runtime(workers);
    let (events, drops) = (Event::new(), Arc::new(AtomicUsize::new(0)));
    rt.block_on(async {
        let mut woken = Vec::new();
        let mut aborted = Vec::new();
        for i in 0..40 {
            let (event, drops) = (events.clone(), drops.clone());
            let make = async move {
                let local = Local::new();
                let thread = here();
                let on_drop = OnDrop(move || {
                    assert_eq!(thread, here());
                    drops.fetch_add(1, Ordering::SeqCst);
                });
                let task = spawn_local(async move {
                    let _on_drop = on_drop;
                    local.touch();
                    event.wait().await;
                    local.touch();
                    if i % 2 == 1 {
                        std::future::pending::<()>().await;
                    }
                });
                (task.abort_handle(), task)
            };
            let (abort, task) = rt.handle().spawn_apart(make).await.unwrap();
            if i % 2 == 0 {
                woken.push(task);
            } else {
                aborted.push((abort, task));
            }
        }
        while events.waiting() < 40 {
            yield_now().await;
        }
        let set = events.clone();
        let aborts: Vec<_> = aborted
            .iter()
            .map(|(_, task)| task.abort_handle())
            .collect();
        let thread = thread::spawn(move || {
            set.set();
            aborts.iter().for_each(|abort| abort.abort());
        });
        for task in woken {
            task.await.unwrap();
        }
        for (_, task) in aborted {
            assert!(task.await.unwrap_err().is_aborted());
        }
        thread.join().unwrap();
    });
    assert_eq!(drops.load(Ordering::SeqCst), 40);
}

fn dropped_at_the_end_on_their_own_thread(workers: usize) {
    let rt = runtime(workers);
    let (polled, drops) = (Event::new(), Arc::new(AtomicUsize::new(0)));
    let begun = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let (drops, begun, polled) = (drops.clone(), begun.clone(), polled.clone());
        drop(rt.handle().spawn_apart(async move {
            let local = Local::new();
            let thread = here();
            let on_drop = OnDrop(move || {
                assert_eq!(thread, here(), "dropped elsewhere");
                drops.fetch_add(1, Ordering::SeqCst);
            });
            drop(spawn_local(async move {
                let _held = (local, on_drop);
                if begun.fetch_add(1, Ordering::SeqCst) == 19 {
                    polled.set();
                }
                std::future::pending::<()>().await;
            }));
        }));
    }
    rt.block_on(polled.wait());
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), 20);
}

fn the_color_of_a_local_task(workers: usize) {
    let builder = Builder::new().workers(workers);
    let rt = World::new().build(builder);
    rt.block_on(async {
        // The default color stays here already.
        let color = spawn_local(async { Color::current() }).await.unwrap();
        assert_eq!(color, Some(Color::DEFAULT));
        let pinned = Color::pinned();
        let expected = pinned.clone();
        let thread = here();
        let task = pinned.spawn(async move {
            for _ in 0..20 {
                assert_eq!(here(), thread);
                yield_now().await;
            }
            spawn_local(async { Color::current() }).await.unwrap()
        });
        assert_eq!(task.await.unwrap(), Some(expected));
        // A color that may move: its local tasks get one that does not.
        spawn_apart(async {
            let mine = Color::current();
            let theirs = spawn_local(async { Color::current() }).await.unwrap();
            assert!(theirs.is_some() && theirs != mine && theirs != Some(Color::DEFAULT));
        })
        .await
        .unwrap();
        // Made here, spawned into from another thread.
        let color = pinned.clone();
        let there = thread::spawn(move || color.spawn(async { here() }));
        assert_eq!(there.join().unwrap().await.unwrap(), thread);
    });
}

fn outputs_that_are_not_send(workers: usize) {
    let rt = runtime(workers);
    let seen = Rc::new(RefCell::new(Vec::new()));
    rt.block_on(async {
        let tasks: Vec<_> = (0..10)
            .map(|i| {
                let seen = seen.clone();
                spawn_local(async move {
                    yield_now().await;
                    seen.borrow_mut().push(i);
                    (Rc::new(i), Local::new())
                })
            })
            .collect();
        for (i, task) in tasks.into_iter().enumerate() {
            if i % 2 == 0 {
                assert_eq!(*task.await.unwrap().0, i);
            }
        }
        while seen.borrow().len() < 10 {
            yield_now().await;
        }
    });
    assert_eq!(*seen.borrow(), (0..10).collect::<Vec<_>>());
}

/// What a worker spawned for others is given back when it has ended, also while
/// the worker sleeps.
fn who_sleeps_keeps_few_tasks_that_have_ended(workers: usize) {
    const TASKS: usize = 3_000;
    if workers < 2 {
        return;
    }
    let rt = runtime(workers);
    let (handle, go) = (rt.handle(), Event::new());
    let mine = || handle.stats().workers[1].tasks;
    let waits = go.clone();
    let spawner = handle.spawn_pinned(1, async move {
        let spawn = |_| {
            let waits = waits.clone();
            Color::DEFAULT.spawn(async move { waits.wait().await })
        };
        (0..TASKS).map(spawn).collect::<Vec<_>>()
    });
    rt.block_on(async {
        let tasks = spawner.await.unwrap();
        while go.waiting() < TASKS || mine() < TASKS {
            yield_now().await;
        }
        go.set();
        for task in tasks {
            task.await.unwrap();
        }
    });
    // The watchdog bounds it.
    while mine() > TASKS / 10 {
        thread::yield_now();
    }
}
