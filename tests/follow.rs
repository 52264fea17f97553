//! Connections that have moved to another worker: what tells of them follows,
//! once, and nothing is lost on the way.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::Poll;

use common::bytes::{Random, check, pattern};
use common::futures::give_up;
use common::{LOCAL, pair, std_pair};
use isochrome::net::{Async, Family, StreamSocket, TcpListener, TcpStream, UnixStream};
use isochrome::{Handle, Runtime, spawn_apart, yield_now};

macro_rules! on_several_workers {
    ($($test:ident),* $(,)?) => {
        common::one_place!(reactor_2, Reactor, 2, $($test),*);
        common::one_place!(reactor_4, Reactor, 4, $($test),*);
        common::one_place!(proactor_2, Proactor, 2, $($test),*);
        common::one_place!(proactor_4, Proactor, 4, $($test),*);
    };
}

on_several_workers!(
    a_connection_that_moved_is_told_of_where_it_is,
    a_connection_that_stays_is_told_of_where_it_was,
    data_and_the_end_come_through_a_move,
    a_reset_comes_through_a_move,
    dropped_on_the_way,
    taken_out_of_the_runtime_on_the_way,
    both_directions_in_two_places,
    listeners_follow,
    descriptors_of_the_users_own_follow,
    what_foreign_threads_wait_for_stays,
    streams_that_move_at_random,
);

/// Registrations of a descriptor in all epoll sets of the process. A ring keeps
/// none that could be counted.
fn sets_with(fd: i32) -> usize {
    let entries = std::fs::read_dir("/proc/self/fdinfo").expect("proc is mounted");
    let infos = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let line = format!("tfd:{fd:>9} ");
    infos.map(|info| info.matches(&line).count()).sum()
}

/// Waits in vain, so that a worker tells of it: a place is taken and left.
async fn wait_in_vain(stream: &TcpStream) {
    assert!(give_up(stream.recv()).await.is_pending());
}

/// The connection, with its receive begun on worker 0.
async fn begun_on_0(rt: &Handle, stream: TcpStream) -> TcpStream {
    let begun = rt.spawn_pinned(0, async move {
        wait_in_vain(&stream).await;
        stream
    });
    begun.await.unwrap()
}

/// So many messages, one after another, from a thread; and how often worker 1
/// was notified of any.
fn wakes(rt: &Handle, mut far: std::net::TcpStream, count: usize) -> u64 {
    let before = rt.stats().workers[1].wakes;
    for n in 0..count {
        far.write_all(&[n as u8]).unwrap();
        let mut back = [0];
        far.read_exact(&mut back).unwrap();
        assert_eq!(back, [n as u8]);
    }
    rt.stats().workers[1].wakes - before
}

/// Notifications that a move takes: of two waits, and of the end at the old
/// place; and some that have nothing to do with it.
const FEW: u64 = 16;

async fn echo(stream: TcpStream) -> TcpStream {
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            return stream;
        }
        stream.send_all(data).await.0.unwrap();
    }
}

/// Regression: every round trip was told by the worker of the first receive, at
/// the price of a notification.
fn a_connection_that_moved_is_told_of_where_it_is(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        let (near, far) = std_pair().await;
        let fd = near.as_raw_fd();
        let near = begun_on_0(&handle, near).await;
        let server = handle.spawn_pinned(1, echo(near));
        let client = {
            let handle = handle.clone();
            handle
                .clone()
                .spawn_blocking(move || wakes(&handle, far, 1_000))
        };
        let wakes = client.await.unwrap();
        assert!(wakes < FEW, "{wakes} times told by another worker");
        let near = server.await.unwrap();
        if handle.by_readiness() {
            assert_eq!(sets_with(fd), 1);
        }
        drop(near);
    });
}

/// A connection that is only used for a moment from elsewhere does not move.
fn a_connection_that_stays_is_told_of_where_it_was(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        let (near, far) = std_pair().await;
        let near = handle.spawn_pinned(1, async move {
            wait_in_vain(&near).await;
            near
        });
        let near = near.await.unwrap();
        // One wait elsewhere.
        let near = begun_on_0(&handle, near).await;
        let server = handle.spawn_pinned(1, echo(near));
        let client = handle.clone();
        let client = handle.spawn_blocking(move || wakes(&client, far, 1_000));
        let wakes = client.await.unwrap();
        assert!(wakes < FEW, "{wakes} times told by another worker");
        drop(server.await.unwrap());
    });
}

/// Waits in vain on a worker until the connection is sure to move there, and
/// gives it back without waiting for that.
async fn set_out(rt: &Handle, worker: usize, stream: TcpStream, waits: usize) -> TcpStream {
    let moving = rt.spawn_pinned(worker, async move {
        for _ in 0..waits {
            wait_in_vain(&stream).await;
        }
        stream
    });
    moving.await.unwrap()
}

fn data_and_the_end_come_through_a_move(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        for round in 0..40 {
            let (near, mut far) = std_pair().await;
            let near = begun_on_0(&handle, near).await;
            let sent = pattern(round, 1 + 977 * round);
            let peer = sent.clone();
            let peer = handle.spawn_blocking(move || far.write_all(&peer).map(|()| drop(far)));
            let receiver = handle.spawn_pinned(1, async move {
                let mut got = Vec::new();
                loop {
                    let data = near.recv().await.unwrap();
                    if data.is_empty() {
                        return got;
                    }
                    got.extend_from_slice(&data);
                }
            });
            peer.await.unwrap().unwrap();
            assert!(receiver.await.unwrap() == sent, "round {round}");
        }
    });
}

fn a_reset_comes_through_a_move(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        for _ in 0..40 {
            let (near, far) = std_pair().await;
            let near = begun_on_0(&handle, near).await;
            let near = set_out(&handle, 1, near, 2).await;
            let reader = handle.spawn_pinned(1, async move { near.recv().await.unwrap_err() });
            socket2::SockRef::from(&far)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap();
            drop(far);
            assert_eq!(reader.await.unwrap().kind(), ErrorKind::ConnectionReset);
        }
    });
}

fn dropped_on_the_way(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        for waits in [1, 2, 3] {
            for _ in 0..20 {
                let (near, mut far) = std_pair().await;
                let near = begun_on_0(&handle, near).await;
                drop(set_out(&handle, 1, near, waits).await);
                // The peer sees the end when it is closed, for which worker 0
                // may be needed.
                let read = handle.spawn_blocking(move || far.read(&mut [0; 8]));
                assert_eq!(read.await.unwrap().unwrap(), 0);
            }
        }
    });
}

fn taken_out_of_the_runtime_on_the_way(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        for waits in [1, 2, 3] {
            for _ in 0..20 {
                let (near, mut far) = std_pair().await;
                let near = begun_on_0(&handle, near).await;
                let near = set_out(&handle, 1, near, waits).await;
                far.write_all(b"hello").unwrap();
                let fd = near.as_raw_fd();
                let (mut near, mut got) = near.into_std().await.unwrap();
                assert_eq!(near.as_raw_fd(), fd);
                if handle.by_readiness() {
                    assert_eq!(sets_with(fd), 0, "left in a set");
                }
                drop(far);
                near.read_to_end(&mut got).unwrap();
                assert_eq!(got, b"hello");
            }
        }
    });
}

/// One reads here and one writes there, more than there is room for: both wait,
/// and the registration is one.
fn both_directions_in_two_places(rt: Runtime) {
    let handle = rt.handle().clone();
    const LEN: usize = 1 << 20;
    rt.block_on(async {
        let (near, far) = pair().await;
        common::shrink(&near);
        common::shrink(&far);
        let (near, far) = (Arc::new(near), Arc::new(far));
        let mut tasks = Vec::new();
        for (read_on, write_on, stream) in [(0, 1, near), (1, 0, far)] {
            let reader = stream.clone();
            tasks.push(handle.spawn_pinned(read_on, async move {
                let mut got = Vec::new();
                while got.len() < LEN {
                    let data = reader.recv().await.unwrap();
                    got.extend_from_slice(&data);
                }
                assert!(got == pattern(7, LEN));
            }));
            tasks.push(handle.spawn_pinned(write_on, async move {
                let all = pattern(7, LEN);
                for piece in all.chunks(40_000) {
                    stream.send_all(piece.to_vec()).await.0.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn listeners_follow(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept_some = |listener: TcpListener, count| async move {
            for _ in 0..count {
                listener.accept().await.unwrap();
            }
            listener
        };
        let connect = move |count| {
            move || {
                for _ in 0..count {
                    let mut far = std::net::TcpStream::connect(address).unwrap();
                    // Closed when it was accepted.
                    assert_eq!(far.read(&mut [0]).unwrap(), 0);
                }
            }
        };
        let client = handle.spawn_blocking(connect(10));
        let listener = handle.spawn_pinned(0, accept_some(listener, 10)).await;
        client.await.unwrap();
        let server = handle.spawn_pinned(1, accept_some(listener.unwrap(), 110));
        handle.spawn_blocking(connect(10)).await.unwrap();
        let before = handle.stats().workers[0].turns;
        let client = std::thread::spawn(connect(100));
        let listener = server.await.unwrap();
        client.join().unwrap();
        drop(listener);
        // Its own task was woken once or twice meanwhile, and nothing else.
        let turns = handle.stats().workers[0].turns - before;
        assert!(
            turns < 50,
            "{turns} turns of a worker that has nothing to do"
        );
    });
}

fn descriptors_of_the_users_own_follow(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let near = Async::new(near).unwrap();
        let wait_in_vain = |near: Async<std::os::unix::net::UnixStream>| async move {
            assert!(give_up(near.readable()).await.is_pending());
            near
        };
        let near = handle.spawn_pinned(0, wait_in_vain(near)).await.unwrap();
        let handle_of_server = handle.clone();
        let server = handle.spawn_pinned(1, async move {
            let before = handle_of_server.stats().workers[1].wakes;
            for _ in 0..1_000 {
                let mut byte = [0];
                let read = near.read_with(|mut near| near.read(&mut byte));
                assert_eq!(read.await.unwrap(), 1);
                near.get_ref().write_all(&byte).unwrap();
            }
            handle_of_server.stats().workers[1].wakes - before
        });
        let client = handle.spawn_blocking(move || {
            for n in 0..1_000_usize {
                far.write_all(&[n as u8]).unwrap();
                far.read_exact(&mut [0]).unwrap();
            }
        });
        client.await.unwrap();
        let wakes = server.await.unwrap();
        assert!(wakes < FEW, "{wakes} times told by another worker");
    });
}

/// A foreign executor has no worker to follow to.
fn what_foreign_threads_wait_for_stays(rt: Runtime) {
    let handle = rt.handle().clone();
    rt.block_on(async {
        let (near, far) = std_pair().await;
        let near = begun_on_0(&handle, near).await;
        let foreign = std::thread::spawn(move || common::futures::park_on(echo(near)));
        let client = handle.clone();
        handle
            .spawn_blocking(move || wakes(&client, far, 200))
            .await
            .unwrap();
        // Worker 0 has the receive, and must not be blocked meanwhile.
        let joined = handle.spawn_blocking(move || foreign.join().unwrap());
        drop(joined.await.unwrap());
    });
}

/// Streams whose ends go from worker to worker, in the middle of it all.
fn streams_that_move_at_random(rt: Runtime) {
    let handle = rt.handle().clone();
    let mut random = Random::seeded();
    rt.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..6 {
            let mut random = || Random(random.next() | 1);
            if number % 3 == 2 {
                let (near, far) = UnixStream::pair().unwrap();
                tasks.push(spawn_apart(send_about(handle.clone(), far, random())));
                tasks.push(spawn_apart(receive_about(handle.clone(), near, random())));
            } else {
                let (near, far) = pair().await;
                tasks.push(spawn_apart(send_about(handle.clone(), far, random())));
                tasks.push(spawn_apart(receive_about(handle.clone(), near, random())));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// What each stream carries.
const LEN: usize = 400_000;

async fn send_about<F: Family>(rt: Handle, stream: StreamSocket<F>, mut random: Random) {
    let stream = Arc::new(stream);
    let mut sent = 0;
    while sent < LEN {
        let worker = random.below(rt.workers());
        let pieces: Vec<_> = (0..1 + random.below(40))
            .map(|_| 1 + random.below(3_000))
            .collect();
        let there = stream.clone();
        let pieces = rt.spawn_pinned(worker, async move {
            for len in pieces {
                let len = len.min(LEN - sent);
                there.send_all(pattern(sent, len)).await.0.unwrap();
                sent += len;
                yield_now().await;
            }
            sent
        });
        sent = pieces.await.unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

async fn receive_about<F: Family>(rt: Handle, stream: StreamSocket<F>, mut random: Random) {
    let stream = Arc::new(stream);
    let mut got = 0;
    let mut over = false;
    while !over {
        let worker = random.below(rt.workers());
        let how: Vec<_> = (0..1 + random.below(40)).map(|_| random.below(8)).collect();
        let there = stream.clone();
        let received = rt.spawn_pinned(worker, async move {
            for how in how {
                let mut buf = [0; 500];
                let n = match how {
                    0 => {
                        // Begun and given up: nothing is lost.
                        match give_up(there.recv()).await {
                            Poll::Pending => continue,
                            Poll::Ready(data) => {
                                let data = data.unwrap();
                                check(got, &data);
                                data.len()
                            }
                        }
                    }
                    1..4 => {
                        let n = there.read(&mut buf).await.unwrap();
                        check(got, &buf[..n]);
                        n
                    }
                    _ => {
                        let data = there.recv().await.unwrap();
                        check(got, &data);
                        data.len()
                    }
                };
                if n == 0 {
                    return (got, true);
                }
                got += n;
            }
            (got, false)
        });
        (got, over) = received.await.unwrap();
    }
    assert_eq!(got, LEN);
}
