//! Enters that are refused, short or in vain, queues that are full, and
//! completions and cancels that come late: one fault at a time, and then all.

use std::os::fd::AsFd;

use isochrome_runtime::eventfd::EventFd;
use isochrome_runtime::op::{FileOp, call};

use super::*;
use crate::faults::{Fault, Plan};

/// A fixture whose ring has these faults, each once in so many chances.
fn fixture(faults: &[(Fault, u32)], config: Config) -> Fixture {
    Plan::of(faults).next();
    Fixture::new(config)
}

/// Everything that the driver does for sockets, some of it given up.
fn works(f: &Fixture) {
    let (listener, at) = listen();
    let listener = f.port(listener);
    for round in 0..20u8 {
        let (port, mut peer) = f.tcp_pair();
        let out = Port::new(DescriptorRef::to(port.descriptor()));
        f.runtime.block_on(async {
            for i in 0..10 {
                peer.write_all(&[round, i]).unwrap();
                assert_eq!(*recv(&port).await.unwrap(), [round, i]);
            }
            let sent = send(&out, vec![round; 10_000], true).await;
            assert_eq!(sent.unwrap(), 10_000);
            let mut got = vec![0; 10_000];
            peer.read_exact(&mut got).unwrap();
            assert!(got.iter().all(|byte| *byte == round));

            let near = f.port(tcp_socket());
            let (connected, _) = near.run(Op::Connect(address(at))).await;
            connected.unwrap();
            drop(accept(&listener).await.unwrap());

            let (idle, mut other) = f.pair();
            poll_fn(|cx| {
                assert!(idle.poll_next(cx, || Op::Recv).is_pending());
                Poll::Ready(())
            })
            .await;
            if round % 2 == 0 {
                yield_now().await;
            }
            drop(idle);
            other.set_nonblocking(true).unwrap();
            loop {
                match other.read(&mut [0]) {
                    Ok(0) => break,
                    Ok(_) => panic!("nobody wrote"),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                }
                yield_now().await;
            }
        });
    }
    drop(listener);
    f.until("all ended", |seen| seen.in_flight == 0);
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn enters_without_memory_or_room_are_tried_again() {
    works(&fixture(&[(Fault::Again, 2)], Config::default()));
    works(&fixture(&[(Fault::Busy, 2)], tiny()));
}

#[test]
fn sleeps_that_end_for_nothing_lose_nothing() {
    works(&fixture(&[(Fault::Interrupted, 2)], Config::default()));
}

#[test]
fn short_enters_leave_nothing_behind() {
    works(&fixture(&[(Fault::Short, 2)], Config::default()));
    works(&fixture(&[(Fault::Short, 2)], tiny()));
}

#[test]
fn a_full_queue_forgets_neither_operations_nor_cancels() {
    works(&fixture(&[(Fault::Full, 2)], Config::default()));
}

#[test]
fn late_cancels_and_completions_in_any_order_end_everything() {
    works(&fixture(&[(Fault::LateCancel, 1)], Config::default()));
    let faults = [
        (Fault::Blind, 2),
        (Fault::Delayed, 2),
        (Fault::Reordered, 2),
    ];
    works(&fixture(&faults, tiny()));
}

#[test]
fn receives_that_find_no_buffer_and_subscriptions_that_end_go_on() {
    works(&fixture(&[(Fault::NoBuffer, 2)], Config::default()));
    works(&fixture(&[(Fault::OneShot, 1)], Config::default()));
    works(&fixture(&[(Fault::ShortSend, 1)], Config::default()));
}

/// A receive that was cancelled and found no buffer said so (ENOBUFS), to a
/// socket that left the runtime.
#[test]
fn what_is_cancelled_without_a_buffer_was_cancelled() {
    let f = fixture(&[(Fault::NoBuffer, 1)], Config::default());
    let (port, _peer) = f.pair();
    begin(&f, &port, || Op::Recv);
    let brought = f.runtime.block_on(port.recall());
    assert!(brought.is_empty(), "{brought:?}");
}

#[test]
fn all_of_it_at_once() {
    use Fault::*;
    let faults = [
        Again,
        Busy,
        Interrupted,
        Short,
        Full,
        Blind,
        Delayed,
        Reordered,
        LateCancel,
        NoBuffer,
        ShortSend,
        OneShot,
    ];
    works(&fixture(&faults.map(|fault| (fault, 4)), tiny()));
}

#[test]
fn completions_of_nothing_are_ignored_and_counted() {
    let f = fixture(&[(Fault::Stranger, 2)], tiny());
    let (port, mut peer) = f.tcp_pair();
    for i in 0..100 {
        peer.write_all(&[i]).unwrap();
        assert_eq!(*f.runtime.block_on(recv(&port)).unwrap(), [i]);
    }
    let counted = f.seen().strangers;
    assert!(counted > 10, "{counted}");
    let stats = f.runtime.handle().stats();
    assert_eq!(stats.workers[0].unknown_completions, counted);
}

/// A host loop sleeps outside of the driver: whatever an enter left undone has
/// to bring it back. Without that it slept for ever after an enter that was
/// refused, took only some entries or had no room for all completions, and
/// after the end of the poll on the wake source.
#[test]
fn a_host_comes_back_for_what_an_enter_left() {
    use Fault::{Again, Full, OneShot, Short};
    for (fault, odds) in [
        (Again, 2),
        (Again, 7),
        (Short, 2),
        (Short, 3),
        (Full, 2),
        (OneShot, 1),
    ] {
        let f = fixture(&[(fault, odds)], tiny());
        let (ports, mut peers): (Vec<_>, Vec<_>) = (0..40).map(|_| f.tcp_pair()).unzip();
        let received = Arc::new(Mutex::new(0));
        for port in ports {
            let received = received.clone();
            drop(f.runtime.handle().spawn(async move {
                while !recv(&port).await.unwrap().is_empty() {
                    *received.lock().unwrap() += 1;
                }
            }));
        }
        for round in 1..5 {
            peers
                .iter_mut()
                .for_each(|peer| peer.write_all(&[7]).unwrap());
            host(&f, fault, || *received.lock().unwrap() == 40 * round);
        }
        // From another thread, through the wake source, again and again.
        for _ in 0..3 {
            let (handle, done) = (f.runtime.handle().clone(), Arc::new(Mutex::new(false)));
            let set = done.clone();
            let other = thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                drop(handle.spawn(async move { *set.lock().unwrap() = true }));
            });
            host(&f, fault, || *done.lock().unwrap());
            other.join().unwrap();
        }
        // And by writes to an eventfd that an operation waits for.
        let event = Arc::new(EventFd::new().unwrap());
        let port = f.port(event.as_fd().try_clone_to_owned().unwrap());
        let polls = Arc::new(Mutex::new(0));
        let (count, clear) = (polls.clone(), event.clone());
        drop(f.runtime.handle().spawn(async move {
            loop {
                poll_fn(|cx| port.poll_ready(cx, Interest::Read))
                    .await
                    .unwrap();
                clear.clear();
                *count.lock().unwrap() += 1;
            }
        }));
        for round in 1..5 {
            let event = event.clone();
            let other = thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                event.unpark();
            });
            host(&f, fault, || *polls.lock().unwrap() == round);
            other.join().unwrap();
        }
    }
}

/// A loop that gives the runtime a turn when it asks for one.
fn host(f: &Fixture, fault: Fault, done: impl Fn() -> bool) {
    f.runtime.turn(Some(Duration::ZERO));
    while !done() {
        let now = Instant::now();
        let due = f.runtime.next_deadline();
        let wait = due.map_or(PATIENCE, |at| at.saturating_duration_since(now));
        let mut poll = libc::pollfd {
            fd: f.runtime.as_fd().unwrap().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, which lives across the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, wait.as_millis() as i32) };
        assert!(
            ready > 0 || wait < PATIENCE,
            "{fault:?}: nobody woke the host"
        );
        f.runtime.turn(Some(Duration::ZERO));
    }
}

struct UnparkThread(thread::Thread);

impl std::task::Wake for UnparkThread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the kernel does not give back is counted and stays, and who awaits it
/// on another executor hears of the end.
#[test]
fn what_is_leaked_tells_whoever_waits() {
    let f = fixture(&[(Fault::NoCancel, 1)], Config::default());
    let (port, _peer) = f.pair();
    let (listener, _) = listen();
    let (listener, stuck) = (f.port(listener), f.pair());
    begin(&f, &port, || Op::Recv);
    begin(&f, &listener, || Op::Accept);
    let mut sending = Box::pin(send(&stuck.0, vec![7; 4_000_000], true));
    f.runtime.block_on(poll_fn(|cx| {
        assert!(sending.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    f.turn(3);
    let (tell, told) = std::sync::mpsc::channel();
    let waits = thread::spawn(move || {
        let waker = std::task::Waker::from(Arc::new(UnparkThread(thread::current())));
        let mut cx = std::task::Context::from_waker(&waker);
        let mut answers = Vec::new();
        for op in [|| Op::Recv, || Op::Accept] {
            let port = if answers.is_empty() { &port } else { &listener };
            let answer = loop {
                match port.poll_next(&mut cx, op) {
                    Poll::Ready(answer) => break answer,
                    Poll::Pending => {
                        let _ = tell.send(());
                        thread::park();
                    }
                }
            };
            answers.push(answer.unwrap_err().raw_os_error());
        }
        answers
    });
    told.recv().unwrap();
    let Fixture { runtime, seen, .. } = f;
    drop(runtime);
    assert_eq!(seen.lock().unwrap().leaked, Some(3));
    assert_eq!(waits.join().unwrap(), [Some(libc::ECANCELED); 2]);
    // The buffer is not given back: the kernel may read it still.
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(sending.as_mut().poll(&mut cx).is_pending());
}

/// So it is with what is asked of files, as long as no buffer is lent.
#[test]
fn what_is_leaked_of_files_tells_whoever_waits() {
    let f = fixture(&[(Fault::NoCancel, 1)], Config::default());
    let pipe = || {
        let (reading, writing) = call::pipe().unwrap();
        let end = |fd| Descriptor::blocking(fd, f.runtime.handle()).unwrap();
        (end(reading), end(writing))
    };
    // Nobody writes to the one, so nothing comes to the other.
    let ((from, keep), (_reading, to)) = (pipe(), pipe());
    let held = from.downgrade();
    let to = Port::new(to);
    let mut splice = Box::pin(to.file(FileOp::Splice {
        from,
        at: None,
        len: 100,
        keep: Some(keep),
    }));
    f.runtime.block_on(poll_fn(|cx| {
        assert!(splice.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    f.turn(3);
    let Fixture { runtime, seen, .. } = f;
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let waits = scope.spawn(move || {
            let waker = std::task::Waker::from(Arc::new(UnparkThread(thread::current())));
            let mut cx = std::task::Context::from_waker(&waker);
            loop {
                match splice.as_mut().poll(&mut cx) {
                    Poll::Ready((completion, _)) => break completion.unwrap_err(),
                    Poll::Pending => {
                        let _ = tell.send(());
                        thread::park();
                    }
                }
            }
        });
        told.recv().unwrap();
        drop(runtime);
        let error = waits.join().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    });
    assert_eq!(seen.lock().unwrap().leaked, Some(1));
    // For ever: the kernel may be at it still.
    assert!(held.upgrade().is_some());
}
