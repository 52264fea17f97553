//! What travels beside a datagram's bytes, and several datagrams at once.

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use common::{LOCAL, everywhere};
use isochrome::Runtime;
use isochrome::net::{Arrival, Received, Transmit, UdpSocket};

everywhere!(
    everything_is_told_of_version_four,
    everything_is_told_of_version_six,
    a_socket_of_both_versions_speaks_both,
    nothing_is_told_unasked,
    slices_are_gathered_and_filled,
    the_source_is_chosen,
    segments_go_out_as_datagrams,
    segments_come_in_as_one,
    batches,
    a_batch_waits_for_the_first_only,
    what_was_dropped_is_counted,
);

async fn bound(on: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(on).await.expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

fn tell_everything(socket: &UdpSocket) {
    socket.set_packet_info(true).unwrap();
    socket.set_recv_tos(true).unwrap();
    socket.set_recv_ttl(true).unwrap();
    socket.set_timestamps(true).unwrap();
    socket.set_drop_count(true).unwrap();
    socket.set_gro(true).unwrap();
}

async fn recv(socket: &UdpSocket, buf: &mut [u8]) -> Arrival {
    let arrival = socket.recv_msg(&mut [IoSliceMut::new(buf)]).await;
    arrival.expect("a datagram")
}

/// Sends with and receives all that there is between these two.
async fn there_and_told(
    receiver: &UdpSocket,
    to: SocketAddr,
    sender: &UdpSocket,
    from: SocketAddr,
) {
    tell_everything(receiver);
    let bufs = [IoSlice::new(b"hello")];
    for (tos, ttl) in [(0b10, 3), (0b1011_1001, 255), (0, 64)] {
        let transmit = Transmit {
            tos: Some(tos),
            ttl: Some(ttl),
            ..Transmit::new(&bufs, Some(to))
        };
        assert_eq!(sender.send_msg(&transmit).await.unwrap(), 5);
        let mut buf = [0; 20];
        let arrival = recv(receiver, &mut buf).await;
        assert_eq!(arrival.received, Received { len: 5, size: 5 });
        assert_eq!(arrival.from, from);
        assert_eq!(arrival.to, Some(to.ip()));
        assert!(arrival.interface.is_some_and(|number| number > 0));
        assert_eq!((arrival.tos, arrival.ttl), (Some(tos), Some(ttl)));
        assert_eq!(arrival.ecn(), Some(tos & 0b11));
        let time = arrival.time.expect("a time");
        // The clock may be set meanwhile, but hardly by that.
        let now = SystemTime::now();
        let ago = now.duration_since(time).unwrap_or_else(|e| e.duration());
        assert!(ago < Duration::from_secs(3600), "{ago:?}");
        assert_eq!(arrival.segment, None);
        assert_eq!(&buf[..5], b"hello");
    }
}

fn everything_is_told_of_version_four(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        let (b, at_b) = bound(LOCAL).await;
        there_and_told(&a, at_a, &b, at_b).await;
    });
}

fn everything_is_told_of_version_six(rt: Runtime) {
    rt.block_on(async {
        if UdpSocket::bind("[::1]:0").await.is_err() {
            return println!("skipped: no IPv6 here");
        }
        let (a, at_a) = bound("[::1]:0").await;
        let (b, at_b) = bound("[::1]:0").await;
        there_and_told(&a, at_a, &b, at_b).await;
    });
}

fn a_socket_of_both_versions_speaks_both(rt: Runtime) {
    rt.block_on(async {
        let Ok(both) = UdpSocket::bind("[::]:0").await else {
            return println!("skipped: no IPv6 here");
        };
        let port = both.local_addr().unwrap().port();
        tell_everything(&both);
        let (four, at_four) = bound(LOCAL).await;
        tell_everything(&four);
        let mut buf = [0; 20];
        let bufs = [IoSlice::new(b"4")];
        let to = (Ipv4Addr::LOCALHOST, port).into();
        let transmit = Transmit {
            tos: Some(1),
            ttl: Some(9),
            ..Transmit::new(&bufs, Some(to))
        };
        four.send_msg(&transmit).await.unwrap();
        let arrival = recv(&both, &mut buf).await;
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(arrival.from, (mapped, at_four.port()).into());
        assert_eq!(arrival.to.map(|to| to.to_canonical()), Some(to.ip()));
        assert_eq!((arrival.tos, arrival.ttl), (Some(1), Some(9)));
        let transmit = Transmit {
            tos: Some(2),
            ttl: Some(7),
            from: arrival.to,
            ..Transmit::new(&bufs, Some(arrival.from))
        };
        both.send_msg(&transmit).await.unwrap();
        let arrival = recv(&four, &mut buf).await;
        assert_eq!(arrival.from, to);
        assert_eq!((arrival.tos, arrival.ttl), (Some(2), Some(7)));
    });
}

fn nothing_is_told_unasked(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        let (b, from) = bound(LOCAL).await;
        b.connect(at_a).await.unwrap();
        let bufs = [IoSlice::new(b"x")];
        b.send_msg(&Transmit::new(&bufs, None)).await.unwrap();
        let arrival = recv(&a, &mut [0; 4]).await;
        let mut expected = Arrival::NONE;
        expected.received = Received { len: 1, size: 1 };
        expected.from = from;
        assert_eq!(arrival, expected);
    });
}

fn slices_are_gathered_and_filled(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        let (b, _) = bound(LOCAL).await;
        let bufs = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
        let transmit = Transmit::new(&bufs, Some(at_a));
        assert_eq!(b.send_msg(&transmit).await.unwrap(), 5);
        assert_eq!(b.try_send_msg(&transmit).unwrap(), 5);
        let (mut first, mut second) = ([0; 1], [0; 3]);
        for _ in 0..2 {
            let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            let arrival = a.recv_msg(&mut bufs).await.unwrap();
            assert_eq!(arrival.received, Received { len: 4, size: 5 });
            assert!(arrival.received.truncated());
            assert_eq!((&first, &second), (b"h", b"ell"));
        }
    });
}

fn the_source_is_chosen(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        let (b, at_b) = bound("0.0.0.0:0").await;
        let bufs = [IoSlice::new(b"x")];
        // All of 127.0.0.0/8 is this host's.
        for last in [1, 7, 200] {
            let from = IpAddr::from([127, 0, 0, last]);
            let transmit = Transmit {
                from: Some(from),
                ..Transmit::new(&bufs, Some(at_a))
            };
            b.send_msg(&transmit).await.unwrap();
            let arrival = recv(&a, &mut [0; 4]).await;
            assert_eq!(arrival.from, (from, at_b.port()).into());
        }
        // The loopback interface has number 1 in every network of Linux's.
        let transmit = Transmit {
            interface: Some(1),
            ..Transmit::new(&bufs, Some(at_a))
        };
        b.send_msg(&transmit).await.unwrap();
        assert_eq!(recv(&a, &mut [0; 4]).await.from.port(), at_b.port());
        let nowhere = Transmit {
            from: Some(IpAddr::from([192, 0, 2, 1])),
            ..Transmit::new(&bufs, Some(at_a))
        };
        let error = b.send_msg(&nowhere).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
    });
}

fn segments_go_out_as_datagrams(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        let (b, from) = bound(LOCAL).await;
        let data: Vec<u8> = (0..2500).map(|i| (i / 1000) as u8).collect();
        let bufs = [IoSlice::new(&data)];
        let transmit = Transmit {
            segment: Some(1000),
            ..Transmit::new(&bufs, Some(at_a))
        };
        assert_eq!(b.send_msg(&transmit).await.unwrap(), 2500);
        let mut buf = [9; 3000];
        for (which, len) in [(0, 1000), (1, 1000), (2, 500)] {
            let (got, who) = a.recv_from(&mut buf).await.unwrap();
            assert_eq!((got, who), (Received { len, size: len }, from));
            assert!(buf[..len].iter().all(|byte| *byte == which));
        }
        // More segments than the system takes.
        let transmit = Transmit {
            segment: Some(1),
            ..transmit
        };
        let error = b.send_msg(&transmit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    });
}

fn segments_come_in_as_one(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        a.set_gro(true).unwrap();
        let (b, from) = bound(LOCAL).await;
        let data = vec![7; 4500];
        let bufs = [IoSlice::new(&data)];
        let transmit = Transmit {
            segment: Some(1000),
            ..Transmit::new(&bufs, Some(at_a))
        };
        b.send_msg(&transmit).await.unwrap();
        let mut buf = vec![0; 65_536];
        let mut sum = 0;
        // The kernel may keep them apart; over loopback it does not.
        while sum < data.len() {
            let arrival = recv(&a, &mut buf).await;
            assert_eq!(arrival.from, from);
            sum += arrival.received.len;
            if arrival.received.len > 1000 {
                assert_eq!(arrival.segment, Some(1000));
            }
        }
        assert_eq!(sum, data.len());
    });
}

fn batches(rt: Runtime) {
    const COUNT: usize = 40;
    const MOST: usize = 32;
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        tell_everything(&a);
        let (b, from) = bound(LOCAL).await;
        assert_eq!(b.send_batch(&[]).await.unwrap(), 0);
        let payloads: Vec<Vec<u8>> = (0..COUNT).map(|i| vec![i as u8; i]).collect();
        let bufs: Vec<_> = payloads.iter().map(|data| [IoSlice::new(data)]).collect();
        let transmits: Vec<_> = (0..)
            .zip(&bufs)
            .map(|(i, bufs)| Transmit {
                tos: Some(i),
                ..Transmit::new(bufs, Some(at_a))
            })
            .collect();
        assert_eq!(b.send_batch(&transmits).await.unwrap(), MOST);
        assert_eq!(
            b.send_batch(&transmits[MOST..]).await.unwrap(),
            COUNT - MOST
        );

        let mut space = vec![[0; 30]; COUNT];
        let mut bufs: Vec<_> = space.iter_mut().map(|s| IoSliceMut::new(s)).collect();
        let mut arrivals = [Arrival::NONE; COUNT];
        let check = |first: usize, got: usize, bufs: &[IoSliceMut<'_>], arrivals: &[Arrival]| {
            for (i, (buf, arrival)) in (first..).zip(bufs.iter().zip(&arrivals[..got])) {
                let len = i.min(30);
                assert_eq!(arrival.received, Received { len, size: i });
                assert_eq!((arrival.from, arrival.tos), (from, Some(i as u8)));
                assert_eq!(arrival.to, Some(at_a.ip()));
                assert!(arrival.time.is_some());
                assert!(buf[..len].iter().all(|byte| usize::from(*byte) == i));
            }
        };
        // Whichever slice is shorter bounds it, and so does the most.
        let got = a.recv_batch(&mut bufs, &mut arrivals[..3]).await.unwrap();
        assert_eq!(got, 3);
        check(0, got, &bufs, &arrivals);
        let got = a.recv_batch(&mut bufs[..2], &mut arrivals).await.unwrap();
        assert_eq!(got, 2);
        check(3, got, &bufs, &arrivals);
        assert_eq!(a.recv_batch(&mut [], &mut arrivals).await.unwrap(), 0);
        let got = a.recv_batch(&mut bufs, &mut arrivals).await.unwrap();
        assert_eq!(got, MOST);
        check(5, got, &bufs, &arrivals);
        let got = a.try_recv_batch(&mut bufs, &mut arrivals).unwrap();
        assert_eq!(got, COUNT - MOST - 5);
        check(5 + MOST, got, &bufs, &arrivals);
        let blocked = a.try_recv_batch(&mut bufs, &mut arrivals).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    });
}

fn a_batch_waits_for_the_first_only(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        let (b, _) = bound(LOCAL).await;
        let mut space = [[0; 8]; 4];
        let mut arrivals = [Arrival::NONE; 4];
        let receiver = async {
            let mut bufs = space.each_mut().map(|s| IoSliceMut::new(s));
            a.recv_batch(&mut bufs, &mut arrivals).await.unwrap()
        };
        let sender = async {
            isochrome::yield_now().await;
            b.send_to(b"one", at_a).await.unwrap();
        };
        let (got, ()) = common::futures::join(receiver, sender).await;
        assert_eq!((got, arrivals[0].received.len), (1, 3));
        // An error that comes later comes with the next call.
        let bufs = [IoSlice::new(b"x")];
        let long = vec![0; 66_000];
        let too_long = [IoSlice::new(&long)];
        let transmits = [
            Transmit::new(&bufs, Some(at_a)),
            Transmit::new(&too_long, Some(at_a)),
        ];
        assert_eq!(b.send_batch(&transmits).await.unwrap(), 1);
        let error = b.send_batch(&transmits[1..]).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    });
}

fn what_was_dropped_is_counted(rt: Runtime) {
    rt.block_on(async {
        let (a, at_a) = bound(LOCAL).await;
        a.set_drop_count(true).unwrap();
        a.set_recv_buffer_size(1).unwrap();
        let (b, _) = bound(LOCAL).await;
        for _ in 0..200 {
            b.send_to(&[0; 1000], at_a).await.unwrap();
        }
        let mut received = 0;
        let mut bufs = [0; 1000];
        while a.try_recv(&mut bufs).is_ok() {
            received += 1;
        }
        b.send_to(b"x", at_a).await.unwrap();
        let arrival = recv(&a, &mut bufs).await;
        assert_eq!(arrival.dropped, Some(200 - received));
    });
}
