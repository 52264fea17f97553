//! The cases. Each runs one repetition, inside the runtime, as a task of it,
//! and gives back what the measured stretch cost.
//!
//! An operation is: a task spawned and joined; a yield; a round trip of the
//! ping-pong (two messages); a link of the chain; a task of the fan-out; a
//! sleep that fired; a yield under a limit of time; a timer made and dropped; a
//! round trip to a foreign thread; a message of the channel; an idle task.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use crate::channel::Channel;
use crate::meter::{Meter, Sample};
use crate::rt::Rt;

/// A repetition that runs.
pub type Running = Pin<Box<dyn Future<Output = Sample> + Send>>;

/// What stands for a case's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Time on the clock.
    Wall,
    /// CPU time of the process.
    Cpu,
    /// Memory that is still held at the end; the time is on the clock.
    Held,
}

/// A case.
#[derive(Debug)]
pub struct Case {
    /// What `--only` compares with.
    pub name: &'static str,
    /// What its cost is.
    pub cost: Cost,
    /// The operations of a repetition at scale 1.
    pub ops: u64,
    /// Runs a repetition of so many operations.
    pub run: fn(u64) -> Running,
}

/// How many tasks a batch, a fan-out and a chain have.
pub const BATCH: u64 = 1_000;

/// About 1 us on a 3 GHz machine; see [`work`].
pub const SHORT: u64 = 600;

/// About 20 us on a 3 GHz machine.
pub const LONG: u64 = 12_000;

/// All cases, in the order in which they run. The one that leaves tasks behind
/// is the last.
pub fn all<R: Rt>() -> Vec<Case> {
    let case = |name, ops, run| Case {
        name,
        cost: Cost::Wall,
        ops,
        run,
    };
    vec![
        case("spawn-join-one", 20_000, |n| {
            Box::pin(spawn_join_one::<R>(n))
        }),
        case("spawn-join-batch", 50_000, |n| {
            Box::pin(spawn_join_batch::<R>(n, BATCH))
        }),
        case("spawn-join-all", 100_000, |n| {
            Box::pin(spawn_join_batch::<R>(n, n))
        }),
        case("yield", 50_000, |n| Box::pin(yield_one::<R>(n))),
        case("yield-many", 100_000, |n| Box::pin(yield_many::<R>(n))),
        case("ping-pong-same", 20_000, |n| {
            Box::pin(ping_pong::<R>(n, false))
        }),
        case("ping-pong-cross", 10_000, |n| {
            Box::pin(ping_pong::<R>(n, true))
        }),
        case("chain", 50_000, |n| Box::pin(chain::<R>(n))),
        case("fan-out-fan-in-1us", 20_000, |n| {
            Box::pin(fan_out_fan_in::<R>(n, SHORT))
        }),
        case("fan-out-fan-in-20us", 2_000, |n| {
            Box::pin(fan_out_fan_in::<R>(n, LONG))
        }),
        Case {
            cost: Cost::Cpu,
            ..case("timer-fire", 10_000, |n| Box::pin(timer_fire::<R>(n)))
        },
        case("timer-timeout", 50_000, |n| Box::pin(timer_timeout::<R>(n))),
        case("timer-cancel", 50_000, |n| Box::pin(timer_cancel::<R>(n))),
        case("wake-cross", 5_000, |n| Box::pin(wake_cross(n))),
        case("channel-throughput", 100_000, |n| {
            Box::pin(channel_throughput::<R>(n))
        }),
        Case {
            cost: Cost::Held,
            ..case("task-bytes", 10_000, |n| Box::pin(task_bytes::<R>(n)))
        },
    ]
}

/// Work for the processor that cannot be cut short: each step needs the last,
/// and, unlike those of a linear generator, two of them do not fold into one.
pub fn work(steps: u64) -> u64 {
    let mut x = black_box(steps);
    for _ in 0..steps {
        x ^= x >> 29;
        x = x.wrapping_mul(6_364_136_223_846_793_005);
    }
    black_box(x)
}

async fn spawn_join_one<R: Rt>(n: u64) -> Sample {
    let meter = Meter::start();
    for i in 0..n {
        let got = R::spawn(async move { black_box(i) }).await;
        assert_eq!(got, i);
    }
    meter.stop(n)
}

async fn spawn_join_batch<R: Rt>(n: u64, size: u64) -> Sample {
    let batches = (n / size).max(1);
    let mut joins = Vec::with_capacity(size as usize);
    let meter = Meter::start();
    for _ in 0..batches {
        joins.extend((0..size).map(|i| R::spawn(async move { black_box(i) })));
        let mut sum = 0;
        for join in joins.drain(..) {
            sum += join.await;
        }
        assert_eq!(sum, size * (size - 1) / 2);
    }
    meter.stop(batches * size)
}

async fn yield_one<R: Rt>(n: u64) -> Sample {
    let meter = Meter::start();
    for _ in 0..n {
        R::yield_now().await;
    }
    meter.stop(n)
}

async fn yield_many<R: Rt>(n: u64) -> Sample {
    let each = (n / BATCH).max(1);
    let mut joins = Vec::with_capacity(BATCH as usize);
    let meter = Meter::start();
    joins.extend((0..BATCH).map(|_| {
        R::spawn(async move {
            for _ in 0..each {
                R::yield_now().await;
            }
        })
    }));
    for join in joins {
        join.await;
    }
    meter.stop(BATCH * each)
}

async fn ping_pong<R: Rt>(n: u64, apart: bool) -> Sample {
    let ping = Arc::new(Channel::new(1));
    let pong = Arc::new(Channel::new(1));
    let serve = {
        let (ping, pong) = (ping.clone(), pong.clone());
        async move {
            for i in 0..n {
                ping.send(i).await;
                assert_eq!(pong.recv().await, i);
            }
        }
    };
    let back = async move {
        for _ in 0..n {
            let i = ping.recv().await;
            pong.send(i).await;
        }
    };
    let meter = Meter::start();
    let (a, b) = match apart {
        true => R::spawn_apart(serve, back),
        false => (R::spawn(serve), R::spawn(back)),
    };
    a.await;
    b.await;
    meter.stop(n)
}

async fn chain<R: Rt>(n: u64) -> Sample {
    let chains = (n / BATCH).max(1);
    let end = Arc::new(Channel::new(1));
    let meter = Meter::start();
    for _ in 0..chains {
        R::detach(Link::<R> {
            left: BATCH - 1,
            end: Some(end.clone()),
            runtime: PhantomData,
        });
        end.recv().await;
    }
    meter.stop(chains * BATCH)
}

/// A task of the chain. Written by hand, because an `async fn` cannot spawn
/// itself.
struct Link<R> {
    left: u64,
    end: Option<Arc<Channel<()>>>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Rt> Future for Link<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let end = self.end.take().expect("a link is polled once");
        if self.left == 0 {
            end.put(());
        } else {
            R::detach(Link::<R> {
                left: self.left - 1,
                end: Some(end),
                runtime: PhantomData,
            });
        }
        Poll::Ready(())
    }
}

async fn fan_out_fan_in<R: Rt>(n: u64, steps: u64) -> Sample {
    let rounds = (n / BATCH).max(1);
    let mut joins = Vec::with_capacity(BATCH as usize);
    let meter = Meter::start();
    for _ in 0..rounds {
        joins.extend((0..BATCH).map(|_| R::spawn(async move { work(steps) })));
        for join in joins.drain(..) {
            black_box(join.await);
        }
    }
    meter.stop(rounds * BATCH)
}

async fn timer_fire<R: Rt>(n: u64) -> Sample {
    const EACH: u64 = 5;
    let tasks = (n / EACH).max(1);
    let mut joins = Vec::with_capacity(tasks as usize);
    let meter = Meter::start();
    joins.extend((0..tasks).map(|task| {
        R::spawn(async move {
            let mut random = Random(task + 1);
            for _ in 0..EACH {
                // 1 to 20 ms.
                R::sleep(Duration::from_micros(1_000 + random.below(19_000))).await;
            }
        })
    }));
    for join in joins {
        join.await;
    }
    meter.stop(tasks * EACH)
}

/// Long enough that it never fires in a repetition.
const FAR: Duration = Duration::from_secs(30);

/// A limit around something that has to wait once, as a read has. Around what
/// is ready at once a limit is nothing: no runtime arms its timer then, and
/// with smol's combinator not even the timer is made.
async fn timer_timeout<R: Rt>(n: u64) -> Sample {
    let meter = Meter::start();
    for _ in 0..n {
        R::timeout(FAR, R::yield_now()).await;
    }
    meter.stop(n)
}

async fn timer_cancel<R: Rt>(n: u64) -> Sample {
    let meter = Meter::start();
    for _ in 0..n {
        let mut sleep = pin!(R::sleep(FAR));
        let fired = poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx).is_ready())).await;
        assert!(!fired);
    }
    meter.stop(n)
}

async fn wake_cross(n: u64) -> Sample {
    let asked = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(Channel::new(1));
    let foreign = {
        let (asked, over, answers) = (asked.clone(), over.clone(), answers.clone());
        thread::spawn(move || {
            let mut answered = 0;
            while !over.load(Ordering::Acquire) {
                while answered < asked.load(Ordering::Acquire) {
                    answered += 1;
                    answers.put(answered);
                }
                thread::park();
            }
        })
    };
    let meter = Meter::start();
    for i in 1..=n {
        asked.store(i, Ordering::Release);
        foreign.thread().unpark();
        assert_eq!(answers.recv().await, i);
    }
    let sample = meter.stop(n);
    over.store(true, Ordering::Release);
    foreign.thread().unpark();
    foreign.join().expect("the foreign thread does not panic");
    sample
}

async fn channel_throughput<R: Rt>(n: u64) -> Sample {
    let channel = Arc::new(Channel::new(128));
    let sender = channel.clone();
    let meter = Meter::start();
    let sends = R::spawn(async move {
        for i in 0..n {
            sender.send(i).await;
        }
    });
    let receives = R::spawn(async move {
        for i in 0..n {
            assert_eq!(channel.recv().await, i);
        }
    });
    sends.await;
    receives.await;
    meter.stop(n)
}

async fn task_bytes<R: Rt>(n: u64) -> Sample {
    // So that the runtime's queues have the size that they will need.
    spawn_join_batch::<R>(n, n).await;
    let mut joins = Vec::with_capacity(n as usize);
    // And so that the last of those tasks are freed.
    R::sleep(Duration::from_millis(2)).await;
    IDLE.store(0, Ordering::Release);
    let meter = Meter::start();
    joins.extend((0..n).map(|_| R::spawn(Idle)));
    // Not a yield: a task of monoio that wakes itself goes to the front of the
    // queue, and would be alone for ever.
    while IDLE.load(Ordering::Acquire) < n {
        R::sleep(Duration::from_millis(2)).await;
    }
    let sample = meter.stop(n);
    // They go with the process; the handles must not cancel them before.
    std::mem::forget(joins);
    sample
}

/// How many idle tasks have been polled. Not in the tasks, so that they are
/// empty.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// A task that waits for ever.
struct Idle;

impl Future for Idle {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        IDLE.fetch_add(1, Ordering::AcqRel);
        Poll::Pending
    }
}

/// xorshift64*: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}
