//! Connections whose colors are stolen: I/O goes on without loss while the
//! tasks move from worker to worker.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::bytes::pattern;
use common::{PATIENCE, listen};
use isochrome::net::TcpStream;
use isochrome::time::sleep;
use isochrome::{Placement, Runtime, spawn_apart};

common::on_both_drivers!(echoes_go_on_while_colors_move);
common::one_place!(reactor_4, Reactor, 4, echoes_go_on_while_colors_move);
common::one_place!(proactor_4, Proactor, 4, echoes_go_on_while_colors_move);

const CONNECTIONS: usize = 12;
const MOVES: usize = 100;

/// What all server tasks saw of their threads.
#[derive(Default)]
struct Seen {
    moves: AtomicUsize,
    threads: Mutex<HashSet<ThreadId>>,
}

async fn echo(stream: TcpStream, seen: Arc<Seen>) {
    let mut last = thread::current().id();
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            return;
        }
        let now = thread::current().id();
        if std::mem::replace(&mut last, now) != now {
            seen.moves.fetch_add(1, Ordering::Relaxed);
            seen.threads.lock().unwrap().insert(now);
        }
        // Long enough to make the next in the queue worth a steal.
        burn(Duration::from_micros(200));
        stream.send_all(data).await.0.unwrap();
    }
}

fn burn(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Each connection echoes a numbered stream of bytes in pieces of all sizes,
/// until the colors have moved often enough.
fn echoes_go_on_while_colors_move(rt: Runtime) {
    let seen = Arc::<Seen>::default();
    let stop = Arc::new(AtomicBool::new(false));
    rt.block_on(async {
        let (listener, address) = listen().await;
        let mut tasks = Vec::new();
        for number in 0..CONNECTIONS {
            let near = TcpStream::connect(address).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            tasks.push(spawn_apart(echo(far, seen.clone())));
            let stop = stop.clone();
            tasks.push(spawn_apart(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let len = 1 + (number * 7919 + round * 104_729) % 3_000;
                    let message = pattern(number * 131 + round, len);
                    let (sent, message) = near.send_all(message).await;
                    sent.unwrap();
                    let mut got = 0;
                    while got < len {
                        let data = near.recv().await.unwrap();
                        assert!(!data.is_empty(), "closed early");
                        assert_eq!(data[..], message[got..got + data.len()]);
                        got += data.len();
                    }
                    round += 1;
                    // All at the same tick: the worker that is done first
                    // takes from the other.
                    sleep(Duration::from_millis(1)).await;
                }
            }));
        }
        let begun = Instant::now();
        while seen.moves.load(Ordering::Relaxed) < MOVES {
            assert!(begun.elapsed() < PATIENCE / 2, "colors do not move");
            sleep(Duration::from_millis(5)).await;
        }
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!(seen.threads.lock().unwrap().len() > 1);
}

/// One task accepts, and every worker gets its share of the connections.
#[test]
fn round_robin_hands_connections_out() {
    let _alone = common::alone();
    for driver in [
        isochrome::DriverChoice::Reactor,
        isochrome::DriverChoice::Proactor,
    ] {
        if !common::works(driver) {
            continue;
        }
        let builder = isochrome::Builder::new().driver(driver).workers(3);
        let builder = builder.placement(Placement::RoundRobin).stealing(false);
        let threads: HashSet<_> = builder.build().unwrap().block_on(async {
            let (listener, address) = listen().await;
            let mut threads = HashSet::new();
            for _ in 0..6 {
                let near = TcpStream::connect(address).await.unwrap();
                let (far, _) = listener.accept().await.unwrap();
                let server = spawn_apart(async move {
                    let data = far.recv().await.unwrap();
                    far.send_all(data).await.0.unwrap();
                    thread::current().id()
                });
                near.send_all(pattern(0, 10)).await.0.unwrap();
                assert!(!near.recv().await.unwrap().is_empty());
                threads.insert(server.await.unwrap());
            }
            threads
        });
        assert_eq!(threads.len(), 3);
    }
}
