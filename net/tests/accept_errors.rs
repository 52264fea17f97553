//! What accepting answers, error by error, on a driver that says what it is
//! told to say: ENFILE and ENOMEM cannot be had otherwise.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use isochrome_net::TcpListener;
use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::op::{InFlight, Op, Yield};
use isochrome_runtime::{Builder, Report, Runtime, yield_now};

/// What accepts are answered with, one after another, and how long the worker
/// slept for.
#[derive(Default)]
struct World {
    answers: RefCell<VecDeque<Result<OwnedFd, i32>>>,
    sleeps: RefCell<Vec<Duration>>,
    waiting: RefCell<Option<InFlight>>,
}

struct Scripted(Rc<World>);

struct Nobody;

impl Unpark for Nobody {
    fn unpark(&self) {}
}

fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

// SAFETY: nothing is moved out of an operation.
unsafe impl Driver for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn by_readiness(&self) -> bool {
        false
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        assert!(op.with_op(|op| matches!(op, Op::Accept)));
        match self.0.answers.borrow_mut().pop_front() {
            Some(Ok(fd)) => op.finish(Ok(Yield::Socket(fd))),
            Some(Err(errno)) => op.finish(Err(io::Error::from_raw_os_error(errno))),
            None => {
                op.set_key(1);
                *self.0.waiting.borrow_mut() = Some(op);
            }
        }
        Ok(())
    }

    fn cancel(&mut self, _: u64) {
        if let Some(op) = self.0.waiting.take() {
            op.finish(Err(cancelled()));
        }
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let wait = wait.expect("nothing comes but timers");
        if !wait.is_zero() {
            self.0.sleeps.borrow_mut().push(wait);
            std::thread::sleep(wait);
        }
        Ok(())
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::new(Nobody)
    }

    fn shutdown(&mut self, _: Duration) -> usize {
        self.cancel(1);
        0
    }
}

thread_local! {
    static WORLD: Rc<World> = Rc::default();
}

struct Bed {
    runtime: Runtime,
    world: Rc<World>,
    told: Arc<Mutex<Vec<Report>>>,
    std: StdListener,
    clients: Vec<StdStream>,
}

impl Bed {
    fn new() -> Bed {
        let told = Arc::<Mutex<Vec<Report>>>::default();
        let builder = Builder::new().workers(1).on_report({
            let told = told.clone();
            move |report| told.lock().unwrap().push(report.clone())
        });
        let made = builder.build_with(|_| Ok(Box::new(Scripted(WORLD.with(Rc::clone)))));
        Bed {
            runtime: made.unwrap(),
            world: WORLD.with(Rc::clone),
            told,
            std: StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            clients: Vec::new(),
        }
    }

    fn listener(&self) -> TcpListener {
        let std = self.std.try_clone().unwrap();
        self.runtime
            .block_on(async { TcpListener::from_std(std) })
            .unwrap()
    }

    /// The next accept is answered with a connection.
    fn connects(&mut self) {
        let client = StdStream::connect(self.std.local_addr().unwrap()).unwrap();
        self.clients.push(client);
        let (accepted, _) = self.std.accept().unwrap();
        self.world
            .answers
            .borrow_mut()
            .push_back(Ok(accepted.into()));
    }

    fn fails(&self, errno: i32) {
        self.world.answers.borrow_mut().push_back(Err(errno));
    }
}

/// Those that accept(2) passes on from the connection, and names.
const OF_THE_CONNECTION: [i32; 10] = [
    libc::ECONNABORTED,
    libc::EINTR,
    libc::EPROTO,
    libc::ENETDOWN,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::ETIMEDOUT,
];

#[test]
fn a_connection_that_failed_is_passed_over_at_once() {
    let mut bed = Bed::new();
    let listener = bed.listener();
    for errno in OF_THE_CONNECTION {
        bed.fails(errno);
        bed.connects();
        bed.runtime.block_on(listener.accept()).unwrap();
    }
    OF_THE_CONNECTION.iter().for_each(|errno| bed.fails(*errno));
    bed.connects();
    bed.runtime.block_on(listener.accept()).unwrap();
    assert_eq!(listener.pressure(), 0);
    assert_eq!(*bed.world.sleeps.borrow(), []);
    assert!(bed.told.lock().unwrap().is_empty());
}

#[test]
fn what_the_system_lacks_makes_it_rest() {
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
        let mut bed = Bed::new();
        let listener = bed.listener();
        bed.fails(errno);
        bed.fails(errno);
        bed.connects();
        bed.runtime.block_on(listener.accept()).unwrap();
        assert_eq!(listener.pressure(), 2);
        assert_eq!(listener.shed(), 0);
        let slept: Duration = bed.world.sleeps.take().iter().sum();
        // Twice, and the second time for longer.
        assert!(slept >= Duration::from_millis(10), "{slept:?}");
        // It is told when the task has let the worker go on.
        while bed.told.lock().unwrap().len() < 2 {
            bed.runtime.block_on(yield_now());
        }
        let told = bed.told.lock().unwrap();
        assert!(
            matches!(&told[..], [Report::AcceptStalled { errno: e, .. }, Report::AcceptResumed { .. }] if *e == errno),
            "{told:?}"
        );
    }
}

#[test]
fn all_else_is_the_end_of_the_listener() {
    for errno in [libc::EINVAL, libc::EBADF, libc::ENOTSOCK, libc::EOPNOTSUPP] {
        let bed = Bed::new();
        let listener = bed.listener();
        bed.fails(errno);
        let error = bed.runtime.block_on(listener.accept()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno));
        assert_eq!(listener.pressure(), 0);
        assert_eq!(*bed.world.sleeps.borrow(), []);
    }
}

/// The poll form rests too, and wakes who polls it.
#[test]
fn who_polls_rests_as_who_awaits() {
    let mut bed = Bed::new();
    let listener = bed.listener();
    bed.fails(libc::ECONNABORTED);
    bed.fails(libc::ENFILE);
    bed.connects();
    let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx));
    bed.runtime.block_on(accepted).unwrap();
    assert_eq!(listener.pressure(), 1);
    assert_eq!(bed.world.sleeps.take().len(), 1);
}

#[test]
fn who_tries_is_told_that_it_rests() {
    let mut bed = Bed::new();
    let listener = bed.listener();
    bed.fails(libc::ECONNABORTED);
    bed.fails(libc::ENOMEM);
    bed.connects();
    bed.runtime.block_on(async {
        for _ in 0..3 {
            let error = listener.try_accept().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(listener.pressure(), 1);
        listener.accept().await.unwrap();
        let error = listener.try_accept().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    });
    // That began an accept, whose connection is not lost.
    let waiting = bed.world.waiting.take().expect("it was begun");
    let client = StdStream::connect(bed.std.local_addr().unwrap()).unwrap();
    let (accepted, _) = bed.std.accept().unwrap();
    waiting.finish(Ok(Yield::Socket(accepted.into())));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(listener.poll_accept(&mut cx), Poll::Ready(Ok(_))));
    drop(client);
}
