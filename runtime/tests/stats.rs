//! What runtimes and named colors say of themselves, asked and unasked.

mod support;

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use isochrome_runtime::{
    Builder, Color, Handle, JoinHandle, Report, Runtime, WorkerStats, spawn, yield_now,
};
use support::{Event, World, runtime};

mod workers {
    crate::support::on_workers!(
        every_poll_is_counted_once,
        a_named_color_counts_its_own,
        waits_are_recorded,
        steals_and_moves_are_counted,
        held_colors_keep_count,
        named_colors_are_forgotten_when_they_go,
        a_hot_color_is_reported,
        a_long_poll_is_reported_with_its_place,
        without_a_limit_no_poll_is_long,
        a_callback_that_panics_harms_nobody,
        workers_tell_of_sleep_and_wakes,
        no_figure_of_a_worker_goes_back,
    );
}

/// Waits until `attempt` says yes. The watchdog bounds it.
fn eventually(mut attempt: impl FnMut() -> bool) {
    while !attempt() {
        thread::yield_now();
    }
}

/// Counts the polls of a future.
async fn counted<F: Future>(polls: Arc<AtomicU64>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::SeqCst);
        future.as_mut().poll(cx)
    })
    .await
}

fn sum(rt: &Handle, of: impl Fn(&WorkerStats) -> u64) -> u64 {
    rt.stats().workers.iter().map(of).sum()
}

fn every_poll_is_counted_once(workers: usize) {
    let rt = runtime(workers);
    let [named, unnamed] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    rt.block_on(counted(unnamed.clone(), async {
        let mut tasks = Vec::new();
        for i in 0..40 {
            let yields = async move {
                for _ in 0..i {
                    yield_now().await;
                }
            };
            tasks.push(match i % 4 {
                0 => Color::named("each").spawn(counted(named.clone(), yields)),
                1 => Color::of(i).spawn(counted(unnamed.clone(), yields)),
                2 => Color::new().spawn(counted(unnamed.clone(), yields)),
                _ => spawn(counted(unnamed.clone(), yields)),
            });
        }
        for task in tasks {
            task.await.unwrap();
        }
    }));
    let (named, unnamed) = (named.load(Ordering::SeqCst), unnamed.load(Ordering::SeqCst));
    assert_eq!(named, (0..40).step_by(4).map(|i| i + 1).sum::<u64>());
    // The others may be about to count their last turn.
    let rt = rt.handle();
    eventually(|| sum(rt, |w| w.polls) == named + unnamed);
    eventually(|| sum(rt, |w| w.unnamed_polls) == unnamed);
    let stats = rt.stats();
    assert_eq!(stats.workers.len(), workers);
    for worker in stats.workers {
        assert!(worker.color_turns <= worker.polls, "{worker:?}");
        assert!(
            worker.unnamed_color_turns <= worker.color_turns,
            "{worker:?}"
        );
    }
}

fn a_named_color_counts_its_own(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color_named(String::from("cache"));
    let made_at = color.stats().unwrap().made_at;
    assert_eq!((made_at.file(), made_at.line()), (file!(), line!() - 2));
    assert_eq!(format!("{color:?}"), "Color(\"cache\")");
    rt.block_on(async {
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                color.spawn(async {
                    for _ in 0..99 {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let stats = color.stats().unwrap();
    assert_eq!(&*stats.name, "cache");
    assert_eq!(stats.polls, 1_000);
    assert_eq!(stats.ready, 0);
    assert_eq!(stats.waits.count(), stats.turns);
    // A turn is at most 32 polls.
    assert!((32..=1_000).contains(&stats.turns), "{stats:?}");
    assert!(Color::DEFAULT.stats().is_none());
    assert!(rt.handle().color().stats().is_none());
    assert!(rt.handle().color_of(3).stats().is_none());
}

fn burn(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// On one worker nobody can run it before; on more, a color that is busy makes
/// the others wait.
fn waits_are_recorded(workers: usize) {
    const WAIT: Duration = Duration::from_millis(3);
    let rt = World::new().build(Builder::new().workers(workers).stealing(false));
    let stats = rt.block_on(async {
        let busy = Color::named("busy");
        let first = busy.spawn(async {
            let color = Color::named("x");
            assert_eq!(color.stats().unwrap().ready, 0);
            let tasks: Vec<_> = (0..7)
                .map(|left| {
                    let here = color.clone();
                    color.spawn(async move {
                        assert_eq!(here.stats().unwrap().ready, 6 - left);
                    })
                })
                .collect();
            assert_eq!(color.stats().unwrap().ready, 7);
            burn(WAIT);
            for task in tasks {
                task.await.unwrap();
            }
            color.stats().unwrap()
        });
        let stats = first.await.unwrap();
        let own = busy.stats().unwrap();
        assert!(own.polls >= 2);
        assert!(own.running >= WAIT || workers > 1, "{own:?}");
        stats
    });
    assert_eq!((stats.polls, stats.turns), (7, 1));
    assert_eq!(stats.waits.count(), 1);
    assert!(stats.waits.longest() >= WAIT, "{stats:?}");
    assert_eq!(stats.waits.total(), stats.waits.longest());
    assert_eq!(stats.waits.quantile(0.5), Some(stats.waits.longest()));
}

/// A task that blocks its worker until others have run what it made ready.
fn steals_and_moves_are_counted(workers: usize) {
    const COLORS: usize = 5;
    if workers == 1 {
        return;
    }
    let rt = runtime(workers);
    let colors = rt.block_on(async {
        let task = Color::new().spawn(async {
            let (send, receive) = mpsc::channel();
            let colors = [(); COLORS].map(|()| Color::named("moved"));
            let home = colors[0].stats().unwrap().home;
            for color in &colors {
                let send = send.clone();
                drop(color.spawn(async move { send.send(()).unwrap() }));
            }
            (0..COLORS).for_each(|_| receive.recv().unwrap());
            (colors, home)
        });
        task.await.unwrap()
    });
    let (colors, home) = colors;
    for color in &colors {
        let stats = color.stats().unwrap();
        assert_eq!((stats.polls, stats.turns, stats.moves), (1, 1, 1));
        assert_ne!(stats.home, home);
        // Thieves may have stolen it from each other.
        assert!(
            stats.steals >= 1 && (workers > 2 || stats.steals == 1),
            "{stats:?}"
        );
    }
    let rt = rt.handle();
    eventually(|| sum(rt, |w| w.colors_stolen) == sum(rt, |w| w.colors_lost));
    let named: u64 = colors.iter().map(|c| c.stats().unwrap().steals).sum();
    assert!(sum(rt, |w| w.colors_stolen) >= named);
    assert!(rt.stats().workers[home].colors_lost >= COLORS as u64);
    assert!((1..=named).contains(&sum(rt, |w| w.steals)) || workers > 2);
}

/// A turn that gives the color to a hold counts before it does, and the color
/// may go right after.
fn held_colors_keep_count(workers: usize) {
    let rt = runtime(workers);
    for _ in 0..100 {
        let color = rt.handle().color_named("held");
        let polls = Arc::new(AtomicU64::new(0));
        rt.block_on(async {
            let tasks: Vec<_> = (0..4)
                .map(|_| color.spawn(counted(polls.clone(), yield_now())))
                .collect();
            // Waits behind them, by a small task that is polled once.
            color.hold(async { yield_now().await }).await.unwrap();
            for task in tasks {
                task.await.unwrap();
            }
        });
        let stats = color.stats().unwrap();
        let polls = polls.load(Ordering::SeqCst);
        assert!((polls..=polls + 1).contains(&stats.polls), "{stats:?}");
        assert_eq!((stats.ready, stats.waits.count()), (0, stats.turns));
        drop(color);
        // A task that completed elsewhere is released by the worker that
        // spawned it.
        rt.block_on(async {
            while !rt.stats().colors.is_empty() {
                yield_now().await;
            }
        });
    }
}

fn named_colors_are_forgotten_when_they_go(workers: usize) {
    let rt = runtime(workers);
    let count = || rt.stats().colors.len();
    assert_eq!(count(), 0);
    let [one, other] = [(); 2].map(|()| rt.handle().color_named("same"));
    assert_ne!(one, other);
    let names: Vec<_> = rt.stats().colors.into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["same".into(), "same".into()]);
    drop(other);
    assert_eq!(count(), 1);
    // A task holds it too.
    let go = Event::new();
    let wait = go.clone();
    let task = one.spawn(async move { wait.wait().await });
    drop(one);
    assert_eq!(count(), 1);
    go.set();
    rt.block_on(task).unwrap();
    eventually(|| count() == 0);
    // And one that is aborted, or dropped with the runtime.
    let color = rt.handle().color_named("aborted");
    let task = color.spawn(std::future::pending::<()>());
    task.abort();
    drop(color);
    assert!(rt.block_on(task).is_err());
    eventually(|| count() == 0);
    let color = rt.handle().color_named("last");
    drop(color.spawn(std::future::pending::<()>()));
    let handle = rt.handle().clone();
    drop(rt);
    assert_eq!(handle.stats().colors.len(), 1);
    drop(color);
    assert_eq!(handle.stats().colors.len(), 0);
}

/// A runtime that sends its reports here.
fn reporting(builder: Builder) -> (Runtime, mpsc::Receiver<Report>) {
    let (send, receive) = mpsc::channel();
    let builder = builder.on_report(move |report| drop(send.send(report.clone())));
    (World::new().build(builder), receive)
}

fn a_hot_color_is_reported(workers: usize) {
    let (rt, reports) = reporting(Builder::new().workers(workers));
    let stop = Arc::new(AtomicBool::new(false));
    let (color, end) = (rt.handle().color_named("hot"), stop.clone());
    let task = color.spawn(async move {
        while !end.load(Ordering::Relaxed) {
            burn(Duration::from_micros(100));
            yield_now().await;
        }
    });
    let watcher = thread::spawn(move || {
        let report = reports.recv().unwrap();
        stop.store(true, Ordering::Relaxed);
        (report, reports)
    });
    rt.block_on(task).unwrap();
    let (report, reports) = watcher.join().unwrap();
    let text = report.to_string();
    let Report::HotColor {
        name,
        made_at,
        share,
        window,
        worker,
        ..
    } = report
    else {
        panic!("{report:?}");
    };
    assert_eq!(&*name, "hot");
    assert_eq!(made_at, color.stats().unwrap().made_at);
    assert!((0.7..=1.0).contains(&share), "{share}");
    assert!(window >= Duration::from_secs(1));
    assert!(worker < workers);
    assert!(text.contains("\"hot\"") && text.contains('%'), "{text}");
    // All that keeps the sender.
    drop((rt, color));
    assert_eq!(reports.iter().count(), 0, "it was said once");
}

const LIMIT: Duration = Duration::from_millis(20);

/// A poll over the limit, and where its task was spawned.
#[track_caller]
fn slow(color: &Color) -> (&'static Location<'static>, JoinHandle<()>) {
    let slow = async {
        yield_now().await;
        thread::sleep(2 * LIMIT);
        yield_now().await;
    };
    (Location::caller(), color.spawn(slow))
}

fn a_long_poll_is_reported_with_its_place(workers: usize) {
    let (rt, reports) = reporting(Builder::new().workers(workers).long_poll(LIMIT));
    let colors = [
        (rt.handle().color_named("slow"), Some("slow")),
        (rt.handle().color(), None),
        (rt.handle().color_of(5), None),
    ];
    let mut told = 0;
    for (color, name) in &colors {
        let (place, task) = slow(color);
        rt.block_on(task).unwrap();
        // A busy machine makes others long.
        let ours = |report: &Report| matches!(report, Report::LongPoll { spawned_at, .. } if *spawned_at == place);
        let report = reports.iter().inspect(|_| told += 1).find(ours).unwrap();
        let text = report.to_string();
        let Report::LongPoll {
            color,
            took,
            worker,
            ..
        } = report
        else {
            unreachable!();
        };
        assert_eq!(color.as_deref(), *name);
        assert!(took >= 2 * LIMIT);
        assert!(worker < workers);
        assert!(text.contains(&place.to_string()), "{text}");
        assert_eq!(
            reports
                .try_iter()
                .inspect(|_| told += 1)
                .filter(ours)
                .count(),
            0
        );
    }
    eventually(|| sum(rt.handle(), |w| w.long_polls) >= told);
    assert!(told >= 3);
}

fn without_a_limit_no_poll_is_long(workers: usize) {
    let (rt, reports) = reporting(Builder::new().workers(workers));
    for color in [rt.handle().color_named("slow"), rt.handle().color()] {
        rt.block_on(slow(&color).1).unwrap();
    }
    assert_eq!(sum(rt.handle(), |w| w.long_polls), 0);
    drop(rt);
    assert_eq!(reports.iter().count(), 0);
}

fn a_callback_that_panics_harms_nobody(workers: usize) {
    let (send, receive) = mpsc::channel();
    let builder = Builder::new().workers(workers).long_poll(Duration::ZERO);
    let rt = World::new().build(builder.on_report(move |_| {
        // It may ask, and spawn, and is in no color.
        assert_eq!(Color::current(), None);
        let rt = Handle::current().unwrap();
        assert!(!rt.stats().workers.is_empty());
        drop(Color::new().spawn(async {}));
        let _ = send.send(());
        std::panic::resume_unwind(Box::new("the callback's"));
    }));
    for _ in 0..5 {
        let task = rt.handle().color().spawn(async { 1 });
        assert_eq!(rt.block_on(task).unwrap(), 1);
        receive.recv().unwrap();
    }
}

fn workers_tell_of_sleep_and_wakes(workers: usize) {
    let rt = runtime(workers);
    let handle = rt.handle();
    let place = Arc::new(Event::new());
    let (wait, go) = (place.clone(), place);
    let waker = {
        let handle = handle.clone();
        thread::spawn(move || {
            // It lies down, or is about to, and nobody else wakes it.
            eventually(|| handle.stats().workers[0].parks > 0);
            go.set();
        })
    };
    let sleeper = isochrome_runtime::time::sleep(Duration::from_secs(3_600));
    rt.block_on(async {
        let task = spawn(sleeper);
        wait.wait().await;
        eventually(|| handle.stats().workers[0].timers == 1);
        let stats = handle.stats();
        assert!(stats.workers[0].wakes >= 1, "{stats:?}");
        assert!(
            stats.workers[0].turns >= stats.workers[0].parks,
            "{stats:?}"
        );
        assert!(stats.workers[0].tasks >= 2, "{stats:?}");
        task.abort();
    });
    waker.join().unwrap();
    let before = handle.stats();
    assert!(before.workers.iter().all(|w| w.cpu_time.is_some()));
    let handle = handle.clone();
    drop(rt);
    let after = handle.stats();
    for (before, after) in before.workers.iter().zip(&after.workers) {
        assert!(after.cpu_time.is_none());
        assert!(after.polls >= before.polls);
        assert_eq!((after.ready_colors, after.timers), (0, 0));
    }
    assert_eq!(after.foreign_tasks, 0);
}

fn no_figure_of_a_worker_goes_back(workers: usize) {
    let rt = runtime(workers);
    let handle = rt.handle().clone();
    let color = handle.color_named("busy");
    let reader = thread::spawn(move || {
        let figures = |worker: &WorkerStats| {
            [
                worker.polls,
                worker.unnamed_polls,
                worker.color_turns,
                worker.unnamed_color_turns,
            ]
        };
        let mut before = vec![[0; 4]; workers];
        // Until enough was counted for the reads to have met many turns.
        while sum(&handle, |worker| worker.color_turns) < 100_000 {
            let now: Vec<_> = handle.stats().workers.iter().map(figures).collect();
            for (before, now) in before.iter().zip(&now) {
                let back = before.iter().zip(now).any(|(before, now)| now < before);
                assert!(!back, "{before:?}, and then {now:?}");
            }
            before = now;
        }
    });
    rt.block_on(async {
        while !reader.is_finished() {
            drop(color.spawn(async {}));
            yield_now().await;
        }
    });
    reader.join().unwrap();
}
