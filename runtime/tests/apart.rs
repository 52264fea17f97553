//! Tasks with a color of their own in one block: the color lives as long as it
//! or the task is held, and nothing is left behind.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use isochrome_runtime::{Builder, Color, Placement, Runtime, spawn, spawn_apart, yield_now};
use support::{Event, World, foreign_block_on, runtime};

mod workers {
    crate::support::on_workers!(
        the_color_outlives_its_task,
        it_is_a_color_like_others,
        refused_after_the_end,
        millions_leave_nothing_behind,
        round_robin_reaches_every_worker,
    );
}

/// Counts what is held.
struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The tests of this file count the bytes of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// The color is held by a handle from within, by a child that goes on, and by
/// a waker; its own task is long over.
fn the_color_outlives_its_task(workers: usize) {
    let _alone = alone();
    let rt = runtime(workers);
    for _ in 0..200 {
        let go = Event::new();
        let wait = go.clone();
        let (color, child) = rt.block_on(async {
            spawn_apart(async move {
                let color = Color::current().unwrap();
                let expected = color.clone();
                let child = spawn(async move {
                    wait.wait().await;
                    assert_eq!(Color::current(), Some(expected));
                });
                (color, child)
            })
            .await
            .unwrap()
        });
        let again = color.clone();
        drop(color);
        let later = again.spawn(async { 3 });
        let threads = [again.clone(), again].map(|color| std::thread::spawn(|| drop(color)));
        go.set();
        rt.block_on(async {
            child.await.unwrap();
            assert_eq!(later.await.unwrap(), 3);
        });
        threads.into_iter().for_each(|t| t.join().unwrap());
    }
    // A color that outlives the runtime.
    let color = rt.block_on(async { spawn_apart(async { Color::current() }).await.unwrap() });
    drop(rt);
    let refused = foreign_block_on(color.unwrap().spawn(async {}));
    assert!(refused.unwrap_err().is_shutdown());
}

fn it_is_a_color_like_others(workers: usize) {
    let _alone = alone();
    let rt = runtime(workers);
    rt.block_on(async {
        let inner = spawn_apart(async {
            let mine = Color::current().unwrap();
            assert_ne!(mine, Color::DEFAULT);
            assert_eq!(
                spawn(async { Color::current() }).await.unwrap(),
                Some(mine.clone())
            );
            assert_eq!(Color::current(), Some(mine.clone()));
            assert_ne!(
                spawn_apart(async { Color::current() }).await.unwrap(),
                Some(mine)
            );
            7
        });
        assert_eq!(inner.await.unwrap(), 7);
        let waits = spawn_apart(std::future::pending::<()>());
        waits.abort();
        assert!(waits.await.unwrap_err().is_aborted());
        assert!(
            spawn_apart(async { panic!("on purpose") })
                .await
                .unwrap_err()
                .is_panic()
        );
    });
    let handle = rt.handle().clone();
    let there = std::thread::spawn(move || handle.spawn_apart(async { 8 }));
    assert_eq!(rt.block_on(there.join().unwrap()).unwrap(), 8);
}

fn refused_after_the_end(workers: usize) {
    let _alone = alone();
    let rt = runtime(workers);
    let handle = rt.handle().clone();
    drop(rt);
    assert!(
        foreign_block_on(handle.spawn_apart(async {}))
            .unwrap_err()
            .is_shutdown()
    );
}

/// Trap 31.
fn millions_leave_nothing_behind(workers: usize) {
    // What one worker may not leave, several may not either; it takes long.
    let million = if workers == 1 { 1_000_000 } else { 100_000 };
    let _alone = alone();
    let held = || BYTES.load(Ordering::Relaxed);
    let round = |rt: &Runtime, count: usize| {
        let at_once = 1_000;
        rt.block_on(async {
            let mut joins = Vec::with_capacity(at_once);
            for _ in 0..count / at_once {
                joins.extend((0..at_once).map(|_| spawn_apart(async { yield_now().await })));
                for join in joins.drain(..) {
                    join.await.unwrap();
                }
            }
            for _ in 0..count {
                drop(Color::new());
            }
            for number in 0..(count / 100) as u64 {
                drop(Color::of(number));
            }
        });
    };
    drop(runtime(workers));
    let outside = held();
    let rt = runtime(workers);
    round(&rt, 10_000);
    let (before, calls) = (held(), CALLS.load(Ordering::Relaxed));
    round(&rt, million);
    let calls = CALLS.load(Ordering::Relaxed) - calls;
    // Other tests begin meanwhile, and wait for this one.
    let noise = 64 << 10;
    if workers == 1 {
        // With more, tasks may be on their way back, and queues grow.
        assert!(
            held() - before < noise,
            "{} bytes are left",
            held() - before
        );
    }
    drop(rt);
    assert!(
        held() - outside < noise,
        "{} bytes are left",
        held() - outside
    );
    // One for a task with its color, one for a color, and two for one with a
    // number. Tables and queues may have grown a few times.
    let expected = 2 * million + 2 * (million / 100);
    assert!(
        calls <= expected + 2_000,
        "{calls} allocations, not {expected}"
    );
}

/// A color made on a worker begins on each of them in turn; nobody may steal.
fn round_robin_reaches_every_worker(workers: usize) {
    let _alone = alone();
    let builder = Builder::new().workers(workers).stealing(false);
    let rt = World::new().build(builder.placement(Placement::RoundRobin));
    let mut threads = rt.block_on(async {
        let mut threads = Vec::new();
        for i in 0..4 * workers {
            let thread = async { std::thread::current().id() };
            threads.push(match i / workers % 2 {
                0 => spawn_apart(thread).await.unwrap(),
                _ => Color::new().spawn(thread).await.unwrap(),
            });
        }
        for turn in threads.chunks(workers) {
            assert_eq!(turn, &threads[..workers], "in turn");
        }
        threads
    });
    threads.truncate(workers);
    threads.dedup();
    assert_eq!(threads.len(), workers);
}
