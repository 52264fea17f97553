//! Sends that end with the enter that takes them, or do not.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Wake, Waker};

use isochrome_runtime::DescriptorRef;
use isochrome_runtime::buf::IoBuf;

use super::*;
use crate::faults::{Fault, Plan};

/// A buffer whose end is seen.
struct Counted(Vec<u8>, Arc<AtomicU64>);

// SAFETY: the bytes are on the heap.
unsafe impl IoBuf for Counted {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// Buffers, and how many are gone.
#[derive(Default)]
struct Buffers(Arc<AtomicU64>);

impl Buffers {
    fn of(&self, bytes: &[u8]) -> Counted {
        Counted(bytes.to_vec(), self.0.clone())
    }

    fn gone(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A peer that does not answer, which a thread reads to the end.
fn read_by_a_thread(mut peer: UnixStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        got
    })
}

/// Different at each place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn a_round_trip_is_one_turn_of_the_driver() {
    const ROUNDS: usize = 200;
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.tcp_pair();
    let out = Port::new(DescriptorRef::to(port.descriptor()));
    let other = thread::spawn(move || {
        for i in 0..ROUNDS {
            peer.write_all(&[i as u8; 64]).unwrap();
            let mut back = [0; 64];
            peer.read_exact(&mut back).unwrap();
            assert_eq!(back, [i as u8; 64]);
        }
    });
    f.runtime.block_on(async {
        loop {
            let lease = recv(&port).await.unwrap();
            if lease.is_empty() {
                break;
            }
            out.feed(lease).await.unwrap();
        }
    });
    other.join().unwrap();
    let parks = f.seen().parks;
    assert!(parks < ROUNDS + ROUNDS / 4, "{parks} turns");
}

#[test]
fn who_waits_for_the_end_needs_nobody_else() {
    let (f, buffers) = (Fixture::new(Config::default()), Buffers::default());
    let (port, mut peer) = f.pair();
    f.runtime.block_on(async {
        for i in 0..10 {
            port.feed(buffers.of(&[i])).await.unwrap();
            // Its turn comes when the first is over.
            port.feed(buffers.of(&[i, i])).await.unwrap();
            port.flush().await.unwrap();
            assert_eq!(buffers.gone(), 2 * (u64::from(i) + 1));
            let mut got = [0; 3];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, [i; 3]);
        }
    });
    assert_eq!(f.seen().in_flight, 0);
}

struct UnparkThread(thread::Thread);

impl Wake for UnparkThread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// On a thread without a worker, after `fed`.
fn flush_elsewhere(port: &Port, fed: mpsc::Receiver<()>) {
    fed.recv().unwrap();
    let waker = Waker::from(Arc::new(UnparkThread(thread::current())));
    let mut flush = pin!(port.flush());
    while flush
        .as_mut()
        .poll(&mut Context::from_waker(&waker))
        .is_pending()
    {
        thread::park();
    }
}

#[test]
fn who_waits_on_another_thread_wakes_the_sleeping_worker() {
    for _ in 0..50 {
        let (f, buffers) = (Fixture::new(Config::default()), Buffers::default());
        let (port, _peer) = f.pair();
        let (signal, mut theirs) = f.pair();
        let (tell, fed) = mpsc::channel();
        thread::scope(|scope| {
            let port = &port;
            scope.spawn(move || {
                flush_elsewhere(port, fed);
                theirs.write_all(b"!").unwrap();
            });
            f.runtime.block_on(async {
                port.feed(buffers.of(b"abc")).await.unwrap();
                tell.send(()).unwrap();
                recv(&signal).await.unwrap();
            });
        });
        assert_eq!(buffers.gone(), 1);
    }
}

#[test]
fn what_is_given_up_or_ended_goes_out_before_the_sleep() {
    let (f, buffers) = (Fixture::new(Config::default()), Buffers::default());
    for drops in [true, false] {
        let (port, peer) = f.pair();
        let (signal, mut theirs) = f.pair();
        let got = read_by_a_thread(peer);
        let other = thread::spawn(move || {
            let got = got.join().unwrap();
            theirs.write_all(b"!").unwrap();
            got
        });
        f.runtime.block_on(async {
            port.feed(buffers.of(b"the last")).await.unwrap();
            if drops {
                drop(port);
                recv(&signal).await.unwrap();
            } else {
                assert!(port.end_after_fed());
                recv(&signal).await.unwrap();
            }
        });
        assert_eq!(other.join().unwrap(), b"the last");
    }
    assert_eq!(buffers.gone(), 2);
}

#[test]
fn what_finds_no_room_or_too_little_goes_on() {
    let (f, buffers) = (Fixture::new(Config::default()), Buffers::default());
    let (port, peer) = f.pair();
    // Some fit, one does in part, and one not at all.
    let sizes = [1, 100_000, 3_000_000, 1, 2, 500_000, 7];
    let all: Vec<Vec<u8>> = sizes.map(pattern).to_vec();
    let mut got = None;
    f.runtime.block_on(async {
        for (i, bytes) in all.iter().enumerate() {
            port.feed(buffers.of(bytes)).await.unwrap();
            if i == 2 {
                yield_now().await;
                assert_eq!(buffers.gone(), 2, "the kernel has not all of it");
                got = Some(read_by_a_thread(peer.try_clone().unwrap()));
            }
        }
        port.flush().await.unwrap();
    });
    assert_eq!(buffers.gone(), sizes.len() as u64);
    drop((port, peer));
    f.turn(3);
    assert_eq!(got.unwrap().join().unwrap(), all.concat());
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn a_failure_is_told_once_and_frees_the_buffer() {
    let (f, buffers) = (Fixture::new(Config::default()), Buffers::default());
    let (port, peer) = f.pair();
    drop(peer);
    f.runtime.block_on(async {
        port.feed(buffers.of(b"abc")).await.unwrap();
        let error = port.flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!(buffers.gone(), 1);
        port.flush().await.unwrap();
    });
}

#[test]
fn more_than_the_queue_holds_in_one_turn() {
    for config in [tiny(), Config::default()] {
        let (f, buffers) = (Fixture::new(config), Buffers::default());
        let (ports, mut peers): (Vec<_>, Vec<_>) = (0..100).map(|_| f.pair()).unzip();
        f.runtime.block_on(async {
            for round in 0..5 {
                for (i, port) in ports.iter().enumerate() {
                    port.feed(buffers.of(&[round, i as u8])).await.unwrap();
                }
            }
            for port in &ports {
                port.flush().await.unwrap();
            }
        });
        assert_eq!(buffers.gone(), 500);
        for (i, peer) in peers.iter_mut().enumerate() {
            for round in 0..5 {
                let mut got = [0; 2];
                peer.read_exact(&mut got).unwrap();
                assert_eq!(got, [round, i as u8]);
            }
        }
    }
}

#[test]
fn the_end_of_the_runtime_settles_what_is_fed() {
    let (f, buffers) = (Fixture::new(Config::default()), Buffers::default());
    let (port, mut peer) = f.pair();
    let (stuck, _keep) = f.pair();
    f.runtime.block_on(async {
        stuck.feed(buffers.of(&pattern(3_000_000))).await.unwrap();
        yield_now().await;
        port.feed(buffers.of(b"abc")).await.unwrap();
    });
    let Fixture { runtime, seen, .. } = f;
    drop(runtime);
    assert_eq!(buffers.gone(), 2);
    assert_eq!(seen.lock().unwrap().leaked, Some(0));
    let mut got = [0; 3];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abc");
}

/// The kernel refuses them before the end, and at the end the submission queue
/// has no room for what goes on.
#[test]
fn what_falls_short_at_the_end_of_the_runtime_ends() {
    use Fault::*;
    let long = pattern(300_000);
    for turns in 0..50 {
        Plan::of(&[(Full, 8), (Again, 2), (Busy, 2), (Short, 2)]).next();
        let (f, buffers) = (Fixture::new(Config::default()), Buffers::default());
        let pairs: Vec<_> = (0..20).map(|_| f.pair()).collect();
        // By then the faults are others.
        f.turn(turns);
        f.runtime.block_on(async {
            for (port, _) in &pairs {
                port.feed(buffers.of(&long)).await.unwrap();
            }
        });
        let Fixture { runtime, seen, .. } = f;
        drop(runtime);
        assert_eq!(seen.lock().unwrap().leaked, Some(0), "{turns}");
        assert_eq!(buffers.gone(), 20);
    }
}

/// On a kernel that takes some, takes none, has no room, and shows what failed
/// late: then nothing may pass for sent that was not.
#[test]
fn bad_days() {
    use Fault::*;
    let each: [&[Fault]; 8] = [
        &[Again],
        &[Busy],
        &[Interrupted],
        &[Short],
        &[Full],
        &[ShortSend],
        &[Blind, Delayed, Reordered, ShortSend],
        &[
            Again,
            Busy,
            Short,
            Full,
            Blind,
            Delayed,
            Reordered,
            ShortSend,
            Interrupted,
        ],
    ];
    let all = [1, 600, 70_000, 3, 300_000, 5_000].map(pattern);
    for faults in each {
        for (config, odds) in [(tiny(), 2), (Config::default(), 3)] {
            let faults: Vec<_> = faults.iter().map(|fault| (*fault, odds)).collect();
            Plan::of(&faults).next();
            let (f, buffers) = (Fixture::new(config), Buffers::default());
            let pairs: Vec<_> = (0..4).map(|_| f.pair()).collect();
            let (ports, peers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let got: Vec<_> = peers.into_iter().map(read_by_a_thread).collect();
            f.runtime.block_on(async {
                for bytes in &all {
                    for port in &ports {
                        port.feed(buffers.of(bytes)).await.unwrap();
                    }
                }
                for port in &ports {
                    port.flush().await.unwrap();
                }
            });
            assert_eq!(buffers.gone(), 24, "{faults:?}");
            drop(ports);
            f.until("all closed", |seen| seen.in_flight == 0);
            f.turn(10);
            for got in got {
                assert!(got.join().unwrap() == all.concat(), "{faults:?}");
            }
            assert_eq!(f.seen().strangers, 0);
        }
    }
}
