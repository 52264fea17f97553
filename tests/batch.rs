//! `Builder::batch`: what it may not change. One body with it off, with a time
//! that many events meet, and with one that they have to wait out; on both
//! drivers, because it is no error on the reactor.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::bytes::{Random, check, pattern};
use common::futures::give_up;
use common::{PATIENCE, Watchdog, alone, descriptors, descriptors_return_to, pair, std_pair};
use isochrome::time::sleep;
use isochrome::{Builder, Color, DriverChoice, Runtime, spawn_blocking};

/// Off, shorter than most waits, longer than most.
const TIMES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_micros(50),
    Duration::from_millis(2),
];

/// As good as for ever: what waits for it hangs. (Wakes from other threads
/// may, so it is for one worker alone.)
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a body with each of these, on both drivers and so many workers.
fn each(place: &str, workers: &[usize], times: &[Duration], body: fn(&Runtime)) {
    let _alone = alone();
    let _watchdog = Watchdog::start(place);
    for driver in [DriverChoice::Reactor, DriverChoice::Proactor] {
        if !common::works(driver) {
            continue;
        }
        for &workers in workers {
            for time in times {
                let before = descriptors();
                let builder = Builder::new().driver(driver).workers(workers).batch(*time);
                body(&builder.build().unwrap());
                descriptors_return_to(&before);
            }
        }
    }
}

/// More than a sleep waits for.
const CROWD: usize = 40;
const MESSAGES: usize = 30;

#[test]
fn a_crowd_is_echoed() {
    each("a_crowd_is_echoed", &[1, 2], &TIMES, |rt| {
        rt.block_on(async {
            let mut tasks = Vec::new();
            for i in 0..CROWD {
                let (near, far) = pair().await;
                tasks.push(Color::new().spawn(async move {
                    loop {
                        let data = far.recv().await.unwrap();
                        if data.is_empty() {
                            return;
                        }
                        far.send_all(data).await.0.unwrap();
                    }
                }));
                tasks.push(Color::new().spawn(async move {
                    let mut random = Random(i as u64 + 1);
                    let mut at = 0;
                    for _ in 0..MESSAGES {
                        let len = 1 + random.next() as usize % 9000;
                        near.send_all(pattern(at, len)).await.0.unwrap();
                        let end = at + len;
                        while at < end {
                            let data = near.recv().await.unwrap();
                            assert!(!data.is_empty());
                            check(at, &data);
                            at += data.len();
                        }
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn one_alone_is_not_left_waiting() {
    each("one_alone_is_not_left_waiting", &[1, 2], &TIMES, |rt| {
        let (near, mut far) = rt.block_on(std_pair());
        let peer = thread::spawn(move || {
            let mut byte = [0];
            for _ in 0..MESSAGES {
                far.read_exact(&mut byte).unwrap();
                far.write_all(&byte).unwrap();
            }
        });
        rt.block_on(async {
            // What is given up leaves its data to the next.
            assert!(give_up(near.recv()).await.is_pending());
            for i in 0..MESSAGES {
                near.send_all(vec![i as u8]).await.0.unwrap();
                assert_eq!(*near.recv().await.unwrap(), [i as u8]);
            }
            assert!(near.recv().await.unwrap().is_empty());
        });
        peer.join().unwrap();
    });
}

#[test]
fn wakes_from_other_threads_come_through() {
    each(
        "wakes_from_other_threads_come_through",
        &[1, 2],
        &TIMES,
        |rt| {
            rt.block_on(async {
                for i in 0..MESSAGES {
                    let task = spawn_blocking(move || i);
                    assert_eq!(task.await.unwrap(), i);
                }
            });
        },
    );
}

#[test]
fn timers_do_not_wait_for_it() {
    each("timers_do_not_wait_for_it", &[1], &[HOUR], |rt| {
        rt.block_on(async {
            for _ in 0..5 {
                sleep(Duration::from_millis(1)).await;
            }
        });
    });
}

#[test]
fn a_loop_of_the_hosts_own_does_not_wait_for_it() {
    let place = "a_loop_of_the_hosts_own_does_not_wait_for_it";
    each(place, &[1], &[HOUR], |rt| {
        let fd = rt.as_fd().unwrap().as_raw_fd();
        let (done, finished) = mpsc::channel();
        // Bounded by a timer alone until the host takes over.
        let task = rt.handle().spawn(async move {
            let (near, mut far) = std_pair().await;
            far.write_all(b"ping").unwrap();
            assert_eq!(*near.recv().await.unwrap(), *b"ping");
            done.send(far).unwrap();
            // Ends the last turn.
            sleep(Duration::from_millis(1)).await;
        });
        while finished.try_recv().is_err() {
            if rt.next_deadline().is_none() {
                let mut poll = libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                };
                let patience = PATIENCE.as_millis() as i32;
                // SAFETY: one entry, which lives across the call.
                assert_eq!(unsafe { libc::poll(&mut poll, 1, patience) }, 1);
            }
            // A host may sleep in there too.
            rt.turn(None);
        }
        drop(task);
    });
}
