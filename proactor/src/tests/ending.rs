//! Cancels, drops and shutdown.

use super::*;

#[test]
fn cancels_what_the_kernel_never_saw() {
    let f = Fixture::new(tiny());
    let (ports, peers): (Vec<_>, Vec<_>) = (0..100).map(|_| f.pair()).unzip();
    f.runtime.block_on(poll_fn(|cx| {
        for port in &ports {
            assert!(port.poll_next(cx, || Op::Recv).is_pending());
        }
        Poll::Ready(())
    }));
    drop(ports);
    f.until("all cancelled", |seen| seen.in_flight == 0);
    // The descriptors went with them.
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_dropped_port_is_cancelled_and_closed() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    begin(&f, &port, || Op::Recv);
    f.until("in flight", |seen| seen.in_flight == 1);
    f.turn(2);
    drop(port);
    f.until("cancelled", |seen| seen.in_flight == 0);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn an_abandoned_send_frees_its_port() {
    let f = Fixture::new(Config::default());
    let (port, peer) = f.pair();
    f.runtime.block_on(async {
        // Nobody reads: it blocks.
        let mut stuck = Box::pin(send(&port, vec![1; 4_000_000], true));
        poll_fn(|cx| {
            assert!(stuck.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    });
    f.turn(3);
    // The next one waits for the end of the abandoned one.
    peer.shutdown(std::net::Shutdown::Read).unwrap();
    let error = f.runtime.block_on(send(&port, vec![2], true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(f.seen().in_flight, 0);
}

#[test]
fn an_abandoned_accept_closes_what_it_accepted() {
    let f = Fixture::new(Config::default());
    let (listener, at) = listen();
    let port = f.port(listener);
    begin(&f, &port, || Op::Accept);
    f.turn(2);
    // One is accepted and not taken, the other in the kernel's hands when the
    // port goes.
    let mut early = client(at);
    f.turn(2);
    let mut late = client(at);
    drop(port);
    f.until("accept ended", |seen| seen.in_flight == 0);
    for client in [&mut early, &mut late] {
        match client.read(&mut [0]) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("still open: {other:?}"),
        }
    }
}

#[test]
fn shutdown_ends_what_is_pending() {
    for forgetful in [false, true] {
        let f = Fixture::with(Config::default(), forgetful, Duration::ZERO);
        let (port, mut peer) = f.pair();
        let (stuck, other) = f.pair();
        let (listener, _) = listen();
        let listener = f.port(listener);
        begin(&f, &port, || Op::Recv);
        begin(&f, &listener, || Op::Accept);
        let mut sending = Box::pin(send(&stuck, vec![0; 4_000_000], true));
        f.runtime.block_on(poll_fn(|cx| {
            assert!(sending.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }));
        f.turn(3);
        // Not seen by the kernel yet.
        let (queued, _peer) = f.pair();
        begin(&f, &queued, || Op::Recv);
        let Fixture { runtime, seen, .. } = f;
        let start = Instant::now();
        drop(runtime);
        assert!(start.elapsed() < Duration::from_millis(150));
        let leaked = seen.lock().unwrap().leaked;
        assert_eq!(leaked, (!forgetful).then_some(0));
        drop((port, listener, sending, queued));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "closed");
        drop(other);
    }
}
