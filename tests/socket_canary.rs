//! Receives and sends in flight while everything around them goes, in all
//! orders: future, task, stream, lease, runtime and its thread. Whatever was
//! freed meanwhile is filled with a pattern and kept: it never changes, because
//! the kernel writes to nothing of it, and never arrives at a peer, because the
//! kernel reads nothing of it.
//!
//! `ISOCHROME_CANARIES` says how many rounds; 200 if it does not.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::UnsafeCell;
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Peer;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::bytes::{Random, check, pattern};
use common::futures::{park_on, poll_once};
use common::{build, descriptors, descriptors_return_to, shrink, std_pair};
use isochrome::{Color, DriverChoice, yield_now};

/// What freed memory holds. Nobody sends it.
const CANARY: u8 = 0xa5;
const FILL: [u8; 4096] = [CANARY; 4096];

/// Keeps what is freed while it is armed.
struct Quarantine {
    armed: AtomicBool,
    count: AtomicUsize,
    graves: UnsafeCell<[(usize, usize, usize); GRAVES]>,
}

const GRAVES: usize = 1 << 16;

// SAFETY: a grave is written by the one who got its number from `count`, and
// read when nobody frees into the quarantine any more.
unsafe impl Sync for Quarantine {}

#[global_allocator]
static QUARANTINE: Quarantine = Quarantine {
    armed: AtomicBool::new(false),
    count: AtomicUsize::new(0),
    graves: UnsafeCell::new([(0, 0, 0); GRAVES]),
};

// SAFETY: the system's allocator does it, but that some memory is never given
// back to it, or later.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: handed on from the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: handed on from the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if self.armed.load(Ordering::Acquire) {
            let grave = self.count.fetch_add(1, Ordering::AcqRel);
            if grave < GRAVES {
                // SAFETY: the memory was the caller's, and is ours now; so is
                // the grave.
                unsafe {
                    ptr.write_bytes(CANARY, layout.size());
                    let graves = self.graves.get().cast::<(usize, usize, usize)>();
                    *graves.add(grave) = (ptr as usize, layout.size(), layout.align());
                }
                return;
            }
        }
        // SAFETY: handed on from the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

impl Quarantine {
    /// Looks at what was freed since it was armed, and gives it back. To be
    /// called when no other thread is left that frees.
    fn inspect(&self, round: usize) {
        let count = self.count.load(Ordering::Acquire);
        assert!(count < GRAVES, "{count} were freed: too many to keep");
        for grave in 0..count {
            // SAFETY: below `count`, and nobody frees into it now.
            let (ptr, size, _) = unsafe { (*self.graves.get())[grave] };
            // SAFETY: kept since it was freed, and filled then.
            let memory = unsafe { std::slice::from_raw_parts(ptr as *const u8, size) };
            let mut chunks = memory.chunks(FILL.len());
            assert!(
                chunks.all(|chunk| *chunk == FILL[..chunk.len()]),
                "round {round}: {size} bytes were written to after they were freed"
            );
        }
        self.armed.store(false, Ordering::Release);
        for grave in 0..count {
            // SAFETY: as above; allocated with this layout, and given up.
            unsafe {
                let (ptr, size, align) = (*self.graves.get())[grave];
                System.dealloc(
                    ptr as *mut u8,
                    Layout::from_size_align_unchecked(size, align),
                );
            }
        }
        self.count.store(0, Ordering::Release);
    }
}

/// Something that is dropped at some time, on some thread.
type Thing = Box<dyn Any + Send>;

/// What sends to streams, and reads slowly from one.
struct Peers {
    quiet: Peer,
    /// Sends nothing before the end of the runtime.
    idle: Peer,
    full: Peer,
    place: usize,
}

impl Peers {
    /// Something to receive, and room to send, whoever is there still.
    fn stir(&mut self, random: &mut Random) {
        let data = pattern(0, 1 + random.below(40_000));
        if let Err(e) = self.quiet.write(&data) {
            let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(
                e.kind() == ErrorKind::WouldBlock || gone.contains(&e.kind()),
                "{e}"
            );
        }
        let mut some = vec![0; 1 + random.below(200_000)];
        if let Ok(n) = self.full.read(&mut some) {
            check(self.place, &some[..n]);
            self.place += n;
        }
    }
}

/// Puts everything into flight, and lets it go in some order, the runtime and
/// its thread among it. What is left is for another thread.
fn round(driver: DriverChoice, workers: usize, random: &mut Random) -> (Vec<Thing>, Peers) {
    const SIZE: usize = 6 << 20;
    let rt = build(driver, workers);
    let (mut things, mut peers) = rt.block_on(async {
        let (quiet, mut quiet_peer) = std_pair().await;
        let (full, full_peer) = std_pair().await;
        let (idle, idle_peer) = std_pair().await;
        shrink(&full);
        let (quiet, full) = (Arc::new(quiet), Arc::new(full));
        quiet_peer.write_all(&pattern(0, 100)).unwrap();
        let lease = quiet.recv().await.unwrap();
        quiet_peer.set_nonblocking(true).unwrap();

        let stream = quiet.clone();
        let mut recv: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _ = stream.recv().await;
        });
        let mut wait: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _ = idle.recv().await;
        });
        assert!(poll_once(&mut wait).await.is_pending());
        let (stream, feeds) = (full.clone(), random.below(2) == 0);
        let mut send: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            if feeds {
                let _ = stream.feed(pattern(0, SIZE)).await;
                let _ = stream.flush().await;
            } else {
                let _ = stream.send_all(pattern(0, SIZE)).await;
            }
        });
        // By this worker, or by a thread that is none.
        if random.below(2) == 0 {
            assert!(poll_once(&mut recv).await.is_pending());
            assert!(poll_once(&mut send).await.is_pending());
        } else {
            (recv, send) = thread::spawn(move || {
                assert!(park_on(poll_once(&mut recv)).is_pending());
                assert!(park_on(poll_once(&mut send)).is_pending());
                (recv, send)
            })
            .join()
            .unwrap();
        }
        let stream = quiet.clone();
        let task = Color::new().spawn(async move {
            loop {
                let mut some = [0; 100];
                match stream.read(&mut some).await {
                    Ok(n) if n > 0 => {}
                    _ => break,
                }
            }
        });
        for _ in 0..random.below(4) {
            yield_now().await;
        }
        let things: Vec<Thing> = vec![
            Box::new(recv),
            Box::new(wait),
            Box::new(send),
            Box::new(quiet),
            Box::new(full),
            Box::new(lease),
            // Goes on by itself, or not.
            match random.below(2) {
                0 => Box::new(task.abort_handle()),
                _ => {
                    task.abort();
                    Box::new(task)
                }
            },
        ];
        full_peer.set_nonblocking(true).unwrap();
        idle_peer.set_nonblocking(true).unwrap();
        let peers = Peers {
            quiet: quiet_peer,
            idle: idle_peer,
            full: full_peer,
            place: 0,
        };
        (things, peers)
    });
    for i in (1..things.len()).rev() {
        things.swap(i, random.below(i + 1));
    }
    let left = things.split_off(random.below(things.len() + 1));
    for thing in things {
        peers.stir(random);
        match random.below(3) {
            0 => drop(thing),
            1 => thread::spawn(move || drop(thing)).join().unwrap(),
            // In the runtime, with a turn for the driver or not.
            n => rt.block_on(async move {
                drop(thing);
                for _ in 0..n - 2 {
                    yield_now().await;
                }
            }),
        }
    }
    peers.stir(random);
    // All the time, so that something arrives at the worst one.
    let (mut idle, over) = (peers.idle.try_clone().unwrap(), Arc::default());
    let writes = thread::spawn({
        let over: Arc<AtomicBool> = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                let _ = idle.write(&[1; 100]);
                thread::yield_now();
            }
        }
    });
    assert_eq!(rt.shutdown(), 0, "the kernel kept operations");
    over.store(true, Ordering::Relaxed);
    writes.join().unwrap();
    peers.stir(random);
    (left, peers)
}

fn canaries(driver: DriverChoice, rounds: usize) {
    let _alone = common::alone();
    if !common::works(driver) {
        return;
    }
    let mut random = Random::seeded();
    let before = descriptors();
    for i in 0..rounds {
        let _watchdog = common::Watchdog::start("a round of canaries");
        let mut its = Random(random.next() | 1);
        QUARANTINE.armed.store(true, Ordering::Release);
        let (left, mut peers) = thread::spawn(move || round(driver, 1 + i % 2, &mut its))
            .join()
            .unwrap();
        for thing in left {
            drop(thing);
            peers.stir(&mut random);
        }
        peers.stir(&mut random);
        descriptors_return_to(&[&before[..], &[const { String::new() }; 3]].concat());
        drop(peers);
        QUARANTINE.inspect(i);
    }
    descriptors_return_to(&before);
}

fn rounds() -> usize {
    let set = std::env::var("ISOCHROME_CANARIES").ok();
    set.map_or(200, |n| n.parse().expect("a number of rounds"))
}

#[test]
fn freed_memory_never_changes_on_the_proactor() {
    canaries(DriverChoice::Proactor, rounds());
}

#[test]
fn freed_memory_never_changes_on_the_reactor() {
    canaries(DriverChoice::Reactor, rounds().div_ceil(10));
}
