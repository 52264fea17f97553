//! Sleeps that wait for several completions.

use super::*;
use crate::ring::{Ring, SEVERAL};

/// As good as for ever: what waits for it hangs.
const HOUR: Duration = Duration::from_secs(3600);

/// Whether this kernel can do it; says so if not.
fn works() -> bool {
    let ring = Ring::new(&Config::default()).unwrap();
    if !ring.batches() {
        println!("skipped: Linux 6.12 is needed");
    }
    ring.batches()
}

#[test]
fn a_sleep_waits_for_several() {
    if !works() {
        return;
    }
    let f = Fixture::with(Config::default(), false, HOUR);
    let (ports, mut peers): (Vec<_>, Vec<_>) = (0..SEVERAL).map(|_| f.pair()).unzip();
    ports.iter().for_each(|port| begin(&f, port, || Op::Recv));
    f.turn(2);
    let before = f.seen().parks;
    let writer = thread::spawn(move || {
        for peer in &mut peers {
            // Time enough to be met one by one.
            thread::sleep(Duration::from_micros(300));
            peer.write_all(b"x").unwrap();
        }
        peers
    });
    let got = f.runtime.block_on(recv_each(&ports));
    assert_eq!(got.len(), ports.len());
    // A sleep; the turn before, and the one that sees the end.
    let parks = f.seen().parks - before;
    assert!(parks <= 4, "{parks}");
    writer.join().unwrap();
}

#[test]
fn fewer_are_delivered_when_the_time_is_up() {
    let f = Fixture::with(Config::default(), false, Duration::from_millis(5));
    let (port, mut peer) = f.pair();
    for _ in 0..10 {
        begin(&f, &port, || Op::Recv);
        peer.write_all(b"x").unwrap();
        assert_eq!(*f.runtime.block_on(recv(&port)).unwrap(), *b"x");
    }
}

#[test]
fn an_idle_worker_does_not_run_in_circles() {
    let f = Fixture::with(Config::default(), false, Duration::from_micros(10));
    let before = f.seen().parks;
    let mut waker = None;
    f.runtime.block_on(poll_fn(|cx| {
        if waker.is_some() {
            return Poll::Ready(());
        }
        let wake = cx.waker().clone();
        waker = Some(thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            wake.wake();
        }));
        Poll::Pending
    }));
    waker.unwrap().join().unwrap();
    let parks = f.seen().parks - before;
    assert!(parks <= 4, "{parks}");
}
