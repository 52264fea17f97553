//! Rule 5 of the seam: no allocation per operation once warm.
//!
//! With `ISOCHROME_ALLOC_TRACE=1` the first allocations that are counted show
//! where they come from.

// A driver with faults needs memory for what they delay.
#![cfg(not(isochrome_faults))]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::bytes::pattern;
use common::futures::Event;
use common::{everywhere, listen, pair};
use isochrome::net::TcpStream;
use isochrome::time::{sleep, timeout};
use isochrome::{Color, Runtime, yield_now};

everywhere!(
    echoes_allocate_nothing,
    feeds_allocate_nothing,
    reads_and_timeouts_allocate_nothing,
    sleeps_and_yields_allocate_nothing,
    wakes_from_other_threads_allocate_nothing,
    wakers_of_a_combinators_own_allocate_nothing,
    steps_of_idle_colors_allocate_nothing,
);

/// Counts what is allocated while it is told to.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static TRACE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Taking a backtrace allocates.
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: all is handed on to the system's allocator, with what it asks for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(size: usize) {
    if !COUNTING.load(Ordering::Relaxed) || TRACING.get() {
        return;
    }
    COUNT.fetch_add(1, Ordering::Relaxed);
    let left = TRACE.load(Ordering::Relaxed);
    if left > 0 {
        TRACE.store(left - 1, Ordering::Relaxed);
        TRACING.set(true);
        let trace = std::backtrace::Backtrace::force_capture();
        eprintln!("{size} bytes allocated at\n{trace}");
        TRACING.set(false);
    }
}

/// The allocations between two points in time.
struct Counted(&'static str);

impl Counted {
    fn begin(what: &'static str) -> Counted {
        if std::env::var_os("ISOCHROME_ALLOC_TRACE").is_some() {
            TRACE.store(3, Ordering::Relaxed);
        }
        COUNT.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::SeqCst);
        Counted(what)
    }

    /// The number; printed, and asserted to be at most `most`.
    fn end(self, rt: &Runtime, most: usize) -> usize {
        COUNTING.store(false, Ordering::SeqCst);
        let count = COUNT.load(Ordering::Relaxed);
        let (driver, workers) = (rt.driver(), rt.workers());
        println!(
            "{}, {driver}, {workers} workers: {count} allocations",
            self.0
        );
        assert!(count <= most, "{}: {count} allocations", self.0);
        count
    }
}

const CONNECTIONS: usize = 8;
static MESSAGE: [u8; 64] = [7; 64];
const WARM: usize = 2_000;
const TRIPS: usize = 10_000;

/// What a warm runtime may allocate in all of [`TRIPS`]. One worker does the
/// same over and over. With more it is up to the threads how deep the queues
/// become, and that they grow once is no fault.
fn allowance(rt: &Runtime) -> usize {
    match rt.workers() {
        1 => 0,
        _ => 40,
    }
}

async fn echo(stream: TcpStream) {
    let mut fed = false;
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            return stream.flush().await.unwrap();
        }
        // Both ways to send what was received, in turns.
        fed = !fed;
        match fed {
            true => stream.feed(data).await.unwrap(),
            false => stream.send_all(data).await.0.unwrap(),
        }
    }
}

/// Runs `CONNECTIONS` clients, each `trip` after `trip`, and counts in the
/// middle of it.
async fn measure<T, F>(rt: &Runtime, what: &'static str, trip: T)
where
    T: Fn(Arc<TcpStream>, Vec<u8>) -> F + Copy + Send + 'static,
    F: Future<Output = Vec<u8>> + Send,
{
    let (listener, address) = listen().await;
    let (warm, go) = (Arc::new(AtomicUsize::new(0)), Event::default());
    let finished = Arc::new(AtomicUsize::new(0));
    let (over, exit) = (Event::default(), Event::with_room(CONNECTIONS));
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let near = Arc::new(TcpStream::connect(address).await.unwrap());
        let (far, _) = listener.accept().await.unwrap();
        tasks.push(Color::new().spawn(echo(far)));
        let (warm, go) = (warm.clone(), go.clone());
        let (finished, over, exit) = (finished.clone(), over.clone(), exit.clone());
        tasks.push(Color::new().spawn(async move {
            let mut message = pattern(0, 64);
            for _ in 0..WARM / CONNECTIONS {
                message = trip(near.clone(), message).await;
            }
            warm.fetch_add(1, Ordering::Relaxed);
            go.wait().await;
            for _ in 0..TRIPS / CONNECTIONS {
                message = trip(near.clone(), message).await;
            }
            if finished.fetch_add(1, Ordering::Relaxed) + 1 == CONNECTIONS {
                over.set();
            }
            exit.wait().await;
        }));
    }
    common::eventually_async("all are warm", || {
        warm.load(Ordering::Relaxed) == CONNECTIONS
    })
    .await;
    // The future that waits has registered when the counting begins.
    let mut wait = Box::pin(over.wait());
    assert!(common::futures::poll_once(&mut wait).await.is_pending());
    go.set();
    let counted = Counted::begin(what);
    wait.await;
    counted.end(rt, allowance(rt));
    exit.set();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn take(stream: &TcpStream, len: usize) {
    let mut got = 0;
    while got < len {
        let data = stream.recv().await.unwrap();
        assert!(!data.is_empty());
        got += data.len();
    }
}

fn echoes_allocate_nothing(rt: Runtime) {
    rt.block_on(measure(&rt, "echo", |stream, message| async move {
        let (sent, message) = stream.send_all(message).await;
        sent.unwrap();
        take(&stream, message.len()).await;
        message
    }));
}

fn feeds_allocate_nothing(rt: Runtime) {
    rt.block_on(measure(&rt, "feed", |stream, message| async move {
        // A buffer that is as good as new each time.
        stream.feed(&MESSAGE[..]).await.unwrap();
        take(&stream, MESSAGE.len()).await;
        stream.flush().await.unwrap();
        message
    }));
}

fn reads_and_timeouts_allocate_nothing(rt: Runtime) {
    rt.block_on(measure(
        &rt,
        "read, timeout",
        |stream, message| async move {
            let hour = Duration::from_secs(3600);
            let (sent, message) = timeout(hour, stream.send_all(message)).await.unwrap();
            sent.unwrap();
            let mut buf = [0; 24];
            let mut got = 0;
            while got < message.len() {
                let n = timeout(hour, stream.read(&mut buf)).await.unwrap().unwrap();
                assert!(n > 0);
                got += n;
            }
            message
        },
    ));
}

fn sleeps_and_yields_allocate_nothing(rt: Runtime) {
    rt.block_on(async {
        let turns = |count: usize| async move {
            for i in 0..count {
                yield_now().await;
                if i % 8 == 0 {
                    sleep(Duration::from_micros(100)).await;
                }
                let elapsed = timeout(Duration::ZERO, std::future::pending::<()>()).await;
                assert!(elapsed.is_err());
            }
        };
        turns(200).await;
        let counted = Counted::begin("sleep, yield");
        turns(1_000).await;
        counted.end(&rt, allowance(&rt));
    });
}

/// A thread of nobody's echoes by blocking calls: each wake comes from there
/// or from the kernel.
/// Nothing for each. But what another thread began may end on a worker, which
/// keeps what that took until it has as much as it ever keeps: when that is, is
/// up to the threads.
fn wakes_from_other_threads_allocate_nothing(rt: Runtime) {
    const KEPT: usize = 128;
    rt.block_on(async {
        let (near, far) = pair().await;
        let (near, far) = (Arc::new(near), Arc::new(far));
        let stop = Arc::new(AtomicBool::new(false));
        let other = std::thread::spawn({
            let (far, stop) = (far.clone(), stop.clone());
            move || {
                common::futures::park_on(async {
                    while !stop.load(Ordering::Relaxed) {
                        let data = far.recv().await.unwrap();
                        if data.is_empty() {
                            break;
                        }
                        far.send_all(data).await.0.unwrap();
                    }
                });
            }
        });
        let mut message = pattern(0, 64);
        let mut counted = None;
        for i in 0..1_500 {
            if i == 500 {
                counted = Some(Counted::begin("foreign wakes"));
            }
            let (sent, back) = near.send_all(message).await;
            sent.unwrap();
            message = back;
            take(&near, 64).await;
        }
        counted.unwrap().end(&rt, allowance(&rt) + KEPT);
        stop.store(true, Ordering::Relaxed);
        near.shutdown(std::net::Shutdown::Write).unwrap();
        common::eventually_async("the thread ends", || other.is_finished()).await;
        other.join().unwrap();
    });
}

/// A waker that is not a task's, as combinators make them that poll those only
/// which were woken.
struct Inner(AtomicBool, Mutex<Option<Waker>>);

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        let outer = self.1.lock().unwrap().take();
        if let Some(outer) = outer {
            outer.wake();
        }
    }
}

/// Polls a future with such a waker, and only when that was woken.
async fn behind<F: Future>(inner: &Arc<Inner>, future: F) -> F::Output {
    let waker = Waker::from(inner.clone());
    let mut future = pin!(future);
    inner.0.store(true, Ordering::SeqCst);
    poll_fn(|cx| {
        let old = inner.1.lock().unwrap().replace(cx.waker().clone());
        drop(old);
        match inner.0.swap(false, Ordering::SeqCst) {
            true => future.as_mut().poll(&mut Context::from_waker(&waker)),
            false => Poll::Pending,
        }
    })
    .await
}

fn wakers_of_a_combinators_own_allocate_nothing(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let echo = Color::new().spawn(echo(far));
        let inner = Arc::new(Inner(AtomicBool::new(true), Mutex::new(None)));
        let mut message = pattern(0, 64);
        let mut counted = None;
        for i in 0..1_500 {
            if i == 500 {
                counted = Some(Counted::begin("wakers of a combinator's"));
            }
            let (sent, back) = near.send_all(message).await;
            sent.unwrap();
            message = back;
            behind(&inner, take(&near, 64)).await;
        }
        counted.unwrap().end(&rt, allowance(&rt));
        near.shutdown(std::net::Shutdown::Write).unwrap();
        echo.await.unwrap();
    });
}

/// Not queued, that is: from the own color, from another one, and of the
/// default color.
fn steps_of_idle_colors_allocate_nothing(rt: Runtime) {
    rt.block_on(async {
        let color = Color::new();
        let cells = [color.cell(0), Color::DEFAULT.cell(0)];
        let steps = |count: usize| {
            let (color, cells) = (color.clone(), cells.clone());
            async move {
                for _ in 0..count {
                    for cell in &cells {
                        cell.with(|n| *n += 1).await;
                    }
                    color.run(|| std::hint::black_box(1)).await;
                    *cells[1].get().unwrap() += 1;
                }
            }
        };
        // A short run, during which the harness may still report the test
        // before on a thread of its own; but not each time.
        let mut fewest = usize::MAX;
        for _ in 0..20 {
            let steps = steps(1_000);
            let counted = Counted::begin("steps");
            steps.await;
            fewest = fewest.min(counted.end(&rt, usize::MAX));
        }
        assert_eq!(fewest, 0, "allocations by inline steps");
    });
}
