//! The blocking pool.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use isochrome_runtime::{Builder, Color, JoinHandle, spawn_blocking};
use support::{CountDrop, World, foreign_block_on, runtime};

mod workers {
    crate::support::on_workers!(
        results_come_back_into_the_color,
        threads_and_queue_are_bounded,
        a_panic_ends_its_closure_only,
        abort_before_it_begins,
        the_end_refuses_what_is_queued,
        a_waker_that_panics_costs_no_thread,
    );
}

fn results_come_back_into_the_color(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let color = Color::new();
        let expected = color.clone();
        let task = color.spawn(async move {
            let mut sum = 0;
            for i in 0..20 {
                sum += spawn_blocking(move || i).await.unwrap();
                assert_eq!(Color::current(), Some(expected.clone()));
            }
            sum
        });
        assert_eq!(task.await.unwrap(), 190);
    });
    let task = rt.handle().spawn_blocking(|| 5);
    assert_eq!(foreign_block_on(task).unwrap(), 5);
}

/// A closure that says it has begun and waits to be let go.
fn held(rt: &isochrome_runtime::Handle) -> (JoinHandle<()>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begun, begins) = mpsc::channel();
    let (go, waits) = mpsc::channel();
    let task = rt.spawn_blocking(move || {
        begun.send(()).unwrap();
        let _ = waits.recv();
    });
    (task, begins, go)
}

fn threads_and_queue_are_bounded(workers: usize) {
    for (threads, queue) in [(1, 0), (1, 1), (2, 3)] {
        let builder = Builder::new().workers(workers);
        let rt = World::new().build(builder.blocking_threads(threads).blocking_queue(queue));
        let running: Vec<_> = (0..threads).map(|_| held(rt.handle())).collect();
        for (_, begins, _) in &running {
            begins.recv().unwrap();
        }
        let waiting: Vec<_> = (0..queue).map(|_| held(rt.handle())).collect();
        assert!(waiting.iter().all(|w| !w.0.is_finished()), "there was room");
        let drops = Arc::new(AtomicUsize::new(0));
        let d = CountDrop(drops.clone());
        let refused = rt.handle().spawn_blocking(move || drop(d));
        assert!(
            refused.is_finished(),
            "{threads} threads, {queue} queued: full"
        );
        assert_eq!(drops.load(Ordering::SeqCst), 1, "the closure is dropped");
        let e = foreign_block_on(refused).unwrap_err();
        assert!(e.is_pool_full(), "{e}");
        for (_, _, go) in running.iter().chain(&waiting) {
            go.send(()).unwrap();
        }
        for (task, _, _) in running.into_iter().chain(waiting) {
            foreign_block_on(task).unwrap();
        }
        // A thread counts as busy until it looks for more.
        let again = || foreign_block_on(rt.handle().spawn_blocking(|| 1));
        let mut got = again();
        while got.as_ref().is_err_and(|e| e.is_pool_full()) {
            std::thread::yield_now();
            got = again();
        }
        assert_eq!(got.unwrap(), 1, "there is room again");
    }
}

fn a_panic_ends_its_closure_only(workers: usize) {
    let builder = Builder::new().workers(workers).blocking_threads(1);
    let rt = World::new().build(builder);
    rt.block_on(async {
        let task = spawn_blocking(|| std::panic::resume_unwind(Box::new(3_u8)));
        let task: JoinHandle<()> = task;
        let payload = task.await.unwrap_err().into_panic().unwrap();
        assert_eq!(*payload.downcast::<u8>().unwrap(), 3);
        assert_eq!(spawn_blocking(|| 2).await.unwrap(), 2);
    });
}

fn abort_before_it_begins(workers: usize) {
    let builder = Builder::new().workers(workers).blocking_threads(1);
    let rt = World::new().build(builder);
    let (running, begins, go) = held(rt.handle());
    begins.recv().unwrap();
    let aborted = rt.handle().spawn_blocking(|| unreachable!("aborted"));
    let aborted: JoinHandle<()> = aborted;
    aborted.abort();
    running.abort();
    go.send(()).unwrap();
    foreign_block_on(running).unwrap();
    assert!(foreign_block_on(aborted).unwrap_err().is_aborted());
}

fn the_end_refuses_what_is_queued(workers: usize) {
    let builder = Builder::new().workers(workers).blocking_threads(1);
    let rt = World::new().build(builder.shutdown_grace(Duration::from_millis(1)));
    let (running, begins, go) = held(rt.handle());
    begins.recv().unwrap();
    let drops = Arc::new(AtomicUsize::new(0));
    let d = CountDrop(drops.clone());
    let queued = rt.handle().spawn_blocking(move || drop(d));
    drop(rt);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert!(foreign_block_on(queued).unwrap_err().is_shutdown());
    // What runs goes on by itself.
    go.send(()).unwrap();
    foreign_block_on(running).unwrap();
}

fn a_waker_that_panics_costs_no_thread(workers: usize) {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("the executor of this waker is gone");
        }
    }
    let rt = World::new().build(Builder::new().workers(workers).blocking_threads(1));
    let (mut task, begun, go) = held(rt.handle());
    begun.recv().unwrap();
    let waker = Waker::from(Arc::new(Bomb));
    let polled = pin!(&mut task).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(go);
    let next = rt.handle().spawn_blocking(|| 2);
    assert_eq!(foreign_block_on(next).unwrap(), 2);
    assert!(task.is_finished());
}
