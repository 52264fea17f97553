//! The end of a runtime with everything in flight, two hundred times over.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::futures::{give_up, park_on, poll_once};
use common::{
    build, eventually_async, everywhere, listen, on_both_drivers, pair, shrink, std_pair,
};
use isochrome::net::{TcpListener, TcpStream};
use isochrome::{Builder, Color, DriverChoice, Runtime, spawn_blocking};

everywhere!(
    everything_in_flight_ends,
    sockets_that_outlive_the_runtime_answer_at_once,
    waiters_elsewhere_are_woken_by_the_end,
    the_end_comes_during_load,
    a_panic_of_block_on_ends_it_too,
    one_runtime_ends_inside_another,
    a_grace_beyond_the_clock_is_as_good_as_for_ever,
);

on_both_drivers!(two_hundred_ends);

fn a_grace_beyond_the_clock_is_as_good_as_for_ever(rt: Runtime) {
    let driver = match rt.driver() {
        "reactor" => DriverChoice::Reactor,
        _ => DriverChoice::Proactor,
    };
    let builder = Builder::new().driver(driver).workers(rt.workers());
    let rt = builder.shutdown_grace(Duration::MAX).build().unwrap();
    rt.block_on(async {
        let (near, _far) = pair().await;
        assert!(give_up(near.recv()).await.is_pending());
        spawn_blocking(|| ()).await.unwrap();
    });
    assert_eq!(rt.shutdown(), 0);
}

/// Counts tasks whose operation has been begun.
#[derive(Clone, Default)]
struct Begun(Arc<AtomicUsize>);

impl Begun {
    /// Spawns the operation, in a color of its own, and counts it when it has
    /// been polled.
    fn spawn<F>(&self, operation: F)
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let begun = self.clone();
        drop(Color::new().spawn(async move {
            let mut operation = Box::pin(operation);
            let first = poll_once(&mut operation).await;
            begun.0.fetch_add(1, Ordering::Release);
            if first.is_pending() {
                operation.await;
            }
        }));
    }

    async fn all(&self, count: usize) {
        eventually_async("all began", || self.0.load(Ordering::Acquire) == count).await;
    }
}

/// A listener that lets further connects hang: its backlog is full.
struct FullBacklog {
    listener: socket2::Socket,
    _fillers: Vec<std::net::TcpStream>,
}

impl FullBacklog {
    fn new() -> FullBacklog {
        let listener = std::net::TcpListener::bind(common::LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = socket2::Socket::from(listener);
        listener.listen(0).unwrap();
        let patience = Duration::from_millis(50);
        let connect = || std::net::TcpStream::connect_timeout(&address, patience).ok();
        let _fillers = std::iter::from_fn(connect).collect();
        FullBacklog { listener, _fillers }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

/// Puts everything in flight, and returns the other ends.
async fn put_in_flight(full: &FullBacklog) -> Vec<std::net::TcpStream> {
    let begun = Begun::default();
    let mut peers = Vec::new();
    let (stream, peer) = std_pair().await;
    peers.push(peer);
    begun.spawn(async move { stream.recv().await.map(drop) });
    let (stream, peer) = std_pair().await;
    peers.push(peer);
    begun.spawn(async move { stream.read(&mut [0; 9]).await });
    let (stream, peer) = std_pair().await;
    shrink(&stream);
    peers.push(peer);
    begun.spawn(async move { stream.send_all(vec![7; 8 << 20]).await.0 });
    let (listener, _) = listen().await;
    begun.spawn(async move { listener.accept().await.map(drop) });
    begun.spawn(TcpStream::connect(full.address()));
    begun.spawn(isochrome::time::sleep(Duration::from_secs(3600)));
    // Each holds what the other waits on, and itself by a handle.
    let (near, far) = pair().await;
    let (near, far) = (Arc::new(near), Arc::new(far));
    for (mine, other) in [(near.clone(), far.clone()), (far, near)] {
        begun.spawn(async move {
            let _held = other;
            mine.recv().await.map(drop)
        });
    }
    // Joined by a task that will never see the end of it.
    begun.spawn(Color::new().spawn(std::future::pending::<()>()));
    begun.all(9).await;
    peers
}

/// What a peer sees: data perhaps, and then an end or a reset.
fn sees_the_end(mut peer: std::net::TcpStream) {
    let mut sink = Vec::new();
    if let Err(e) = peer.read_to_end(&mut sink) {
        assert_eq!(e.kind(), ErrorKind::ConnectionReset);
    }
}

fn everything_in_flight_ends(rt: Runtime) {
    let full = FullBacklog::new();
    for turns in [0, 5] {
        let rt = build(rt.driver().parse().unwrap(), rt.workers());
        let peers = rt.block_on(async {
            let peers = put_in_flight(&full).await;
            for _ in 0..turns {
                isochrome::yield_now().await;
            }
            peers
        });
        assert_eq!(rt.shutdown(), 0, "the kernel kept operations");
        peers.into_iter().for_each(sees_the_end);
    }
}

fn two_hundred_ends(rt: Runtime) {
    let driver: DriverChoice = rt.driver().parse().unwrap();
    let full = FullBacklog::new();
    for i in 0..200 {
        let rt = build(driver, [1, 2, 4][i % 3]);
        let peers = rt.block_on(put_in_flight(&full));
        assert_eq!(rt.shutdown(), 0, "end {i}");
        peers.into_iter().for_each(sees_the_end);
    }
}

fn sockets_that_outlive_the_runtime_answer_at_once(rt: Runtime) {
    let (near, far, listener, mut peer, std_end) = rt.block_on(async {
        let (near, far) = pair().await;
        let (std_end, peer) = std_pair().await;
        let (listener, _) = listen().await;
        // One was registered and used, the others never.
        near.send_all("x").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"x");
        (near, far, listener, peer, std_end)
    });
    let handle = rt.handle().clone();
    assert_eq!(rt.shutdown(), 0);
    for stream in [&near, &far, &std_end] {
        park_on(stream.recv()).unwrap_err();
        park_on(stream.read(&mut [0])).unwrap_err();
        park_on(stream.send_all("late")).0.unwrap_err();
    }
    park_on(listener.accept()).unwrap_err();
    let late = park_on(handle.spawn(async {})).unwrap_err();
    assert!(late.is_shutdown());
    let pool = park_on(handle.spawn_blocking(|| ())).unwrap_err();
    assert!(pool.is_shutdown(), "{pool}");
    // They are sockets still: what needs no driver works, and they close.
    assert!(near.peer_addr().is_ok());
    peer.write_all(b"?").unwrap();
    drop((std_end, near, far, listener));
    sees_the_end(peer);
}

fn waiters_elsewhere_are_woken_by_the_end(rt: Runtime) {
    let (stream, listener, _far) = rt.block_on(async {
        let (near, far) = pair().await;
        let (listener, _) = listen().await;
        (Arc::new(near), Arc::new(listener), far)
    });
    let (begin, begun) = std::sync::mpsc::channel();
    let recv = std::thread::spawn({
        let (stream, begin) = (stream.clone(), begin.clone());
        move || {
            let mut recv = Box::pin(stream.recv());
            assert!(park_on(poll_once(&mut recv)).is_pending());
            begin.send(()).unwrap();
            park_on(recv).map(drop)
        }
    });
    let accept = std::thread::spawn({
        let listener: Arc<TcpListener> = listener.clone();
        move || {
            let mut accept = Box::pin(listener.accept());
            assert!(park_on(poll_once(&mut accept)).is_pending());
            begin.send(()).unwrap();
            park_on(accept).map(drop)
        }
    });
    begun.recv().unwrap();
    begun.recv().unwrap();
    assert_eq!(rt.shutdown(), 0);
    recv.join().unwrap().unwrap_err();
    accept.join().unwrap().unwrap_err();
}

fn the_end_comes_during_load(rt: Runtime) {
    for round in 0..10 {
        let rt = build(rt.driver().parse().unwrap(), rt.workers());
        rt.block_on(async {
            let done = Arc::new(AtomicUsize::new(0));
            for _ in 0..20 {
                let (near, far) = pair().await;
                drop(Color::new().spawn(async move {
                    while let Ok(data) = far.recv().await {
                        if data.is_empty() || far.send_all(data).await.0.is_err() {
                            break;
                        }
                    }
                }));
                let done = done.clone();
                drop(Color::new().spawn(async move {
                    loop {
                        if near.send_all(vec![1; 1000]).await.0.is_err() {
                            break;
                        }
                        let Ok(data) = near.recv().await else { break };
                        done.fetch_add(data.len(), Ordering::Relaxed);
                    }
                }));
            }
            let enough = 100_000 + round * 10_000;
            eventually_async("load", || done.load(Ordering::Relaxed) > enough).await;
        });
        assert_eq!(rt.shutdown(), 0);
    }
}

fn a_panic_of_block_on_ends_it_too(rt: Runtime) {
    let full = FullBacklog::new();
    let mut peers = Vec::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rt.block_on(async {
            peers = put_in_flight(&full).await;
            panic!("meant");
        })
    }));
    assert!(panicked.is_err());
    // It is usable still, and then ends as ever.
    assert_eq!(rt.block_on(async { 3 }), 3);
    assert_eq!(rt.shutdown(), 0);
    peers.into_iter().for_each(sees_the_end);
}

fn one_runtime_ends_inside_another(rt: Runtime) {
    let full = FullBacklog::new();
    rt.block_on(async {
        let (near, far) = pair().await;
        for driver in [DriverChoice::Reactor, DriverChoice::Proactor] {
            if !common::works(driver) {
                continue;
            }
            let inner = build(driver, 2);
            let peers = inner.block_on(put_in_flight(&full));
            assert_eq!(inner.shutdown(), 0);
            peers.into_iter().for_each(sees_the_end);
        }
        // The outer one goes on.
        near.send_all("on").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"on");
    });
}
