//! System calls of the asking side's own, on a driver that works by readiness
//! and whose edges are told by hand.

#[path = "support/edges.rs"]
mod edges;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use edges::{bed, poll_once, port};
use isochrome_runtime::op::{Interest, Port};
use isochrome_runtime::yield_now;

fn blocked() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

/// Polls `call` as a single user would.
fn poll<T>(port: &Port, call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    poll_with(port, Waker::noop(), call)
}

fn poll_with<T>(
    port: &Port,
    waker: &Waker,
    mut call: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    let mut cx = Context::from_waker(waker);
    port.poll_io(&mut cx, Interest::Read, |_| call())
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn it_is_tried_first_and_again_after_an_edge_only() {
    let (rt, world) = bed();
    let (port, _far) = port(&rt);
    let calls = Cell::new(0);
    let call = || {
        calls.set(calls.get() + 1);
        if calls.get() < 3 {
            Err(blocked())
        } else {
            Ok(calls.get())
        }
    };
    rt.block_on(async {
        let mut waiter = port.waiter();
        let mut user = pin!(poll_fn(move |cx| {
            waiter.poll_io(cx, Interest::Read, |_| call())
        }));
        assert!(poll_once(user.as_mut()).is_pending());
        assert!(poll_once(user.as_mut()).is_pending());
        assert_eq!((calls.get(), world.submitted.get()), (1, 1));
        world.edge(Interest::Read);
        yield_now().await;
        assert!(poll_once(user.as_mut()).is_pending());
        assert_eq!(calls.get(), 2);
        world.edge(Interest::Read);
        assert_eq!(user.await.unwrap(), 3);
    });
    // What succeeded leaves the descriptor ready.
    assert_eq!(poll(&port, || Ok(1)).map(Result::unwrap), Poll::Ready(1));
    assert_eq!((world.submitted.get(), world.cancelled.get()), (1, 0));
}

#[test]
fn an_edge_during_the_call_is_not_lost() {
    let (rt, world) = bed();
    let (port, _far) = port(&rt);
    rt.block_on(async {
        assert!(poll::<()>(&port, || Err(blocked())).is_pending());
        world.edge(Interest::Read);
        yield_now().await;
        let calls = Cell::new(0);
        let answer = poll(&port, || {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                // After the kernel said no, and before that is noted.
                world.tell(Interest::Read);
                return Err(blocked());
            }
            Ok(())
        });
        assert!(answer.is_ready());
        assert_eq!(calls.get(), 2);
    });
}

#[test]
fn who_comes_during_a_call_is_woken_after_it() {
    let (rt, world) = bed();
    let (port, _far) = port(&rt);
    rt.block_on(async {
        assert!(poll::<()>(&port, || Err(blocked())).is_pending());
        world.edge(Interest::Read);
        yield_now().await;
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut other = port.waiter();
        let mut poll_other = |answer: io::Result<()>| {
            let mut answer = Some(answer);
            let mut cx = Context::from_waker(&waker);
            let call = |_: std::os::fd::BorrowedFd<'_>| answer.take().expect("one call");
            other.poll_io(&mut cx, Interest::Read, call)
        };
        let first = poll(&port, || {
            assert!(poll_other(Ok(())).is_pending(), "the word is taken");
            Ok(())
        });
        assert!(first.is_ready());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(poll_other(Ok(())).is_ready());
        // A call in vain wakes nobody.
        let first = poll::<()>(&port, || {
            assert!(poll_other(Ok(())).is_pending());
            Err(blocked())
        });
        assert!(first.is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_call_that_panics_takes_nothing_along() {
    let (rt, _world) = bed();
    let (port, _far) = port(&rt);
    rt.block_on(async {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            poll::<()>(&port, || panic!("the user's"))
        }));
        assert!(caught.is_err());
        assert!(poll(&port, || Ok(())).is_ready());
    });
}

#[test]
fn interrupted_calls_are_made_again_and_errors_are_told() {
    let (rt, world) = bed();
    let (port, _far) = port(&rt);
    rt.block_on(async {
        let calls = Cell::new(0);
        let answer = poll::<()>(&port, || {
            calls.set(calls.get() + 1);
            let kind = match calls.get() {
                1 => io::ErrorKind::Interrupted,
                _ => io::ErrorKind::BrokenPipe,
            };
            Err(kind.into())
        });
        let Poll::Ready(Err(error)) = answer else {
            panic!("an error is an answer")
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!((calls.get(), world.submitted.get()), (2, 0));
    });
}

#[test]
fn calls_that_always_succeed_yield_at_times() {
    let (rt, _world) = bed();
    let (port, _far) = port(&rt);
    rt.block_on(async {
        let mut calls = 0;
        while poll(&port, || Ok(())).is_ready() {
            calls += 1;
            assert!(calls < 10_000);
        }
        assert!(calls > 1);
    });
}

#[test]
fn one_port_waits_for_one_direction() {
    let (rt, _world) = bed();
    let (port, _far) = port(&rt);
    rt.block_on(async {
        assert!(poll::<()>(&port, || Err(blocked())).is_pending());
        let mut cx = Context::from_waker(Waker::noop());
        let other = port.poll_io(&mut cx, Interest::Write, |_| Ok(()));
        let Poll::Ready(Err(error)) = other else {
            panic!("an error")
        };
        assert!(error.to_string().contains("another port"), "{error}");
    });
}
