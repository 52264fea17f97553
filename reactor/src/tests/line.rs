//! Who waits, in which order, and for what.

use super::*;

#[test]
fn many_ports_of_one_descriptor_are_served_by_one_edge() {
    const MANY: u8 = 100;
    let f = Fixture::new();
    let (a, b) = UnixDatagram::pair().unwrap();
    b.set_nonblocking(true).unwrap();
    let descriptor = f.descriptor(a);
    let ports: Vec<Port> = (0..MANY).map(|_| Port::new(descriptor.clone())).collect();
    ports.iter().for_each(|port| begin(&f, port));
    assert_eq!((f.registrations(), f.subscribers()), (1, MANY.into()));
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
    drop(ports);
    f.turn();
    assert_eq!((f.registrations(), f.subscribers()), (1, 0));
}

#[test]
fn who_comes_while_others_send_does_not_come_between() {
    let f = Fixture::new();
    let (a, b) = UnixStream::pair().unwrap();
    let port = f.port(a);
    const LEN: usize = 3 << 20;
    let reader = f.runtime.block_on(async {
        // Each fills the socket several times over.
        let mut runs: Vec<_> = (0..4)
            .map(|i| Box::pin(send(&port, vec![i; LEN], true)))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            runs.iter_mut()
                .all(|run| run.as_mut().poll(&mut cx).is_pending())
        );
        // From here on there is room.
        let reader = thread::spawn(move || {
            let mut b = b;
            let mut got = Vec::new();
            b.read_to_end(&mut got).unwrap();
            got
        });
        // Asked in another order than they came.
        let mut later = Vec::new();
        for run in runs.into_iter().rev() {
            later.push(Some(run));
        }
        let mut open = later.len();
        poll_fn(|cx| {
            for run in &mut later {
                if let Some(sending) = run {
                    if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                        assert_eq!(sent.unwrap(), LEN);
                        *run = None;
                        open -= 1;
                    }
                }
            }
            if open == 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        reader
    });
    drop(port);
    f.turn();
    let got = reader.join().unwrap();
    assert_eq!(got.len(), 4 * LEN);
    for (i, message) in got.chunks(LEN).enumerate() {
        assert!(message.iter().all(|&x| x == i as u8), "message {i}");
    }
}

#[test]
fn one_edge_ends_all_polls() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let descriptor = f.descriptor(a);
    let ports: Vec<Port> = (0..100).map(|_| Port::new(descriptor.clone())).collect();
    f.runtime.block_on(async {
        let mut runs: Vec<_> = ports
            .iter()
            .map(|p| Box::pin(ready(p, Interest::Read)))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            runs.iter_mut()
                .all(|run| run.as_mut().poll(&mut cx).is_pending())
        );
        b.write_all(b"x").unwrap();
        for run in runs {
            run.await.unwrap();
        }
    });
}

#[test]
fn a_port_that_is_dropped_is_told_no_more() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let descriptor = f.descriptor(a);
    let ports = [(); 4].map(|()| Port::new(descriptor.clone()));
    ports.iter().for_each(|port| begin(&f, port));
    let [first, second, third, fourth] = ports;
    drop(second);
    f.turn();
    assert_eq!(f.subscribers(), 3);
    drop(first);
    drop(fourth);
    f.turn();
    assert_eq!(f.subscribers(), 1);
    b.write_all(b"for the third").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&third).await.unwrap(), *b"for the third");
    });
}

#[test]
fn a_port_can_be_used_again_after_a_cancel_and_for_the_other_direction() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    f.runtime.block_on(async {
        for _ in 0..3 {
            assert!(poll_once(recv(&port)).is_pending());
        }
        b.write_all(b"x").unwrap();
        // The subscription to the one ends before that to the other begins.
        let data = vec![7; 16 << 20];
        let expected = data.clone();
        let reader = thread::spawn(move || {
            let mut got = vec![0; expected.len()];
            b.read_exact(&mut got).unwrap();
            assert!(got == expected);
            b.write_all(b"y").unwrap();
            b
        });
        assert_eq!(send(&port, data, true).await.unwrap(), 16 << 20);
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend_from_slice(&recv(&port).await.unwrap());
        }
        assert_eq!(got, *b"xy");
        drop(reader.join().unwrap());
    });
    // None, if the last byte was there before it was asked for.
    assert!(f.subscribers() <= 1);
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
    assert_eq!((reactor.subscribers(), reactor.registrations()), (1, 1));
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
    assert_eq!((f.registrations(), f.subscribers()), (1, 1));
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

/// The pool carries them out, one after another.
#[test]
fn operations_on_files_take_turns() {
    let f = Fixture::new();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let descriptor = Descriptor::blocking(file.into(), f.runtime.handle()).unwrap();
    let port = Port::new(descriptor);
    f.runtime.block_on(async {
        let sync = || Box::pin(port.file(FileOp::Sync { data_only: true }));
        let (mut first, mut second, mut third) = (sync(), sync(), sync());
        let all = poll_fn(|cx| {
            let begun = first.as_mut().poll(cx).is_pending();
            let wait = [&mut second, &mut third].map(|op| op.as_mut().poll(cx).is_pending());
            Poll::Ready((begun, wait))
        });
        assert_eq!(all.await, (true, [true; 2]));
        first.await.0.unwrap();
        drop(second);
        third.await.0.unwrap();
    });
}
