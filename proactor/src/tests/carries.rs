//! Every operation does what it should.

use super::*;

#[test]
fn the_probe_works_here() {
    crate::probe().unwrap();
    // And leaves nothing behind that would stand in the way.
    Proactor::new().unwrap();
}

#[test]
fn receives_sends_and_sees_the_end() {
    let f = Fixture::new(Config::default());
    for (port, peer) in [f.socket_pair(false), f.socket_pair(true)] {
        // One port for each direction.
        let out = Port::new(DescriptorRef::to(port.descriptor()));
        let mut peer = std::fs::File::from(peer);
        f.runtime.block_on(async {
            peer.write_all(b"ping").unwrap();
            assert_eq!(*recv(&port).await.unwrap(), *b"ping");
            assert_eq!(send(&out, b"pong".to_vec(), false).await.unwrap(), 4);
            assert_eq!(send(&out, Vec::new(), true).await.unwrap(), 0);
        });
        let mut got = [0; 4];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, *b"pong");
        drop(peer);
        f.runtime.block_on(async {
            // Again and again, if asked.
            for _ in 0..3 {
                assert!(recv(&port).await.unwrap().is_empty());
            }
            // To TCP the first send is news. And there is no SIGPIPE.
            let _ = send(&out, b"x".to_vec(), true).await;
            sleep(Duration::from_millis(20)).await;
            let error = send(&out, b"x".to_vec(), true).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        });
        assert_eq!(f.seen().strangers, 0);
    }
}

/// By a port, without a copy; what comes back is the buffer.
async fn send_zc(port: &Port, data: Vec<u8>) -> io::Result<usize> {
    let expected = data.clone();
    let (sent, back) = port.send_zc(data).await;
    assert_eq!(back, expected);
    sent
}

#[test]
fn a_send_without_a_copy_falls_back_where_it_cannot_be_done() {
    let f = Fixture::new(Config::default());
    // A local socket cannot; TCP can.
    for (port, peer) in [f.socket_pair(false), f.socket_pair(true)] {
        let mut peer = std::fs::File::from(peer);
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let expected = data.clone();
        let reader = thread::spawn(move || {
            let mut got = vec![0; expected.len()];
            peer.read_exact(&mut got).unwrap();
            assert!(got == expected);
            peer
        });
        assert_eq!(f.runtime.block_on(send_zc(&port, data)).unwrap(), 3_000_000);
        drop(reader.join().unwrap());
    }
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn a_large_send_is_sent_whole() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    let data: Vec<u8> = (0..8_000_000u32).map(|i| (i % 251) as u8).collect();
    let expected = data.clone();
    let reader = thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
    });
    let sent = f.runtime.block_on(send(&port, data, true)).unwrap();
    assert_eq!(sent, 8_000_000);
    reader.join().unwrap();
}

#[test]
fn an_end_together_with_data_is_seen() {
    fn ends(f: &Fixture, (port, mut peer): (Port, impl Write)) {
        begin(f, &port, || Op::Recv);
        f.turn(2);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        // The receive is armed, and meets both at once.
        f.runtime.block_on(async {
            assert_eq!(*recv(&port).await.unwrap(), *b"last words");
            assert!(recv(&port).await.unwrap().is_empty());
        });
    }
    fn begins_late(f: &Fixture, (port, mut peer): (Port, impl Write)) {
        peer.write_all(b"last words").unwrap();
        drop(peer);
        f.runtime.block_on(async {
            assert_eq!(*recv(&port).await.unwrap(), *b"last words");
            assert!(recv(&port).await.unwrap().is_empty());
        });
    }
    let f = Fixture::new(Config::default());
    ends(&f, f.tcp_pair());
    ends(&f, f.pair());
    begins_late(&f, f.tcp_pair());
    begins_late(&f, f.pair());
}

#[test]
fn connects_and_accepts() {
    let f = Fixture::new(Config::default());
    let (listener, at) = listen();
    let listener = f.port(listener);
    let mut clients = Vec::new();
    f.runtime.block_on(async {
        for _ in 0..3 {
            let socket = tcp_socket();
            let port = f.port(socket);
            let (result, op) = port.run(Op::Connect(address(at))).await;
            assert!(matches!(result.unwrap(), Yield::Done(0)));
            assert!(matches!(op, Op::Connect(_)), "the operation comes back");
            let accepted = accept(&listener).await.unwrap();
            // SAFETY: F_GETFD takes no pointer.
            let flags = unsafe { libc::fcntl(accepted.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
            clients.push((port, accepted));
        }
    });
    drop(listener);
    f.until("accept ended", |seen| seen.in_flight == 0);
    let refused = f.port(tcp_socket());
    let (result, _) = f.runtime.block_on(refused.run(Op::Connect(address(at))));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn polls_both_ways() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    // One port for each direction.
    let out = Port::new(DescriptorRef::to(port.descriptor()));
    f.runtime.block_on(async {
        let room = poll_fn(|cx| out.poll_ready(cx, Interest::Write));
        room.await.unwrap();
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            peer.write_all(b"x").unwrap();
            peer
        });
        let data = poll_fn(|cx| port.poll_ready(cx, Interest::Read));
        data.await.unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn wakes_from_other_threads_are_not_lost() {
    let f = Fixture::new(Config::default());
    for i in 0..2000 {
        let mut sent = false;
        let done = Arc::new(Mutex::new(false));
        let mut waker = None;
        f.runtime.block_on(poll_fn(|cx| {
            if *done.lock().unwrap() {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut sent, true) {
                let (wake, done) = (cx.waker().clone(), done.clone());
                waker = Some(thread::spawn(move || {
                    if i % 2 == 0 {
                        thread::yield_now();
                    }
                    *done.lock().unwrap() = true;
                    wake.wake();
                }));
            }
            Poll::Pending
        }));
        waker.unwrap().join().unwrap();
    }
}

#[test]
fn leases_outlive_the_driver() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    peer.write_all(b"still here").unwrap();
    let lease = f.runtime.block_on(recv(&port)).unwrap();
    drop(port);
    drop(f);
    assert_eq!(*lease, *b"still here");
}
