//! Waiting without transferring: a wait ends when poll(2) says so of a socket
//! of std's in the same state, and what is tried then answers what std's
//! non-blocking call does.

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net as std_unix;
use std::task::Poll;
use std::time::Duration;

use isochrome::net::{Async, TcpStream, UdpSocket, UnixDatagram, UnixSeqpacket, UnixStream, pipe};
use isochrome::{Runtime, spawn, yield_now};
use socket2::SockRef;

use crate::common;
use crate::common::agree::same;
use crate::common::futures::{give_up, join, poll_once};
use crate::common::{LOCAL, eventually_async, everywhere, pair, shrink, std_pair};

everywhere!(
    bytes_are_told_until_they_are_taken,
    the_end_is_told,
    an_error_is_left_to_who_reads,
    room_is_told,
    room_behind_what_was_fed,
    datagrams,
    a_refusal_is_left_to_who_receives,
    local_messages,
    pipes,
    several_wait,
    waits_end_with_the_runtime,
);

async fn is_pending(wait: impl Future) -> bool {
    give_up(wait).await.is_pending()
}

fn bytes_are_told_until_they_are_taken(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let mut buf = [0; 3];
        for round in 0..20 {
            assert!(is_pending(near.readable()).await);
            let tried = near.try_read(&mut buf);
            assert_eq!(tried.unwrap_err().kind(), ErrorKind::WouldBlock);
            let mut wait = Box::pin(near.readable());
            assert!(poll_once(&mut wait).await.is_pending());
            far.write_all(b"abcd").await.unwrap();
            wait.await.unwrap();
            // As often as one asks.
            near.readable().await.unwrap();
            poll_fn(|cx| near.poll_readable(cx)).await.unwrap();
            let mut got = Vec::new();
            while got.len() < 4 {
                near.readable().await.unwrap();
                match near.try_read(&mut buf) {
                    Ok(n) => got.extend_from_slice(&buf[..n]),
                    Err(e) => panic!("{e} in round {round}"),
                }
            }
            assert_eq!(got, b"abcd");
        }
    });
}

fn the_end_is_told(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let (waited, ()) = join(near.readable(), async {
            far.shutdown(Shutdown::Write).unwrap();
        })
        .await;
        waited.unwrap();
        near.readable().await.unwrap();
        assert_eq!(near.try_read(&mut [0]).unwrap(), 0);
        near.readable().await.unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        assert!(is_pending(near.readable()).await);
        drop(far);
        near.readable().await.unwrap();
        near.writable().await.unwrap();
        assert_eq!(near.try_read(&mut [0]).unwrap(), 0);
        let error = near.try_write(b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

/// A connection of std's that its peer has reset.
fn reset_of_std() -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind(LOCAL).unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    reset(listener.accept().unwrap().0);
    near
}

fn reset(far: std::net::TcpStream) {
    let zero = Some(Duration::ZERO);
    SockRef::from(&far).set_linger(zero).unwrap();
}

fn an_error_is_left_to_who_reads(rt: Runtime) {
    rt.block_on(async {
        for polls in [false, true] {
            let (near, far) = std_pair().await;
            assert!(is_pending(near.readable()).await);
            reset(far);
            for _ in 0..3 {
                match polls {
                    true => poll_fn(|cx| near.poll_readable(cx)).await.unwrap(),
                    false => near.readable().await.unwrap(),
                }
            }
            near.writable().await.unwrap();
            let mut std = reset_of_std();
            same(near.try_read(&mut [0]), std.read(&mut [0]));
            same(near.read(&mut [0]).await, std.read(&mut [0]));
        }
    });
}

/// Fills what there is room for, by small pieces.
async fn fill(near: &TcpStream) -> usize {
    let mut sent = 0;
    // The kernel moves bytes on meanwhile, and may find room again.
    while !is_pending(near.writable()).await {
        while let Ok(n) = near.try_write(&[7; 4096]) {
            sent += n;
        }
    }
    sent
}

fn room_is_told(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = std_pair().await;
        shrink(&near);
        poll_fn(|cx| near.poll_writable(cx)).await.unwrap();
        let sent = fill(&near).await;
        let mut wait = Box::pin(near.writable());
        assert!(poll_once(&mut wait).await.is_pending());
        let far = Async::new(far).unwrap();
        let reader = spawn(async move {
            let (mut got, mut buf) = (0, vec![0; 64 << 10]);
            while got < sent {
                got += far.read_with(|mut far| far.read(&mut buf)).await.unwrap();
            }
            assert!(far.as_raw_fd() == far.as_fd().as_raw_fd());
            far
        });
        wait.await.unwrap();
        eventually_async("there is room", || near.try_write(b"x").is_ok()).await;
        drop(reader.await.unwrap());
    });
}

/// Who waits behind what was fed is not told of room that is not theirs yet.
fn room_behind_what_was_fed(rt: Runtime) {
    rt.block_on(async {
        for polls in [false, true] {
            let (near, mut far) = std_pair().await;
            shrink(&near);
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                far.read_to_end(&mut got).unwrap();
                got
            });
            for _ in 0..4 {
                near.feed(vec![7; 100_000]).await.unwrap();
                match polls {
                    true => poll_fn(|cx| near.poll_writable(cx)).await.unwrap(),
                    false => near.writable().await.unwrap(),
                }
                assert_eq!(near.try_write(b"x").unwrap(), 1);
            }
            near.shutdown(Shutdown::Write).unwrap();
            let got = reader.join().unwrap();
            assert_eq!(got.len(), 4 * 100_001);
            let ends = got.chunks(100_001).map(|chunk| chunk[100_000]);
            assert!(ends.into_iter().all(|end| end == b'x'));
        }
    });
}

fn datagrams(rt: Runtime) {
    rt.block_on(async {
        let socket = UdpSocket::bind(LOCAL).await.unwrap();
        let to = socket.local_addr().unwrap();
        let mut buf = [0; 4];
        for _ in 0..20 {
            assert!(is_pending(socket.readable()).await);
            let (waited, sent) = join(socket.readable(), async {
                socket.writable().await.unwrap();
                poll_fn(|cx| socket.poll_writable(cx)).await.unwrap();
                socket.try_send_to(b"word", to)
            })
            .await;
            waited.unwrap();
            sent.unwrap();
            poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
            assert_eq!(socket.try_recv(&mut buf).unwrap().len, 4);
        }
    });
}

fn a_refusal_is_left_to_who_receives(rt: Runtime) {
    rt.block_on(async {
        let gone = std::net::UdpSocket::bind(LOCAL).unwrap();
        let nobody = gone.local_addr().unwrap();
        drop(gone);
        let ours = UdpSocket::bind(LOCAL).await.unwrap();
        let std = std::net::UdpSocket::bind(LOCAL).unwrap();
        ours.connect(nobody).await.unwrap();
        std.connect(nobody).unwrap();
        same(ours.send(b"x").await, std.send(b"x"));
        ours.readable().await.unwrap();
        same(
            ours.try_recv(&mut [0]).map(|got| got.len),
            std.recv(&mut [0]),
        );
    });
}

fn local_messages(rt: Runtime) {
    rt.block_on(async {
        let (ours, to_ours) = UnixDatagram::pair().unwrap();
        let (std, to_std) = std_unix::UnixDatagram::pair().unwrap();
        let [mut a, mut b] = [[0; 4]; 2];
        assert!(is_pending(ours.readable()).await);
        same(to_ours.send(b"").await, to_std.send(b""));
        ours.readable().await.unwrap();
        same(ours.try_recv(&mut a).map(|got| got.len), std.recv(&mut b));
        // Until there is no room at the receiver.
        while to_ours.try_send(b"full").is_ok() {}
        assert!(is_pending(to_ours.writable()).await);
        let (waited, ()) = join(to_ours.writable(), async {
            while ours.try_recv(&mut a).is_ok() {}
        })
        .await;
        waited.unwrap();
        same(to_ours.try_send(b"room"), to_std.send(b"room"));
        let (near, far) = UnixSeqpacket::pair().unwrap();
        assert!(is_pending(near.readable()).await);
        near.writable().await.unwrap();
        drop(far);
        near.readable().await.unwrap();
        assert!(near.try_recv(&mut a).unwrap().is_none());
    });
}

fn pipes(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        assert!(is_pending(receiver.readable()).await);
        sender.writable().await.unwrap();
        let (waited, ()) = join(receiver.readable(), async {
            assert_eq!(sender.try_write(b"word").unwrap(), 4);
        })
        .await;
        waited.unwrap();
        poll_fn(|cx| receiver.poll_readable(cx)).await.unwrap();
        while sender.try_write(&[0; 4096]).is_ok() {}
        assert!(is_pending(sender.writable()).await);
        let pending = poll_fn(|cx| Poll::Ready(sender.poll_writable(cx).is_pending()));
        assert!(pending.await);
        let (waited, ()) = join(sender.writable(), async {
            while receiver.try_read(&mut [0; 4096]).is_ok() {}
        })
        .await;
        waited.unwrap();
        drop(sender);
        receiver.readable().await.unwrap();
        assert_eq!(receiver.try_read(&mut [0]).unwrap(), 0);
        let (sender, receiver) = pipe::anonymous().unwrap();
        while sender.try_write(&[0; 4096]).is_ok() {}
        drop(receiver);
        sender.writable().await.unwrap();
    });
}

/// All of them are told, and one of them gets it.
fn several_wait(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let mut waits: Vec<_> = (0..5).map(|_| Box::pin(near.readable())).collect();
        for wait in &mut waits {
            assert!(poll_once(wait).await.is_pending());
        }
        far.write_all(b"x").await.unwrap();
        for wait in waits {
            wait.await.unwrap();
        }
        assert_eq!(near.try_read(&mut [0; 2]).unwrap(), 1);
        // Beside one who receives, who takes it.
        let mut wait = Box::pin(near.readable());
        assert!(poll_once(&mut wait).await.is_pending());
        let (got, ()) = join(near.recv(), async {
            far.write_all(b"y").await.unwrap();
        })
        .await;
        assert_eq!(*got.unwrap(), *b"y");
        drop(wait);
        assert!(is_pending(near.readable()).await);
    });
}

fn waits_end_with_the_runtime(rt: Runtime) {
    let ((near, _far), socket) = rt.block_on(async {
        let socket = UdpSocket::bind(LOCAL).await.unwrap();
        let (near, far) = pair().await;
        assert!(is_pending(near.readable()).await);
        assert!(is_pending(socket.readable()).await);
        yield_now().await;
        ((near, far), socket)
    });
    drop(rt);
    let ends = async {
        for _ in 0..2 {
            let errors = [near.readable().await, socket.readable().await];
            for error in errors {
                assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
            }
        }
    };
    common::futures::park_on(ends);
}
