//! Everything that colors promise, at random: spawns, steps, cells, holds,
//! aborts, panics and yields, on 1, 2 and 8 workers.
//!
//! Every color owns a count that is not synchronised, and a sequence: what is
//! put into the color's queue by one task comes out in that order. Runs for a
//! second on each worker count and driver; `ISOCHROME_CHAOS_SECONDS` says how
//! long instead, and `ISOCHROME_CHAOS_SEED` with which seed.

mod common;

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::bytes::Random;
use common::futures::{Either, poll_once, race};
use isochrome::{Color, ColorCell, DriverChoice, JoinError, JoinHandle, Runtime, spawn, yield_now};

const COLORS: usize = 6;
const TASKS: usize = 48;

/// What code of one color reaches.
struct Owned {
    color: Color,
    plain: UnsafeCell<Plain>,
    cell: ColorCell<u64>,
    /// Steps that were begun on the plain data, and on the cell.
    steps: AtomicU64,
    cell_steps: AtomicU64,
}

#[derive(Default)]
struct Plain {
    steps: u64,
    /// Who is inside between two awaits of a hold.
    holder: Option<u64>,
}

// SAFETY: the plain data is reached under the color only, which is what is
// tested: should it not hold, counts are wrong, and sanitizers say so.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Owned {
    fn new(color: Color) -> Arc<Owned> {
        Arc::new(Owned {
            cell: color.cell(0),
            color,
            plain: UnsafeCell::default(),
            steps: AtomicU64::new(0),
            cell_steps: AtomicU64::new(0),
        })
    }

    /// What a step under the color does; `who` is its hold, if it is in one.
    fn step(&self, who: Option<u64>) {
        assert_eq!(Color::current().as_ref(), Some(&self.color));
        self.steps.fetch_add(1, Ordering::Relaxed);
        // SAFETY: under the color; no code of others is called.
        let plain = unsafe { &mut *self.plain.get() };
        assert_eq!(plain.holder, who, "someone came between two awaits");
        let before = plain.steps;
        std::hint::black_box(&mut plain.steps);
        plain.steps = before + 1;
    }

    fn begin_hold(&self, who: u64) {
        self.step(None);
        // SAFETY: as above.
        unsafe { &mut *self.plain.get() }.holder = Some(who);
    }

    fn end_hold(&self, who: u64) {
        self.step(Some(who));
        // SAFETY: as above.
        unsafe { &mut *self.plain.get() }.holder = None;
    }
}

/// Ends the hold also when its block is dropped in the middle.
struct Inside(Arc<Owned>, u64);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.end_hold(self.1);
    }
}

/// Checks that what one task queues in a color comes out in that order.
#[derive(Default)]
struct Sequence {
    pushed: u64,
    seen: Arc<AtomicU64>,
}

impl Sequence {
    /// The check for the next entry, to be made where it runs.
    fn next(&mut self) -> impl FnOnce() + Send + 'static {
        self.pushed += 1;
        let (number, seen) = (self.pushed, self.seen.clone());
        // Relaxed: the color orders it. Entries that were aborted are left out.
        move || {
            let before = seen.swap(number, Ordering::Relaxed);
            assert!(before < number, "{number} came after {before}");
        }
    }
}

async fn live(all: Arc<[Arc<Owned>]>, mut random: Random, id: u64, far: Arc<AtomicUsize>) {
    let mut orders: Vec<_> = (0..COLORS).map(|_| Sequence::default()).collect();
    let mut children: Vec<JoinHandle<()>> = Vec::new();
    for n in 0..24_u64 {
        let which = random.below(COLORS);
        let (owned, order) = (all[which].clone(), orders[which].next());
        let who = id << 32 | n;
        // A step of the own color runs at once, whatever is queued.
        let own = Color::current().as_ref() == Some(&owned.color);
        match random.below(12) {
            0 | 1 => yield_now().await,
            2 => {
                let inner = owned.clone();
                let step = owned.color.run(move || {
                    if !own {
                        order();
                    }
                    inner.step(None);
                });
                step.await;
            }
            3 => {
                owned.cell.with(|n| *n += 1).await;
                owned.cell_steps.fetch_add(1, Ordering::Relaxed);
            }
            4 => {
                // Given up while it is queued, perhaps.
                let inner = owned.clone();
                let mut step = pin!(owned.color.run(move || {
                    if !own {
                        order();
                    }
                    inner.step(None);
                }));
                let _ = poll_once(&mut step).await;
            }
            5 => {
                let inner = owned.clone();
                children.push(owned.color.spawn(async move {
                    order();
                    inner.step(None);
                    yield_now().await;
                    inner.step(None);
                    let borrowed = inner.cell.get().map(|mut n| *n += 1);
                    borrowed.expect("under its color, and no hold is");
                    inner.cell_steps.fetch_add(1, Ordering::Relaxed);
                }));
            }
            6 | 7 => {
                let yields = random.below(4);
                let (inner, far) = (owned.clone(), far.clone());
                let hold = owned.color.hold(async move {
                    order();
                    inner.begin_hold(who);
                    let inside = Inside(inner.clone(), who);
                    for _ in 0..yields {
                        yield_now().await;
                        inner.step(Some(who));
                        let under = inner.clone();
                        let inline = inner.color.run(move || under.step(Some(who)));
                        inline.await;
                    }
                    drop(inside);
                    far.fetch_add(1, Ordering::Relaxed);
                });
                if random.below(3) > 0 {
                    hold.await.expect("no hold is asked for inside");
                } else {
                    // Given up at some time.
                    let patience = async {
                        for _ in 0..random.below(6) {
                            yield_now().await;
                        }
                    };
                    if let Either::First(ended) = race(hold, patience).await {
                        ended.expect("as above");
                    }
                }
            }
            8 => {
                let step = async { owned.color.run(|| panic!("meant")).await };
                let mut step = pin!(step);
                let caught = std::future::poll_fn(|cx| {
                    match catch_unwind(AssertUnwindSafe(|| step.as_mut().poll(cx))) {
                        Ok(polled) => polled.map(|()| false),
                        Err(_) => std::task::Poll::Ready(true),
                    }
                });
                assert!(caught.await, "a panic comes out");
            }
            9 => {
                if let Some(child) = children.pop() {
                    child.abort();
                    let ended = child.await;
                    assert!(
                        ended.is_ok() || ended.as_ref().is_err_and(JoinError::is_aborted),
                        "{ended:?}"
                    );
                }
            }
            10 => {
                // Nested holds, of colors in any order: one may have to give way.
                let (outer, inner) = (owned.clone(), all[random.below(COLORS)].clone());
                let hold = owned.color.hold(async move {
                    outer.begin_hold(who);
                    let _inside = Inside(outer, who);
                    let within = inner.clone();
                    let held = inner.color.hold(async move {
                        within.begin_hold(who);
                        let _inside = Inside(within, who);
                        yield_now().await;
                    });
                    held.await
                });
                if let Err(e) = hold.await.expect("it is not inside") {
                    assert!(e.is_deadlock(), "{e}");
                }
            }
            _ => {
                let color = Color::new();
                let inner = owned.clone();
                children.push(color.spawn(async move {
                    let step = inner.clone();
                    inner.color.run(move || step.step(None)).await;
                    drop(spawn(yield_now()));
                }));
            }
        }
    }
    for child in children {
        let ended = child.await;
        assert!(ended.is_ok(), "{ended:?}");
    }
}

/// A thread of nobody's that makes steps and holds.
fn stranger(all: &[Arc<Owned>], mut random: Random) {
    for n in 0..40 {
        let owned = all[random.below(COLORS - 1)].clone();
        if random.below(3) == 0 {
            let (inner, who) = (owned.clone(), u64::MAX - n);
            let hold = owned.color.hold(async move {
                inner.begin_hold(who);
                let _inside = Inside(inner, who);
                yield_now().await;
            });
            common::futures::park_on(hold).expect("it is not inside");
        } else {
            let cell = owned.cell.clone();
            common::futures::park_on(async move { cell.with(|n| *n += 1).await });
            owned.cell_steps.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn round(runtime: &Runtime, seed: u64) {
    let mut random = Random(seed | 1);
    let finished = Arc::new(AtomicUsize::new(0));
    let all: Arc<[Arc<Owned>]> = runtime.block_on(async {
        let all: Vec<_> = (0..COLORS as u64)
            .map(|n| {
                Owned::new(match n {
                    0 | 1 => Color::of(n),
                    2..5 => Color::new(),
                    _ => Color::DEFAULT,
                })
            })
            .collect();
        all.into()
    });
    let strangers: Vec<_> = (0..2)
        .map(|_| {
            let (all, random) = (all.clone(), Random(random.next() | 1));
            std::thread::spawn(move || stranger(&all, random))
        })
        .collect();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS as u64)
            .map(|id| {
                let color = match random.below(3) {
                    0 => all[random.below(COLORS)].color.clone(),
                    _ => Color::new(),
                };
                let random = Random(random.next() | 1);
                color.spawn(live(all.clone(), random, id + 1, finished.clone()))
            })
            .collect();
        for task in tasks {
            task.await.expect("no task panics");
        }
        for stranger in strangers {
            while !stranger.is_finished() {
                yield_now().await;
            }
            stranger.join().expect("no thread panics");
        }
        // What was given up last may still be on its way out.
        for owned in all.iter() {
            let inner = owned.clone();
            let last = owned.color.hold(async move { inner.step(None) });
            last.await.expect("not inside");
        }
    });
    for owned in all.iter() {
        // SAFETY: nothing of the color runs: every task was awaited.
        let steps = unsafe { &*owned.plain.get() }.steps;
        assert_eq!(
            steps,
            owned.steps.load(Ordering::Relaxed),
            "a step was lost"
        );
        let cell = runtime.block_on(async { owned.cell.with(|n| *n).await });
        assert_eq!(cell, owned.cell_steps.load(Ordering::Relaxed));
    }
}

fn chaos(driver: DriverChoice, workers: usize) {
    let _alone = common::alone();
    if !common::works(driver) {
        return;
    }
    let number = |name| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let seconds = number("ISOCHROME_CHAOS_SECONDS");
    let long = seconds.map_or(Duration::from_millis(700), Duration::from_secs);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first =
        number("ISOCHROME_CHAOS_SEED").unwrap_or(time.expect("after 1970").as_nanos() as u64);
    let begun = Instant::now();
    let runtime = common::build(driver, workers);
    let mut rounds = 0;
    while rounds == 0 || begun.elapsed() < long {
        let seed = first.wrapping_add(rounds);
        println!("{driver}, {workers} workers: ISOCHROME_CHAOS_SEED={seed}");
        let watchdog = common::Watchdog::start("chaos");
        round(&runtime, seed);
        drop(watchdog);
        rounds += 1;
    }
    // The end comes while much is going on.
    let all: Arc<[Arc<Owned>]> = (0..COLORS)
        .map(|_| Owned::new(runtime.handle().color()))
        .collect();
    let mut random = Random(first | 1);
    for id in 0..TASKS as u64 {
        let life = live(
            all.clone(),
            Random(random.next() | 1),
            id + 1,
            Arc::default(),
        );
        drop(runtime.handle().color().spawn(life));
    }
    runtime.block_on(yield_now());
    let _watchdog = common::Watchdog::start("the end of chaos");
    drop(runtime);
    let mut cx = Context::from_waker(Waker::noop());
    for owned in all.iter() {
        assert!(
            pin!(owned.color.run(|| ())).poll(&mut cx).is_ready(),
            "a color was lost"
        );
    }
}

macro_rules! chaos {
    ($($name:ident, $driver:ident, $workers:literal;)*) => {$(
        #[test]
        fn $name() {
            chaos(DriverChoice::$driver, $workers);
        }
    )*};
}

chaos!(
    on_the_reactor_1, Reactor, 1;
    on_the_reactor_2, Reactor, 2;
    on_the_reactor_8, Reactor, 8;
    on_the_proactor_1, Proactor, 1;
    on_the_proactor_2, Proactor, 2;
    on_the_proactor_8, Proactor, 8;
);
