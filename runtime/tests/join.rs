//! `JoinHandle`, and `block_on`.

mod support;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use isochrome_runtime::{AbortHandle, Color, JoinHandle, spawn, yield_now};
use support::{CountDrop, Event, foreign_block_on, runtime};

mod workers {
    crate::support::on_workers!(
        outputs_come_back,
        dropping_the_handle_detaches,
        abort_before_while_and_after,
        a_task_aborts_itself,
        panics_reach_the_handle,
        outputs_are_dropped_once,
        awaited_from_elsewhere,
        block_on_borrows_and_need_not_be_send,
        block_on_survives_panics,
        nested_block_on_is_refused,
        nested_block_on_through_another_runtime_is_refused,
        two_runtimes_do_not_meet,
        block_on_while_unwinding,
        work_left_behind_runs_on_the_others,
        a_task_that_has_ended_keeps_nobody_that_waited_for_it,
        a_long_chain_of_tasks_ends_without_recursion,
        drops_that_panic_end_their_task_only,
    );
}

fn count() -> Arc<AtomicUsize> {
    Arc::default()
}

fn outputs_come_back(workers: usize) {
    let rt = runtime(workers);
    let got = rt.block_on(async {
        let handles: Vec<_> = (0..50)
            .map(|i| Color::new().spawn(async move { i }))
            .collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.await.unwrap();
        }
        sum
    });
    assert_eq!(got, 49 * 50 / 2);
}

fn dropping_the_handle_detaches(workers: usize) {
    let rt = runtime(workers);
    let (begin, end, drops) = (Event::new(), Event::new(), count());
    rt.block_on(async {
        let (b, e, d) = (begin.clone(), end.clone(), CountDrop(drops.clone()));
        drop(spawn(async move {
            b.wait().await;
            e.set();
            d
        }));
        begin.set();
        end.wait().await;
        while drops.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
    });
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

fn abort_before_while_and_after(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        // Before: of our own color, so it has not begun.
        let before = spawn(async { unreachable!("aborted before it began") });
        before.abort();
        before.abort();
        let before: JoinHandle<()> = before;
        let e = before.await.unwrap_err();
        assert!(e.is_aborted() && !e.is_panic() && !e.is_shutdown());

        let (begun, drops) = (Event::new(), count());
        let (b, d) = (begun.clone(), CountDrop(drops.clone()));
        let during = Color::new().spawn(async move {
            let _d = d;
            b.set();
            std::future::pending::<()>().await;
        });
        begun.wait().await;
        let other = during.abort_handle();
        std::thread::spawn(move || other.abort()).join().unwrap();
        assert!(during.await.unwrap_err().is_aborted());
        assert_eq!(
            drops.load(Ordering::SeqCst),
            1,
            "dropped before the handle hears of it"
        );

        let after = Color::new().spawn(async { 5 });
        while !after.is_finished() {
            yield_now().await;
        }
        let abort = after.abort_handle();
        after.abort();
        assert_eq!(after.await.unwrap(), 5);
        abort.abort();
    });
}

fn a_task_aborts_itself(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let drops = count();
        let (d, mail) = (
            CountDrop(drops.clone()),
            Arc::new(std::sync::Mutex::new(None)),
        );
        let begin = Event::new();
        let (b, m) = (begin.clone(), mail.clone());
        let handle = Color::new().spawn(async move {
            let _d = d;
            b.wait().await;
            let abort: isochrome_runtime::AbortHandle = m.lock().unwrap().take().unwrap();
            abort.abort();
            // This poll ends before the abort is carried out.
            yield_now().await;
            unreachable!("aborted");
        });
        *mail.lock().unwrap() = Some(handle.abort_handle());
        begin.set();
        let handle: JoinHandle<()> = handle;
        assert!(handle.await.unwrap_err().is_aborted());
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    });
}

fn panics_reach_the_handle(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let e = Color::new().spawn(async { panic_any(42_u32) }).await;
        let e: isochrome_runtime::JoinError = match e {
            Ok(()) => unreachable!("it panicked"),
            Err(e) => e,
        };
        assert!(e.is_panic());
        assert_eq!(*e.into_panic().unwrap().downcast::<u32>().unwrap(), 42);
        let e = spawn(async { panic!("with {}", "words") }).await;
        let text = match e {
            Ok(()) => unreachable!("it panicked"),
            Err(e) => e.to_string(),
        };
        assert!(text.contains("with words"), "{text}");
        // A panic in the drop of a future that was ready takes its place.
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    panic!("in drop");
                }
            }
        }
        let bad = Bad;
        let aborted = spawn(async move {
            let _bad = bad;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_panic());
        assert_eq!(spawn(async { 1 }).await.unwrap(), 1, "the worker goes on");
    });
}

fn outputs_are_dropped_once(workers: usize) {
    let rt = runtime(workers);
    let drops = count();
    let rounds = 200;
    rt.block_on(async {
        for i in 0..rounds {
            let d = CountDrop(drops.clone());
            let handle = Color::new().spawn(async move { d });
            match i % 4 {
                0 => drop(handle),
                1 => drop(handle.await.unwrap()),
                2 => {
                    while !handle.is_finished() {
                        yield_now().await;
                    }
                    drop(handle);
                }
                _ => {
                    handle.abort();
                    drop(std::thread::spawn(move || drop(handle)).join());
                }
            }
        }
    });
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), rounds);
}

fn awaited_from_elsewhere(workers: usize) {
    let (a, b) = (runtime(workers), runtime(workers));
    let go = Event::new();
    let waited = go.clone();
    let handle = a.handle().color().spawn(async move {
        waited.wait().await;
        7
    });
    let inner = a.handle().spawn(async { 8 });
    let thread = std::thread::spawn(move || foreign_block_on(handle).unwrap());
    a.block_on(async {
        go.set();
        let seven = isochrome_runtime::spawn_blocking(move || thread.join().unwrap());
        assert_eq!(seven.await.unwrap(), 7);
    });
    // Spawned on one runtime, awaited on the other while the first is at work
    // on this very thread.
    let outer = b.handle().color();
    let eight = b.block_on(async {
        let moved = outer.spawn(inner);
        a.block_on(yield_now());
        a.block_on(yield_now());
        moved.await.unwrap().unwrap()
    });
    assert_eq!(eight, 8);
}

fn block_on_borrows_and_need_not_be_send(workers: usize) {
    let rt = runtime(workers);
    let mut local = vec![1];
    let shared = Rc::new(Cell::new(0));
    let out: &mut Vec<i32> = rt.block_on(async {
        let shared = shared.clone();
        local.push(2);
        for _ in 0..10 {
            yield_now().await;
            shared.set(shared.get() + 1);
        }
        &mut local
    });
    out.push(3);
    assert_eq!(local, [1, 2, 3]);
    assert_eq!(shared.get(), 10);
    assert_eq!(Rc::strong_count(&shared), 1, "the future is dropped");
}

fn block_on_survives_panics(workers: usize) {
    let rt = runtime(workers);
    let left = rt.handle().spawn(async { 3 });
    for i in 0..3 {
        let drops = count();
        let d = CountDrop(drops.clone());
        let caught = catch_unwind(AssertUnwindSafe(|| {
            rt.block_on(async {
                let _d = d;
                yield_now().await;
                std::panic::resume_unwind(Box::new(i));
            })
        }));
        assert_eq!(*caught.unwrap_err().downcast::<i32>().unwrap(), i);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        assert_eq!(rt.block_on(async { spawn(async { 1 }).await.unwrap() }), 1);
    }
    assert_eq!(rt.block_on(left).unwrap(), 3);
}

fn nested_block_on_is_refused(workers: usize) {
    let rt = Rc::new(runtime(workers));
    let inner = rt.clone();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        rt.block_on(async { inner.block_on(async {}) })
    }));
    let message = caught.unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("within its own runtime"), "{message}");
    assert_eq!(rt.block_on(async { 4 }), 4);
}

/// The innermost worker of the thread is the other runtime's: that must not
/// hide that this one is at work further out.
fn nested_block_on_through_another_runtime_is_refused(workers: usize) {
    let (a, b) = (runtime(workers), runtime(workers));
    let caught = catch_unwind(AssertUnwindSafe(|| {
        a.block_on(async { b.block_on(async { a.block_on(async {}) }) })
    }));
    let message = caught.unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("within its own runtime"), "{message}");
    assert_eq!(a.block_on(async { b.block_on(async { 4 }) }), 4);
}

fn two_runtimes_do_not_meet(workers: usize) {
    let a = runtime(workers);
    a.block_on(async {
        let inside = Color::new().spawn(async move {
            let sum = runtime(workers).block_on(async {
                let x = spawn(async { 1 });
                let y = Color::new().spawn(async { 2 });
                x.await.unwrap() + y.await.unwrap()
            });
            // Back in the outer one.
            sum + spawn(async { 3 }).await.unwrap()
        });
        assert_eq!(inside.await.unwrap(), 6);
    });
    // And one on another thread, at the same time.
    let event = Event::new();
    let (there, waits) = (event.clone(), Event::new());
    let here = waits.clone();
    let thread = std::thread::spawn(move || {
        runtime(workers).block_on(async move {
            here.set();
            there.wait().await;
        });
    });
    a.block_on(async {
        waits.wait().await;
        event.set();
    });
    thread.join().unwrap();
}

/// A destructor may use a runtime while a panic unwinds.
fn block_on_while_unwinding(workers: usize) {
    let rt = runtime(workers);
    let got = Cell::new(0);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _cleanup =
            support::OnDrop(|| got.set(rt.block_on(async { spawn(async { 9 }).await.unwrap() })));
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(caught.is_err());
    assert_eq!(got.get(), 9);
}

/// What worker 0 had when its `block_on` ended is taken by the others: a
/// yielded task too, and colors in its queue.
fn work_left_behind_runs_on_the_others(workers: usize) {
    if workers == 1 {
        return;
    }
    for _ in 0..50 {
        let rt = runtime(workers);
        let (send, receive) = std::sync::mpsc::channel();
        rt.block_on(async {
            for i in 0..20 {
                let send = send.clone();
                drop(Color::new().spawn(async move {
                    for _ in 0..i {
                        yield_now().await;
                    }
                    send.send(()).unwrap();
                }));
            }
            yield_now().await;
        });
        // Nobody is in block_on.
        for _ in 0..20 {
            receive.recv().unwrap();
        }
    }
}

fn a_task_that_has_ended_keeps_nobody_that_waited_for_it(workers: usize) {
    struct Noted(Event);
    impl Wake for Noted {
        fn wake(self: Arc<Self>) {
            self.0.set();
        }
    }
    let rt = runtime(workers);
    let (go, woken) = (Event::new(), Event::new());
    let waits = go.clone();
    let mut handle = rt.handle().spawn(async move { waits.wait().await });
    let kept = handle.abort_handle();
    let noted = Arc::new(Noted(woken.clone()));
    let waker = Waker::from(noted.clone());
    let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(waker);
    go.set();
    rt.block_on(woken.wait());
    assert!(handle.is_finished());
    drop(handle);
    // The turn in which the task ended has ended too.
    rt.block_on(yield_now());
    assert_eq!(Arc::strong_count(&noted), 1, "its waker is still there");
    drop(kept);
}

fn a_long_chain_of_tasks_ends_without_recursion(workers: usize) {
    type Kept = Arc<Mutex<Option<AbortHandle>>>;
    fn link(left: usize, kept: Kept) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if left > 0 {
                let next = spawn(link(left - 1, kept.clone()));
                if left == 1 {
                    *kept.lock().unwrap() = Some(next.abort_handle());
                }
                next.await.unwrap();
            }
        })
    }
    let rt = runtime(workers);
    let kept = Kept::default();
    // Each task was waited for by the one before.
    rt.block_on(async { spawn(link(100_000, kept.clone())).await.unwrap() });
    drop(kept);
}

fn drops_that_panic_end_their_task_only(workers: usize) {
    /// Its drop panics, so many times in a row.
    struct Bomb(usize);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Bomb(self.0 - 1));
            }
        }
    }
    /// Still has one bomb when it gives another.
    struct Gives(Bomb);
    impl Future for Gives {
        type Output = Bomb;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Bomb> {
            Poll::Ready(Bomb(self.0.0))
        }
    }
    let rt = runtime(workers);
    rt.block_on(async {
        for times in 0..4 {
            let color = Color::new();
            drop(color.spawn(Gives(Bomb(times))));
            drop(color.spawn(async move { panic_any(Bomb(times)) }));
            let given = color.spawn(Gives(Bomb(times)));
            let end = color.spawn(async { 1 });
            assert_eq!(end.await.unwrap(), 1);
            match given.await {
                Ok(bomb) => assert_eq!(bomb.0, 0),
                Err(e) => std::mem::forget(e.into_panic().unwrap()),
            }
        }
    });
}
