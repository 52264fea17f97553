//! Queues, rings and pools that are full or empty.

use super::*;

#[test]
fn a_stream_arrives_in_order_through_pauses_and_starvation() {
    for config in [Config::default(), tiny()] {
        let f = Fixture::new(config);
        let (port, mut peer) = f.tcp_pair();
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 253) as u8).collect();
        let expected = data.clone();
        let writer = thread::spawn(move || peer.write_all(&data).unwrap());
        let got = f.runtime.block_on(async {
            let mut got = Vec::new();
            loop {
                let buf = recv(&port).await.unwrap();
                if buf.is_empty() {
                    return got;
                }
                got.extend_from_slice(&buf);
            }
        });
        writer.join().unwrap();
        assert!(got == expected, "{} bytes", got.len());
        assert_eq!(f.seen().strangers, 0);
    }
}

#[test]
fn an_untaken_stream_pauses_and_loses_nothing() {
    let f = Fixture::new(Config {
        buffer_size: 64,
        ..Config::default()
    });
    let (port, mut peer) = f.tcp_pair();
    begin(&f, &port, || Op::Recv);
    for i in 0..200u8 {
        peer.write_all(&[i; 64]).unwrap();
    }
    f.until("paused", |seen| seen.in_flight == 0);
    drop(peer);
    let mut got = Vec::new();
    f.runtime.block_on(async {
        loop {
            let buf = recv(&port).await.expect("a pause is no error");
            if buf.is_empty() {
                break;
            }
            got.extend_from_slice(&buf);
        }
    });
    let expected: Vec<u8> = (0..200u8).flat_map(|i| [i; 64]).collect();
    assert_eq!(got, expected);
}

/// Sends so many full buffers, and waits until the driver has received them.
fn send_and_receive(f: &Fixture, port: &Port, peer: &mut TcpStream, buffers: usize) {
    for _ in 0..buffers {
        peer.write_all(&[7; 64]).unwrap();
    }
    let unread = || {
        let mut bytes = 0;
        // SAFETY: FIONREAD writes an int.
        let answer =
            unsafe { libc::ioctl(port.descriptor().as_raw_fd(), libc::FIONREAD, &mut bytes) };
        assert_eq!(answer, 0);
        bytes
    };
    f.until("all is received", |_| unread() == 0);
    f.turn(2);
}

#[test]
fn a_stream_pauses_late_while_there_are_buffers() {
    let f = Fixture::new(Config {
        buffer_size: 64,
        ..Config::default()
    });
    let (port, mut peer) = f.tcp_pair();
    begin(&f, &port, || Op::Recv);
    send_and_receive(&f, &port, &mut peer, 6);
    assert_eq!(f.seen().in_flight, 1, "it paused too early");
    send_and_receive(&f, &port, &mut peer, 2);
    f.until("paused", |seen| seen.in_flight == 0);
    let taken = f.runtime.block_on(async {
        let mut taken = 0;
        while taken < 8 * 64 {
            taken += recv(&port).await.unwrap().len();
        }
        taken
    });
    assert_eq!(taken, 8 * 64);
}

#[test]
fn more_operations_than_the_ring_has_room_for() {
    let f = Fixture::new(tiny());
    let (ports, mut peers): (Vec<_>, Vec<_>) = (0..100).map(|_| f.tcp_pair()).unzip();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        for (i, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[i as u8]).unwrap();
        }
        peers
    });
    let got = f.runtime.block_on(recv_each(&ports));
    for (i, buf) in got.iter().enumerate() {
        assert_eq!(**buf, [i as u8]);
    }
    drop(got);
    let peers = writer.join().unwrap();
    assert!(f.seen().most_backlog >= 80, "{:?}", f.seen());
    drop(ports);
    f.until("all cancelled", |seen| seen.in_flight == 0);
    drop(peers);
}

#[test]
fn held_leases_starve_nobody() {
    let f = Fixture::new(tiny());
    let (ports, mut peers): (Vec<_>, Vec<_>) = (0..12).map(|_| f.tcp_pair()).unzip();
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&[i as u8; 64]).unwrap();
    }
    // Four buffers, twelve leases.
    let held = f.runtime.block_on(recv_each(&ports));
    for (i, lease) in held.iter().enumerate() {
        assert_eq!(**lease, [i as u8; 64]);
    }
    assert!(f.seen().most_starved > 0, "{:?}", f.seen());
    // Nor does anybody spin for a buffer, with receives pending and none left.
    f.runtime.block_on(poll_fn(|cx| {
        for port in &ports {
            assert!(port.poll_next(cx, || Op::Recv).is_pending());
        }
        Poll::Ready(())
    }));
    f.turn(4);
    let before = f.seen().parks;
    let start = Instant::now();
    let waker = thread::spawn({
        let mut peer = peers[11].try_clone().unwrap();
        move || {
            thread::sleep(Duration::from_millis(100));
            peer.write_all(b"late").unwrap();
        }
    });
    let late = f.runtime.block_on(recv(&ports[11])).unwrap();
    assert_eq!(*late, *b"late");
    assert!(start.elapsed() >= Duration::from_millis(90));
    let parks = f.seen().parks - before;
    assert!(parks < 20, "{parks} turns in an idle tenth of a second");
    waker.join().unwrap();
    // An end of file needs no buffer either.
    peers.truncate(11);
    drop(late);
    let end = f.runtime.block_on(recv(&ports[11])).unwrap();
    assert!(end.is_empty());
    // Given back, they are used again.
    drop(held);
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&[i as u8]).unwrap();
    }
    let again = f.runtime.block_on(recv_each(&ports[..11]));
    assert_eq!(again.len(), 11);
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    let f = Fixture::new(Config {
        buffers: 256,
        ..tiny()
    });
    let (ports, mut peers): (Vec<_>, Vec<_>) = (0..150).map(|_| f.tcp_pair()).unzip();
    f.runtime.block_on(poll_fn(|cx| {
        for port in &ports {
            assert!(port.poll_next(cx, || Op::Recv).is_pending());
        }
        Poll::Ready(())
    }));
    f.turn(20);
    // All at once, into sixteen places.
    for round in 0..3 {
        for (i, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[i as u8, round]).unwrap();
        }
        for (i, buf) in f.runtime.block_on(recv_each(&ports)).iter().enumerate() {
            assert_eq!(**buf, [i as u8, round]);
        }
    }
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn a_crowd_of_untaken_sockets_pauses_the_accept() {
    let f = Fixture::new(Config::default());
    let (listener, at) = listen();
    let port = f.port(listener);
    begin(&f, &port, || Op::Accept);
    f.turn(2);
    let clients: Vec<_> = (0..100).map(|_| client(at)).collect();
    f.until("paused", |seen| seen.in_flight == 0);
    f.runtime.block_on(async {
        for _ in &clients {
            accept(&port).await.expect("a pause is no error");
        }
    });
}
