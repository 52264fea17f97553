//! Ports on a driver that works by readiness, with edges told by hand.

#[path = "support/edges.rs"]
mod edges;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use edges::{bed, poll_once, port};
use isochrome_runtime::buf::{Lent, RecvBuf};
use isochrome_runtime::op::{Completion, Interest, Op, Port, Yield};
use isochrome_runtime::yield_now;

async fn recv(port: &Port) -> io::Result<RecvBuf> {
    let mut waiter = port.waiter();
    poll_fn(move |cx| waiter.poll_lease(cx)).await
}

fn send(port: &Port, data: Vec<u8>) -> impl Future<Output = (Completion, Op)> {
    port.run(Op::Send {
        data: Lent::new(data),
        from: 0,
        all: true,
    })
}

#[test]
fn an_edge_within_the_subscription_is_not_lost() {
    let (rt, world) = bed();
    let (port, _far) = port(&rt);
    world.at_once.set(true);
    rt.block_on(async {
        // Each edge is an attempt, which finds nothing, and the next waits.
        let mut receive = pin!(recv(&port));
        assert!(poll_once(receive.as_mut()).is_pending());
        assert_eq!(world.submitted.get(), 1);
        assert!(poll_once(receive.as_mut()).is_pending());
        assert_eq!(world.submitted.get(), 1, "once in a life");
    });
}

#[test]
fn without_an_edge_nothing_is_tried_and_with_one_it_is() {
    let (rt, world) = bed();
    let (port, mut far) = port(&rt);
    rt.block_on(async {
        let mut receive = pin!(recv(&port));
        assert!(poll_once(receive.as_mut()).is_pending());
        far.write_all(b"data").unwrap();
        assert!(poll_once(receive.as_mut()).is_pending(), "nobody said so");
        world.edge(Interest::Read);
        assert_eq!(*receive.await.unwrap(), *b"data");
        // An edge that tells of nothing costs an attempt.
        let mut receive = pin!(recv(&port));
        assert!(poll_once(receive.as_mut()).is_pending());
        world.edge(Interest::Read);
        yield_now().await;
        assert!(poll_once(receive.as_mut()).is_pending());
        far.write_all(b"more").unwrap();
        world.edge(Interest::Read);
        assert_eq!(*receive.await.unwrap(), *b"more");
    });
    assert_eq!((world.submitted.get(), world.cancelled.get()), (1, 0));
    drop(port);
    rt.block_on(yield_now());
    assert!(world.subscriptions.borrow().is_empty());
    assert_eq!(world.cancelled.get(), 1);
}

#[test]
fn a_refused_subscription_is_an_error_and_no_end() {
    let (rt, world) = bed();
    let (port, mut far) = port(&rt);
    world.refuses.set(true);
    rt.block_on(async {
        for _ in 0..2 {
            let error = recv(&port).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        }
        far.write_all(b"x").unwrap();
        // It is not known whether there is something: the next one asks.
        world.refuses.set(false);
        world.at_once.set(true);
        assert_eq!(*recv(&port).await.unwrap(), *b"x");
    });
}

#[test]
fn every_reader_is_woken_and_gets_a_part() {
    let (rt, world) = bed();
    let (port, mut far) = port(&rt);
    let port = Arc::new(port);
    rt.block_on(async {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let port = port.clone();
                isochrome_runtime::spawn(async move {
                    let mut buf = [0; 2];
                    let mut waiter = port.waiter();
                    let n = poll_fn(|cx| waiter.poll_recv(cx, &mut buf)).await.unwrap();
                    assert_eq!(n, 2);
                    buf
                })
            })
            .collect();
        yield_now().await;
        far.write_all(b"aabbcc").unwrap();
        world.edge(Interest::Read);
        let mut got = Vec::new();
        for reader in readers {
            got.push(reader.await.unwrap());
        }
        assert_eq!(got, [*b"aa", *b"bb", *b"cc"], "in the order they came");
    });
}

#[test]
fn a_sender_that_gives_up_half_way_hands_its_turn_on() {
    let (rt, world) = bed();
    let (port, mut far) = port(&rt);
    far.set_nonblocking(true).unwrap();
    let drain = |far: &mut UnixStream| {
        let mut got = Vec::new();
        let end = far.read_to_end(&mut got).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
        got
    };
    rt.block_on(async {
        let mut first = Box::pin(send(&port, vec![1; 4 << 20]));
        let mut second = Box::pin(send(&port, vec![2; 10]));
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        assert!(drain(&mut far).iter().all(|&x| x == 1));
        world.edge(Interest::Write);
        yield_now().await;
        // There is room, but it is the first one's.
        assert!(poll_once(second.as_mut()).is_pending());
        assert!(poll_once(first.as_mut()).is_pending());
        drop(first);
        assert!(drain(&mut far).iter().all(|&x| x == 1));
        world.edge(Interest::Write);
        let (sent, _) = second.await;
        assert!(matches!(sent, Ok(Yield::Done(10))));
        assert_eq!(drain(&mut far), [2; 10]);
    });
}

#[test]
fn nobody_comes_between_while_a_sender_subscribes() {
    const LEN: usize = 4 << 20;
    let (rt, world) = bed();
    let (port, mut far) = port(&rt);
    far.set_nonblocking(true).unwrap();
    let port = Arc::new(port);
    let message = |byte: u8, len| {
        let port = port.clone();
        Box::pin(async move { send(&port, vec![byte; len]).await.0.unwrap() })
    };
    let (mut first, second) = (message(1, LEN), Rc::new(RefCell::new(message(2, 10))));
    let later = second.clone();
    *world.meanwhile.borrow_mut() = Some(Box::new(move || {
        assert!(poll_once(later.borrow_mut().as_mut()).is_pending());
    }));
    let mut got = Vec::new();
    rt.block_on(async {
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(world.meanwhile.borrow().is_none(), "it has subscribed");
        let mut both = (false, false);
        while both != (true, true) {
            let _ = far.read_to_end(&mut got);
            world.edge(Interest::Write);
            yield_now().await;
            // The later one is asked first.
            both.1 = both.1 || poll_once(second.borrow_mut().as_mut()).is_ready();
            both.0 = both.0 || poll_once(first.as_mut()).is_ready();
        }
    });
    let _ = far.read_to_end(&mut got);
    assert_eq!(got.len(), LEN + 10);
    assert!(got[..LEN].iter().all(|&x| x == 1), "in one piece");
}

#[test]
fn a_port_changes_its_direction_when_the_old_edges_have_ended() {
    let (rt, world) = bed();
    let (port, mut far) = port(&rt);
    rt.block_on(async {
        assert!(poll_once(pin!(recv(&port))).is_pending());
        assert_eq!(world.submitted.get(), 1);
        // Room is there; that is not known before the direction is changed.
        let (sent, _) = send(&port, b"out".to_vec()).await;
        assert!(matches!(sent, Ok(Yield::Done(3))));
        assert_eq!((world.submitted.get(), world.cancelled.get()), (1, 1));
        let mut buf = [0; 3];
        far.read_exact(&mut buf).unwrap();
        far.write_all(b"in").unwrap();
        assert_eq!(*recv(&port).await.unwrap(), *b"in");
    });
}

#[test]
fn the_end_of_the_runtime_ends_who_waits_elsewhere() {
    let (rt, _world) = bed();
    let (port, _far) = port(&rt);
    let mut receive = Box::pin(recv(&port));
    rt.block_on(async { assert!(poll_once(receive.as_mut()).is_pending()) });
    assert_eq!(rt.shutdown(), 0);
    let Poll::Ready(Err(error)) = poll_once(receive.as_mut()) else {
        panic!("it has ended");
    };
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
}
