//! Local sockets with messages: datagrams and seqpackets.

mod common;

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net as std_unix;
use std::pin::pin;
use std::sync::Arc;

use common::agree::same_error as same;
use common::everywhere;
use common::futures::{give_up, join};
use common::local::{Place, abstract_name, stale};
use isochrome::net::{
    Received, SocketFile, UnixDatagram, UnixSeqpacket, UnixSeqpacketListener, UnixStream,
};
use isochrome::{Color, Runtime};

everywhere!(
    datagrams_know_their_sender,
    a_pair_of_datagram_sockets,
    datagrams_that_do_not_fit_are_told,
    a_sender_waits_for_room_and_loses_nothing,
    errors_of_datagrams_are_those_of_std,
    names_that_are_taken,
    std_sockets_are_taken_over_and_given_back,
    packets_keep_their_boundaries,
    an_empty_packet_is_not_the_end,
    the_end_comes_after_all_packets,
    packets_wait_for_room_and_none_is_lost,
    a_listener_for_packets,
    sockets_of_another_kind_are_refused,
    a_peer_that_is_gone,
    a_receiver_that_never_waits_yields,
    a_wait_ends_with_the_runtime,
);

fn whole(len: usize) -> Received {
    Received { len, size: len }
}

fn datagrams_know_their_sender(rt: Runtime) {
    let place = Place::new();
    let (path, name) = (place.path("socket"), abstract_name());
    rt.block_on(async {
        let a = UnixDatagram::bind(&path).unwrap();
        let _file = SocketFile::of(&a).unwrap();
        let b = UnixDatagram::bind(&name).unwrap();
        let unnamed = UnixDatagram::unbound().unwrap();
        let mut buf = [0; 20];
        for _ in 0..10 {
            let (got, ()) = join(a.recv_from(&mut buf), async {
                assert_eq!(b.send_to(b"from b", &path).await.unwrap(), 6);
            })
            .await;
            let (got, from) = got.unwrap();
            assert_eq!(got, whole(6));
            assert_eq!(
                format!("{from:?}"),
                format!("{:?}", b.local_addr().unwrap())
            );
            // Back to where it came from.
            a.send_to(b"back", &from).await.unwrap();
            let (got, from) = b.recv_from(&mut buf).await.unwrap();
            assert_eq!((got, from.as_pathname()), (whole(4), Some(&*path)));
        }
        unnamed.send_to(b"who?", &name).await.unwrap();
        let (got, from) = b.peek_from(&mut buf).await.unwrap();
        assert!(got.len == 4 && from.is_unnamed());
        let (got, from) = b.try_recv_from(&mut buf).unwrap();
        assert!(got.len == 4 && from.is_unnamed());
        // Connected, it hears its peer alone.
        b.connect(&path).unwrap();
        same(
            unnamed.try_send_to(b"x", &name),
            Err::<(), _>(io::Error::from_raw_os_error(libc::EPERM)),
        );
        assert_eq!(b.peer_addr().unwrap().as_pathname(), Some(&*path));
        b.send(b"to a").await.unwrap();
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(4));
        assert!(format!("{a:?}").contains("UnixDatagram {"));
    });
}

fn a_pair_of_datagram_sockets(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixDatagram::pair().unwrap();
        let mut buf = [0; 20];
        for data in [&b"one"[..], b"", b"three"] {
            a.send(data).await.unwrap();
            assert_eq!(b.recv(&mut buf).await.unwrap(), whole(data.len()));
            assert_eq!(&buf[..data.len()], data);
        }
        let blocked = b.try_recv_from(&mut buf).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
        assert_eq!(a.try_send(b"four").unwrap(), 4);
        let got = poll_fn(|cx| b.poll_recv_from(cx, &mut buf)).await.unwrap();
        assert_eq!(got.0, whole(4));
        assert_eq!(poll_fn(|cx| b.poll_send(cx, b"back")).await.unwrap(), 4);
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(4));
        let cred = a.peer_cred().unwrap();
        assert_eq!(cred.pid, Some(std::process::id() as i32));
        let alone = UnixDatagram::unbound().unwrap();
        let error = alone.peer_cred().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        a.shutdown(Shutdown::Both).unwrap();
        let error = a.send(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

fn datagrams_that_do_not_fit_are_told(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixDatagram::pair().unwrap();
        let (c, d) = UnixSeqpacket::pair().unwrap();
        let mut buf = [0; 3];
        let cut = Received { len: 3, size: 10 };
        for _ in 0..3 {
            a.send(b"0123456789").await.unwrap();
            c.send(b"0123456789").await.unwrap();
        }
        assert_eq!(b.recv(&mut buf).await.unwrap(), cut);
        assert_eq!(b.recv_from(&mut buf).await.unwrap().0, cut);
        assert_eq!(b.recv_with_fds(&mut buf).await.unwrap().0, cut);
        assert_eq!(d.peek(&mut buf).await.unwrap(), Some(cut));
        assert_eq!(d.recv(&mut buf).await.unwrap(), Some(cut));
        assert_eq!(d.try_recv(&mut buf).unwrap(), Some(cut));
        let (got, fds) = d.recv_with_fds(&mut buf).await.unwrap().unwrap();
        assert_eq!((got, fds.unwrap().len()), (cut, 0));
        assert!(got.truncated());
        assert_eq!(&buf, b"012");
    });
}

/// Far more than the kernel queues between two sockets.
const MANY: u32 = 3000;

fn a_sender_waits_for_room_and_loses_nothing(rt: Runtime) {
    let name = abstract_name();
    rt.block_on(async {
        let receiver = Arc::new(UnixDatagram::bind(&name).unwrap());
        let sender = UnixDatagram::unbound().unwrap();
        // Until there is no room.
        let mut sent: u32 = 0;
        while give_up(sender.send_to(&sent.to_ne_bytes(), &name))
            .await
            .is_ready()
        {
            sent += 1;
            assert!(sent < MANY, "the kernel bounds its queues");
        }
        let blocked = sender.try_send_to(b"x", &name).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
        let task = {
            let receiver = receiver.clone();
            Color::new().spawn(async move {
                let mut buf = [0; 8];
                for i in 0..MANY {
                    if i % 7 == 0 {
                        let _ = give_up(async {
                            isochrome::yield_now().await;
                            receiver.recv(&mut [0; 8]).await
                        })
                        .await;
                    }
                    assert_eq!(receiver.recv(&mut buf).await.unwrap(), whole(4));
                    assert_eq!(buf[..4], i.to_ne_bytes());
                }
            })
        };
        for i in sent..MANY {
            assert_eq!(sender.send_to(&i.to_ne_bytes(), &name).await.unwrap(), 4);
        }
        task.await.unwrap();
        let blocked = receiver.try_recv_from(&mut [0; 8]).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    });
}

fn errors_of_datagrams_are_those_of_std(rt: Runtime) {
    let place = Place::new();
    rt.block_on(async {
        let ours = UnixDatagram::unbound().unwrap();
        let theirs = std_unix::UnixDatagram::unbound().unwrap();
        let nowhere = place.path("nowhere");
        same(
            ours.send_to(b"x", &nowhere).await,
            theirs.send_to(b"x", &nowhere),
        );
        same(ours.connect(&nowhere), theirs.connect(&nowhere));
        same(ours.send(b"x").await, theirs.send(b"x"));
        same(ours.peer_addr(), theirs.peer_addr());
        let left = place.path("stale");
        stale(&left);
        same(ours.send_to(b"x", &left).await, theirs.send_to(b"x", &left));
        same(ours.connect(&left), theirs.connect(&left));
        let error = ours.connect(&left).unwrap_err();
        assert!(error.to_string().contains("stale"), "{error}");
        let listener = place.path("listener");
        let _open = std_unix::UnixListener::bind(&listener).unwrap();
        same(ours.connect(&listener), theirs.connect(&listener));
        // Longer than what may be queued.
        let long = vec![0; 4 << 20];
        let to = place.path("socket");
        let _receiver = UnixDatagram::bind(&to).unwrap();
        same(ours.send_to(&long, &to).await, theirs.send_to(&long, &to));
        same(UnixDatagram::bind(&to), std_unix::UnixDatagram::bind(&to));
    });
}

fn names_that_are_taken(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    stale(&path);
    rt.block_on(async {
        let errors = [
            UnixDatagram::bind(&path).unwrap_err(),
            UnixSeqpacketListener::bind(&path).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().contains("remove the file"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let _living = UnixDatagram::bind(&path).unwrap();
        let error = UnixDatagram::bind(&path).unwrap_err();
        assert!(error.to_string().contains("living"), "{error}");
        let error = UnixSeqpacket::connect(&path).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE));
    });
}

fn std_sockets_are_taken_over_and_given_back(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = std_unix::UnixDatagram::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        let a = UnixDatagram::from_std(a).unwrap();
        b.send(b"over").unwrap();
        let mut buf = [0; 8];
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(4));
        assert!(give_up(a.recv(&mut buf)).await.is_pending());
        b.send(b"back").unwrap();
        let a = a.into_std().await.unwrap();
        assert_eq!(a.recv(&mut buf).unwrap(), 4);
    });
}

fn packets_keep_their_boundaries(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let mut buf = [0; 200];
        for _ in 0..3 {
            for len in [1_usize, 100, 0, 7] {
                assert_eq!(a.send(&vec![len as u8; len]).await.unwrap(), len);
            }
            for len in [1, 100, 0, 7] {
                assert_eq!(b.recv(&mut buf).await.unwrap(), Some(whole(len)));
                assert!(buf[..len].iter().all(|byte| usize::from(*byte) == len));
            }
            let blocked = b.try_recv(&mut buf).unwrap_err();
            assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
            let (got, sent) = join(
                poll_fn(|cx| b.poll_recv(cx, &mut buf)),
                poll_fn(|cx| a.poll_send(cx, b"polled")),
            )
            .await;
            assert_eq!((got.unwrap(), sent.unwrap()), (Some(whole(6)), 6));
            assert_eq!(b.try_send(b"back").unwrap(), 4);
            assert_eq!(a.recv(&mut buf).await.unwrap(), Some(whole(4)));
        }
        let cred = a.peer_cred().unwrap();
        assert_eq!(cred.pid, Some(std::process::id() as i32));
        assert!(a.local_addr().unwrap().is_unnamed());
        assert!(a.peer_addr().unwrap().is_unnamed());
        assert!(format!("{a:?}").contains("UnixSeqpacket {"));
    });
}

fn an_empty_packet_is_not_the_end(rt: Runtime) {
    rt.block_on(async {
        for half in [true, false] {
            let (a, b) = UnixSeqpacket::pair().unwrap();
            let mut buf = [0; 8];
            a.send(b"").await.unwrap();
            assert_eq!(b.peek(&mut buf).await.unwrap(), Some(whole(0)));
            assert_eq!(b.recv(&mut buf).await.unwrap(), Some(whole(0)));
            a.send(b"").await.unwrap();
            a.send(b"").await.unwrap();
            // Even where the end is there behind it.
            let rest = if half {
                a.shutdown(Shutdown::Write).unwrap();
                Some(a)
            } else {
                drop(a);
                None
            };
            assert_eq!(b.recv(&mut buf).await.unwrap(), Some(whole(0)));
            // Nor is it one for a buffer without room.
            assert_eq!(b.recv(&mut []).await.unwrap(), Some(whole(0)));
            for _ in 0..3 {
                assert_eq!(b.peek(&mut buf).await.unwrap(), None);
                assert_eq!(b.recv(&mut buf).await.unwrap(), None);
                assert_eq!(b.try_recv(&mut buf).unwrap(), None);
                assert!(b.recv_with_fds(&mut buf).await.unwrap().is_none());
            }
            drop(rest);
        }
        // One that was sent before the other end asked for anything.
        let name = abstract_name();
        let listener = UnixSeqpacketListener::bind(&name).unwrap();
        let near = UnixSeqpacket::connect(&name).await.unwrap();
        near.send(b"").await.unwrap();
        drop(near);
        let (far, _) = listener.accept().await.unwrap();
        assert_eq!(far.recv(&mut [0; 8]).await.unwrap(), Some(whole(0)));
        assert_eq!(far.recv(&mut [0; 8]).await.unwrap(), None);
    });
}

fn the_end_comes_after_all_packets(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let waiting = Color::new().spawn(async move {
            let mut buf = [0; 8];
            let mut count = 0;
            while let Some(got) = b.recv(&mut buf).await.unwrap() {
                assert_eq!(got, whole(count % 3));
                count += 1;
            }
            count
        });
        for i in 0..50 {
            a.send(&vec![0; i % 3]).await.unwrap();
            isochrome::yield_now().await;
        }
        drop(a);
        assert_eq!(waiting.await.unwrap(), 50);
    });
}

fn packets_wait_for_room_and_none_is_lost(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        a.set_send_buffer_size(16 << 10).unwrap();
        assert!(a.send_buffer_size().unwrap() >= 16 << 10);
        let mut sent: u32 = 0;
        while give_up(a.send(&sent.to_ne_bytes())).await.is_ready() {
            sent += 1;
            assert!(sent < MANY, "the kernel bounds its queues");
        }
        let task = Color::new().spawn(async move {
            let mut buf = [0; 8];
            for i in 0..MANY {
                if i % 5 == 0 {
                    // Given up before it began.
                    drop(b.recv(&mut [0; 8]));
                }
                assert_eq!(b.recv(&mut buf).await.unwrap(), Some(whole(4)));
                assert_eq!(buf[..4], i.to_ne_bytes());
            }
            assert_eq!(b.recv(&mut buf).await.unwrap(), None);
        });
        for i in sent..MANY {
            a.send(&i.to_ne_bytes()).await.unwrap();
        }
        drop(a);
        task.await.unwrap();
    });
}

fn a_listener_for_packets(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    rt.block_on(async {
        let listener = UnixSeqpacketListener::bind(&path).unwrap();
        let file = SocketFile::of(&listener).unwrap();
        let server = Color::new().spawn(async move {
            for i in 0..5 {
                let packets = listener.incoming().next().await.unwrap().unwrap();
                let mut buf = [0; 8];
                assert_eq!(packets.recv(&mut buf).await.unwrap(), Some(whole(i)));
                packets.send(&buf[..i]).await.unwrap();
            }
            listener
        });
        for i in 0..5 {
            let near = UnixSeqpacket::connect(&path).await.unwrap();
            assert_eq!(near.peer_addr().unwrap().as_pathname(), Some(&*path));
            near.send(&vec![1; i]).await.unwrap();
            assert_eq!(near.recv(&mut [0; 8]).await.unwrap(), Some(whole(i)));
            assert_eq!(near.recv(&mut [0; 8]).await.unwrap(), None);
        }
        let listener = server.await.unwrap();
        assert!(format!("{listener:?}").contains("UnixSeqpacketListener {"));
        let again = UnixSeqpacketListener::from_fd(listener.as_fd().try_clone_to_owned().unwrap());
        drop((listener, again.unwrap(), file));
        assert!(!path.exists());
    });
}

fn sockets_of_another_kind_are_refused(rt: Runtime) {
    rt.block_on(async {
        let stream = UnixStream::pair().unwrap().0;
        let fd = stream.as_fd().try_clone_to_owned().unwrap();
        let error = UnixSeqpacket::from_fd(fd).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let fd = stream.as_fd().try_clone_to_owned().unwrap();
        let error = UnixSeqpacketListener::from_fd(fd).unwrap_err();
        assert!(error.to_string().contains("SOCK_SEQPACKET"), "{error}");
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let a = UnixSeqpacket::from_fd(a.as_fd().try_clone_to_owned().unwrap()).unwrap();
        a.send(b"x").await.unwrap();
        assert_eq!(b.recv(&mut [0; 8]).await.unwrap(), Some(whole(1)));
    });
}

fn a_peer_that_is_gone(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        a.send(b"unread").await.unwrap();
        drop(b);
        let error = a.recv(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(a.recv(&mut [0; 8]).await.unwrap(), None);
        let error = a.send(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        let (a, b) = UnixDatagram::pair().unwrap();
        let (std_a, std_b) = std_unix::UnixDatagram::pair().unwrap();
        drop((b, std_b));
        same(a.send(b"x").await, std_a.send(b"x"));
    });
}

fn a_receiver_that_never_waits_yields(rt: Runtime) {
    const COUNT: usize = 1300;
    /// Of operations in one poll, at most.
    const BUDGET: usize = 128;
    rt.block_on(async {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let mut polls = 0;
        {
            let mut all = pin!(async {
                for _ in 0..COUNT {
                    a.send(b"x").await.unwrap();
                    b.recv(&mut [0; 8]).await.unwrap();
                }
            });
            poll_fn(|cx| {
                polls += 1;
                all.as_mut().poll(cx)
            })
            .await;
        }
        assert!(polls >= 2 * COUNT / BUDGET, "{polls} polls");
    });
}

fn a_wait_ends_with_the_runtime(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let (c, d) = UnixDatagram::pair().unwrap();
        let _left = Color::new().spawn(async move {
            let _held = (b, d);
            let _ = join(a.recv(&mut [0; 8]), c.recv(&mut [0; 8])).await;
        });
        isochrome::yield_now().await;
    });
}
