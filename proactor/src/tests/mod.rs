//! The driver under a runtime, with rings and pools that are too small.

mod bad_days;
mod batches;
mod canary;
mod carries;
mod closes;
mod ending;
mod pressure;
mod prompt;
mod quarantine;
mod zero_copy;

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use isochrome_runtime::buf::{Lent, RecvBuf};
use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::op::{Address, InFlight, Interest, Op, Port, Yield};
use isochrome_runtime::time::sleep;
use isochrome_runtime::{Builder, Descriptor, DescriptorRef, Runtime, yield_now};

use crate::Proactor;
use crate::setup::Config;

/// What a [`Spy`] saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    parks: usize,
    in_flight: usize,
    most_backlog: usize,
    most_starved: usize,
    strangers: u64,
    leaked: Option<usize>,
}

/// A proactor that can be looked into while a runtime has it.
struct Spy {
    inner: Proactor,
    seen: Arc<Mutex<Seen>>,
    /// Leave the ending to `Drop`.
    forgetful: bool,
    after: After,
}

/// What is done between the driver's shutdown and its drop.
type After = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

impl Spy {
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.in_flight = self.inner.table.len();
        seen.most_backlog = seen.most_backlog.max(self.inner.backlog.len());
        seen.most_starved = seen.most_starved.max(self.inner.starved.len());
        seen.strangers = self.inner.strangers.load(Ordering::Relaxed);
    }
}

// SAFETY: as of the driver within.
unsafe impl Driver for Spy {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn by_readiness(&self) -> bool {
        self.inner.by_readiness()
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        let result = self.inner.submit(op);
        self.look();
        result
    }

    fn feed(&mut self, op: InFlight) -> Result<(), InFlight> {
        let result = self.inner.feed(op);
        self.look();
        result
    }

    fn hurry(&mut self) {
        self.inner.hurry();
    }

    fn cancel(&mut self, key: u64) {
        self.inner.cancel(key);
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.look();
        let result = self.inner.park(wait);
        self.look();
        self.seen.lock().unwrap().parks += 1;
        result
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.as_fd()
    }

    fn is_due(&self) -> bool {
        self.inner.is_due()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.inner.unparker()
    }

    fn unknown_completions(&self) -> Option<Arc<AtomicU64>> {
        self.inner.unknown_completions()
    }

    fn shutdown(&mut self, grace: Duration) -> usize {
        if self.forgetful {
            return 0;
        }
        let leaked = self.inner.shutdown(grace);
        self.seen.lock().unwrap().leaked = Some(leaked);
        if let Some(after) = self.after.lock().unwrap().take() {
            after();
        }
        leaked
    }
}

struct Fixture {
    runtime: Runtime,
    seen: Arc<Mutex<Seen>>,
    after: After,
}

impl Fixture {
    fn new(config: Config) -> Fixture {
        Fixture::with(config, false, Duration::ZERO)
    }

    fn with(config: Config, forgetful: bool, batch: Duration) -> Fixture {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let after = After::default();
        let for_driver = (seen.clone(), after.clone());
        let driver = move |_worker: usize| {
            let spy = Spy {
                inner: Proactor::with_config(&config)?.batch(batch),
                seen: for_driver.0.clone(),
                forgetful,
                after: for_driver.1.clone(),
            };
            Ok(Box::new(spy) as Box<dyn Driver>)
        };
        // One: what a spy sees must not be of another worker.
        let runtime = Builder::new().workers(1).build_with(driver).unwrap();
        Fixture {
            runtime,
            seen,
            after,
        }
    }

    fn after_shutdown(&self, f: impl FnOnce() + Send + 'static) {
        *self.after.lock().unwrap() = Some(Box::new(f));
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    fn port(&self, fd: impl Into<OwnedFd>) -> Port {
        Port::new(Descriptor::new(fd.into(), self.runtime.handle()).unwrap())
    }

    /// A port and its peer.
    fn pair(&self) -> (Port, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        (self.port(ours), theirs)
    }

    fn socket_pair(&self, tcp: bool) -> (Port, OwnedFd) {
        if tcp {
            let (port, peer) = self.tcp_pair();
            (port, peer.into())
        } else {
            let (port, peer) = self.pair();
            (port, peer.into())
        }
    }

    fn tcp_pair(&self) -> (Port, TcpStream) {
        let (listener, at) = listen();
        let peer = client(at);
        let (ours, _) = listener.accept().unwrap();
        (self.port(ours), peer)
    }

    /// Lets the driver have `turns` turns.
    fn turn(&self, turns: usize) {
        self.runtime.block_on(async {
            for _ in 0..turns {
                yield_now().await;
            }
        });
    }

    /// Turns until `done`.
    fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        let start = Instant::now();
        while !done(&self.seen()) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.seen());
            self.turn(1);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

fn tiny() -> Config {
    Config {
        entries: 16,
        completions: 16,
        buffers: 4,
        buffer_size: 64,
        ..Config::default()
    }
}

async fn recv(port: &Port) -> io::Result<RecvBuf> {
    match poll_fn(|cx| port.poll_next(cx, || Op::Recv)).await? {
        Yield::Buf(buf) => Ok(buf),
        other => panic!("a receive yielded {other:?}"),
    }
}

async fn accept(port: &Port) -> io::Result<OwnedFd> {
    match poll_fn(|cx| port.poll_next(cx, || Op::Accept)).await? {
        Yield::Socket(socket) => Ok(socket),
        other => panic!("an accept yielded {other:?}"),
    }
}

/// One receive from each, at once.
async fn recv_each(ports: &[Port]) -> Vec<RecvBuf> {
    let mut got: Vec<Option<RecvBuf>> = ports.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (port, got) in ports.iter().zip(&mut got).filter(|(_, got)| got.is_none()) {
            match port.poll_next(cx, || Op::Recv) {
                Poll::Ready(Ok(Yield::Buf(buf))) => *got = Some(buf),
                Poll::Ready(other) => panic!("a receive yielded {other:?}"),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    got.into_iter().flatten().collect()
}

/// Starts an operation and does not wait for it.
fn begin(fixture: &Fixture, port: &Port, op: fn() -> Op) {
    fixture.runtime.block_on(poll_fn(|cx| {
        assert!(port.poll_next(cx, op).is_pending());
        Poll::Ready(())
    }));
}

async fn send(port: &Port, data: Vec<u8>, all: bool) -> io::Result<usize> {
    let op = Op::Send {
        data: Lent::new(data),
        from: 0,
        all,
    };
    match port.run(op).await.0? {
        Yield::Done(n) => Ok(n),
        other => panic!("a send yielded {other:?}"),
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn client(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn address(of: SocketAddr) -> Box<Address> {
    Box::new(Address::from(of))
}

fn tcp_socket() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: just opened, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
