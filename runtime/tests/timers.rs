//! Time.

#![allow(clippy::async_yields_async, reason = "sleeps are handed around")]

mod support;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::ptr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::{Duration, Instant};

use isochrome_runtime::time::{interval, sleep, sleep_until, timeout};
use isochrome_runtime::{Builder, Color, Handle, yield_now};
use support::{Event, World, runtime};

mod workers {
    crate::support::on_workers!(
        never_early_and_in_order,
        sleeps_in_many_colors,
        timeouts_win_and_lose,
        a_dropped_sleep_wakes_nobody,
        a_sleep_moves_to_another_color,
        a_sleep_outlives_its_runtime,
        a_sleep_that_moved_ends_without_its_first_runtime,
        a_sleep_is_reset_to_sooner_and_to_later,
        an_interval_ticks_at_its_multiples,
        a_waker_may_ask_for_figures_when_it_is_cloned,
    );
}

/// Which look at the timers.
fn a_waker_may_ask_for_figures_when_it_is_cloned(workers: usize) {
    static TABLE: RawWakerVTable = RawWakerVTable::new(
        |handle| {
            // SAFETY: the handles outlive the wakers made of them below.
            drop(unsafe { &*handle.cast::<Handle>() }.stats());
            RawWaker::new(handle, &TABLE)
        },
        |_| {},
        |_| {},
        |_| {},
    );
    let rt = runtime(workers);
    // Two, so that each takes the other's place.
    let handles = [0; 2].map(|_| rt.handle().clone());
    rt.block_on(async {
        let mut sleeping = pin!(sleep(ms(60_000)));
        for handle in &handles {
            // SAFETY: nothing is counted, and the handle is there as long.
            let waker = unsafe { Waker::new(ptr::from_ref(handle).cast(), &TABLE) };
            let mut cx = Context::from_waker(&waker);
            assert!(sleeping.as_mut().poll(&mut cx).is_pending());
        }
    });
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn never_early_and_in_order(workers: usize) {
    let rt = runtime(workers);
    let log = Arc::new(Mutex::new(Vec::new()));
    rt.block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = [30, 5, 70, 0, 15, 1]
            .map(|n| {
                let log = log.clone();
                isochrome_runtime::spawn(async move {
                    sleep_until(start + ms(n)).await;
                    assert!(start.elapsed() >= ms(n), "early");
                    log.lock().unwrap().push(n);
                })
            })
            .into();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!(log.lock().unwrap().is_sorted());
}

fn sleeps_in_many_colors(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let tasks: Vec<_> = (0..200)
            .map(|i| {
                Color::new().spawn(async move {
                    for n in 0..3 {
                        let wait = ms((i * 7 + n) % 10);
                        let start = Instant::now();
                        sleep(wait).await;
                        assert!(start.elapsed() >= wait, "early");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn timeouts_win_and_lose(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        assert_eq!(timeout(ms(0), async { 1 }).await, Ok(1));
        assert_eq!(timeout(Duration::MAX, async { 2 }).await, Ok(2));
        let start = Instant::now();
        assert!(timeout(ms(5), std::future::pending::<()>()).await.is_err());
        assert!(start.elapsed() >= ms(5));
        let inner = timeout(ms(3), timeout(Duration::MAX, std::future::pending::<()>()));
        assert!(inner.await.is_err());
    });
}

/// The nearest deadline bounds the sleep of the driver, and a dropped timer
/// costs at most one turn.
fn a_dropped_sleep_wakes_nobody(workers: usize) {
    let world = World::new();
    let rt = world.build(Builder::new().workers(workers));
    rt.block_on(async {
        {
            let mut far = pin!(sleep(Duration::from_secs(3600)));
            poll_fn(|cx| {
                assert!(far.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            sleep(ms(20)).await;
        }
        let waits = world.waits();
        let of_0: Vec<_> = waits.iter().filter(|w| w.0 == 0).collect();
        assert!(!of_0.is_empty(), "it slept");
        assert!(
            of_0.iter().all(|w| w.1.is_some_and(|wait| wait <= ms(21))),
            "{of_0:?}"
        );
    });
    // With no timer and nothing to do the sleep has no limit.
    let (event, world2) = (Event::new(), world.clone());
    let thread = {
        let event = event.clone();
        std::thread::spawn(move || {
            while !world2
                .waits()
                .iter()
                .any(|w| w.0 == 0 && w.1.is_none_or(|wait| wait > ms(1000)))
            {
                std::thread::yield_now();
            }
            event.set();
        })
    };
    rt.block_on(event.wait());
    thread.join().unwrap();
}

fn a_sleep_moves_to_another_color(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let start = Instant::now();
        let mut moving = Box::pin(sleep(ms(20)));
        for i in 0..6 {
            moving = Color::of(i)
                .spawn(async move {
                    poll_fn(|cx| {
                        let _ = moving.as_mut().poll(cx);
                        Poll::Ready(())
                    })
                    .await;
                    moving
                })
                .await
                .unwrap();
            yield_now().await;
        }
        Color::new().spawn(moving).await.unwrap();
        assert!(start.elapsed() >= ms(20));
        // And from a runtime that is gone to one that is not.
        let other = runtime(workers);
        let mut moving = Box::pin(sleep(ms(5)));
        other.block_on(poll_fn(|cx| {
            assert!(moving.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }));
        drop(other);
        moving.await;
    });
}

fn a_sleep_outlives_its_runtime(workers: usize) {
    let rt = runtime(workers);
    let left = rt.block_on(async {
        let mut sleep = Box::pin(sleep(ms(1)));
        poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx).is_pending())).await;
        sleep
    });
    drop(rt);
    std::thread::spawn(move || drop(left)).join().unwrap();
}

fn a_sleep_that_moved_ends_without_its_first_runtime(workers: usize) {
    let (first, second) = (runtime(workers), runtime(workers));
    let mut moved = Box::pin(sleep(ms(100)));
    first.block_on(poll_fn(|cx| {
        assert!(moved.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    let waits = Event::new();
    let begun = waits.clone();
    let task = second.handle().color().spawn(async move {
        poll_fn(|cx| {
            let polled = moved.as_mut().poll(cx);
            begun.set();
            polled
        })
        .await;
        assert!(moved.is_elapsed());
    });
    second.block_on(waits.wait());
    drop(first);
    second.block_on(task).unwrap();
}

fn a_sleep_is_reset_to_sooner_and_to_later(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let start = Instant::now();
        let mut moved = pin!(sleep(Duration::from_secs(3600)));
        let once = |moved: &mut std::pin::Pin<&mut isochrome_runtime::time::Sleep>,
                    cx: &mut std::task::Context<'_>| moved.as_mut().poll(cx);
        poll_fn(|cx| {
            assert!(once(&mut moved, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        moved.reset(start + ms(5));
        moved.as_mut().await;
        assert!(start.elapsed() >= ms(5));
        // It has ended, and can be used again.
        let again = Instant::now() + ms(5);
        moved.reset(again);
        assert_eq!(moved.deadline(), again);
        moved.as_mut().await;
        assert!(Instant::now() >= again);
        // To later, after it was polled: the first end is no end.
        let start = Instant::now();
        moved.reset(start + ms(1));
        poll_fn(|cx| {
            let _ = once(&mut moved, cx);
            Poll::Ready(())
        })
        .await;
        moved.reset(start + ms(10));
        moved.as_mut().await;
        assert!(start.elapsed() >= ms(10));
    });
}

fn an_interval_ticks_at_its_multiples(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let start = Instant::now();
        let mut ticks = interval(ms(3));
        let first = ticks.tick().await;
        assert!(first >= start + ms(3));
        let mut last = first;
        for _ in 0..5 {
            // Giving up loses no tick.
            let _ = timeout(ms(0), ticks.tick()).await;
            let tick = ticks.tick().await;
            assert!(tick <= Instant::now(), "early");
            assert!(tick >= last + ms(3));
            assert_eq!((tick - first).as_micros() % 3_000, 0);
            last = tick;
        }
        // Who comes late gets one tick for those that were missed.
        std::thread::sleep(ms(10));
        let late = Instant::now();
        assert!(ticks.tick().await <= late);
        assert!(ticks.tick().await > late);
        let start = Instant::now();
        ticks.reset();
        assert!(ticks.tick().await >= start + ms(3));
    });
}

#[test]
#[should_panic(expected = "an interval of no time would never wait")]
fn an_interval_of_no_time_is_refused() {
    drop(interval(Duration::ZERO));
}
