//! Operations on a driver of the tests' own.

mod support;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use isochrome_runtime::buf::{IoBuf, Lent};
use isochrome_runtime::op::{Completion, FileOp, Interest, Op, Port, Ports, Slot, Yield};
use isochrome_runtime::time::timeout;
use isochrome_runtime::{Builder, Color, Descriptor, DescriptorRef, Runtime, spawn, yield_now};
use support::{Event, World, connect, descriptor, foreign_block_on};

mod workers {
    crate::support::on_workers!(
        completes_at_once,
        completes_later,
        a_dropped_operation_is_cancelled_and_the_port_goes_on,
        a_late_completion_is_dropped,
        a_send_that_is_given_up_leaves_its_buffer,
        from_foreign_threads_and_other_workers,
        two_users_take_turns,
        a_poll_and_a_run_take_turns,
        a_poll_behind_a_run_has_its_turn,
        a_run_polled_once_more_harms_nobody_else,
        subscriptions_queue,
        an_accepted_socket_is_closed_with_its_port,
        the_end_finishes_what_is_in_flight,
        the_end_counts_what_it_leaks,
        ready_io_yields,
        descriptors_are_forgotten,
        ports_of_all_kinds_keep_their_descriptor,
    );
}

/// Only what never comes takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

fn bed(workers: usize) -> (Arc<World>, Runtime, DescriptorRef) {
    let world = World::new();
    let builder = Builder::new().workers(workers);
    let rt = world.build(builder.shutdown_grace(Duration::from_millis(20)));
    let descriptor = descriptor(rt.handle());
    (world, rt, descriptor)
}

/// A buffer that counts its drops.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

// SAFETY: the bytes are on the heap.
unsafe impl IoBuf for Counted {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

fn send(bytes: &[u8], drops: &Arc<AtomicUsize>) -> Op {
    let data = Lent::new(Counted(bytes.into(), drops.clone()));
    Op::Send {
        data,
        from: 0,
        all: true,
    }
}

async fn recv(port: &Port) -> Vec<u8> {
    match poll_fn(|cx| port.poll_next(cx, || Op::Recv)).await.unwrap() {
        Yield::Buf(buf) => buf.to_vec(),
        other => unreachable!("{other:?}"),
    }
}

fn is_canceled(completion: &Completion) -> bool {
    completion
        .as_ref()
        .is_err_and(|e| e.raw_os_error() == Some(libc::ECANCELED))
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        yield_now().await;
    }
}

fn completes_at_once(workers: usize) {
    let (_world, rt, descriptor) = bed(workers);
    let drops = Arc::default();
    rt.block_on(async {
        let (out, back) = (Port::new(descriptor.clone()), Port::new(descriptor));
        for i in 0..300 {
            let (completion, op) = out.run(send(&[i as u8; 3], &drops)).await;
            assert!(matches!(completion, Ok(Yield::Done(3))));
            let Op::Send { data, .. } = op else {
                unreachable!()
            };
            assert_eq!(data.into_inner::<Counted>().0, [i as u8; 3]);
            assert_eq!(recv(&back).await, [i as u8; 3]);
        }
    });
    assert_eq!(drops.load(Ordering::SeqCst), 300);
}

/// The first two ports lie within the descriptor, two more for those who go past
/// them aside, and all others by themselves.
fn ports_of_all_kinds_keep_their_descriptor(workers: usize) {
    let (_world, rt, descriptor) = bed(workers);
    let sent = |slot: &Slot| {
        rt.block_on(async {
            let data = Lent::new(vec![7; 3]);
            let op = Op::Send {
                data,
                from: 0,
                all: true,
            };
            assert!(matches!(slot.run(op).await.0, Ok(Yield::Done(3))));
        });
    };
    let same = |slot: &Slot, descriptor: &Descriptor| {
        assert!(std::ptr::eq(slot.descriptor(), descriptor));
    };
    let weak = descriptor.downgrade();
    let ports: Vec<_> = (0..4).map(|_| Port::new(descriptor.clone())).collect();
    drop(descriptor);
    for port in ports {
        let descriptor = weak.upgrade().expect("a port is left");
        same(&port, &descriptor);
        drop(descriptor);
        sent(&port);
    }
    assert!(weak.upgrade().is_none());

    let ports = Ports::new(support::descriptor(rt.handle()));
    let weak = ports.descriptor().downgrade();
    for slot in [
        ports.recv(),
        ports.send(),
        ports.recv_aside(),
        ports.send_aside(),
    ] {
        same(slot, ports.descriptor());
        sent(slot);
    }
    drop(ports);
    assert!(weak.upgrade().is_none());
}

fn completes_later(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    let task = rt.handle().color().spawn(async move {
        for _ in 0..20 {
            let (completion, _) = port.run(connect()).await;
            assert!(matches!(completion, Ok(Yield::Done(0))));
        }
    });
    rt.block_on(async {
        for n in 1..=20 {
            until(|| world.submits.load(Ordering::SeqCst) == n).await;
            world.make_ready(&descriptor);
        }
        task.await.unwrap();
    });
}

fn a_dropped_operation_is_cancelled_and_the_port_goes_on(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    rt.block_on(async {
        for n in 1..=20 {
            let submits = world.submits.load(Ordering::SeqCst);
            {
                let mut run = pin!(port.run(connect()));
                poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_pending())).await;
            }
            assert_eq!(world.submits.load(Ordering::SeqCst), submits + 1);
            if n % 2 == 0 {
                let finished = world.finished.load(Ordering::SeqCst);
                until(|| world.finished.load(Ordering::SeqCst) > finished).await;
            } else {
                // The next one waits until the abandoned one is gone.
                let (completion, _) = port.run(send(b"x", &Arc::default())).await;
                assert!(completion.is_ok(), "reusable");
            }
        }
        until(|| world.cancels.load(Ordering::SeqCst) == 20).await;
    });
}

fn a_late_completion_is_dropped(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    let drops = Arc::default();
    rt.block_on(async {
        world.hold(&descriptor);
        {
            let mut run = pin!(port.run(send(b"late", &drops)));
            poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_pending())).await;
        }
        until(|| world.cancels.load(Ordering::SeqCst) == 1).await;
        assert_eq!(drops.load(Ordering::SeqCst), 0, "the kernel still has it");
        world.let_go(&descriptor);
        until(|| drops.load(Ordering::SeqCst) == 1).await;
        // It was sent all the same; the next operation is another one.
        assert_eq!(recv(&Port::new(descriptor.clone())).await, b"late");
        assert!(port.run(send(b"next", &drops)).await.0.is_ok());
    });
}

fn a_send_that_is_given_up_leaves_its_buffer(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    let back = Port::new(descriptor.clone());
    let drops: Arc<AtomicUsize> = Arc::default();
    let dropped = || drops.load(Ordering::SeqCst);
    let buffer = |bytes: &[u8]| Counted(bytes.into(), drops.clone());
    rt.block_on(async {
        // It moves while it is in flight, and comes back.
        world.hold(&descriptor);
        let mut sending = Box::new(port.send(buffer(b"moved"), true));
        poll_fn(|cx| Poll::Ready(Pin::new(&mut *sending).poll(cx).is_pending())).await;
        let sending = *sending;
        world.let_go(&descriptor);
        let (sent, bytes) = sending.await;
        assert_eq!((sent.unwrap(), &*bytes.0, dropped()), (5, &b"moved"[..], 0));
        assert_eq!(recv(&back).await, b"moved");
        drop(bytes);

        // It is dropped in flight: the operation has the buffer to the end.
        world.hold(&descriptor);
        let mut sending = port.send(buffer(b"late"), true);
        poll_fn(|cx| Poll::Ready(Pin::new(&mut sending).poll(cx).is_pending())).await;
        drop(sending);
        until(|| world.cancels.load(Ordering::SeqCst) == 1).await;
        assert_eq!(dropped(), 1, "the kernel still has it");
        world.let_go(&descriptor);
        until(|| dropped() == 2).await;
        assert_eq!(recv(&back).await, b"late");

        // It is dropped when the operation is over, and was not asked.
        let finished = world.finished.load(Ordering::SeqCst);
        world.hold(&descriptor);
        let mut sending = port.send(buffer(b"over"), true);
        poll_fn(|cx| Poll::Ready(Pin::new(&mut sending).poll(cx).is_pending())).await;
        world.let_go(&descriptor);
        until(|| world.finished.load(Ordering::SeqCst) > finished).await;
        assert_eq!(dropped(), 2);
        drop(sending);
        assert_eq!(dropped(), 3);
        assert_eq!(recv(&back).await, b"over");

        // It never began.
        drop(port.send(buffer(b"never"), true));
        assert_eq!(dropped(), 4);
        assert_eq!(world.cancels.load(Ordering::SeqCst), 1);
    });
}

fn from_foreign_threads_and_other_workers(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let drops: Arc<AtomicUsize> = Arc::default();
    rt.block_on(async {
        // Registered with worker 0.
        let out = Arc::new(Port::new(descriptor.clone()));
        out.run(send(b"1", &drops)).await.0.unwrap();
        assert_eq!(descriptor.home(7), 0);
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (out, drops) = (out.clone(), drops.clone());
                Color::new().spawn(async move { out.run(send(b"2", &drops)).await.0.unwrap() })
            })
            .collect();
        let thread = {
            let (out, drops) = (out.clone(), drops.clone());
            std::thread::spawn(move || {
                for i in 0..20 {
                    if i % 2 == 0 {
                        foreign_block_on(out.run(send(b"3", &drops))).0.unwrap();
                    } else {
                        let mut run = pin!(out.run(connect()));
                        foreign_block_on(poll_fn(|cx| {
                            let _ = run.as_mut().poll(cx);
                            Poll::Ready(())
                        }));
                    }
                }
            })
        };
        for task in tasks {
            task.await.unwrap();
        }
        until(|| thread.is_finished()).await;
        thread.join().unwrap();
        assert_eq!(recv(&Port::new(descriptor.clone())).await.len(), 21);
        until(|| drops.load(Ordering::SeqCst) == 21).await;
    });
    drop(world);
}

fn two_users_take_turns(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Arc::new(Port::new(descriptor.clone()));
    rt.block_on(async {
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let port = port.clone();
                Color::new().spawn(async move { port.run(connect()).await.0.unwrap() })
            })
            .collect();
        // One is dropped while it waits or is in flight.
        tasks[3].abort();
        for n in 1..=5 {
            let busy =
                || world.submits.load(Ordering::SeqCst) > world.finished.load(Ordering::SeqCst);
            until(|| busy() && world.finished.load(Ordering::SeqCst) >= n - 1).await;
            world.make_ready(&descriptor);
            until(|| world.finished.load(Ordering::SeqCst) >= n).await;
        }
        for (i, task) in tasks.into_iter().enumerate() {
            while !task.is_finished() {
                world.make_ready(&descriptor);
                yield_now().await;
            }
            let result = task.await;
            assert!(result.is_ok() || i == 3);
        }
    });
}

/// A `run` that waits behind a `poll_next` is told when that has its result,
/// also when it was polled between the completion and the taking.
/// Counts its wakes.
struct Flag(AtomicUsize);

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn a_poll_and_a_run_take_turns(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    rt.block_on(async {
        let began = |cx: &mut Context<'_>| port.poll_next(cx, || Op::Edges(Interest::Read));
        assert!(poll_fn(|cx| Poll::Ready(began(cx).is_pending())).await);
        world.make_ready(&descriptor);
        until(|| world.finished.load(Ordering::SeqCst) == 1).await;
        // Now, and not before: the completion has woken everybody.
        let flag = Arc::new(Flag(AtomicUsize::new(0)));
        let waker = Waker::from(flag.clone());
        let mut run = pin!(port.run(send(b"x", &Arc::default())));
        assert!(
            run.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert!(poll_fn(|cx| Poll::Ready(began(cx).is_ready())).await);
        assert_eq!(flag.0.load(Ordering::SeqCst), 1, "it is its turn");
        run.await.0.unwrap();
    });
}

/// Of one that was awaited, and of one that was given up: a subscription that
/// came behind it was told of neither.
fn a_poll_behind_a_run_has_its_turn(workers: usize) {
    for given_up in [false, true] {
        let (world, rt, descriptor) = bed(workers);
        let port = Arc::new(Port::new(descriptor.clone()));
        rt.block_on(async {
            world.hold(&descriptor);
            let mut run = Box::pin(port.run(send(b"sent", &Arc::default())));
            assert!(poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_pending())).await);
            // Two of them: the first has not to be the one who takes it.
            let behind = [0, 1].map(|_| {
                let port = port.clone();
                spawn(async move {
                    let mut waiter = port.waiter();
                    poll_fn(|cx| waiter.poll_next(cx, || Op::Recv)).await
                })
            });
            yield_now().await;
            let run = match given_up {
                true => {
                    drop(run);
                    None
                }
                false => Some(run),
            };
            world.let_go(&descriptor);
            if let Some(run) = run {
                run.await.0.unwrap();
            }
            for behind in behind {
                let received = timeout(PATIENCE, behind).await.expect("it has its turn");
                assert!(matches!(received.unwrap(), Ok(Yield::Buf(_))));
                world.bring_bytes(&descriptor, b"more");
            }
        });
    }
}

/// It panics, and leaves nothing behind for the next who uses the port.
fn a_run_polled_once_more_harms_nobody_else(workers: usize) {
    let (_world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor);
    rt.block_on(async {
        let data = || FileOp::Sync { data_only: true };
        let mut run = pin!(port.run(Op::File(data())));
        run.as_mut().await.0.unwrap();
        let mut file = pin!(port.file(data()));
        file.as_mut().await.0.unwrap();
        let waker = Arc::new(Flag(AtomicUsize::new(0)));
        for round in 0..2 {
            let waker = Waker::from(waker.clone());
            let mut cx = Context::from_waker(&waker);
            let panicked = catch_unwind(AssertUnwindSafe(|| match round {
                0 => drop(run.as_mut().poll(&mut cx)),
                _ => drop(file.as_mut().poll(&mut cx)),
            }));
            assert!(panicked.is_err(), "it has given its output");
        }
        assert_eq!(Arc::strong_count(&waker), 1, "its waker was left there");
        port.run(send(b"x", &Arc::default())).await.0.unwrap();
    });
}

fn subscriptions_queue(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    rt.block_on(async {
        let began = poll_fn(|cx| Poll::Ready(port.poll_next(cx, || Op::Recv).is_pending())).await;
        assert!(began);
        for i in 0..5 {
            let parks = world.parks.load(Ordering::SeqCst);
            world.bring_bytes(&descriptor, &[i]);
            until(|| world.parks.load(Ordering::SeqCst) > parks + 1).await;
        }
        let mut all = Vec::new();
        while all.len() < 5 {
            all.extend(recv(&port).await);
        }
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert_eq!(world.submits.load(Ordering::SeqCst), 1, "one subscription");
    });
}

fn an_accepted_socket_is_closed_with_its_port(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    rt.block_on(async {
        let _ = poll_fn(|cx| Poll::Ready(port.poll_next(cx, || Op::Accept).is_pending())).await;
        world.bring_socket(&descriptor, writer.into());
        let parks = world.parks.load(Ordering::SeqCst);
        until(|| world.parks.load(Ordering::SeqCst) > parks + 2).await;
        drop(port);
    });
    drop((rt, world));
    // The end of the stream: nobody has the other side any more.
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
}

fn the_end_finishes_what_is_in_flight(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    let port = Port::new(descriptor.clone());
    let began = Event::new();
    let begins = began.clone();
    let thread = std::thread::spawn(move || {
        let mut run = pin!(port.run(connect()));
        let got = foreign_block_on(poll_fn(|cx| {
            let poll = run.as_mut().poll(cx);
            begins.set();
            poll
        }));
        assert!(is_canceled(&got.0));
        // And afterwards.
        let after = foreign_block_on(port.run(connect()));
        assert!(is_canceled(&after.0));
    });
    let color = rt.handle().color();
    let other = Port::new(support::descriptor(rt.handle()));
    drop(color.spawn(async move { drop(other.run(connect()).await) }));
    rt.block_on(began.wait());
    assert_eq!(rt.shutdown(), 0);
    thread.join().unwrap();
    drop(world);
}

fn the_end_counts_what_it_leaks(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    world.hold(&descriptor);
    let drops: Arc<AtomicUsize> = Arc::default();
    let ports: Vec<_> = (0..3).map(|_| Port::new(descriptor.clone())).collect();
    let counted = drops.clone();
    rt.block_on(async {
        for port in ports {
            let op = send(b"x", &counted);
            drop(Color::new().spawn(async move { drop(port.run(op).await) }));
        }
        until(|| world.submits.load(Ordering::SeqCst) == 3).await;
    });
    assert_eq!(rt.shutdown(), 3);
    assert_eq!(drops.load(Ordering::SeqCst), 0, "leaked, never freed");
}

/// Trap 17: an operation that is always ready does not keep its task running.
fn ready_io_yields(workers: usize) {
    let (_world, rt, descriptor) = bed(workers);
    rt.block_on(async {
        let port = Port::new(descriptor);
        let turns = Arc::new(AtomicUsize::new(0));
        let counting = turns.clone();
        let other = spawn(poll_fn(move |cx| {
            counting.fetch_add(1, Ordering::SeqCst);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        for _ in 0..1000 {
            port.run(send(b"x", &Arc::default())).await.0.unwrap();
        }
        assert!(turns.load(Ordering::SeqCst) >= 3);
        other.abort();
    });
}

fn descriptors_are_forgotten(workers: usize) {
    let (world, rt, descriptor) = bed(workers);
    rt.block_on(async {
        Port::new(descriptor.clone())
            .run(send(b"x", &Arc::default()))
            .await
            .0
            .unwrap();
        let there = support::descriptor(rt.handle());
        Port::new(there.clone())
            .run(send(b"x", &Arc::default()))
            .await
            .0
            .unwrap();
        std::thread::spawn(move || drop(there)).join().unwrap();
        drop(descriptor);
        until(|| world.forgotten.load(Ordering::SeqCst) == 2).await;
    });
}
