//! UDP: round trips, what is told of datagrams, errors as std has them, and
//! that giving up loses nothing.

mod common;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::agree::same_error as same;
use common::{LOCAL, everywhere};
use isochrome::net::{Received, UdpSocket};
use isochrome::{Color, Runtime};

everywhere!(
    datagrams_go_there_and_back,
    version_six,
    what_does_not_fit_is_told,
    looking_takes_nothing,
    the_empty_datagram_is_one,
    trying_never_waits,
    polling,
    errors_are_those_of_std,
    a_refusal_is_told_once,
    std_sockets_are_taken_over_and_given_back,
    giving_up_loses_no_datagram,
    receivers_share_the_datagrams,
    a_receiver_that_never_waits_yields,
    options,
    multicast,
    a_wait_ends_with_the_runtime,
);

pub(crate) async fn bound() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(LOCAL).await.expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// Two sockets that are connected to each other.
async fn connected() -> (UdpSocket, UdpSocket) {
    let (a, at_a) = bound().await;
    let (b, at_b) = bound().await;
    a.connect(at_b).await.unwrap();
    b.connect(at_a).await.unwrap();
    (a, b)
}

fn whole(len: usize) -> Received {
    Received { len, size: len }
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn datagrams_go_there_and_back(rt: Runtime) {
    rt.block_on(async {
        let (server, address) = bound().await;
        let echo = Color::new().spawn(async move {
            let mut buf = [0; 2000];
            loop {
                let (got, from) = server.recv_from(&mut buf).await.unwrap();
                assert!(!got.truncated());
                server.send_to(&buf[..got.len], from).await.unwrap();
                if got.len == 0 {
                    return;
                }
            }
        });
        let (client, at) = bound().await;
        let mut buf = [0; 2000];
        for len in (1..1500).step_by(7).chain([0]) {
            let data = vec![len as u8; len];
            assert_eq!(client.send_to(&data, address).await.unwrap(), len);
            let (got, from) = client.recv_from(&mut buf).await.unwrap();
            assert_eq!((got, from), (whole(len), address));
            assert_eq!(buf[..len], data);
        }
        echo.await.unwrap();
        assert_ne!(at.port(), 0, "the system chose one");
        assert!(format!("{client:?}").contains(&at.to_string()));
    });
}

fn version_six(rt: Runtime) {
    rt.block_on(async {
        let server = match UdpSocket::bind("[::1]:0").await {
            Ok(server) => server,
            Err(e) => return println!("skipped: no IPv6 here: {e}"),
        };
        let address = server.local_addr().unwrap();
        let client = UdpSocket::bind("[::1]:0").await.unwrap();
        client.connect(address).await.unwrap();
        assert_eq!(client.peer_addr().unwrap(), address);
        client.send(b"six").await.unwrap();
        let mut buf = [0; 10];
        let (got, from) = server.recv_from(&mut buf).await.unwrap();
        assert_eq!((got, from), (whole(3), client.local_addr().unwrap()));
        for hops in [1, 64] {
            client.set_ttl(hops).unwrap();
            assert_eq!(client.ttl().unwrap(), hops);
            client.set_multicast_ttl(hops).unwrap();
            assert_eq!(client.multicast_ttl().unwrap(), hops);
            client.set_tos(hops).unwrap();
            assert_eq!(client.tos().unwrap(), hops);
        }
        for on in [false, true] {
            client.set_multicast_loop(on).unwrap();
            assert_eq!(client.multicast_loop().unwrap(), on);
        }
        // The loopback interface has number 1 in every network of Linux's.
        let group = "ff02::1:7321".parse().unwrap();
        let member = UdpSocket::bind("[::]:0").await.unwrap();
        if let Err(e) = member.join_multicast_v6(&group, 1) {
            return println!("skipped: no multicast here: {e}");
        }
        let sender = UdpSocket::bind("[::1]:0").await.unwrap();
        sender.set_multicast_if_v6(1).unwrap();
        assert_eq!(sender.multicast_if_v6().unwrap(), 1);
        let to = (group, member.local_addr().unwrap().port()).into();
        match sender.send_to(b"all", to).await {
            Ok(_) => assert_eq!(member.recv(&mut buf).await.unwrap(), whole(3)),
            // The loopback interface needs a route for that.
            Err(e) => assert_eq!(e.kind(), ErrorKind::NetworkUnreachable),
        }
        member.leave_multicast_v6(&group, 1).unwrap();
        member.leave_multicast_v6(&group, 1).unwrap_err();
    });
}

fn what_does_not_fit_is_told(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = connected().await;
        let mut buf = [0; 4];
        for _ in 0..2 {
            b.send(b"0123456789").await.unwrap();
        }
        let cut = Received { len: 4, size: 10 };
        let got = a.recv(&mut buf).await.unwrap();
        assert_eq!(got, cut);
        assert!(got.truncated());
        let (got, from) = a.recv_from(&mut buf).await.unwrap();
        assert_eq!((got, from), (cut, b.local_addr().unwrap()));
        assert_eq!(&buf, b"0123");
        // The rest of a datagram is not the next one.
        b.send(b"new").await.unwrap();
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(3));
    });
}

fn looking_takes_nothing(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = connected().await;
        let mut buf = [0; 3];
        let cut = Received { len: 3, size: 5 };
        {
            let mut look = pin!(a.peek(&mut buf));
            assert!(poll_once(look.as_mut()).is_pending());
            b.send(b"12345").await.unwrap();
            assert_eq!(look.await.unwrap(), cut);
        }
        let seen = a.peek_from(&mut buf).await.unwrap();
        assert_eq!(seen, (cut, b.local_addr().unwrap()));
        let mut buf = [0; 10];
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(5));
        let blocked = a.try_recv(&mut buf).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    });
}

fn the_empty_datagram_is_one(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = connected().await;
        b.send(b"").await.unwrap();
        b.send(b"x").await.unwrap();
        let mut buf = [9; 3];
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(0));
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(1));
        // And an empty buffer takes one.
        b.send(b"xyz").await.unwrap();
        let cut = Received { len: 0, size: 3 };
        assert_eq!(a.recv(&mut []).await.unwrap(), cut);
        let blocked = a.try_recv(&mut buf).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    });
}

fn trying_never_waits(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = connected().await;
        let mut buf = [0; 10];
        let blocked = a.try_recv_from(&mut buf).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
        assert_eq!(b.try_send(b"one").unwrap(), 3);
        let to = a.local_addr().unwrap();
        // Of connected sockets too.
        assert_eq!(b.try_send_to(b"two!", to).unwrap(), 4);
        let from = b.local_addr().unwrap();
        assert_eq!(a.recv(&mut buf).await.unwrap(), whole(3));
        assert_eq!(a.try_recv_from(&mut buf).unwrap(), (whole(4), from));
    });
}

fn polling(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = connected().await;
        let (to, from) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        for _ in 0..20 {
            let receiver = async {
                let mut buf = [0; 10];
                let got = poll_fn(|cx| a.poll_recv(cx, &mut buf)).await;
                assert_eq!(got.unwrap(), whole(3));
                let got = poll_fn(|cx| a.poll_recv_from(cx, &mut buf)).await;
                assert_eq!(got.unwrap(), (whole(4), from));
            };
            let mut receiver = pin!(receiver);
            assert!(poll_once(receiver.as_mut()).is_pending());
            let sent = poll_fn(|cx| b.poll_send(cx, b"one")).await;
            assert_eq!(sent.unwrap(), 3);
            let sent = poll_fn(|cx| b.poll_send_to(cx, b"two!", to)).await;
            assert_eq!(sent.unwrap(), 4);
            receiver.await;
        }
    });
}

fn errors_are_those_of_std(rt: Runtime) {
    rt.block_on(async {
        let (ours, address) = bound().await;
        let theirs = std::net::UdpSocket::bind(LOCAL).unwrap();
        // In use; not of this host.
        same(
            UdpSocket::bind(address).await,
            std::net::UdpSocket::bind(address),
        );
        let elsewhere = "192.0.2.1:0";
        same(
            UdpSocket::bind(elsewhere).await,
            std::net::UdpSocket::bind(elsewhere),
        );
        // Not connected.
        same(ours.send(b"x").await, theirs.send(b"x"));
        same(ours.peer_addr(), theirs.peer_addr());
        // Too long: a datagram's length has 16 bits.
        let long = vec![0; 65_508];
        let to = theirs.local_addr().unwrap();
        same(ours.send_to(&long, to).await, theirs.send_to(&long, to));
        assert_eq!(ours.send_to(&long[1..], to).await.unwrap(), 65_507);
        // Not permitted, and of another family.
        let all: SocketAddr = "255.255.255.255:9".parse().unwrap();
        same(ours.send_to(b"x", all).await, theirs.send_to(b"x", all));
        let six: SocketAddr = "[::1]:9".parse().unwrap();
        same(ours.send_to(b"x", six).await, theirs.send_to(b"x", six));
        same(ours.connect(six).await, theirs.connect(six));
        // The second of two addresses may do.
        let both = [six, to];
        ours.connect(&both[..]).await.unwrap();
        assert_eq!(ours.peer_addr().unwrap(), to);
    });
}

fn a_refusal_is_told_once(rt: Runtime) {
    rt.block_on(async {
        let (gone, nobody) = bound().await;
        drop(gone);
        let (socket, _) = bound().await;
        let std = std::net::UdpSocket::bind(LOCAL).unwrap();
        // On the proactor the close waits for the end of what was in flight.
        common::eventually_async("the port is closed", || {
            std::net::UdpSocket::bind(nobody).is_ok()
        })
        .await;
        std.connect(nobody).unwrap();
        socket.connect(nobody).await.unwrap();
        let mut buf = [0; 10];
        for _ in 0..3 {
            {
                let mut waiting = pin!(socket.recv(&mut buf));
                assert!(poll_once(waiting.as_mut()).is_pending());
                socket.send(b"x").await.unwrap();
                std.send(b"x").unwrap();
                same(waiting.await, std.recv(&mut [0; 10]));
            }
            // It was told.
            let blocked = socket.try_recv(&mut buf).unwrap_err();
            assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
            // By the next send as well, or by asking.
            socket.send(b"x").await.unwrap();
            std.send(b"x").unwrap();
            same(socket.send(b"x").await, std.send(b"x"));
            socket.send(b"x").await.unwrap();
            let refused = socket.take_error().unwrap().expect("an error");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        // Who waits goes on when the error was taken by another.
        let mut waiting = pin!(socket.recv(&mut buf));
        assert!(poll_once(waiting.as_mut()).is_pending());
        socket.send(b"x").await.unwrap();
        let _ = socket.take_error();
        let peer = UdpSocket::bind(nobody).await.unwrap();
        let to = socket.local_addr().unwrap();
        peer.send_to(b"late", to).await.unwrap();
        let got = match waiting.await {
            Ok(got) => got,
            // It was quicker than the taking.
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                socket.recv(&mut [0; 10]).await.unwrap()
            }
            Err(e) => panic!("{e}"),
        };
        assert_eq!(got.size, 4);
    });
}

fn std_sockets_are_taken_over_and_given_back(rt: Runtime) {
    rt.block_on(async {
        let (peer, at) = bound().await;
        let mut buf = [0; 10];
        for blocking in [true, false] {
            let std = std::net::UdpSocket::bind(LOCAL).unwrap();
            std.set_nonblocking(!blocking).unwrap();
            let to = std.local_addr().unwrap();
            peer.send_to(b"early", to).await.unwrap();
            let socket = UdpSocket::from_std(std).unwrap();
            assert_eq!(socket.recv_from(&mut buf).await.unwrap(), (whole(5), at));
            {
                let mut waiting = pin!(socket.recv(&mut buf));
                assert!(poll_once(waiting.as_mut()).is_pending());
            }
            peer.send_to(b"late", to).await.unwrap();
            let std = socket.into_std().await.unwrap();
            assert_eq!(std.local_addr().unwrap(), to);
            assert_eq!(std.recv(&mut buf).unwrap(), 4);
            // It blocks, as std's do.
            std.set_read_timeout(Some(std::time::Duration::from_millis(1)))
                .unwrap();
            std.recv(&mut buf).unwrap_err();
        }
    });
}

fn giving_up_loses_no_datagram(rt: Runtime) {
    const COUNT: u32 = 400;
    rt.block_on(async {
        let (a, b) = connected().await;
        // In steps, because the buffer is bounded.
        for first in (0..COUNT).step_by(40) {
            let sender = async {
                for i in first..first + 40 {
                    b.send(&i.to_ne_bytes()).await.unwrap();
                    isochrome::yield_now().await;
                }
            };
            let receiver = async {
                let mut next = first;
                let mut turn = 0;
                while next < first + 40 {
                    turn += 1;
                    let mut buf = [0; 8];
                    // Given up before, while and after it is ready.
                    let got = {
                        let mut recv = pin!(a.recv(&mut buf));
                        let got = poll_once(recv.as_mut());
                        if got.is_pending() && turn % 3 == 0 {
                            isochrome::yield_now().await;
                        }
                        got
                    };
                    match got {
                        Poll::Ready(got) => {
                            assert_eq!(got.unwrap(), whole(4));
                            assert_eq!(buf[..4], next.to_ne_bytes());
                            next += 1;
                        }
                        Poll::Pending => isochrome::yield_now().await,
                    }
                }
            };
            common::futures::join(sender, receiver).await;
        }
        let blocked = a.try_recv(&mut [0; 8]).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    });
}

fn receivers_share_the_datagrams(rt: Runtime) {
    const EACH: usize = 25;
    rt.block_on(async {
        let (a, b) = connected().await;
        let a = Arc::new(a);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let a = a.clone();
                Color::new().spawn(async move {
                    let mut mine = Vec::new();
                    let mut buf = [0; 8];
                    for _ in 0..EACH {
                        let got = a.recv(&mut buf).await.unwrap();
                        assert_eq!(got, whole(4));
                        mine.push(u32::from_ne_bytes(buf[..4].try_into().unwrap()));
                    }
                    mine
                })
            })
            .collect();
        for i in 0..(8 * EACH) as u32 {
            b.send(&i.to_ne_bytes()).await.unwrap();
            isochrome::yield_now().await;
        }
        let mut all = HashSet::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        assert_eq!(all.len(), 8 * EACH);
    });
}

fn a_receiver_that_never_waits_yields(rt: Runtime) {
    const COUNT: usize = 1300;
    /// Of operations in one poll, at most.
    const BUDGET: usize = 128;
    rt.block_on(async {
        let (a, b) = connected().await;
        let mut polls = 0;
        {
            let mut all = pin!(async {
                let mut buf = [0; 8];
                for _ in 0..COUNT {
                    b.send(b"x").await.unwrap();
                    a.recv(&mut buf).await.unwrap();
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

fn options(rt: Runtime) {
    rt.block_on(async {
        let (socket, _) = bound().await;
        for on in [true, false] {
            socket.set_broadcast(on).unwrap();
            assert_eq!(socket.broadcast().unwrap(), on);
            socket.set_multicast_loop(on).unwrap();
            assert_eq!(socket.multicast_loop().unwrap(), on);
        }
        for interface in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            socket.set_multicast_if_v4(interface).unwrap();
            assert_eq!(socket.multicast_if_v4().unwrap(), interface);
        }
        for n in [1, 7] {
            socket.set_ttl(n).unwrap();
            assert_eq!(socket.ttl().unwrap(), n);
            socket.set_multicast_ttl(n).unwrap();
            assert_eq!(socket.multicast_ttl().unwrap(), n);
            socket.set_tos(n << 2).unwrap();
            assert_eq!(socket.tos().unwrap(), n << 2);
        }
        for size in [8 << 10, 64 << 10] {
            socket.set_recv_buffer_size(size).unwrap();
            assert!(socket.recv_buffer_size().unwrap() >= size);
            socket.set_send_buffer_size(size).unwrap();
            assert!(socket.send_buffer_size().unwrap() >= size);
        }
        assert!(socket.take_error().unwrap().is_none());
    });
}

fn multicast(rt: Runtime) {
    let group = Ipv4Addr::new(239, 255, 73, 21);
    let on = Ipv4Addr::LOCALHOST;
    rt.block_on(async {
        let (member, _) = bound().await;
        let any = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        drop(member);
        if let Err(e) = any.join_multicast_v4(group, on) {
            return println!("skipped: no multicast here: {e}");
        }
        let std = std::net::UdpSocket::bind(LOCAL).unwrap();
        std.join_multicast_v4(&group, &on).unwrap();
        same(
            any.join_multicast_v4(group, on),
            std.join_multicast_v4(&group, &on),
        );
        same(
            any.join_multicast_v4(on, on),
            std.join_multicast_v4(&on, &on),
        );
        let (sender, from) = bound().await;
        sender.set_multicast_if_v4(on).unwrap();
        sender.set_multicast_loop(true).unwrap();
        let to = SocketAddr::new(IpAddr::V4(group), any.local_addr().unwrap().port());
        sender.send_to(b"all", to).await.unwrap();
        let mut buf = [0; 10];
        assert_eq!(any.recv_from(&mut buf).await.unwrap(), (whole(3), from));
        any.leave_multicast_v4(group, on).unwrap();
        std.leave_multicast_v4(&group, &on).unwrap();
        same(
            any.leave_multicast_v4(group, on),
            std.leave_multicast_v4(&group, &on),
        );
    });
}

fn a_wait_ends_with_the_runtime(rt: Runtime) {
    rt.block_on(async {
        let (socket, _) = bound().await;
        let _left = Color::new().spawn(async move {
            let _ = socket.recv(&mut [0; 10]).await;
        });
        isochrome::yield_now().await;
    });
}

#[test]
fn without_a_runtime_the_error_says_so() {
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("without_a_runtime");
    let std = std::net::UdpSocket::bind(LOCAL).unwrap();
    let errors = [
        common::futures::park_on(UdpSocket::bind(LOCAL)).unwrap_err(),
        UdpSocket::from_std(std).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.contains("no isochrome runtime"), "{text}");
    }
}
