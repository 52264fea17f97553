//! The rules 1 to 4 of colors, with sockets at work.

mod common;

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::bytes::{Random, check, pattern};
use common::{everywhere, pair};
use isochrome::net::TcpStream;
use isochrome::time::sleep;
use isochrome::{Color, JoinHandle, Runtime, spawn, yield_now};

everywhere!(
    one_color_polls_one_task_at_a_time,
    a_color_runs_in_the_order_of_readiness,
    the_default_color_stays_on_its_thread,
    children_have_the_color_of_their_parents,
);

/// Plain data of a color: nothing about it is atomic.
#[derive(Default)]
struct Plain {
    inside: bool,
    polls: u64,
    bytes: usize,
}

/// What only tasks of one color reach.
#[derive(Default)]
struct OfColor(UnsafeCell<Plain>);

// SAFETY: rule 1 of colors, the very thing under test: all access is in polls
// of tasks of one color, which do not overlap, and each happens after the one
// before. (Should it not hold, the counts are wrong, and sanitizers say so.)
unsafe impl Send for OfColor {}
// SAFETY: as above.
unsafe impl Sync for OfColor {}

impl OfColor {
    #[allow(clippy::mut_from_ref, reason = "the color excludes others")]
    fn get(&self) -> &mut Plain {
        // SAFETY: as above; callers do not keep the reference across a call
        // of another's code.
        unsafe { &mut *self.0.get() }
    }
}

/// Checks that its polls overlap with no other of the color.
struct Watched<F> {
    plain: Arc<OfColor>,
    /// Polls, for the sum.
    count: Arc<AtomicUsize>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let was_inside = std::mem::replace(&mut self.plain.get().inside, true);
        assert!(!was_inside, "two tasks of a color are polled at once");
        self.plain.get().polls += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        let polled = self.future.as_mut().poll(cx);
        self.plain.get().inside = false;
        polled
    }
}

fn watch<F>(color: &Color, plain: &Arc<OfColor>, count: &Arc<AtomicUsize>, f: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (plain, count) = (plain.clone(), count.clone());
    color.spawn(Watched {
        plain,
        count,
        future: Box::pin(f),
    })
}

/// A connection whose end here is used by three tasks of one color.
fn connection(stream: TcpStream, size: usize, tasks: &mut Vec<JoinHandle<()>>) -> Check {
    let color = Color::new();
    let (plain, count) = (Arc::<OfColor>::default(), Arc::default());
    let stream = Arc::new(stream);
    let done = Arc::new(AtomicBool::new(false));
    let (reader, shared) = (stream.clone(), plain.clone());
    let ended = done.clone();
    tasks.push(watch(&color, &plain, &count, async move {
        loop {
            let data = reader.recv().await.unwrap();
            if data.is_empty() {
                break;
            }
            let before = shared.get().bytes;
            check(before, &data);
            shared.get().bytes = before + data.len();
        }
        ended.store(true, Ordering::Relaxed);
    }));
    tasks.push(watch(&color, &plain, &count, async move {
        let mut place = 0;
        while place < size {
            let len = (1 + place % 5_000).min(size - place);
            stream.send_all(pattern(place, len)).await.0.unwrap();
            place += len;
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }));
    tasks.push(watch(&color, &plain, &count, async move {
        while !done.load(Ordering::Relaxed) {
            yield_now().await;
            sleep(Duration::from_micros(300)).await;
        }
    }));
    Check { plain, count, size }
}

struct Check {
    plain: Arc<OfColor>,
    count: Arc<AtomicUsize>,
    size: usize,
}

impl Check {
    fn verify(self) {
        // Alone now: every task of the color has been joined and is gone.
        let plain = self.plain.get();
        assert_eq!(plain.polls, self.count.load(Ordering::Relaxed) as u64);
        assert_eq!(plain.bytes, self.size);
    }
}

fn one_color_polls_one_task_at_a_time(rt: Runtime) {
    rt.block_on(async {
        let (mut tasks, mut checks) = (Vec::new(), Vec::new());
        for i in 0..16 {
            let (near, far) = pair().await;
            for stream in [near, far] {
                checks.push(connection(stream, 100_000 + i * 999, &mut tasks));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        checks.into_iter().for_each(Check::verify);
    });
}

/// The queue of a color, as it has to be: who was woken, in order.
#[derive(Default)]
struct Order {
    wakers: Vec<Option<Waker>>,
    expected: VecDeque<usize>,
    runs: usize,
}

struct Ordered(UnsafeCell<Order>);

// SAFETY: as for `OfColor`.
unsafe impl Send for Ordered {}
// SAFETY: as for `OfColor`.
unsafe impl Sync for Ordered {}

impl Ordered {
    #[allow(clippy::mut_from_ref, reason = "the color excludes others")]
    fn get(&self) -> &mut Order {
        // SAFETY: as for `OfColor`.
        unsafe { &mut *self.0.get() }
    }
}

/// A task of the color wakes the others in random order, between receives;
/// they have to run in that order.
fn a_color_runs_in_the_order_of_readiness(rt: Runtime) {
    const SLEEPERS: usize = 10;
    const ROUNDS: usize = 200;
    let mut random = Random::seeded();
    rt.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let color = Color::new();
            let order = Arc::new(Ordered(UnsafeCell::new(Order {
                wakers: (0..SLEEPERS).map(|_| None).collect(),
                ..Order::default()
            })));
            for i in 0..SLEEPERS {
                let order = order.clone();
                tasks.push(color.spawn(async move {
                    for _ in 0..ROUNDS {
                        let mut asleep = false;
                        poll_fn(|cx| {
                            if std::mem::replace(&mut asleep, true) {
                                return Poll::Ready(());
                            }
                            order.get().wakers[i] = Some(cx.waker().clone());
                            Poll::Pending
                        })
                        .await;
                        let order = order.get();
                        assert_eq!(order.expected.pop_front(), Some(i), "out of order");
                        order.runs += 1;
                    }
                }));
            }
            let (near, far) = pair().await;
            let mut random = Random(random.next() | 1);
            tasks.push(color.spawn(async move {
                for round in 1..=ROUNDS {
                    while order.get().wakers.iter().any(Option::is_none) {
                        yield_now().await;
                    }
                    let mut left: Vec<_> = (0..SLEEPERS).collect();
                    while !left.is_empty() {
                        let i = left.swap_remove(random.below(left.len()));
                        order.get().expected.push_back(i);
                        let waker = order.get().wakers[i].take().unwrap();
                        waker.wake();
                    }
                    // Readiness from outside comes in between.
                    near.send_all("tick").await.0.unwrap();
                    near.recv().await.unwrap();
                    while order.get().runs < round * SLEEPERS {
                        yield_now().await;
                    }
                }
            }));
            drop(Color::new().spawn(async move {
                while let Ok(data) = far.recv().await {
                    if data.is_empty() {
                        break;
                    }
                    far.send_all(data).await.0.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn the_default_color_stays_on_its_thread(rt: Runtime) {
    let here = thread::current().id();
    let plain: Arc<OfColor> = Arc::default();
    let handle = rt.handle().clone();
    rt.block_on(async {
        assert_eq!(Color::current(), Some(Color::DEFAULT));
        let count = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for i in 0..20 {
            let (near, far) = pair().await;
            let serve = async move {
                loop {
                    let data = far.recv().await.unwrap();
                    assert_eq!(thread::current().id(), here);
                    if data.is_empty() {
                        break;
                    }
                    far.send_all(data).await.0.unwrap();
                    sleep(Duration::from_micros(10)).await;
                    assert_eq!(thread::current().id(), here);
                }
            };
            let ask = async move {
                for place in 0..30 {
                    near.send_all(pattern(place, 100)).await.0.unwrap();
                    check(place, &near.recv().await.unwrap());
                    assert_eq!(thread::current().id(), here);
                    assert_eq!(Color::current(), Some(Color::DEFAULT));
                }
            };
            tasks.push(watch(&Color::DEFAULT, &plain, &count, serve));
            // From outside, through the handle, it is the default color too.
            let handle = handle.clone();
            let from_outside = thread::spawn(move || handle.spawn(ask));
            if i % 2 == 0 {
                tasks.push(from_outside.join().unwrap());
            } else {
                tasks.push(spawn(
                    async move { from_outside.join().unwrap().await.unwrap() },
                ));
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(plain.get().polls, count.load(Ordering::Relaxed) as u64);
    });
}

fn children_have_the_color_of_their_parents(rt: Runtime) {
    rt.block_on(async {
        for color in [Color::new(), Color::of(7), Color::DEFAULT] {
            let expected = color.clone();
            let (near, far) = pair().await;
            let parent = color.spawn(async move {
                assert_eq!(Color::current().as_ref(), Some(&expected));
                let child = spawn({
                    let expected = expected.clone();
                    async move {
                        let data = near.recv().await.unwrap();
                        // Still, after having waited for the driver.
                        assert_eq!(Color::current(), Some(expected.clone()));
                        let grandchild = spawn(async move {
                            assert_eq!(Color::current(), Some(expected));
                        });
                        grandchild.await.unwrap();
                        data.len()
                    }
                });
                let stranger = Color::new().spawn(async { Color::current() });
                assert_ne!(stranger.await.unwrap(), Some(expected.clone()));
                let blocking = isochrome::spawn_blocking(Color::current);
                assert_eq!(blocking.await.unwrap(), None, "the pool has no color");
                assert_eq!(Color::current(), Some(expected));
                child.await.unwrap()
            });
            far.send_all("four").await.0.unwrap();
            assert_eq!(parent.await.unwrap(), 4);
        }
        assert_eq!(Color::of(7), Color::of(7));
        assert_ne!(Color::of(7), Color::of(8));
    });
    assert_eq!(Color::current(), None);
}
