//! Sockets and pipes with a second descriptor, held against std's.

mod common;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net as std_unix;

use common::agree::same;
use common::futures::{give_up, join};
use common::{
    LOCAL, eventually_async, everywhere, is_registered, listen, on_both_drivers, pair, std_pair,
};
use isochrome::net::{
    TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixSeqpacket, UnixStream, pipe,
};
use isochrome::{DriverChoice, Runtime, spawn, yield_now};

everywhere!(
    a_clone_is_the_same_connection,
    one_reads_while_the_other_writes,
    what_was_received_stays_where_it_was,
    a_clone_goes_while_the_other_stays,
    listeners,
    datagrams,
    the_end_of_a_direction_is_that_of_both,
    messages_with_an_end,
    ends_of_pipes,
);

on_both_drivers!(many_come_and_go, clones_outlive_their_runtime);

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

fn by_readiness(rt: &Runtime) -> bool {
    rt.driver() == DriverChoice::Reactor.to_string()
}

fn a_clone_is_the_same_connection(rt: Runtime) {
    rt.block_on(async {
        let (ours, mut to_ours) = std_pair().await;
        let (near, mut to_std) = std_pair().await;
        let (mut std, ahead) = near.into_std().await.unwrap();
        assert!(ahead.is_empty());
        let clone = ours.try_clone().unwrap();
        let mut of_std = std.try_clone().unwrap();
        assert_ne!(clone.as_raw_fd(), ours.as_raw_fd());
        same(clone.local_addr(), ours.local_addr());
        same(clone.peer_addr(), ours.peer_addr());
        // Options are the connection's.
        for on in [true, false] {
            same(clone.set_nodelay(on), of_std.set_nodelay(on));
            same(ours.nodelay(), std.nodelay());
        }
        same(ours.write_all(b"one").await, std.write_all(b"one"));
        same(clone.write_all(b"two").await, of_std.write_all(b"two"));
        // What is ended by one is ended for the other.
        same(
            clone.shutdown(Shutdown::Write),
            of_std.shutdown(Shutdown::Write),
        );
        same(ours.write(b"x").await, std.write(b"x"));
        for end in [&mut to_ours, &mut to_std] {
            let mut got = String::new();
            end.read_to_string(&mut got).unwrap();
            assert_eq!(got, "onetwo");
            end.write_all(b"back").unwrap();
        }
        // The connection is there until the last is gone.
        drop((ours, std));
        let [mut a, mut b] = [[0; 4]; 2];
        same(clone.read_exact(&mut a).await, of_std.read_exact(&mut b));
        assert_eq!(a, b);
        drop((clone, of_std));
        eventually_async("the connection is closed", || {
            to_ours.write_all(b"x").is_err() && to_std.write_all(b"x").is_err()
        })
        .await;
    });
}

fn one_reads_while_the_other_writes(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let writer = near.try_clone().unwrap();
        let echo = spawn(async move {
            loop {
                let data = far.recv().await.unwrap();
                if data.is_empty() {
                    return;
                }
                far.send_all(data).await.0.unwrap();
            }
        });
        let sender = spawn(async move {
            for i in 0..100u8 {
                writer.send_all(vec![i; 1_000]).await.0.unwrap();
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 100_000);
        assert!((0..100).all(|i| got[i * 1_000..][..1_000] == [i as u8; 1_000]));
        sender.await.unwrap();
        echo.await.unwrap();
    });
}

fn what_was_received_stays_where_it_was(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        far.write_all(b"one two three").unwrap();
        let mut buf = [0; 4];
        near.read_exact(&mut buf).await.unwrap();
        let clone = near.try_clone().unwrap();
        let mut rest = [0; 9];
        near.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"two three");
        // The clone gets its share once the first is gone: the receive that is
        // in flight takes bytes along to its end.
        let gone = near.as_raw_fd();
        drop(near);
        eventually_async("its descriptor is closed", || !is_open(gone)).await;
        far.write_all(b"four").unwrap();
        clone.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"four");
    });
}

/// The epoll set knows each of them by itself, and none that is gone.
fn a_clone_goes_while_the_other_stays(rt: Runtime) {
    let readiness = by_readiness(&rt);
    rt.block_on(async {
        for first_goes in [true, false] {
            let (near, mut far) = std_pair().await;
            let mut ends = [near.try_clone().unwrap(), near];
            if first_goes {
                ends.reverse();
            }
            let [stays, goes] = ends;
            let gone = goes.as_raw_fd();
            assert!(give_up(goes.recv()).await.is_pending());
            assert!(give_up(stays.recv()).await.is_pending());
            eventually_async("both are registered", || {
                let both = [gone, stays.as_raw_fd()].map(is_registered);
                both == [readiness; 2]
            })
            .await;
            drop(goes);
            eventually_async("one is gone", || !is_registered(gone)).await;
            eventually_async("its descriptor is closed", || !is_open(gone)).await;
            far.write_all(b"word").unwrap();
            assert_eq!(*stays.recv().await.unwrap(), *b"word");
            // The number is somebody else's.
            let (other, mut to_other) = std_pair().await;
            to_other.write_all(b"other").unwrap();
            assert_eq!(*other.recv().await.unwrap(), *b"other");
            // And out of the runtime, while a clone stays there.
            let clone = stays.try_clone().unwrap();
            assert!(give_up(clone.writable()).await.is_ready());
            let (mut std, ahead) = stays.into_std().await.unwrap();
            assert!(ahead.is_empty());
            far.write_all(b"last").unwrap();
            std.read_exact(&mut [0; 4]).unwrap();
            drop(std);
            clone.write_all(b"still").await.unwrap();
            far.read_exact(&mut [0; 5]).unwrap();
        }
    });
}

fn listeners(rt: Runtime) {
    rt.block_on(async {
        let (listener, at) = listen().await;
        let clone = listener.try_clone().unwrap();
        same(clone.local_addr(), listener.local_addr());
        // Each connection is one's of the two.
        let clients: Vec<_> = (0..10)
            .map(|_| std::net::TcpStream::connect(at).unwrap())
            .collect();
        let got = Cell::new(0);
        let take = async |listener: &isochrome::net::TcpListener| {
            eventually_async("all are accepted", || {
                while let Ok((_, peer)) = listener.try_accept() {
                    let of = |client: &std::net::TcpStream| client.local_addr().unwrap() == peer;
                    assert!(clients.iter().any(of));
                    got.set(got.get() + 1);
                }
                got.get() == clients.len()
            })
            .await;
        };
        join(take(&listener), take(&clone)).await;
        // It listens until both are gone. (An accept that is in flight takes
        // connections along to its end.)
        let gone = listener.as_raw_fd();
        drop(listener);
        eventually_async("its descriptor is closed", || !is_open(gone)).await;
        let client = std::net::TcpStream::connect(at).unwrap();
        let peer = clone.accept().await.unwrap().1;
        assert_eq!(peer, client.local_addr().unwrap());
        drop(clone);
        eventually_async("nobody listens", || {
            std::net::TcpStream::connect(at).is_err()
        })
        .await;
        // Local ones as well.
        let name = format!("\0isochrome-clones-{}", std::process::id());
        let clone = UnixListener::bind(&name[..]).unwrap().try_clone().unwrap();
        let (client, served) = join(UnixStream::connect(&name[..]), clone.accept()).await;
        client.unwrap().write_all(b"x").await.unwrap();
        served.unwrap().0.read_exact(&mut [0]).await.unwrap();
    });
}

fn datagrams(rt: Runtime) {
    rt.block_on(async {
        let socket = UdpSocket::bind(LOCAL).await.unwrap();
        let to = socket.local_addr().unwrap();
        let clone = socket.try_clone().unwrap();
        // Both wait, and each gets what the other does not.
        let [mut a, mut b] = [[0; 4]; 2];
        let both = join(socket.recv_from(&mut a), clone.recv_from(&mut b));
        let sending = async {
            for data in [b"1", b"2"] {
                yield_now().await;
                assert_eq!(socket.send_to(data, to).await.unwrap(), 1);
            }
        };
        let ((got, cloned), ()) = join(both, sending).await;
        assert_eq!(got.unwrap().0.len + cloned.unwrap().0.len, 2);
        assert_eq!(a[0] + b[0], b'1' + b'2');
        drop(socket);
        clone.send_to(b"self", to).await.unwrap();
        assert_eq!(clone.recv(&mut a).await.unwrap().len, 4);
    });
}

fn the_end_of_a_direction_is_that_of_both(rt: Runtime) {
    rt.block_on(async {
        let (ours, _peer) = UnixDatagram::pair().unwrap();
        let (std, _peer_of_std) = std_unix::UnixDatagram::pair().unwrap();
        let clone = ours.try_clone().unwrap();
        let of_std = std.try_clone().unwrap();
        let [mut a, mut b] = [[0; 4]; 2];
        let (got, ()) = join(ours.recv(&mut a), async {
            yield_now().await;
            same(
                clone.shutdown(Shutdown::Read),
                of_std.shutdown(Shutdown::Read),
            );
        })
        .await;
        same(got.map(|got| got.len), std.recv(&mut b));
    });
}

fn messages_with_an_end(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixSeqpacket::pair().unwrap();
        let clone = near.try_clone().unwrap();
        drop(near);
        far.send(b"").await.unwrap();
        let mut buf = [0; 4];
        assert_eq!(clone.recv(&mut buf).await.unwrap().unwrap().len, 0);
        let other = far.try_clone().unwrap();
        drop(far);
        other.send(b"last").await.unwrap();
        assert_eq!(clone.recv(&mut buf).await.unwrap().unwrap().len, 4);
        drop(other);
        assert!(clone.recv(&mut buf).await.unwrap().is_none());
    });
}

fn ends_of_pipes(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let other = sender.try_clone().unwrap();
        let mut buf = [0; 8];
        assert!(give_up(receiver.read(&mut buf)).await.is_pending());
        sender.write_all(b"one").await.unwrap();
        drop(sender);
        other.write_all(b"two").await.unwrap();
        // The end comes with the last.
        let reader = receiver.try_clone().unwrap();
        drop(receiver);
        reader.read_exact(&mut buf[..6]).await.unwrap();
        assert_eq!(&buf[..6], b"onetwo");
        assert!(give_up(reader.read(&mut buf)).await.is_pending());
        drop(other);
        assert_eq!(reader.read(&mut buf).await.unwrap(), 0);
        let (sender, receiver) = pipe::anonymous().unwrap();
        drop(receiver.try_clone().unwrap());
        sender.write_all(b"x").await.unwrap();
        drop(receiver);
        eventually_async("nobody reads", || {
            let written = sender.try_write(b"x");
            written.is_err_and(|e| e.kind() == ErrorKind::BrokenPipe)
        })
        .await;
    });
}

/// The descriptors are counted by the harness.
fn many_come_and_go(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let clone = near.try_clone().unwrap();
                isochrome::spawn_apart(async move {
                    for _ in 0..10 {
                        let clone = clone.try_clone().unwrap();
                        assert!(give_up(clone.writable()).await.is_ready());
                        let _ = give_up(clone.recv()).await;
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        drop(far);
        assert_eq!(near.recv().await.unwrap().len(), 0);
    });
}

fn clones_outlive_their_runtime(rt: Runtime) {
    let (near, far) = rt.block_on(pair());
    let clone = near.try_clone().unwrap();
    rt.block_on(async {
        assert!(give_up(clone.recv()).await.is_pending());
        assert!(give_up(near.recv()).await.is_pending());
    });
    // On a thread that is none of the runtime's.
    let moved = near.try_clone().unwrap();
    std::thread::spawn(move || drop(moved)).join().unwrap();
    drop((rt, near, far));
    let late: std::io::Result<TcpStream> = clone.try_clone();
    drop((late.unwrap(), clone));
}
