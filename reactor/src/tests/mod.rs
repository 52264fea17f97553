//! The driver under the executor, with a look inside.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use isochrome_runtime::buf::{Lent, RecvBuf};
use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::op::{FileOp, InFlight, Interest, Op, Port, Yield};
use isochrome_runtime::{Builder, Color, Descriptor, DescriptorRef, Runtime};

use crate::Reactor;

mod line;
mod stream;
mod worker;

/// Long enough that only a lost event takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reactor, with the test looking over its shoulder.
#[derive(Clone)]
struct Spied(Rc<RefCell<Reactor>>);

// SAFETY: as of the driver within.
unsafe impl Driver for Spied {
    fn name(&self) -> &'static str {
        self.0.borrow().name()
    }
    fn by_readiness(&self) -> bool {
        self.0.borrow().by_readiness()
    }
    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        self.0.borrow_mut().submit(op)
    }
    fn cancel(&mut self, key: u64) {
        self.0.borrow_mut().cancel(key);
    }
    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        // A test that hangs fails.
        let start = Instant::now();
        let result = self.0.borrow_mut().park(Some(wait.unwrap_or(PATIENCE)));
        assert!(start.elapsed() < PATIENCE, "an event was lost");
        result
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.borrow().unparker()
    }
    fn forget(&mut self, token: u64) {
        self.0.borrow_mut().forget(token);
    }
    fn release(&mut self, token: u64, fd: BorrowedFd<'_>) {
        self.0.borrow_mut().release(token, fd);
    }
    fn shutdown(&mut self, grace: Duration) -> usize {
        self.0.borrow_mut().shutdown(grace)
    }
}

thread_local! {
    static MADE: RefCell<Option<Spied>> = const { RefCell::new(None) };
}

struct Fixture {
    runtime: Runtime,
    reactor: Rc<RefCell<Reactor>>,
}

impl Fixture {
    fn new() -> Fixture {
        let build = Builder::new().workers(1).build_with(|worker| {
            let spied = Spied(Rc::new(RefCell::new(Reactor::new(worker)?)));
            MADE.set(Some(spied.clone()));
            Ok(Box::new(spied))
        });
        Fixture {
            runtime: build.unwrap(),
            reactor: MADE.take().unwrap().0,
        }
    }

    fn descriptor(&self, fd: impl Into<OwnedFd>) -> DescriptorRef {
        Descriptor::new(fd.into(), self.runtime.handle()).unwrap()
    }

    fn port(&self, fd: impl Into<OwnedFd>) -> Port {
        Port::new(self.descriptor(fd))
    }

    /// One turn of the driver and what it wakes.
    fn turn(&self) {
        self.runtime.block_on(isochrome_runtime::yield_now());
    }

    fn registrations(&self) -> usize {
        self.reactor.borrow().registrations()
    }

    fn subscribers(&self) -> usize {
        self.reactor.borrow().subscribers()
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
        Yield::Socket(fd) => Ok(fd),
        other => panic!("an accept yielded {other:?}"),
    }
}

async fn count(port: &Port, op: Op) -> io::Result<usize> {
    match port.run(op).await.0? {
        Yield::Done(n) => Ok(n),
        other => panic!("{other:?}"),
    }
}

async fn send(port: &Port, data: Vec<u8>, all: bool) -> io::Result<usize> {
    let data = Lent::new(data);
    count(port, Op::Send { data, from: 0, all }).await
}

async fn ready(port: &Port, interest: Interest) -> io::Result<()> {
    poll_fn(|cx| port.poll_ready(cx, interest)).await
}

/// Polls a future once.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Begins to receive, and finds nothing.
fn begin(f: &Fixture, port: &Port) {
    f.runtime.block_on(async {
        assert!(poll_once(recv(port)).is_pending());
    });
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nodelay(true).unwrap();
    b.set_nodelay(true).unwrap();
    (a, b)
}

fn tcp_socket() -> OwnedFd {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: just opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A duplicate with the first free number from `least` on: other tests of
/// this process get lower ones, so that numbers can be reused on purpose.
fn duplicate(fd: &impl AsRawFd, least: RawFd) -> OwnedFd {
    // SAFETY: no pointers are passed.
    let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    assert!(new >= least);
    // SAFETY: just opened.
    unsafe { OwnedFd::from_raw_fd(new) }
}
