//! Futures that are dropped in the middle: what they may lose, and what not.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::bytes::{Random, check, pattern};
use common::futures::{Either, Event, give_up, poll_once, race};
use common::{descriptors, eventually_async, everywhere, listen, pair, shrink, std_pair};
use isochrome::net::TcpStream;
use isochrome::time::{sleep, timeout};
use isochrome::{Color, Runtime, yield_now};

everywhere!(
    a_dropped_recv_loses_no_byte,
    a_dropped_read_loses_no_byte,
    timeouts_around_a_trickle_lose_no_byte,
    a_dropped_accept_loses_no_connection,
    a_dropped_connect_closes_its_socket,
    a_dropped_send_leaves_a_prefix,
    a_dropped_send_that_waits_for_its_turn_sends_nothing,
    an_aborted_task_gives_its_socket_up,
    a_stream_dropped_with_a_send_in_flight_ends,
    what_block_on_gives_up_at_its_end_is_closed,
    races_lose_no_byte,
    forgotten_waiters_do_not_pile_up,
);

async fn expect(stream: &TcpStream, from: usize, to: usize) {
    let mut place = from;
    while place < to {
        let data = stream.recv().await.unwrap();
        assert!(!data.is_empty(), "ended at {place}");
        check(place, &data);
        place += data.len();
    }
    assert_eq!(place, to);
}

fn a_dropped_recv_loses_no_byte(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        for i in 0..200 {
            // Dropped before anything came, and with the driver at work or not.
            assert!(give_up(near.recv()).await.is_pending());
            if i % 2 == 0 {
                yield_now().await;
            }
            far.send_all(pattern(i * 10, 10)).await.0.unwrap();
            if i % 3 == 0 {
                yield_now().await;
            }
            expect(&near, i * 10, (i + 1) * 10).await;
        }
    });
}

fn a_dropped_read_loses_no_byte(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let mut place = 0;
        for i in 0..200 {
            let mut small = [0; 7];
            assert!(give_up(near.read(&mut small)).await.is_pending());
            assert!(give_up(near.read_owned(vec![0; 3])).await.is_pending());
            far.send_all(pattern(place, 100)).await.0.unwrap();
            let end = place + 100;
            // Borrowed, leased and given up, in all orders.
            while place < end {
                match (place + i) % 3 {
                    0 => {
                        let n = near.read(&mut small).await.unwrap();
                        check(place, &small[..n]);
                        place += n;
                    }
                    1 => {
                        let n = near.recv().await.unwrap();
                        check(place, &n);
                        place += n.len();
                    }
                    _ => {
                        let (n, data) = near.read_owned(vec![0; 11]).await;
                        let n = n.unwrap();
                        check(place, &data[..n]);
                        place += n;
                    }
                }
            }
            assert_eq!(place, end);
        }
    });
}

fn timeouts_around_a_trickle_lose_no_byte(rt: Runtime) {
    const SIZE: usize = 3_000;
    rt.block_on(async {
        let (near, far) = pair().await;
        let trickle = Color::new().spawn(async move {
            for place in 0..SIZE {
                far.send_all(pattern(place, 1)).await.0.unwrap();
                if place % 50 == 0 {
                    // Longer than the receiver's patience.
                    sleep(Duration::from_millis(3)).await;
                }
            }
            far
        });
        let (mut place, mut late) = (0, 0);
        while place < SIZE {
            let patience = Duration::from_micros(500);
            let mut buf = [0; 3];
            let received = if place % 2 == 0 {
                let received = timeout(patience, near.recv()).await;
                received.map(|data| {
                    let data = data.unwrap();
                    check(place, &data);
                    data.len()
                })
            } else {
                let received = timeout(patience, near.read(&mut buf)).await;
                received.map(|n| {
                    let n = n.unwrap();
                    check(place, &buf[..n]);
                    n
                })
            };
            match received {
                Ok(0) => panic!("ended at {place}"),
                Ok(n) => place += n,
                Err(_) => late += 1,
            }
        }
        assert!(late > 0, "no timeout fired: this tests nothing");
        drop(trickle.await.unwrap());
        assert!(near.recv().await.unwrap().is_empty());
    });
}

fn a_dropped_accept_loses_no_connection(rt: Runtime) {
    rt.block_on(async {
        let (listener, address) = listen().await;
        for i in 0..100u8 {
            assert!(give_up(listener.accept()).await.is_pending());
            if i % 2 == 0 {
                yield_now().await;
            }
            let near = TcpStream::connect(address).await.unwrap();
            if i % 3 == 0 {
                yield_now().await;
            }
            let (far, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, near.local_addr().unwrap());
            near.send_all(vec![i]).await.0.unwrap();
            assert_eq!(*far.recv().await.unwrap(), [i]);
        }
    });
}

/// A listener that lets further connects hang: its backlog is full.
fn full_backlog() -> (socket2::Socket, Vec<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind(common::LOCAL).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = socket2::Socket::from(listener);
    listener.listen(0).unwrap();
    let mut fillers = Vec::new();
    while let Ok(one) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
        fillers.push(one);
    }
    (listener, fillers)
}

fn a_dropped_connect_closes_its_socket(rt: Runtime) {
    rt.block_on(async {
        let (listener, fillers) = full_backlog();
        let to = listener.local_addr().unwrap().as_socket().unwrap();
        let before = descriptors();
        for _ in 0..20 {
            let mut connect = Box::pin(TcpStream::connect(to));
            assert!(poll_once(&mut connect).await.is_pending(), "it hangs");
            yield_now().await;
            assert!(poll_once(&mut connect).await.is_pending());
            assert_eq!(descriptors().len(), before.len() + 1);
            drop(connect);
            eventually_async("closed", || descriptors().len() == before.len()).await;
            let hangs = timeout(Duration::from_millis(1), TcpStream::connect(to)).await;
            assert!(hangs.is_err());
            eventually_async("closed", || descriptors().len() == before.len()).await;
        }
        drop((listener, fillers));
    });
}

fn a_dropped_send_leaves_a_prefix(rt: Runtime) {
    const SIZE: usize = 8 << 20;
    rt.block_on(async {
        for turns in [0, 1, 20] {
            let (near, mut far) = std_pair().await;
            shrink(&near);
            let mut send = Box::pin(near.send_all(pattern(0, SIZE)));
            assert!(poll_once(&mut send).await.is_pending());
            for _ in 0..turns {
                yield_now().await;
            }
            drop(send);
            drop(near);
            let reader = isochrome::spawn_blocking(move || {
                let mut got = Vec::new();
                far.read_to_end(&mut got).unwrap();
                got
            });
            let got = reader.await.unwrap();
            assert!(
                got.len() < SIZE,
                "all of it was sent, {turns} turns: this tests nothing"
            );
            check(0, &got);
        }
    });
}

fn a_dropped_send_that_waits_for_its_turn_sends_nothing(rt: Runtime) {
    const SIZE: usize = 4 << 20;
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        let mut first = Box::pin(near.send_all(pattern(0, SIZE)));
        assert!(poll_once(&mut first).await.is_pending());
        assert!(give_up(near.send_all("intruder")).await.is_pending());
        let reader = Color::new().spawn(async move {
            expect(&far, 0, SIZE + 3).await;
            assert!(far.recv().await.unwrap().is_empty());
        });
        first.await.0.unwrap();
        near.send_all(pattern(SIZE, 3)).await.0.unwrap();
        drop(near);
        reader.await.unwrap();
    });
}

fn an_aborted_task_gives_its_socket_up(rt: Runtime) {
    rt.block_on(async {
        for i in 0..50 {
            let (near, far) = pair().await;
            let begun = Event::default();
            let task = Color::new().spawn({
                let begun = begun.clone();
                async move {
                    begun.set();
                    near.recv().await.map(|data| data.len())
                }
            });
            begun.wait().await;
            if i % 2 == 0 {
                yield_now().await;
            }
            task.abort();
            assert!(task.await.unwrap_err().is_aborted());
            assert!(far.recv().await.unwrap().is_empty(), "closed");
        }
    });
}

fn a_stream_dropped_with_a_send_in_flight_ends(rt: Runtime) {
    rt.block_on(async {
        for _ in 0..50 {
            let (near, far) = pair().await;
            let task = Color::new().spawn(async move {
                let mut send = Box::pin(near.send_all(pattern(0, 200)));
                let _ = poll_once(&mut send).await;
            });
            task.await.unwrap();
            // Some or all or none, and then the end.
            let mut place = 0;
            loop {
                match far.recv().await {
                    Ok(data) if data.is_empty() => break,
                    Ok(data) => {
                        check(place, &data);
                        place += data.len();
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::ConnectionReset);
                        break;
                    }
                }
            }
            assert!(place <= 200);
        }
    });
}

/// Nobody enters the ring after it until the next `block_on`.
fn what_block_on_gives_up_at_its_end_is_closed(rt: Runtime) {
    let mut far = rt.block_on(async {
        let (near, far) = std_pair().await;
        assert!(give_up(near.recv()).await.is_pending());
        // With the kernel, or not yet.
        let (other, other_far) = std_pair().await;
        yield_now().await;
        assert!(give_up(other.recv()).await.is_pending());
        [far, other_far]
    });
    for far in &mut far {
        if cfg!(isochrome_faults) {
            // What a ring refuses, or ends late, waits for the next `block_on`.
            far.set_nonblocking(true).unwrap();
            let closed = || matches!(far.peek(&mut [0]), Ok(0));
            rt.block_on(eventually_async("it is closed", closed));
        }
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        assert_eq!(all, []);
    }
}

/// Receives that lose races against other receives, yields and timers.
fn races_lose_no_byte(rt: Runtime) {
    const ROUNDS: usize = 3_000;
    let mut random = Random::seeded();
    let mut sizes = Random(random.next() | 1);
    rt.block_on(async {
        let (near, far) = pair().await;
        let near = Arc::new(near);
        let sender = Color::new().spawn(async move {
            let mut place = 0;
            for _ in 0..ROUNDS {
                let len = 1 + sizes.below(40);
                far.send_all(pattern(place, len)).await.0.unwrap();
                place += len;
                if sizes.below(4) == 0 {
                    yield_now().await;
                }
                if sizes.below(100) == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            place
        });
        let (mut place, mut lost) = (0, 0);
        loop {
            let mut buf = [0; 16];
            let which = random.below(4);
            let won = match which {
                0 => race(near.recv(), yield_now()).await,
                1 => race(near.recv(), sleep(Duration::from_micros(50))).await,
                2 => match give_up(near.recv()).await {
                    Poll::Ready(data) => Either::First(data),
                    Poll::Pending => Either::Second(()),
                },
                _ => {
                    let n = match race(near.read(&mut buf), yield_now()).await {
                        Either::First(n) => n.unwrap(),
                        Either::Second(()) => {
                            lost += 1;
                            continue;
                        }
                    };
                    check(place, &buf[..n]);
                    place += n;
                    if n == 0 {
                        break;
                    }
                    continue;
                }
            };
            match won {
                Either::First(data) => {
                    let data = data.unwrap();
                    if data.is_empty() {
                        break;
                    }
                    check(place, &data);
                    place += data.len();
                }
                Either::Second(()) => {
                    lost += 1;
                    if which == 2 {
                        yield_now().await;
                    }
                }
            }
        }
        assert_eq!(place, sender.await.unwrap());
        assert!(lost > 10, "only {lost} races were lost: this tests nothing");
    });
}

/// Many short waits on a quiet stream, each with a waker of its own: what they
/// left has to go with them, and not pile up until the peer speaks.
fn forgotten_waiters_do_not_pile_up(rt: Runtime) {
    struct Counted;
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        let mut kept = Vec::new();
        for _ in 0..500 {
            // Another task: its waker wakes nobody else's.
            let one = Arc::new(Counted);
            let waker = Waker::from(one.clone());
            let mut recv = Box::pin(near.recv());
            let mut cx = Context::from_waker(&waker);
            assert!(recv.as_mut().poll(&mut cx).is_pending());
            drop((recv, waker));
            kept.push(one);
        }
        let stale = kept.iter().filter(|one| Arc::strong_count(one) > 1).count();
        assert!(stale <= 8, "{stale} of 500 wakers are kept for nobody");
        far.write_all(b"hello").unwrap();
        assert_eq!(*near.recv().await.unwrap(), *b"hello");
    });
}
