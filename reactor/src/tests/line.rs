//! Who waits, in which order, and for what.

use super::*;

#[test]
fn many_waiters_are_served_in_order_by_one_edge() {
    // More of them than one share, and no second edge: the rest is served
    // because the direction is busy.
    const MANY: u8 = 100;
    let f = Fixture::new();
    let (a, b) = UnixDatagram::pair().unwrap();
    b.set_nonblocking(true).unwrap();
    let descriptor = f.descriptor(a);
    let ports: Vec<Port> = (0..MANY).map(|_| Port::new(descriptor.clone())).collect();
    ports.iter().for_each(|port| begin(&f, port));
    assert_eq!(f.waiters(), MANY.into());
    let mut served = 0;
    let mut sent = 0;
    while served < MANY {
        // The socket takes ten or so at a time.
        while sent < MANY && b.send(&[sent]).is_ok() {
            sent += 1;
        }
        f.runtime.block_on(async {
            assert_eq!(*recv(&ports[usize::from(served)]).await.unwrap(), [served]);
        });
        served += 1;
    }
    assert_eq!(f.waiters(), 0);
}

#[test]
fn who_comes_while_others_wait_does_not_overtake() {
    let f = Fixture::new();
    let a = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let b = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    b.connect(a.local_addr().unwrap()).unwrap();
    let descriptor = f.descriptor(a);
    let ports: Vec<Port> = (0..=50).map(|_| Port::new(descriptor.clone())).collect();
    let (last, first) = ports.split_last().unwrap();
    first.iter().for_each(|port| begin(&f, port));
    for i in 0..=50u8 {
        b.send(&[i]).unwrap();
    }
    // One turn serves a share of them, and data is left for the newcomer.
    f.reactor.borrow_mut().park(Some(Duration::ZERO)).unwrap();
    assert!(f.waiters() > 0);
    f.runtime.block_on(async {
        assert!(poll_once(recv(last)).is_pending());
        for (i, port) in ports.iter().enumerate() {
            assert_eq!(*recv(port).await.unwrap(), [i as u8]);
        }
    });
}

#[test]
fn polls_of_more_than_one_share_end_with_one_edge() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let descriptor = f.descriptor(a);
    let ports: Vec<Port> = (0..100).map(|_| Port::new(descriptor.clone())).collect();
    f.runtime.block_on(async {
        let mut runs: Vec<_> = ports
            .iter()
            .map(|p| Box::pin(p.run(Op::Poll(Interest::Read))))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            runs.iter_mut()
                .all(|run| run.as_mut().poll(&mut cx).is_pending())
        );
        b.write_all(b"x").unwrap();
        for run in runs {
            assert!(matches!(run.await.0, Ok(Yield::Done(0))));
        }
    });
}

#[test]
fn a_cancelled_operation_leaves_the_line() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let descriptor = f.descriptor(a);
    let ports = [(); 4].map(|()| Port::new(descriptor.clone()));
    ports.iter().for_each(|port| begin(&f, port));
    let [first, second, third, fourth] = ports;
    drop(second);
    f.turn();
    assert_eq!(f.waiters(), 3);
    drop(first);
    drop(fourth);
    f.turn();
    assert_eq!(f.waiters(), 1);
    b.write_all(b"for the third").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&third).await.unwrap(), *b"for the third");
    });
    assert_eq!(f.waiters(), 0);
}

#[test]
fn a_port_can_be_used_again_after_a_cancel() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    f.runtime.block_on(async {
        for _ in 0..3 {
            assert!(poll_once(ready(&port, Interest::Read)).is_pending());
        }
        b.write_all(b"x").unwrap();
        ready(&port, Interest::Read).await.unwrap();
    });
    assert_eq!(f.waiters(), 0);
}

#[test]
fn stale_keys_and_tokens_are_ignored() {
    let f = Fixture::new();
    let (a, _b) = tcp();
    let port = f.port(a);
    begin(&f, &port);
    let mut reactor = f.reactor.borrow_mut();
    for key in [0, 1, 7 << 32, 99 << 32 | 99, u64::MAX] {
        reactor.cancel(key);
        reactor.forget(key);
    }
    assert_eq!((reactor.waiters(), reactor.registrations()), (1, 1));
}

#[test]
fn an_event_of_a_closed_descriptor_does_not_reach_its_successor() {
    let f = Fixture::new();
    let (old, mut old_peer) = UnixStream::pair().unwrap();
    let first = duplicate(&old, 700);
    let number = first.as_raw_fd();
    let port = f.port(first);
    begin(&f, &port);
    // Its file stays open by `old`, and so in the epoll set.
    drop(port);
    f.turn();
    let (new, mut new_peer) = UnixStream::pair().unwrap();
    let second = duplicate(&new, number);
    assert_eq!(second.as_raw_fd(), number, "the number is reused");
    let port = f.port(second);
    begin(&f, &port);
    old_peer.write_all(b"stale").unwrap();
    f.turn();
    assert_eq!((f.registrations(), f.waiters()), (1, 1));
    new_peer.write_all(b"fresh").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&port).await.unwrap(), *b"fresh");
    });
}

#[test]
fn a_file_that_stayed_in_the_set_can_be_registered_again() {
    let f = Fixture::new();
    let (file, mut peer) = UnixStream::pair().unwrap();
    let first = duplicate(&file, 800);
    let number = first.as_raw_fd();
    let port = f.port(first);
    begin(&f, &port);
    drop(port);
    f.turn();
    let again = duplicate(&file, number);
    assert_eq!(again.as_raw_fd(), number, "the number is reused");
    let port = f.port(again);
    begin(&f, &port);
    peer.write_all(b"x").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&port).await.unwrap(), *b"x");
    });
}
