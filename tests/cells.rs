//! Steps, cells and holds, with sockets at work.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::bytes::pattern;
use common::futures::{Event, park_on, poll_once};
use common::{everywhere, listen, on_both_drivers, pair};
use isochrome::net::TcpStream;
use isochrome::time::{sleep, timeout};
use isochrome::{Color, ColorCell, Runtime, spawn, yield_now};

everywhere!(
    connections_share_a_cache,
    contended_steps_lose_nothing,
    a_hold_awaits_a_socket_and_nobody_comes_between,
    a_hold_given_up_at_a_socket_frees_the_color,
    threads_of_nobody_use_a_cell,
);

on_both_drivers!(the_end_takes_holds_at_sockets_along);

type Cache = ColorCell<HashMap<u8, Vec<u8>>>;

/// Answers each byte with the 64 bytes that the cache has for it; made once.
async fn serve(stream: TcpStream, cache: Cache, made: Arc<AtomicUsize>) {
    loop {
        let asked = stream.recv().await.unwrap();
        if asked.is_empty() {
            return;
        }
        for &key in asked.iter() {
            let made = made.clone();
            let answer = cache.with(move |map| {
                let entry = map.entry(key).or_insert_with(|| {
                    made.fetch_add(1, Ordering::Relaxed);
                    pattern(key.into(), 64)
                });
                entry.clone()
            });
            stream.send_all(answer.await).await.0.unwrap();
        }
    }
}

fn connections_share_a_cache(rt: Runtime) {
    rt.block_on(async {
        let cache = Color::new().cell(HashMap::new());
        let made = Arc::new(AtomicUsize::new(0));
        let (listener, address) = listen().await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(Color::new().spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                for key in 0..32_u8 {
                    stream.send_all(vec![key]).await.0.unwrap();
                    let mut got = Vec::new();
                    while got.len() < 64 {
                        got.extend_from_slice(&stream.recv().await.unwrap());
                    }
                    common::bytes::check(key.into(), &got);
                }
            }));
        }
        let mut servers = Vec::new();
        for _ in 0..8 {
            let (stream, _) = listener.accept().await.unwrap();
            servers.push(Color::new().spawn(serve(stream, cache.clone(), made.clone())));
        }
        for task in clients.into_iter().chain(servers) {
            task.await.unwrap();
        }
        assert_eq!(made.load(Ordering::Relaxed), 32, "each was made once");
        assert_eq!(cache.into_inner().unwrap().len(), 32);
    });
}

fn contended_steps_lose_nothing(rt: Runtime) {
    const TASKS: usize = 64;
    const STEPS: usize = 200;
    rt.block_on(async {
        let cells = [Color::new().cell(0), Color::DEFAULT.cell(0)];
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let cells = cells.clone();
                Color::new().spawn(async move {
                    for n in 0..STEPS {
                        cells[0].with(|n| *n += 1).await;
                        if n % 8 == 0 {
                            cells[1].with(|n| *n += 1).await;
                            yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let [a, b] = cells.map(|cell| cell.into_inner().unwrap());
        assert_eq!((a, b), (TASKS * STEPS, TASKS * STEPS / 8));
    });
}

fn a_hold_awaits_a_socket_and_nobody_comes_between(rt: Runtime) {
    rt.block_on(async {
        let color = Color::new();
        let cell = color.cell(Vec::new());
        let mut tasks = Vec::new();
        for id in 0..6_u8 {
            let (near, far) = pair().await;
            let near = Arc::new(near);
            drop(Color::new().spawn(async move {
                loop {
                    let data = far.recv().await.unwrap();
                    if data.is_empty() {
                        return;
                    }
                    far.send_all(data).await.0.unwrap();
                }
            }));
            let (color, cell) = (color.clone(), cell.clone());
            tasks.push(spawn(async move {
                for _ in 0..4 {
                    let cell = cell.clone();
                    let near = near.clone();
                    let hold = color.hold(async move {
                        cell.get().unwrap().push(id);
                        near.send_all(vec![id; 8]).await.0.unwrap();
                        let mut got = 0;
                        while got < 8 {
                            got += near.recv().await.unwrap().len();
                        }
                        cell.get().unwrap().push(id);
                    });
                    hold.await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let log = cell.into_inner().unwrap();
        assert_eq!(log.len(), 48);
        for both in log.chunks(2) {
            assert_eq!(both[0], both[1], "someone came between: {log:?}");
        }
    });
}

fn a_hold_given_up_at_a_socket_frees_the_color(rt: Runtime) {
    rt.block_on(async {
        let color = Color::new();
        for _ in 0..4 {
            let (near, far) = pair().await;
            let begun = Event::default();
            let begin = begun.clone();
            let mut hold = Box::pin(color.hold(async move {
                begin.set();
                near.recv().await.unwrap().len()
            }));
            assert!(poll_once(&mut hold).await.is_pending());
            begun.wait().await;
            let waits = timeout(Duration::ZERO, color.run(|| ())).await;
            assert!(waits.is_err(), "the color is held");
            drop(hold);
            color.run(|| ()).await;
            // The socket was dropped with the block.
            assert!(far.recv().await.unwrap().is_empty());
        }
    });
}

fn threads_of_nobody_use_a_cell(rt: Runtime) {
    let cell = rt.handle().color().cell(0);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let cell = cell.clone();
            std::thread::spawn(move || {
                park_on(async {
                    for _ in 0..200 {
                        cell.with(|n| *n += 1).await;
                    }
                    let inside = cell.clone();
                    let hold = cell.color().hold(async move {
                        let before = *inside.get().unwrap();
                        sleep(Duration::from_millis(1)).await;
                        let now = &mut *inside.get().unwrap();
                        assert_eq!(*now, before, "nobody came between");
                        *now += 1;
                    });
                    hold.await.unwrap();
                });
            })
        })
        .collect();
    rt.block_on(async {
        for thread in threads {
            common::eventually_async("the thread ends", || thread.is_finished()).await;
            thread.join().unwrap();
        }
    });
    assert_eq!(cell.into_inner().unwrap(), 603);
}

fn the_end_takes_holds_at_sockets_along(rt: Runtime) {
    rt.block_on(async {
        let color = Color::new();
        for _ in 0..4 {
            let (near, far) = pair().await;
            let color = color.clone();
            drop(Color::new().spawn(async move {
                let hold = color.hold(async move { near.recv().await.unwrap().len() });
                drop(hold.await);
                drop(far);
            }));
        }
        for _ in 0..4 {
            yield_now().await;
        }
    });
}
