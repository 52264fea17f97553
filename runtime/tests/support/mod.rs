//! A driver of the tests' own, and what the tests have in common.
//!
//! The driver carries operations out in memory: what is sent on a descriptor
//! is received from the same one; readiness comes when the test says so; and a
//! test can hold operations "in the kernel", so that neither completion nor
//! cancellation ends them before it lets go.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use isochrome_runtime::buf::RecvBuf;
use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::op::{Completion, InFlight, Op, Yield};
use isochrome_runtime::{Builder, Color, Descriptor, DescriptorRef, Handle, Runtime};

/// Runs each function, which takes a number of workers, on 1, 2 and 4.
macro_rules! on_workers {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[test]
            fn on_1_worker() {
                let _watch = $crate::support::watchdog(stringify!($name));
                super::super::$name(1);
            }
            #[test]
            fn on_2_workers() {
                let _watch = $crate::support::watchdog(stringify!($name));
                super::super::$name(2);
            }
            #[test]
            fn on_4_workers() {
                let _watch = $crate::support::watchdog(stringify!($name));
                super::super::$name(4);
            }
        }
    )*};
}
pub(crate) use on_workers;

/// Ends the process with a message if the test hangs. No test waits for it. (A
/// million tasks have taken more than a minute beside many other processes.)
pub(crate) fn watchdog(name: &'static str) -> mpsc::Sender<()> {
    let (alive, gone) = mpsc::channel();
    std::thread::spawn(move || {
        if gone.recv_timeout(Duration::from_secs(300)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the test {name} hangs");
            std::process::abort();
        }
    });
    alive
}

/// What the drivers of one runtime share with the test.
#[derive(Default)]
pub(crate) struct World {
    state: Mutex<State>,
    pub(crate) submits: AtomicUsize,
    pub(crate) cancels: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) forgotten: AtomicUsize,
    pub(crate) parks: AtomicUsize,
}

#[derive(Default)]
struct State {
    bytes: HashMap<RawFd, VecDeque<u8>>,
    ready: HashSet<RawFd>,
    sockets: HashMap<RawFd, VecDeque<OwnedFd>>,
    /// Operations on these stay in the kernel whatever happens.
    held: HashSet<RawFd>,
    parkers: Vec<Arc<Parker>>,
    /// Every wait of a driver that found nothing to do, by worker.
    waits: Vec<(usize, Option<Duration>)>,
    in_flight: usize,
}

impl World {
    pub(crate) fn new() -> Arc<World> {
        Arc::default()
    }

    /// Builds a runtime on drivers that share this world.
    pub(crate) fn build(self: &Arc<World>, builder: Builder) -> Runtime {
        let world = self.clone();
        let driver =
            move |index| Ok(Box::new(TestDriver::new(index, world.clone())) as Box<dyn Driver>);
        builder.build_with(driver).unwrap()
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        f(&mut state);
        for parker in &state.parkers {
            parker.unpark();
        }
    }

    pub(crate) fn make_ready(&self, descriptor: &Descriptor) {
        self.change(|s| s.ready.extend([descriptor.as_raw_fd()]));
    }

    pub(crate) fn bring_bytes(&self, descriptor: &Descriptor, bytes: &[u8]) {
        self.change(|s| {
            s.bytes
                .entry(descriptor.as_raw_fd())
                .or_default()
                .extend(bytes)
        });
    }

    pub(crate) fn bring_socket(&self, descriptor: &Descriptor, socket: OwnedFd) {
        let fd = descriptor.as_raw_fd();
        self.change(|s| s.sockets.entry(fd).or_default().push_back(socket));
    }

    pub(crate) fn hold(&self, descriptor: &Descriptor) {
        self.change(|s| s.held.extend([descriptor.as_raw_fd()]));
    }

    pub(crate) fn let_go(&self, descriptor: &Descriptor) {
        self.change(|s| s.held.retain(|fd| *fd != descriptor.as_raw_fd()));
    }

    pub(crate) fn waits(&self) -> Vec<(usize, Option<Duration>)> {
        self.state.lock().unwrap().waits.clone()
    }
}

#[derive(Default)]
struct Parker {
    unparked: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    fn park(&self, wait: Option<Duration>) {
        let mut unparked = self.unparked.lock().unwrap();
        let end = wait.map(|wait| Instant::now() + wait);
        while !std::mem::take(&mut *unparked) {
            unparked = match end {
                None => self.changed.wait(unparked).unwrap(),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    self.changed.wait_timeout(unparked, left).unwrap().0
                }
            };
        }
    }
}

impl Unpark for Parker {
    fn unpark(&self) {
        *self.unparked.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

struct TestDriver {
    index: usize,
    world: Arc<World>,
    parker: Arc<Parker>,
    /// By key, which grows: the oldest first.
    ops: BTreeMap<u64, InFlight>,
    cancelled: HashSet<u64>,
    next_key: u64,
}

impl TestDriver {
    fn new(index: usize, world: Arc<World>) -> TestDriver {
        let parker = Arc::<Parker>::default();
        world.state.lock().unwrap().parkers.push(parker.clone());
        TestDriver {
            index,
            world,
            parker,
            ops: BTreeMap::new(),
            cancelled: HashSet::new(),
            next_key: 0,
        }
    }

    /// The completion of an operation, if there is one, and whether it is the
    /// last.
    fn attempt(&self, key: u64) -> Option<(Completion, bool)> {
        let op = &self.ops[&key];
        let fd = op.fd();
        let mut state = self.world.state.lock().unwrap();
        if state.held.contains(&fd) {
            return None;
        }
        let done = op.with_op(|op| match op {
            Op::Send { data, from, .. } | Op::SendZc { data, from } => {
                // SAFETY: valid for as long as the operation is in flight.
                let all = unsafe { std::slice::from_raw_parts(data.as_ptr(), data.len()) };
                state.bytes.entry(fd).or_default().extend(&all[*from..]);
                Some((Ok(Yield::Done(all.len())), true))
            }
            Op::Recv => {
                let bytes = state.bytes.get_mut(&fd).filter(|bytes| !bytes.is_empty())?;
                let bytes = bytes.drain(..).collect();
                Some((Ok(Yield::Buf(RecvBuf::private(bytes))), false))
            }
            Op::Accept => {
                let socket = state.sockets.get_mut(&fd)?.pop_front()?;
                Some((Ok(Yield::Socket(socket)), false))
            }
            Op::Connect(_) | Op::Edges(_) => state
                .ready
                .remove(&fd)
                .then_some((Ok(Yield::Done(0)), true)),
            Op::SendVectored(_) | Op::File(_) => Some((Ok(Yield::Done(0)), true)),
        });
        let canceled = || io::Error::from_raw_os_error(libc::ECANCELED);
        done.or_else(|| {
            self.cancelled
                .contains(&key)
                .then(|| (Err(canceled()), true))
        })
    }

    /// Completes what can be of one operation. Returns whether anything was.
    fn advance(&mut self, key: u64) -> bool {
        let mut any = false;
        while let Some((completion, last)) = self.attempt(key) {
            any = true;
            if last {
                self.cancelled.remove(&key);
                self.world.finished.fetch_add(1, Ordering::SeqCst);
                self.ops.remove(&key).unwrap().finish(completion);
                break;
            }
            self.ops[&key].deliver(completion);
        }
        any
    }

    /// As `advance`, for all.
    fn step(&mut self) -> bool {
        let keys: Vec<_> = self.ops.keys().copied().collect();
        keys.into_iter()
            .fold(false, |any, key| self.advance(key) | any)
    }
}

// SAFETY: nothing is moved out of an operation.
unsafe impl Driver for TestDriver {
    fn name(&self) -> &'static str {
        "test"
    }

    fn by_readiness(&self) -> bool {
        false
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        if op.descriptor().home(self.index) != self.index {
            return Err(op);
        }
        op.descriptor().set_token(op.fd() as u64);
        self.world.submits.fetch_add(1, Ordering::SeqCst);
        self.next_key += 1;
        op.set_key(self.next_key);
        self.ops.insert(self.next_key, op);
        self.advance(self.next_key);
        Ok(())
    }

    fn cancel(&mut self, key: u64) {
        assert!(self.ops.contains_key(&key), "it is still in flight");
        self.world.cancels.fetch_add(1, Ordering::SeqCst);
        self.cancelled.insert(key);
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.world.parks.fetch_add(1, Ordering::SeqCst);
        if self.step() {
            return Ok(());
        }
        if !self.cancelled.is_empty() {
            std::thread::yield_now();
        }
        if wait != Some(Duration::ZERO) {
            self.world
                .state
                .lock()
                .unwrap()
                .waits
                .push((self.index, wait));
            self.parker.park(wait);
            self.step();
        }
        Ok(())
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.parker.clone()
    }

    fn forget(&mut self, _token: u64) {
        self.world.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    fn shutdown(&mut self, grace: Duration) -> usize {
        let begun = Instant::now();
        self.cancelled.extend(self.ops.keys());
        loop {
            self.step();
            let left = grace.saturating_sub(begun.elapsed());
            if self.ops.is_empty() || left.is_zero() {
                break;
            }
            self.parker.park(Some(left));
        }
        let rest = std::mem::take(&mut self.ops);
        let count = rest.len();
        rest.into_values().for_each(InFlight::leak);
        count
    }
}

/// A runtime with `workers` workers on the test driver.
pub(crate) fn runtime(workers: usize) -> Runtime {
    World::new().build(Builder::new().workers(workers))
}

/// An operation that is complete when its descriptor was made ready.
pub(crate) fn connect() -> Op {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    Op::Connect(Box::new(nowhere.into()))
}

/// A descriptor that nobody reads from: the driver knows it by its number.
pub(crate) fn descriptor(runtime: &Handle) -> DescriptorRef {
    Descriptor::new(std::fs::File::open("/dev/null").unwrap().into(), runtime).unwrap()
}

struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A foreign executor: polls on this thread, and parks.
pub(crate) fn foreign_block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// An event between tasks and threads: set once, awaited by many.
#[derive(Clone, Default)]
pub(crate) struct Event(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Event {
    pub(crate) fn new() -> Event {
        Event::default()
    }

    pub(crate) fn set(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The wakers that wait, to be held on to.
    pub(crate) fn wakers(&self) -> Vec<Waker> {
        self.0.lock().unwrap().1.clone()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }

    pub(crate) async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            if state.0 {
                return Poll::Ready(());
            }
            if !state.1.iter().any(|w| w.will_wake(cx.waker())) {
                state.1.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Counts its drops, and runs `then` at each.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub(crate) struct CountDrop(pub(crate) Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// xorshift64 (Marsaglia 2003).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// A generator whose seed is printed when the test fails.
    pub(crate) fn seeded(test: &str) -> Rng {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let from_env = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
        let time = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let own = time.as_nanos() as u64 ^ ((NEXT.fetch_add(1, Ordering::SeqCst) as u64) << 48);
        let seed = from_env.unwrap_or(own) | 1;
        println!("{test}: SEED={seed}");
        Rng(seed)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A color that a foreign thread has in a step, until this is dropped.
pub(crate) struct Occupied {
    end: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Occupied {
    pub(crate) fn new(color: &Color) -> Occupied {
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let color = color.clone();
        let thread = std::thread::spawn(move || {
            foreign_block_on(color.run(move || {
                begin.send(()).unwrap();
                let _ = ended.recv();
            }));
        });
        begun.recv().unwrap();
        Occupied {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.end.take();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The message of a panic.
pub(crate) fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&'static str>().unwrap()).to_string(),
    }
}

/// A count that only one thread at a time may reach; a second is noticed.
#[derive(Default)]
pub(crate) struct Plain {
    count: std::cell::UnsafeCell<usize>,
    inside: std::sync::atomic::AtomicBool,
}

// SAFETY: reached by code of one color only, which is what is tested.
unsafe impl Sync for Plain {}

impl Plain {
    /// Adds one, and returns what was there.
    pub(crate) fn step(&self) -> usize {
        // Relaxed: the test must not supply the order that it looks for.
        assert!(
            !self.inside.swap(true, Ordering::Relaxed),
            "two at once under one color"
        );
        // SAFETY: under the color.
        let count = unsafe { &mut *self.count.get() };
        let before = *count;
        for _ in 0..8 {
            std::hint::spin_loop();
        }
        *count = before + 1;
        self.inside.store(false, Ordering::Relaxed);
        before
    }
}

/// Never drops it, as `std::mem::forget`, and keeps it where leak checkers look.
pub(crate) fn keep_for_ever<T: Send + 'static>(value: T) -> &'static T {
    static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let kept: &'static T = Box::leak(Box::new(value));
    KEPT.lock()
        .unwrap()
        .push(std::ptr::from_ref(kept).expose_provenance());
    kept
}
