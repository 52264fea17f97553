//! Many connections, and many leases.

mod common;

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::bytes::{check, pattern};
use common::{everywhere, file_limit, listen, on_both_drivers, pair, set_file_limit};
use isochrome::net::{RecvBuf, TcpStream};
use isochrome::{Color, Runtime};

on_both_drivers!(two_thousand_connections, two_thousand_in_one_color);

everywhere!(
    more_leases_than_the_pool_has,
    leases_outlive_the_runtime,
    leases_may_be_dropped_anywhere,
);

const CROWD: usize = 2_000;
const ROUNDS: usize = 5;

/// The most that a connection may be asked to echo at once, in these tests.
const MESSAGE: usize = 300;

async fn echo(stream: TcpStream, served: Arc<AtomicUsize>) {
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            return;
        }
        served.fetch_add(data.len(), Ordering::Relaxed);
        stream.send_all(data).await.0.unwrap();
    }
}

async fn ask(stream: &TcpStream, from: usize, len: usize) {
    stream.send_all(pattern(from, len)).await.0.unwrap();
    let mut got = 0;
    while got < len {
        let data = stream.recv().await.unwrap();
        assert!(!data.is_empty());
        check(from + got, &data);
        got += data.len();
    }
    assert_eq!(got, len);
}

fn crowd(rt: Runtime, colored: bool) {
    let old = file_limit();
    set_file_limit(old.rlim_max);
    rt.block_on(async {
        let (listener, address) = listen().await;
        let served = Arc::new(AtomicUsize::new(0));
        let color = move || {
            if colored {
                Color::new()
            } else {
                Color::DEFAULT
            }
        };
        let server = color().spawn({
            let served = served.clone();
            async move {
                let mut tasks = Vec::new();
                for _ in 0..CROWD {
                    let (stream, _) = listener.accept().await.unwrap();
                    tasks.push(color().spawn(echo(stream, served.clone())));
                }
                for task in tasks {
                    task.await.unwrap();
                }
            }
        });
        let mut streams = Vec::new();
        for _ in 0..CROWD {
            streams.push(TcpStream::connect(address).await.unwrap());
        }
        // All are open before the first speaks.
        let clients = streams.into_iter().enumerate().map(|(i, stream)| {
            color().spawn(async move {
                for round in 0..ROUNDS {
                    ask(&stream, i * 31 + round, 1 + (i + round * 7) % MESSAGE).await;
                }
                stream.shutdown(Shutdown::Write).unwrap();
                assert!(stream.recv().await.unwrap().is_empty());
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        server.await.unwrap();
        let expected = (0..CROWD).flat_map(|i| (0..ROUNDS).map(move |r| 1 + (i + r * 7) % MESSAGE));
        assert_eq!(served.load(Ordering::Relaxed), expected.sum::<usize>());
    });
    drop(rt);
    set_file_limit(old.rlim_cur);
}

fn two_thousand_connections(rt: Runtime) {
    crowd(rt, true);
}

fn two_thousand_in_one_color(rt: Runtime) {
    crowd(rt, false);
}

/// More than either driver has for a worker.
const LEASES: usize = 700;

async fn hold(count: usize) -> (Vec<RecvBuf>, Vec<(TcpStream, TcpStream)>) {
    let mut held = Vec::new();
    let mut pairs = Vec::new();
    for _ in 0..20 {
        pairs.push(pair().await);
    }
    for i in 0..count {
        let (near, far) = &pairs[i % pairs.len()];
        far.send_all(pattern(i, 100)).await.0.unwrap();
        let mut lease = near.recv().await.unwrap();
        check(i, &lease);
        // A lease is the holder's to write to.
        lease[0] = lease[0].wrapping_add(1);
        held.push(lease);
    }
    (held, pairs)
}

fn verify(held: &[RecvBuf]) {
    for (i, lease) in held.iter().enumerate() {
        assert_eq!(lease[0].wrapping_sub(1), pattern(i, 1)[0]);
        check(i + 1, &lease[1..]);
    }
}

fn more_leases_than_the_pool_has(rt: Runtime) {
    rt.block_on(async {
        let (held, pairs) = hold(LEASES).await;
        // With all of them held, others are served, at length, by both ways.
        let (near, far) = pair().await;
        let server = Color::new().spawn(echo(far, Arc::default()));
        for i in 0..300 {
            ask(&near, i, 1 + i * 50).await;
            let small = pattern(i, 5);
            near.send_all(small).await.0.unwrap();
            let mut got = 0;
            let mut buf = [0; 5];
            while got < 5 {
                let n = near.read(&mut buf).await.unwrap();
                check(i + got, &buf[..n]);
                got += n;
            }
        }
        near.shutdown(Shutdown::Write).unwrap();
        server.await.unwrap();
        verify(&held);
        drop(held);
        // Given back, they are used again; nothing is mixed up.
        for (i, (near, far)) in pairs.iter().enumerate() {
            far.send_all(pattern(i, 50_000)).await.0.unwrap();
            let mut got = 0;
            while got < 50_000 {
                let data = near.recv().await.unwrap();
                check(i + got, &data);
                got += data.len();
            }
        }
    });
}

fn leases_outlive_the_runtime(rt: Runtime) {
    for count in [3, LEASES] {
        let workers = rt.workers();
        let driver = rt.driver().parse().unwrap();
        let inner = common::build(driver, workers);
        let (held, pairs) = inner.block_on(hold(count));
        // The streams first, or the runtime first: both are right.
        if count == 3 {
            drop(pairs);
            drop(inner);
        } else {
            drop(inner);
            drop(pairs);
        }
        verify(&held);
        std::thread::spawn(move || drop(held)).join().unwrap();
    }
}

fn leases_may_be_dropped_anywhere(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let (give, take) = std::sync::mpsc::channel::<(usize, RecvBuf)>();
        let other = std::thread::spawn(move || {
            let mut seen = 0;
            for (from, lease) in take {
                check(from, &lease);
                seen += lease.len();
            }
            seen
        });
        const TOTAL: usize = 3 << 20;
        let sender = Color::new().spawn(async move {
            far.send_all(pattern(0, TOTAL)).await.0.unwrap();
        });
        let mut place = 0;
        loop {
            let lease = near.recv().await.unwrap();
            if lease.is_empty() {
                break;
            }
            let from = place;
            place += lease.len();
            give.send((from, lease)).unwrap();
        }
        drop(give);
        assert_eq!(place, TOTAL);
        assert_eq!(other.join().unwrap(), TOTAL);
        sender.await.unwrap();
    });
}
