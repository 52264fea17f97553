//! Who runs what: stealing, fairness, and the driver's turn.

mod support;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use isochrome_runtime::op::Port;
use isochrome_runtime::{Builder, Color, spawn, spawn_apart, time, yield_now};
use support::{Event, World, connect, descriptor, runtime};

mod workers {
    crate::support::on_workers!(
        a_stuck_worker_strands_nothing_it_queued,
        a_stuck_worker_strands_nothing_sent_from_outside,
        a_stuck_default_color_strands_nothing_received_with_it,
        a_busy_color_starves_neither_colors_nor_driver_nor_timers,
        a_busy_default_color_starves_nobody,
        a_yield_runs_after_the_driver,
        a_stuck_worker_strands_no_yielded_task,
        a_stuck_worker_strands_no_timer,
        few_long_polls_leave_the_driver_its_turn,
        a_color_of_long_polls_shares_its_worker,
        without_stealing_everything_stays_home,
        chains_across_colors_come_to_an_end,
    );
}

/// Trap 15: colors made ready by the very poll that then blocks.
fn a_stuck_worker_strands_nothing_it_queued(workers: usize) {
    if workers == 1 {
        return;
    }
    let rt = runtime(workers);
    for count in [1, 2, 7, 300] {
        rt.block_on(async {
            let (send, receive) = mpsc::channel();
            let stuck = Color::new().spawn(async move {
                for i in 0..count {
                    let send = send.clone();
                    drop(Color::new().spawn(async move { send.send(i).unwrap() }));
                }
                // Blocks this worker until all others have run.
                let mut got: Vec<i32> = (0..count).map(|_| receive.recv().unwrap()).collect();
                got.sort_unstable();
                assert_eq!(got, (0..count).collect::<Vec<_>>());
            });
            stuck.await.unwrap();
        });
    }
}

/// Trap 15: colors whose home is the stuck worker, woken by a thread.
fn a_stuck_worker_strands_nothing_sent_from_outside(workers: usize) {
    if workers == 1 {
        return;
    }
    let rt = runtime(workers);
    let (send, receive) = mpsc::channel();
    let (go, stuck) = (Event::new(), Event::new());
    let thread = {
        let (go, handle, send) = (go.clone(), rt.handle().clone(), send.clone());
        let stuck = stuck.clone();
        std::thread::spawn(move || {
            support::foreign_block_on(stuck.wait());
            go.set();
            for _ in 0..20 {
                let send = send.clone();
                drop(handle.color().spawn(async move { send.send(()).unwrap() }));
            }
        })
    };
    rt.block_on(async {
        let color = Color::new();
        let blocker = color.spawn(async move {
            for _ in 0..20 {
                let (go, send) = (go.clone(), send.clone());
                drop(Color::new().spawn(async move {
                    go.wait().await;
                    send.send(()).unwrap();
                }));
            }
            // Each has waited once before the worker is blocked.
            while go.waiting() < 20 {
                yield_now().await;
            }
            stuck.set();
            for _ in 0..40 {
                receive.recv().unwrap();
            }
        });
        blocker.await.unwrap();
    });
    thread.join().unwrap();
}

/// Leaves its waker at `place` and waits for one wake.
async fn wait_at(place: &Mutex<Option<Waker>>) {
    let mut left = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut left, true) {
            return Poll::Ready(());
        }
        *place.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Trap 15: a color that came in with a pinned one, which is run first and
/// blocks: nobody was told of the color but this worker.
fn a_stuck_default_color_strands_nothing_received_with_it(workers: usize) {
    if workers == 1 {
        return;
    }
    for _ in 0..30 {
        let rt = runtime(workers);
        let places: [Arc<Mutex<Option<Waker>>>; 2] = Default::default();
        let (send, receive) = mpsc::channel();
        let waking = {
            let places = places.clone();
            std::thread::spawn(move || {
                let ready = || places.iter().all(|p| p.lock().unwrap().is_some());
                while !ready() {
                    std::thread::yield_now();
                }
                for place in &places {
                    place.lock().unwrap().take().unwrap().wake();
                }
            })
        };
        rt.block_on(async {
            let place = places[0].clone();
            drop(Color::new().spawn(async move {
                wait_at(&place).await;
                send.send(()).unwrap();
            }));
            wait_at(&places[1]).await;
            receive.recv().unwrap();
        });
        waking.join().unwrap();
    }
}

/// Wakes itself until `stop`.
async fn spin(stop: Arc<AtomicBool>) {
    poll_fn(|cx| {
        if stop.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Traps 16 and 30, in colors of their own: more of them than workers.
fn a_busy_color_starves_neither_colors_nor_driver_nor_timers(workers: usize) {
    let world = World::new();
    let rt = world.build(Builder::new().workers(workers));
    let stop = Arc::new(AtomicBool::new(false));
    let far = descriptor(rt.handle());
    rt.block_on(async {
        let busy: Vec<_> = (0..2 * workers)
            .map(|_| Color::new().spawn(spin(stop.clone())))
            .collect();
        Color::new().spawn(async {}).await.unwrap();
        time::sleep(Duration::from_millis(2)).await;
        Color::new()
            .spawn(time::sleep(Duration::from_millis(2)))
            .await
            .unwrap();
        let (there, ready) = (far.clone(), Event::new());
        let began = ready.clone();
        let polled = Color::new().spawn(async move {
            let port = Port::new(there);
            let mut run = std::pin::pin!(port.run(connect()));
            poll_fn(|cx| {
                let poll = run.as_mut().poll(cx);
                began.set();
                poll.map(|(completion, _)| drop(completion.unwrap()))
            })
            .await;
        });
        ready.wait().await;
        world.make_ready(&far);
        polled.await.unwrap();
        stop.store(true, Ordering::Relaxed);
        for task in busy {
            task.await.unwrap();
        }
    });
}

fn a_busy_default_color_starves_nobody(workers: usize) {
    let rt = runtime(workers);
    let stop = Arc::new(AtomicBool::new(false));
    rt.block_on(async {
        let busy: Vec<_> = (0..100).map(|_| spawn(spin(stop.clone()))).collect();
        spawn(async {}).await.unwrap();
        Color::new().spawn(async {}).await.unwrap();
        time::sleep(Duration::from_millis(2)).await;
        std::thread::scope(|s| {
            let handle = rt.handle();
            let there = s.spawn(|| handle.color().spawn(async { 3 }));
            there.join().unwrap()
        })
        .await
        .unwrap();
        stop.store(true, Ordering::Relaxed);
        for task in busy {
            task.await.unwrap();
        }
    });
}

/// tokio #5223: between the yield and the next poll the driver had a turn.
fn a_yield_runs_after_the_driver(workers: usize) {
    let world = World::new();
    let rt = world.build(Builder::new().workers(workers));
    rt.block_on(async {
        for _ in 0..20 {
            let before = world.parks.load(Ordering::SeqCst);
            yield_now().await;
            assert!(world.parks.load(Ordering::SeqCst) > before);
        }
    });
}

/// Spawns that spawn, each in a color of its own or in one of a few.
fn chains_across_colors_come_to_an_end(workers: usize) {
    let rt = runtime(workers);
    let count = Arc::new(AtomicUsize::new(0));
    fn link(left: usize, count: Arc<AtomicUsize>, done: Event) {
        let color = match left % 3 {
            0 => Color::new(),
            1 => Color::of(left as u64 % 5),
            _ => Color::DEFAULT,
        };
        drop(color.spawn(async move {
            count.fetch_add(1, Ordering::SeqCst);
            if left == 0 {
                done.set();
            } else {
                link(left - 1, count, done);
            }
        }));
    }
    rt.block_on(async {
        let done: Vec<_> = (0..10).map(|_| Event::new()).collect();
        for event in &done {
            link(500, count.clone(), event.clone());
        }
        for event in &done {
            event.wait().await;
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 10 * 501);
}

/// Trap 15: the task waits for the turn of a driver that has none.
fn a_stuck_worker_strands_no_yielded_task(workers: usize) {
    if workers == 1 {
        return;
    }
    let rt = runtime(workers);
    for _ in 0..50 {
        let (send, receive) = mpsc::channel();
        let yields = rt.handle().spawn_apart(async move {
            let stuck = spawn_apart(async move { receive.recv().unwrap() });
            yield_now().await;
            send.send(7).unwrap();
            stuck.await.unwrap()
        });
        assert_eq!(rt.block_on(yields).unwrap(), 7);
    }
}

/// A timer that is on the wheel of a worker that blocks then.
fn a_stuck_worker_strands_no_timer(workers: usize) {
    if workers == 1 {
        return;
    }
    let rt = runtime(workers);
    for _ in 0..20 {
        let (send, receive) = mpsc::channel();
        let sleeps = rt.handle().spawn_apart(async move {
            let mut timer = std::pin::pin!(time::sleep(Duration::from_millis(3)));
            poll_fn(|cx| {
                assert!(timer.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            let stuck = spawn_apart(async move { receive.recv().unwrap() });
            timer.await;
            send.send(7).unwrap();
            stuck.await.unwrap()
        });
        assert_eq!(rt.block_on(sleeps).unwrap(), 7);
    }
}

/// Keeps its thread for longer than a turn may last.
fn burn() {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2) {
        std::hint::spin_loop();
    }
}

/// Burns, and is ready again, so many times.
async fn burns(mut times: usize, mut each: impl FnMut()) {
    poll_fn(|cx| {
        burn();
        each();
        times -= 1;
        if times == 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Traps 16 and 30, by time: far fewer polls than the count allows.
fn few_long_polls_leave_the_driver_its_turn(workers: usize) {
    let world = World::new();
    let rt = world.build(Builder::new().workers(workers).stealing(false));
    rt.block_on(async {
        let before = world.parks.load(Ordering::SeqCst);
        let tasks: Vec<_> = (0..8).map(|_| spawn_apart(burns(5, || {}))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        let turns = world.parks.load(Ordering::SeqCst) - before;
        // 40 polls on this worker; the first two looks at the clock of a turn
        // are needed to see how long a poll takes.
        assert!(turns >= 10, "{turns} turns of the driver");
    });
}

fn a_color_of_long_polls_shares_its_worker(workers: usize) {
    let rt = World::new().build(Builder::new().workers(workers).stealing(false));
    let log = Arc::new(Mutex::new(Vec::new()));
    rt.block_on(async {
        let tasks: Vec<_> = (0..2)
            .map(|who| {
                let log = log.clone();
                spawn_apart(burns(10, move || log.lock().unwrap().push(who)))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let log = log.lock().unwrap();
    let changes = log.windows(2).filter(|two| two[0] != two[1]).count();
    assert!(changes >= 4, "{log:?}");
}

fn without_stealing_everything_stays_home(workers: usize) {
    let rt = World::new().build(Builder::new().workers(workers).stealing(false));
    rt.block_on(async {
        let here = std::thread::current().id();
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                spawn_apart(async move {
                    for _ in 0..10 {
                        assert_eq!(std::thread::current().id(), here);
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
