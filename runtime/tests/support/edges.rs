//! A driver that works by readiness, whose edges are told by hand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::op::{InFlight, Interest, Op, Port};
use isochrome_runtime::{Builder, Descriptor, Runtime};

/// What the driver was asked for, and what it is to tell.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) subscriptions: RefCell<BTreeMap<u64, (InFlight, Interest)>>,
    next_key: Cell<u64>,
    edges: RefCell<Vec<Interest>>,
    /// Tells of an edge within each submission.
    pub(crate) at_once: Cell<bool>,
    pub(crate) refuses: Cell<bool>,
    /// Runs within the next submission.
    pub(crate) meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
    pub(crate) submitted: Cell<usize>,
    pub(crate) cancelled: Cell<usize>,
}

struct Fake(Rc<World>);

struct Nobody;

impl Unpark for Nobody {
    fn unpark(&self) {}
}

// SAFETY: nothing is moved out of an operation.
unsafe impl Driver for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn by_readiness(&self) -> bool {
        true
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        let world = &self.0;
        world.submitted.set(world.submitted.get() + 1);
        if world.refuses.get() {
            op.finish(Err(io::Error::from_raw_os_error(libc::ENOSPC)));
            return Ok(());
        }
        let interest = op.with_op(|op| match op {
            Op::Edges(interest) => *interest,
            other => panic!("asked for {other:?}"),
        });
        if let Some(meanwhile) = world.meanwhile.take() {
            meanwhile();
        }
        let key = world.next_key.get() + 1;
        world.next_key.set(key);
        op.set_key(key);
        if world.at_once.get() {
            op.edge(false);
        }
        world.subscriptions.borrow_mut().insert(key, (op, interest));
        Ok(())
    }

    fn cancel(&mut self, key: u64) {
        let world = &self.0;
        world.cancelled.set(world.cancelled.get() + 1);
        let gone = world.subscriptions.borrow_mut().remove(&key);
        let (op, _) = gone.expect("what is cancelled is in flight");
        op.finish(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let edges = self.0.edges.take();
        assert!(
            !edges.is_empty() || wait == Some(Duration::ZERO),
            "would sleep for ever"
        );
        for interest in edges {
            self.0.tell(interest);
        }
        Ok(())
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::new(Nobody)
    }

    fn shutdown(&mut self, _: Duration) -> usize {
        for (_, (op, _)) in self.0.subscriptions.take() {
            op.finish(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
        }
        0
    }
}

thread_local! {
    static WORLD: Rc<World> = Rc::default();
}

pub(crate) fn bed() -> (Runtime, Rc<World>) {
    let made = Builder::new()
        .workers(1)
        .build_with(|_| Ok(Box::new(Fake(WORLD.with(Rc::clone)))));
    (made.unwrap(), WORLD.with(Rc::clone))
}

/// A port on one end of a pair, and the other end.
pub(crate) fn port(rt: &Runtime) -> (Port, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let near = Descriptor::new(OwnedFd::from(near), rt.handle()).unwrap();
    (Port::new(near), far)
}

impl World {
    pub(crate) fn edge(&self, interest: Interest) {
        self.edges.borrow_mut().push(interest);
    }

    /// Tells of an edge at once.
    pub(crate) fn tell(&self, interest: Interest) {
        for (op, of) in self.subscriptions.borrow().values() {
            if *of == interest {
                op.edge(false);
            }
        }
    }
}

pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
