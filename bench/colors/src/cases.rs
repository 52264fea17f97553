//! What is run: each variant returns its nanoseconds, of the whole or of a
//! step.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use isochrome::{Builder, Color, DriverChoice, Runtime, spawn_apart, yield_now};

use crate::work::Work;

pub struct Case {
    pub name: &'static str,
    pub first: Variant,
    pub second: Variant,
}

type Variant = (&'static str, fn(Work) -> f64);

/// Tasks or steps that meet on one cell or mutex.
const CROWD: u64 = 64;

pub const CASES: &[Case] = &[
    Case {
        name: "1,000 tasks of 50 us in 100 colors, on one and two workers",
        first: ("one", |work| heavy(1, work)),
        second: ("two", |work| heavy(2, work)),
    },
    Case {
        name: "all work comes to one of two workers",
        first: ("without stealing", |work| from_one(false, 20, 30_000, work)),
        second: ("with", |work| from_one(true, 20, 30_000, work)),
    },
    Case {
        name: "handlers of 0.5 us, two workers",
        first: ("with stealing", |work| from_one(true, 1_000, 500, work)),
        second: ("without", |work| from_one(false, 1_000, 500, work)),
    },
    Case {
        name: "one user, a step",
        first: ("cell.with", |_| cell_alone()),
        second: ("tokio Mutex", |_| mutex_alone()),
    },
    Case {
        name: "64 users on two workers, an empty step",
        first: ("tokio Mutex", |work| mutex_crowd(0, work)),
        second: ("cell.with", |work| cell_crowd(0, work)),
    },
    Case {
        name: "64 users on two workers, a step of 200 ns",
        first: ("tokio Mutex", |work| mutex_crowd(200, work)),
        second: ("cell.with", |work| cell_crowd(200, work)),
    },
    Case {
        name: "64 users on two workers, a step of 2 us",
        first: ("tokio Mutex", |work| mutex_crowd(2_000, work)),
        second: ("cell.with", |work| cell_crowd(2_000, work)),
    },
];

fn runtime(workers: usize, stealing: bool) -> Runtime {
    let builder = Builder::new().driver(DriverChoice::Reactor);
    let runtime = builder.workers(workers).stealing(stealing).build();
    runtime.expect("a runtime on epoll")
}

fn tokio_runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(workers).build();
    runtime.expect("a tokio runtime")
}

/// Colored work that needs processors and nothing else: each color has ten
/// tasks, which run one after another.
fn heavy(workers: usize, work: Work) -> f64 {
    let runtime = runtime(workers, true);
    runtime.block_on(async {
        let start = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..100 {
            let color = Color::new();
            for _ in 0..10 {
                tasks.push(color.spawn(async move { work.spend(50_000) }));
            }
        }
        for task in tasks {
            task.await.expect("it does not panic");
        }
        start.elapsed().as_nanos() as f64
    })
}

/// One task makes all the work, as one that accepts connections does, and its
/// worker is the home of all of it: 64 colors that are ready `times` times, for
/// so many nanoseconds each.
fn from_one(stealing: bool, times: usize, ns: u64, work: Work) -> f64 {
    let runtime = runtime(2, stealing);
    runtime.block_on(async {
        let start = Instant::now();
        let source = spawn_apart(async move {
            let tasks: Vec<_> = (0..64)
                .map(|_| {
                    spawn_apart(async move {
                        for _ in 0..times {
                            work.spend(ns);
                            yield_now().await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it does not panic");
            }
        });
        source.await.expect("it does not panic");
        start.elapsed().as_nanos() as f64
    })
}

const ALONE: u64 = 200_000;

fn cell_alone() -> f64 {
    runtime(1, true).block_on(async {
        let cell = Color::new().cell(0u64);
        let user = spawn_apart(async move {
            let start = Instant::now();
            for _ in 0..ALONE {
                cell.with(|value| *black_box(value) += 1).await;
            }
            start.elapsed().as_nanos() as f64 / ALONE as f64
        });
        user.await.expect("it does not panic")
    })
}

fn mutex_alone() -> f64 {
    tokio_runtime(1).block_on(async {
        let mutex = Arc::new(tokio::sync::Mutex::new(0u64));
        let user = tokio::spawn(async move {
            let start = Instant::now();
            for _ in 0..ALONE {
                *black_box(&mut *mutex.lock().await) += 1;
            }
            start.elapsed().as_nanos() as f64 / ALONE as f64
        });
        user.await.expect("it does not panic")
    })
}

/// Steps of each of the crowd.
fn steps(ns: u64) -> u64 {
    if ns > 1_000 { 300 } else { 2_000 }
}

fn cell_crowd(ns: u64, work: Work) -> f64 {
    let steps = steps(ns);
    runtime(2, true).block_on(async {
        let cell = Color::new().cell(0u64);
        let start = Instant::now();
        let users: Vec<_> = (0..CROWD)
            .map(|_| {
                let cell = cell.clone();
                spawn_apart(async move {
                    for _ in 0..steps {
                        let step = move |value: &mut u64| {
                            work.spend(ns);
                            *value += 1;
                        };
                        cell.with(step).await;
                    }
                })
            })
            .collect();
        for user in users {
            user.await.expect("it does not panic");
        }
        let took = start.elapsed().as_nanos() as f64;
        assert_eq!(cell.into_inner().ok(), Some(CROWD * steps));
        took / (CROWD * steps) as f64
    })
}

fn mutex_crowd(ns: u64, work: Work) -> f64 {
    let steps = steps(ns);
    tokio_runtime(2).block_on(async {
        let mutex = Arc::new(tokio::sync::Mutex::new(0u64));
        let start = Instant::now();
        let users: Vec<_> = (0..CROWD)
            .map(|_| {
                let mutex = mutex.clone();
                tokio::spawn(async move {
                    for _ in 0..steps {
                        let mut value = mutex.lock().await;
                        work.spend(ns);
                        *value += 1;
                    }
                })
            })
            .collect();
        for user in users {
            user.await.expect("it does not panic");
        }
        let took = start.elapsed().as_nanos() as f64;
        assert_eq!(*mutex.lock().await, CROWD * steps);
        took / (CROWD * steps) as f64
    })
}
