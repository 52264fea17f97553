//! What a stream promises, at its end too.

use super::*;

#[test]
fn echoes() {
    let f = Fixture::new();
    let pairs = [tcp(), tcp()].map(|(a, b)| (OwnedFd::from(a), OwnedFd::from(b)));
    let unix = UnixStream::pair().unwrap();
    let unix = (OwnedFd::from(unix.0), OwnedFd::from(unix.1));
    f.runtime.block_on(async {
        let mut echoes = Vec::new();
        let mut clients = Vec::new();
        for (near, far) in pairs.into_iter().chain([unix]) {
            let far = f.descriptor(far);
            let (r, w) = (Port::new(far.clone()), Port::new(far));
            echoes.push(isochrome_runtime::spawn(async move {
                loop {
                    let buf = recv(&r).await.unwrap();
                    if buf.is_empty() {
                        break;
                    }
                    send(&w, buf.to_vec(), true).await.unwrap();
                }
            }));
            let near = f.descriptor(near);
            let (r, w) = (Port::new(near.clone()), Port::new(near));
            clients.push(isochrome_runtime::spawn(async move {
                for i in 0..200usize {
                    let message = vec![i as u8; 1 + i * 7];
                    send(&w, message.clone(), true).await.unwrap();
                    let mut back = Vec::new();
                    while back.len() < message.len() {
                        back.extend_from_slice(&recv(&r).await.unwrap());
                    }
                    assert_eq!(back, message);
                }
            }));
        }
        for task in clients.into_iter().chain(echoes) {
            task.await.unwrap();
        }
    });
    f.turn();
    assert_eq!((f.subscribers(), f.registrations()), (0, 0));
}

#[test]
fn the_end_is_found_after_a_short_read() {
    let f = Fixture::new();
    for before in [true, false] {
        let (a, mut b) = tcp();
        let port = f.port(a);
        if before {
            begin(&f, &port);
        }
        b.write_all(b"last words").unwrap();
        drop(b);
        f.runtime.block_on(async {
            assert_eq!(*recv(&port).await.unwrap(), *b"last words");
            assert!(recv(&port).await.unwrap().is_empty());
            assert!(recv(&port).await.unwrap().is_empty(), "and again");
        });
    }
}

#[test]
fn a_half_closed_connection_still_sends() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    begin(&f, &port);
    b.shutdown(std::net::Shutdown::Write).unwrap();
    f.runtime.block_on(async {
        assert!(recv(&port).await.unwrap().is_empty());
        assert_eq!(send(&port, b"still here".to_vec(), true).await.unwrap(), 10);
    });
    let mut got = [0; 10];
    b.read_exact(&mut got).unwrap();
    assert_eq!(got, *b"still here");
}

#[test]
fn urgent_data_does_not_hide_what_follows_it() {
    let f = Fixture::new();
    let (a, b) = tcp();
    let port = f.port(a);
    begin(&f, &port);
    let put = |data: &[u8], flags| {
        // SAFETY: the slice is read during the call.
        let n = unsafe { libc::send(b.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) };
        assert_eq!(n, data.len() as isize);
    };
    put(b"ab", 0);
    put(b"!", libc::MSG_OOB);
    put(b"cd", 0);
    f.runtime.block_on(async {
        // The read stops at the mark, so that it is short although more is
        // there, of which no edge will tell.
        assert_eq!(*recv(&port).await.unwrap(), *b"ab");
        assert_eq!(*recv(&port).await.unwrap(), *b"cd");
    });
}

#[test]
fn a_passed_descriptor_does_not_hide_what_follows_it() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let port = f.port(a);
    begin(&f, &port);
    pass(&b, b"ab", 0);
    b.write_all(b"cd").unwrap();
    f.runtime.block_on(async {
        let mut got = Vec::new();
        while got.len() < 4 {
            got.extend_from_slice(&recv(&port).await.unwrap());
        }
        assert_eq!(got, *b"abcd");
    });
}

/// Sends `data` along with a descriptor.
fn pass(to: &UnixStream, data: &[u8], fd: RawFd) {
    let mut control = [0u64; 8];
    let mut part = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    // SAFETY: a message header may be all zeroes.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: pure arithmetic; and the first header lies within `control`,
    // which is aligned and has room for it and one descriptor.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
    }
    // SAFETY: everything the header points to lives.
    let n = unsafe { libc::sendmsg(to.as_raw_fd(), &message, 0) };
    assert_eq!(n, data.len() as isize);
}

#[test]
fn a_send_larger_than_the_socket_waits_for_its_reader() {
    let f = Fixture::new();
    let data: Vec<u8> = (0..8u32 << 20).map(|i| (i % 251) as u8).collect();
    for unix in [false, true] {
        let (near, mut far): (OwnedFd, Box<dyn Read + Send>) = if unix {
            let (a, b) = UnixStream::pair().unwrap();
            (a.into(), Box::new(b))
        } else {
            let (a, b) = tcp();
            (a.into(), Box::new(b))
        };
        let port = f.port(near);
        let expected = data.clone();
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            let mut buf = vec![0; 200_000];
            while got.len() < expected.len() {
                thread::sleep(Duration::from_millis(1));
                let n = far.read(&mut buf).unwrap();
                assert!(n > 0);
                got.extend_from_slice(&buf[..n]);
            }
            assert!(got == expected, "the bytes arrive in their order");
        });
        let (n, op) = f.runtime.block_on(async {
            let lent = Lent::new(data.clone());
            let (result, op) = port
                .run(Op::Send {
                    data: lent,
                    from: 0,
                    all: true,
                })
                .await;
            (result.unwrap(), op)
        });
        assert!(matches!(n, Yield::Done(n) if n == data.len()));
        let Op::Send { data: lent, .. } = op else {
            panic!()
        };
        assert_eq!(lent.into_inner::<Vec<u8>>().len(), data.len());
        reader.join().unwrap();
    }
}

#[test]
fn some_of_a_send_is_enough_if_not_all_is_asked_for() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    f.runtime.block_on(async {
        let size = 64 << 20;
        let mut sent = send(&port, vec![1; size], false).await.unwrap();
        assert!(0 < sent && sent < size);
        // Fill it up; the next has to wait, and then gets through.
        loop {
            let mut run = pin!(send(&port, vec![1; size], false));
            match poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await {
                Poll::Ready(n) => sent += n.unwrap(),
                Poll::Pending => {
                    let mut sink = vec![0; sent];
                    let drain = thread::spawn(move || b.read_exact(&mut sink).map(|()| b));
                    assert!(run.await.unwrap() > 0);
                    drain.join().unwrap().unwrap();
                    break;
                }
            }
        }
    });
}

#[test]
fn a_send_to_nobody_is_an_error_and_no_signal() {
    let f = Fixture::new();
    let (a, b) = UnixStream::pair().unwrap();
    drop(b);
    let port = f.port(a);
    let error = f.runtime.block_on(send(&port, vec![1], true)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn connects_and_is_refused() {
    let f = Fixture::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    f.runtime.block_on(async {
        let port = f.port(tcp_socket());
        assert_eq!(
            count(&port, Op::Connect(Box::new(to.into())))
                .await
                .unwrap(),
            0
        );
        assert_eq!(send(&port, b"hello".to_vec(), true).await.unwrap(), 5);
    });
    let (mut peer, _) = listener.accept().unwrap();
    let mut got = [0; 5];
    peer.read_exact(&mut got).unwrap();
    drop((peer, listener));
    f.runtime.block_on(async {
        let port = f.port(tcp_socket());
        let error = count(&port, Op::Connect(Box::new(to.into())))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // What the first left does not answer for the second, nor hold it up.
        // Linux calls that aborted, and begins anew with the third.
        for kind in [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionRefused,
        ] {
            let error = count(&port, Op::Connect(Box::new(to.into())))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), kind);
        }
    });
}

#[test]
fn accepts_a_backlog_and_then_waits() {
    let f = Fixture::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let port = f.port(listener);
    let mut clients: Vec<_> = (0..50).map(|_| TcpStream::connect(to).unwrap()).collect();
    f.runtime.block_on(async {
        for _ in 0..50 {
            let fd = accept(&port).await.unwrap();
            // SAFETY: no pointers are passed.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            assert_ne!(flags & libc::O_NONBLOCK, 0);
        }
        assert!(poll_once(accept(&port)).is_pending());
        clients.push(TcpStream::connect(to).unwrap());
        accept(&port).await.unwrap();
    });
}

#[test]
fn borrowed_memory_is_filled_on_readiness() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    f.runtime.block_on(async {
        let mut buf = [0; 8];
        assert!(poll_once(poll_fn(|cx| port.poll_recv(cx, &mut buf))).is_pending());
        assert_eq!(f.registrations(), 1);
        b.write_all(b"abcdef").unwrap();
        for part in [&b"abcd"[..], b"ef"] {
            let n = poll_fn(|cx| port.poll_recv(cx, &mut buf[..4]))
                .await
                .unwrap();
            assert_eq!(&buf[..n], part);
        }
        assert!(poll_once(poll_fn(|cx| port.poll_recv(cx, &mut buf))).is_pending());
        b.write_all(b"gh").unwrap();
        b.shutdown(std::net::Shutdown::Both).unwrap();
        let n = poll_fn(|cx| port.poll_recv(cx, &mut buf)).await.unwrap();
        assert_eq!(&buf[..n], b"gh");
        let n = poll_fn(|cx| port.poll_recv(cx, &mut buf)).await.unwrap();
        assert_eq!(n, 0);
    });
}

#[test]
fn leases_are_given_up_in_any_order_on_any_thread_and_after_the_runtime() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    let mut next = |message: &[u8]| {
        b.write_all(message).unwrap();
        let lease = f.runtime.block_on(recv(&port)).unwrap();
        assert_eq!(*lease, *message);
        lease
    };
    let (first, second) = (next(b"first"), next(b"second"));
    // Within the runtime: the worker keeps one of them.
    f.runtime.block_on(async move {
        drop(first);
        drop(second);
    });
    let (third, fourth) = (next(b"third"), next(b"fourth"));
    assert_eq!((&*third, &*fourth), (&b"third"[..], &b"fourth"[..]));
    thread::spawn(move || drop(third)).join().unwrap();
    let mut fifth = next(b"fifth");
    fifth.advance(2);
    f.runtime.block_on(async move { drop(fifth) });
    // What it showed last is forgotten.
    let sixth = next(b"six");
    drop(port);
    drop(f);
    assert_eq!((&*fourth, &*sixth), (&b"fourth"[..], &b"six"[..]));
}
