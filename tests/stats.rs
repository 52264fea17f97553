//! Figures of a runtime that serves sockets: polls add up, waits are counted,
//! and named colors are forgotten, on both drivers.

mod common;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::{eventually, eventually_async, pair};
use isochrome::{Builder, Color, DriverChoice, Report, Runtime};

common::one_place!(reactor_1, Reactor, 1, figures_of_an_echo_add_up);
common::one_place!(reactor_2, Reactor, 2, figures_of_an_echo_add_up);
common::one_place!(proactor_1, Proactor, 1, figures_of_an_echo_add_up);
common::one_place!(proactor_2, Proactor, 2, figures_of_an_echo_add_up);

const CONNECTIONS: usize = 4;
const TRIPS: u64 = 200;

/// Counts the polls of a future.
async fn counted<F: Future>(polls: Arc<AtomicU64>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::SeqCst);
        future.as_mut().poll(cx)
    })
    .await
}

fn figures_of_an_echo_add_up(rt: Runtime) {
    let [named, unnamed] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let colors = rt.block_on(counted(unnamed.clone(), async {
        let mut colors = Vec::new();
        let mut tasks = Vec::new();
        for i in 0..CONNECTIONS {
            let (near, far) = pair().await;
            let color = Color::named(format!("connection {i}"));
            let own = Arc::new(AtomicU64::new(0));
            tasks.push(color.spawn(counted(own.clone(), async move {
                loop {
                    let data = far.recv().await.unwrap();
                    if data.is_empty() {
                        return;
                    }
                    far.send_all(data).await.0.unwrap();
                }
            })));
            colors.push((color, own));
            tasks.push(Color::new().spawn(counted(unnamed.clone(), async move {
                for i in 0..TRIPS {
                    near.send_all(vec![i as u8; 8]).await.0.unwrap();
                    let mut left = 8;
                    while left > 0 {
                        left -= near.recv().await.unwrap().len();
                    }
                }
            })));
        }
        for task in tasks {
            task.await.unwrap();
        }
        colors
    }));
    for (color, polls) in &colors {
        let (stats, polls) = (color.stats().unwrap(), polls.load(Ordering::SeqCst));
        named.fetch_add(polls, Ordering::SeqCst);
        assert_eq!(stats.polls, polls);
        assert_eq!(stats.ready, 0);
        assert_eq!(stats.waits.count(), stats.turns);
        assert!(stats.waits.quantile(0.5) <= stats.waits.quantile(0.99));
        assert!(stats.home < rt.workers());
    }
    let (named, unnamed) = (named.load(Ordering::SeqCst), unnamed.load(Ordering::SeqCst));
    assert_eq!(rt.stats().colors.len(), CONNECTIONS);
    let sums = || {
        let workers = rt.stats().workers;
        workers.iter().fold((0, 0), |(all, unnamed), worker| {
            (all + worker.polls, unnamed + worker.unnamed_polls)
        })
    };
    eventually("polls add up", || sums() == (named + unnamed, unnamed));
    drop(colors);
    // A task that completed elsewhere is released by the worker that spawned
    // it.
    rt.block_on(eventually_async("colors are forgotten", || {
        rt.stats().colors.is_empty()
    }));
    for worker in rt.stats().workers {
        assert!(worker.parks <= worker.turns, "{worker:?}");
        assert!(worker.cpu_time.is_some());
    }
}

/// The builder of this crate hands on what is asked of it.
#[test]
fn reports_reach_the_callback() {
    let place = "reports_reach_the_callback";
    common::run(place, DriverChoice::Reactor, 1, |_| {
        let long = Arc::new(AtomicU64::new(0));
        let count = long.clone();
        let limit = std::time::Duration::from_millis(20);
        let builder = Builder::new().driver(DriverChoice::Reactor).workers(1);
        let builder = builder.long_poll(limit).on_report(move |report| {
            assert!(matches!(report, Report::LongPoll { .. }), "{report}");
            count.fetch_add(1, Ordering::SeqCst);
        });
        let rt = builder.build().unwrap();
        rt.block_on(async { thread::sleep(2 * limit) });
        assert_eq!(long.load(Ordering::SeqCst), 1);
        assert_eq!(rt.stats().workers[0].long_polls, 1);
    });
}
