//! The promises of colors: exclusion, order, inheritance, identity.

mod support;

use std::cell::UnsafeCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use isochrome_runtime::{Color, spawn, yield_now};
use support::{Event, Rng, World, foreign_block_on, runtime};

mod workers {
    crate::support::on_workers!(
        exclusion_under_load,
        ready_tasks_run_in_order,
        the_default_color_is_serial_on_this_thread,
        spawn_inherits_the_color,
        numbers_are_identities,
        current_color,
        woken_often_polled_once,
    );
}

/// Plain data that only a color protects.
struct Plain(UnsafeCell<Vec<u64>>);

// SAFETY: reached only by polls of one color, which is what is tested.
unsafe impl Sync for Plain {}

/// One poll's worth of work: everything is read, changed and written back, and
/// a second party in between is noticed.
struct Colored {
    plain: Plain,
    inside: AtomicBool,
    steps: AtomicUsize,
}

impl Colored {
    fn new() -> Arc<Colored> {
        Arc::new(Colored {
            plain: Plain(UnsafeCell::new(vec![0; 4])),
            inside: AtomicBool::new(false),
            steps: AtomicUsize::new(0),
        })
    }

    fn step(&self) {
        // Relaxed: the test must not supply the order that it looks for.
        assert!(
            !self.inside.swap(true, Ordering::Relaxed),
            "two polls of one color at once"
        );
        self.steps.fetch_add(1, Ordering::Relaxed);
        // SAFETY: under the color.
        let data = unsafe { &mut *self.plain.0.get() };
        let before = data.clone();
        for cell in data.iter_mut() {
            *cell += 1;
            std::hint::spin_loop();
        }
        assert!(data.iter().zip(&before).all(|(new, old)| *new == old + 1));
        self.inside.store(false, Ordering::Relaxed);
    }

    fn check(&self) {
        // SAFETY: every task is gone.
        let sum = unsafe { &*self.plain.0.get() }[0];
        assert_eq!(
            sum as usize,
            self.steps.load(Ordering::Relaxed),
            "a step was lost"
        );
    }
}

impl Drop for Colored {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}

/// Colors, each with tasks that step, yield, wake strangers of other colors,
/// spawn, panic, and are aborted; and two foreign threads that wake at random.
fn exclusion_under_load(workers: usize) {
    let mut rng = Rng::seeded("exclusion_under_load");
    let rt = runtime(workers);
    let handle = rt.handle().clone();
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let foreign: Vec<_> = (0..2u64)
        .map(|i| {
            let (wakers, stop) = (wakers.clone(), stop.clone());
            let mut rng = Rng(0x9e37_79b9 + i);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let waker = {
                        let mut wakers = wakers.lock().unwrap();
                        let n = wakers.len();
                        if n > 0 {
                            Some(wakers.swap_remove(rng.below(n)))
                        } else {
                            None
                        }
                    };
                    match waker {
                        Some(w) if rng.below(2) == 0 => w.wake(),
                        Some(w) => w.wake_by_ref(),
                        None => std::thread::yield_now(),
                    }
                }
            })
        })
        .collect();
    let colored: Vec<_> = (0..8).map(|_| Colored::new()).collect();
    let colors: Vec<_> = (0..8)
        .map(|i| {
            if i % 2 == 0 {
                handle.color()
            } else {
                handle.color_of(i)
            }
        })
        .collect();
    let mut handles = Vec::new();
    for _ in 0..200 {
        let which = rng.below(8);
        let (data, wakers) = (colored[which].clone(), wakers.clone());
        let mut own = Rng(rng.below(usize::MAX) as u64 | 1);
        let task = async move {
            for _ in 0..20 {
                data.step();
                match own.below(5) {
                    0 => yield_now().await,
                    1 | 2 => {
                        // Leave the waker to the foreign threads, and to others.
                        let mut left = false;
                        std::future::poll_fn(|cx| {
                            if std::mem::replace(&mut left, true) {
                                return std::task::Poll::Ready(());
                            }
                            wakers.lock().unwrap().push(cx.waker().clone());
                            std::task::Poll::Pending
                        })
                        .await;
                    }
                    3 => {
                        let woken = wakers.lock().unwrap().pop();
                        if let Some(waker) = woken {
                            waker.wake();
                        }
                    }
                    _ if own.below(40) == 0 => std::panic::resume_unwind(Box::new("on purpose")),
                    _ => {
                        let data = data.clone();
                        drop(spawn(async move { data.step() }));
                    }
                }
            }
        };
        handles.push(colors[which].spawn(task));
    }
    for handle in handles.iter().step_by(7) {
        handle.abort();
    }
    rt.block_on(async {
        let mut ended = [0, 0, 0];
        for handle in handles {
            match handle.await {
                Ok(()) => ended[0] += 1,
                Err(e) if e.is_aborted() => ended[1] += 1,
                Err(e) => {
                    assert!(e.is_panic());
                    ended[2] += 1;
                }
            }
        }
        assert_eq!(ended.iter().sum::<i32>(), 200);
        assert!(ended[0] > 0 && ended[1] > 0);
    });
    drop(rt);
    stop.store(true, Ordering::Relaxed);
    foreign.into_iter().for_each(|t| t.join().unwrap());
    for data in &colored {
        data.check();
    }
}

/// Spawned and woken in an order, by threads and tasks: polled in that order.
fn ready_tasks_run_in_order(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let log: Arc<Mutex<Vec<usize>>> = Arc::default();
    let events: Vec<_> = (0..100).map(|_| Event::new()).collect();
    let mut handles = Vec::new();
    for (i, event) in events.iter().cloned().enumerate() {
        let log = log.clone();
        handles.push(color.spawn(async move {
            log.lock().unwrap().push(i);
            event.wait().await;
            log.lock().unwrap().push(i);
        }));
    }
    rt.block_on(async {
        for event in &events {
            while event.waiting() == 0 {
                yield_now().await;
            }
        }
        assert!(log.lock().unwrap().is_sorted(), "spawned in order");
        log.lock().unwrap().clear();
        // From another color, from the color itself, and from a thread.
        for event in &events[..30] {
            event.set();
        }
        let middle: Vec<_> = events[30..60].to_vec();
        color
            .spawn(async move { middle.iter().for_each(Event::set) })
            .await
            .unwrap();
        let last: Vec<_> = events[60..].to_vec();
        std::thread::spawn(move || last.iter().for_each(Event::set))
            .join()
            .unwrap();
        for handle in handles {
            handle.await.unwrap();
        }
    });
    assert_eq!(*log.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

fn the_default_color_is_serial_on_this_thread(workers: usize) {
    let rt = runtime(workers);
    let here = std::thread::current().id();
    let data = Colored::new();
    rt.block_on(async {
        let mut handles = Vec::new();
        for i in 0..200 {
            let data = data.clone();
            let task = async move {
                for _ in 0..5 {
                    assert_eq!(std::thread::current().id(), here);
                    assert_eq!(Color::current(), Some(Color::DEFAULT));
                    data.step();
                    yield_now().await;
                }
            };
            handles.push(if i % 2 == 0 {
                spawn(task)
            } else {
                Color::DEFAULT.spawn(task)
            });
        }
        for handle in handles {
            handle.await.unwrap();
        }
    });
    data.check();
}

fn spawn_inherits_the_color(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        for color in [Color::new(), Color::of(7), Color::DEFAULT] {
            let expected = color.clone();
            let inner = async move {
                assert_eq!(Color::current(), Some(expected.clone()));
                spawn(async move {
                    let grandchild = spawn(async { Color::current() }).await.unwrap();
                    assert_eq!(grandchild, Some(expected));
                    Color::current()
                })
                .await
                .unwrap()
            };
            assert_eq!(color.spawn(inner).await.unwrap(), Some(color));
        }
    });
}

fn numbers_are_identities(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        assert_eq!(Color::of(1), Color::of(1));
        assert_ne!(Color::of(1), Color::of(2));
        assert_ne!(Color::new(), Color::new());
        assert_ne!(Color::of(1), Color::DEFAULT);
        let held = Color::of(5);
        assert_eq!(rt.handle().color_of(5), held);
        let all: HashSet<_> = (0..1000).map(Color::of).collect();
        assert_eq!(all.len(), 1000);
        // Equal numbers exclude each other, whoever looked them up.
        let data = Colored::new();
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let data = data.clone();
                Color::of(9).spawn(async move {
                    data.step();
                    yield_now().await;
                    data.step();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(all);
        // Forgotten and made again, from several threads at once.
        let handle = rt.handle().clone();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let handle = handle.clone();
                std::thread::spawn(move || {
                    for i in 0..2000 {
                        let color = handle.color_of(i % 3);
                        assert_eq!(color.clone(), handle.color_of(i % 3));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        let again = Color::of(1);
        assert_eq!(
            again.spawn(async { Color::current() }).await.unwrap(),
            Some(again)
        );
    });
}

fn current_color(workers: usize) {
    assert_eq!(Color::current(), None);
    let rt = runtime(workers);
    assert_eq!(Color::current(), None);
    rt.block_on(async {
        let color = Color::new();
        let outer = color.clone();
        color
            .spawn(async move {
                let other = World::new().build(isochrome_runtime::Builder::new().workers(1));
                other.block_on(async {
                    assert_eq!(Color::current(), Some(Color::DEFAULT));
                    assert_ne!(Color::current(), Some(outer.clone()));
                });
                assert_eq!(Color::current(), Some(outer));
                drop(other);
            })
            .await
            .unwrap();
        assert_eq!(
            isochrome_runtime::spawn_blocking(Color::current)
                .await
                .unwrap(),
            None
        );
    });
    assert_eq!(Color::current(), None);
}

fn woken_often_polled_once(workers: usize) {
    let rt = runtime(workers);
    let polls = Arc::new(AtomicUsize::new(0));
    let place: Arc<Mutex<Option<Waker>>> = Arc::default();
    let task = {
        let (polls, place) = (polls.clone(), place.clone());
        std::future::poll_fn(move |cx| {
            *place.lock().unwrap() = Some(cx.waker().clone());
            match polls.fetch_add(1, Ordering::SeqCst) {
                0 => std::task::Poll::Pending,
                _ => std::task::Poll::Ready(()),
            }
        })
    };
    rt.block_on(async {
        // Of our own color: it cannot run between the wakes.
        let handle = spawn(task);
        while place.lock().unwrap().is_none() {
            yield_now().await;
        }
        let waker = place.lock().unwrap().clone().unwrap();
        for _ in 0..100 {
            waker.wake_by_ref();
        }
        std::iter::repeat_n(waker, 100).for_each(Waker::wake);
        handle.await.unwrap();
    });
    assert_eq!(polls.load(Ordering::SeqCst), 2);
}

/// Polled by a stranger, our futures work and have no color.
#[test]
fn a_foreign_executor_has_no_color() {
    let rt = runtime(2);
    let color = rt.handle().color();
    let handle = color.spawn(async { 1 });
    let got = foreign_block_on(async {
        assert_eq!(Color::current(), None);
        handle.await.unwrap()
    });
    assert_eq!(got, 1);
}
