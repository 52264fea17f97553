//! The driver and its worker: registrations, buffers, sleep, the end.

use super::*;

#[test]
fn connections_are_registered_and_subscribed_once() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    for i in 0..3 {
        begin(&f, &port);
        assert_eq!((f.registrations(), f.subscribers()), (1, 1));
        b.write_all(&[i]).unwrap();
        f.runtime.block_on(async {
            assert_eq!(*recv(&port).await.unwrap(), [i]);
        });
    }
}

#[test]
fn what_can_be_done_at_once_needs_no_registration() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    b.write_all(b"early").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&port).await.unwrap(), *b"early");
        assert_eq!(send(&port, b"reply".to_vec(), true).await.unwrap(), 5);
    });
    assert_eq!(f.registrations(), 0);
}

#[test]
fn a_poll_tells_of_the_present_and_not_of_the_past() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let mut ours = a.try_clone().unwrap();
    let port = f.port(a);
    let out = Port::new(DescriptorRef::to(port.descriptor()));
    let mut buf = [0; 8];
    f.runtime.block_on(async {
        ready(&out, Interest::Write).await.unwrap();
        for _ in 0..3 {
            assert!(poll_once(ready(&port, Interest::Read)).is_pending());
            b.write_all(b"xy").unwrap();
            ready(&port, Interest::Read).await.unwrap();
            // Half of it, with a system call that the driver does not see:
            // there is no second edge for the other half.
            assert_eq!(ours.read(&mut buf[..1]).unwrap(), 1);
            ready(&port, Interest::Read).await.unwrap();
            assert_eq!(ours.read(&mut buf).unwrap(), 1);
        }
        assert!(poll_once(ready(&port, Interest::Read)).is_pending());
        drop(b);
        ready(&port, Interest::Read).await.unwrap();
        ready(&out, Interest::Write).await.unwrap();
    });
}

#[test]
fn what_cannot_be_polled_is_ready_or_an_error() {
    let f = Fixture::new();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let port = f.port(file);
    f.runtime.block_on(async {
        ready(&port, Interest::Read).await.unwrap();
        let error = recv(&port).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    });
}

#[test]
fn without_free_buffers_a_receive_gets_one_of_its_own() {
    let f = Fixture::new();
    let (a, b) = UnixDatagram::pair().unwrap();
    let port = f.port(a);
    f.runtime.block_on(async {
        let mut held = Vec::new();
        for i in 0..300u32 {
            b.send(&i.to_ne_bytes()).unwrap();
            held.push(recv(&port).await.unwrap());
        }
        for (i, buf) in held.iter().enumerate() {
            assert_eq!(**buf, (i as u32).to_ne_bytes());
        }
    });
}

#[test]
fn the_end_of_the_runtime_ends_what_waits() {
    let f = Fixture::new();
    let (a, _b) = tcp();
    let port = f.port(a);
    begin(&f, &port);
    let Fixture { runtime, reactor } = f;
    assert_eq!(runtime.shutdown(), 0);
    assert_eq!(reactor.borrow().subscribers(), 0);
    let Poll::Ready(Err(error)) = poll_once(recv(&port)) else {
        panic!("it has ended");
    };
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
}

#[test]
fn an_unpark_before_and_during_a_sleep_ends_it() {
    let mut reactor = Reactor::new(0).unwrap();
    let unparker = reactor.unparker();
    for _ in 0..100 {
        unparker.unpark();
        unparker.unpark();
        reactor.park(None).unwrap();
    }
    // All of that was one edge at a time, and used up.
    let start = Instant::now();
    let wait = Duration::from_millis(20);
    reactor.park(Some(wait)).unwrap();
    assert!(start.elapsed() >= wait);
    for _ in 0..20 {
        let unparker = unparker.clone();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2));
            unparker.unpark();
        });
        reactor.park(None).unwrap();
        other.join().unwrap();
    }
}

#[test]
fn sockets_may_be_used_from_every_worker() {
    let runtime = Builder::new()
        .workers(3)
        .build_with(|worker| Ok(Box::new(Reactor::new(worker)?) as Box<dyn Driver>))
        .unwrap();
    let handle = runtime.handle().clone();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for i in 0..32u8 {
            let (a, b) = tcp();
            let port = |fd: TcpStream| {
                let descriptor = Descriptor::new(fd.into(), &handle).unwrap();
                (Port::new(descriptor.clone()), Port::new(descriptor))
            };
            let ((a_in, a_out), (b_in, b_out)) = (port(a), port(b));
            tasks.push(Color::new().spawn(async move {
                loop {
                    let buf = recv(&b_in).await.unwrap();
                    if buf.is_empty() {
                        break;
                    }
                    // From another color, and so perhaps another worker.
                    send(&b_out, buf.to_vec(), true).await.unwrap();
                }
            }));
            tasks.push(Color::new().spawn(async move {
                // Both ends of one descriptor on two workers.
                let sender = Color::new().spawn(async move {
                    for _ in 0..50 {
                        send(&a_out, vec![i; 100_000], true).await.unwrap();
                    }
                    a_out
                });
                let mut got = 0;
                while got < 50 * 100_000 {
                    let buf = recv(&a_in).await.unwrap();
                    assert!(buf.iter().all(|&x| x == i));
                    got += buf.len();
                }
                sender.await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(runtime.shutdown(), 0);
}
