//! UDP. Round trips, refusals and the errors of sending are in `tests/udp.rs`.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{self as std_net, Ipv4Addr, Ipv6Addr, SocketAddr};

use isochrome::Runtime;
use isochrome::net::{Arrival, Transmit, UdpSocket};

use socket2::SockRef;

use crate::common;
use crate::common::agree::{same, same_error};
use crate::common::{LOCAL, everywhere};

everywhere!(
    datagrams,
    sending_what_cannot_be_sent,
    receiving_what_is_not_there,
    groups,
    options,
    options_of_what_is_told,
    peers,
);

async fn twins() -> (UdpSocket, std_net::UdpSocket) {
    (
        UdpSocket::bind(LOCAL).await.unwrap(),
        std_net::UdpSocket::bind(LOCAL).unwrap(),
    )
}

/// Sends the same to both.
fn tell(ours: &UdpSocket, std: &std_net::UdpSocket, data: &[u8]) -> SocketAddr {
    let sender = std_net::UdpSocket::bind(LOCAL).unwrap();
    for to in [ours.local_addr().unwrap(), std.local_addr().unwrap()] {
        sender.send_to(data, to).unwrap();
    }
    sender.local_addr().unwrap()
}

fn datagrams(rt: Runtime) {
    rt.block_on(async {
        let (ours, std) = twins().await;
        let [mut a, mut b] = [[0; 4]; 2];
        // Those that fit, that are empty, and that are cut.
        for data in [&b"fits"[..], b"", b"is cut"] {
            tell(&ours, &std, data);
            let got = ours
                .peek_from(&mut a)
                .await
                .map(|(got, from)| (got.len, from));
            same(got, std.peek_from(&mut b));
            same(ours.peek(&mut a).await.map(|got| got.len), std.peek(&mut b));
            let got = ours.recv_from(&mut a).await;
            assert_eq!(got.as_ref().unwrap().0.size, data.len());
            same(
                got.map(|(got, from)| (got.len, from)),
                std.recv_from(&mut b),
            );
            tell(&ours, &std, data);
            same(ours.recv(&mut a).await.map(|got| got.len), std.recv(&mut b));
            let from = tell(&ours, &std, data);
            let mut bufs = [IoSliceMut::new(&mut a)];
            let got = ours.recv_msg(&mut bufs).await.unwrap();
            same(Ok((got.received.len, got.from)), std.recv_from(&mut b));
            assert_eq!(got.from, from);
            tell(&ours, &std, data);
            let looked = ours
                .try_peek_from(&mut a)
                .map(|(got, from)| (got.len, from));
            same(looked, std.peek_from(&mut b));
            same(ours.try_peek(&mut a).map(|got| got.len), std.peek(&mut b));
            assert_eq!(ours.try_peek(&mut []).unwrap().size, data.len());
            let mut bufs = [IoSliceMut::new(&mut a)];
            let got = ours.try_recv_msg(&mut bufs).unwrap();
            same(Ok((got.received.len, got.from)), std.recv_from(&mut b));
            tell(&ours, &std, data);
            let mut bufs = [IoSliceMut::new(&mut a)];
            let mut arrivals = [Arrival::NONE];
            assert_eq!(ours.recv_batch(&mut bufs, &mut arrivals).await.unwrap(), 1);
            same(Ok(arrivals[0].received.len), std.recv(&mut b));
            assert_eq!(a, b);
        }
    });
}

fn sending_what_cannot_be_sent(rt: Runtime) {
    rt.block_on(async {
        let (ours, std) = twins().await;
        let data = vec![0; 70_000];
        let bufs = [IoSlice::new(&data)];
        let here = ours.local_addr().unwrap();
        let wrong: [(&[u8], SocketAddr); 4] = [
            // No port; a broadcast; another family; too long.
            (b"x", "127.0.0.1:0".parse().unwrap()),
            (b"x", "255.255.255.255:9".parse().unwrap()),
            (b"x", "[::1]:9".parse().unwrap()),
            (&data, here),
        ];
        for (data, to) in wrong {
            same(ours.send_to(data, to).await, std.send_to(data, to));
            same(ours.try_send_to(data, to), std.send_to(data, to));
            let bufs = [IoSlice::new(data)];
            let transmit = Transmit::new(&bufs, Some(to));
            same(ours.send_msg(&transmit).await, std.send_to(data, to));
            same(ours.try_send_msg(&transmit), std.send_to(data, to));
            let batch = ours.send_batch(&[transmit]).await;
            same(batch.map(|_| data.len()), std.send_to(data, to));
            let batch = ours.try_send_batch(&[transmit]);
            same(batch.map(|_| data.len()), std.send_to(data, to));
        }
        // To nobody in particular.
        let transmit = Transmit::new(&bufs, None);
        same(ours.send_msg(&transmit).await, std.send(&data));
        same(ours.send(b"x").await, std.send(b"x"));
        same(ours.try_send(b"x"), std.send(b"x"));
    });
}

fn receiving_what_is_not_there(rt: Runtime) {
    rt.block_on(async {
        let (ours, std) = twins().await;
        std.set_nonblocking(true).unwrap();
        let [mut a, mut b] = [[0; 4]; 2];
        same(ours.try_recv(&mut a).map(|got| got.len), std.recv(&mut b));
        same(
            ours.try_recv_from(&mut a)
                .map(|(got, from)| (got.len, from)),
            std.recv_from(&mut b),
        );
        same(ours.try_peek(&mut a).map(|got| got.len), std.peek(&mut b));
        let looked = ours.try_peek_from(&mut a);
        same(
            looked.map(|(got, from)| (got.len, from)),
            std.peek_from(&mut b),
        );
        let mut bufs = [IoSliceMut::new(&mut a)];
        let got = ours.try_recv_msg(&mut bufs);
        same(got.map(|got| got.received.len), std.recv(&mut b));
        same(
            ours.try_recv_batch(&mut bufs, &mut [Arrival::NONE]),
            std.recv(&mut b),
        );
    });
}

fn groups(rt: Runtime) {
    rt.block_on(async {
        let (ours, std) = twins().await;
        let here = Ipv4Addr::LOCALHOST;
        let group = Ipv4Addr::new(239, 1, 2, 3);
        // A member; a member already; no group; no interface of this host.
        for (group, on) in [
            (group, here),
            (group, here),
            (Ipv4Addr::new(10, 0, 0, 1), here),
            (group, Ipv4Addr::new(192, 0, 2, 1)),
        ] {
            same(
                ours.join_multicast_v4(group, on),
                std.join_multicast_v4(&group, &on),
            );
        }
        for _ in 0..2 {
            same(
                ours.leave_multicast_v4(group, here),
                std.leave_multicast_v4(&group, &here),
            );
        }
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x123);
        same(
            ours.join_multicast_v6(&group, 0),
            std.join_multicast_v6(&group, 0),
        );
        same(
            ours.leave_multicast_v6(&group, 0),
            std.leave_multicast_v6(&group, 0),
        );
    });
}

fn options(rt: Runtime) {
    rt.block_on(async {
        let (ours, std) = twins().await;
        for on in [true, false] {
            same(ours.set_broadcast(on), std.set_broadcast(on));
            same(ours.broadcast(), std.broadcast());
            same(ours.set_multicast_loop(on), std.set_multicast_loop_v4(on));
            same(ours.multicast_loop(), std.multicast_loop_v4());
        }
        for ttl in [1, 255, 0, 256] {
            same(ours.set_ttl(ttl), std.set_ttl(ttl));
            same(ours.ttl(), std.ttl());
            same(ours.set_multicast_ttl(ttl), std.set_multicast_ttl_v4(ttl));
            same(ours.multicast_ttl(), std.multicast_ttl_v4());
        }
        same(
            ours.take_error().map(|e| e.is_some()),
            std.take_error().map(|e| e.is_some()),
        );
    });
}

/// Std has none of these: an option is what it was set to.
fn options_of_what_is_told(rt: Runtime) {
    rt.block_on(async {
        for on in [LOCAL, "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(on).await else {
                continue;
            };
            for on in [false, true, false] {
                socket.set_packet_info(on).unwrap();
                socket.set_recv_tos(on).unwrap();
                socket.set_recv_ttl(on).unwrap();
                socket.set_timestamps(on).unwrap();
                socket.set_drop_count(on).unwrap();
                socket.set_gro(on).unwrap();
                assert_eq!(socket.packet_info().unwrap(), on);
                assert_eq!(socket.recv_tos().unwrap(), on);
                assert_eq!(socket.recv_ttl().unwrap(), on);
                assert_eq!(socket.timestamps().unwrap(), on);
                assert_eq!(socket.drop_count().unwrap(), on);
                assert_eq!(socket.gro().unwrap(), on);
            }
            assert_eq!(socket.device().unwrap(), None);
            let reference = SockRef::from(&socket);
            let there = reference.bind_device(Some(b"no such device"));
            same(socket.bind_device(Some("no such device")), there);
            if socket.bind_device(Some("lo")).is_ok() {
                assert_eq!(socket.device().unwrap().as_deref(), Some("lo"));
            }
        }
        let std = std_net::UdpSocket::bind(LOCAL).unwrap();
        let address = std.local_addr();
        same(UdpSocket::try_from(std).unwrap().local_addr(), address);
    });
}

fn peers(rt: Runtime) {
    rt.block_on(async {
        let (ours, std) = twins().await;
        let taken = std.local_addr().unwrap();
        // In use; not of this host; not allowed, but for root.
        for address in [taken, "192.0.2.1:0".parse().unwrap()] {
            same_error(
                UdpSocket::bind(address).await,
                std_net::UdpSocket::bind(address),
            );
        }
        for name in ["127.0.0.1", "a:b", ""] {
            let error = UdpSocket::bind(name).await.unwrap_err();
            let of_std = std_net::UdpSocket::bind(name).unwrap_err();
            assert_eq!(error.kind(), of_std.kind(), "{name}");
        }
        same(ours.peer_addr(), std.peer_addr());
        let peer = std_net::UdpSocket::bind(LOCAL).unwrap();
        let address = peer.local_addr().unwrap();
        for to in ["[::1]:9".parse().unwrap(), address] {
            same(ours.connect(to).await, std.connect(to));
            same(ours.peer_addr(), std.peer_addr());
        }
        same(ours.send(b"x").await, std.send(b"x"));
        // What strangers send is not received any more.
        tell(&ours, &std, b"stranger");
        std.set_nonblocking(true).unwrap();
        let blocked: io::Result<usize> = std.recv(&mut [0; 4]);
        assert_eq!(blocked.unwrap_err().kind(), ErrorKind::WouldBlock);
        same(
            ours.try_recv(&mut [0; 4]).map(|got| got.len),
            std.recv(&mut [0; 4]),
        );
    });
}
