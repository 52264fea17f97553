//! What a connection can do beside receiving and sending: looking, trying,
//! halves, several slices, ends, and sending without a copy.

mod common;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};

use common::bytes::{check, pattern};
use common::futures::{Either, give_up, join, poll_once, race};
use common::{PATIENCE, descriptors, eventually_async, everywhere, pair, shrink, std_pair};
use isochrome::net::{TcpListener, TcpStream};
use isochrome::time::timeout;
use isochrome::{Color, Handle, Runtime, yield_now};

everywhere!(
    what_is_peeked_is_received_next,
    a_peek_waits_and_is_given_up_without_loss,
    a_peek_sees_the_end_and_a_reset,
    a_peek_beside_a_receive_takes_nothing,
    trying_takes_what_is_there,
    filling_a_buffer_says_if_the_stream_ends,
    reading_to_the_end_is_given_up_without_loss,
    slices_are_filled_in_their_order,
    borrowed_bytes_are_written_whole,
    halves_end_their_direction_and_come_together,
    ending_the_reading_half_ends_a_receive,
    ends_are_those_of_std,
    a_send_without_a_copy_gives_the_buffer_back,
    a_dropped_send_without_a_copy_ends,
    a_dropped_send_without_a_copy_holds_nothing_open,
    several_buffers_are_sent_as_one,
    several_buffers_that_are_given_up_leave_a_prefix,
    a_group_has_a_listener_for_each_worker,
);

fn what_is_peeked_is_received_next(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        for round in 0..60 {
            let place = round * 100;
            far.send_all(pattern(place, 100)).await.0.unwrap();
            let mut seen = [0; 10];
            for _ in 0..3 {
                let n = near.peek(&mut seen).await.unwrap();
                assert!(n > 0);
                check(place, &seen[..n]);
            }
            let mut got = place;
            while got < place + 100 {
                let mut buf = [0; 33];
                // Between the parts of a lease too.
                let n = near.peek(&mut seen).await.unwrap();
                check(got, &seen[..n]);
                match round % 2 {
                    0 => {
                        let n = near.read(&mut buf).await.unwrap();
                        check(got, &buf[..n]);
                        got += n;
                    }
                    _ => {
                        let lease = near.recv().await.unwrap();
                        check(got, &lease);
                        got += lease.len();
                    }
                }
            }
            assert_eq!(got, place + 100);
        }
        assert_eq!(near.peek(&mut []).await.unwrap(), 0);
    });
}

fn a_peek_waits_and_is_given_up_without_loss(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        for i in 0..100 {
            let mut seen = [0; 4];
            assert!(give_up(near.peek(&mut seen)).await.is_pending());
            if i % 2 == 0 {
                yield_now().await;
            }
            let peeks = async {
                let n = near.peek(&mut seen).await.unwrap();
                check(i * 4, &seen[..n]);
            };
            let sends = async { far.send_all(pattern(i * 4, 4)).await.0.unwrap() };
            join(peeks, sends).await;
            let mut got = [0; 4];
            near.read_exact(&mut got).await.unwrap();
            check(i * 4, &got);
        }
    });
}

fn a_peek_sees_the_end_and_a_reset(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        far.send_all("last").await.0.unwrap();
        drop(far);
        let mut seen = [0; 8];
        assert_eq!(near.peek(&mut seen).await.unwrap(), 4);
        assert_eq!(*near.recv().await.unwrap(), *b"last");
        for _ in 0..3 {
            assert_eq!(near.peek(&mut seen).await.unwrap(), 0);
        }
        assert!(near.recv().await.unwrap().is_empty());

        let (near, far) = pair().await;
        far.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(far);
        let error = near.peek(&mut seen).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

fn a_peek_beside_a_receive_takes_nothing(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let mut seen = [0; 3];
        for i in 0..100 {
            let mut peek = Box::pin(near.peek(&mut seen));
            let mut recv = Box::pin(near.recv());
            if i % 2 == 0 {
                assert!(poll_once(&mut peek).await.is_pending());
            }
            assert!(poll_once(&mut recv).await.is_pending());
            far.send_all(pattern(i * 3, 3)).await.0.unwrap();
            let lease = recv.await.unwrap();
            check(i * 3, &lease);
            assert_eq!(lease.len(), 3);
            drop(peek);
        }
    });
}

fn trying_takes_what_is_there(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        let mut buf = [0; 10];
        let none = near.try_read(&mut buf).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        for i in 0..100 {
            if i % 2 == 0 {
                // A receive that was begun, and is in flight.
                let mut none = [0; 1];
                assert!(give_up(near.read(&mut none)).await.is_pending());
            }
            far.write_all(&pattern(i * 10, 10)).unwrap();
            let mut got = 0;
            eventually_async("it is there", || match near.try_read(&mut buf[got..]) {
                Ok(n) => {
                    got += n;
                    got == 10
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    false
                }
            })
            .await;
            check(i * 10, &buf);
        }
        // Until there is no room; nothing is lost or doubled.
        shrink(&near);
        let mut sent = 0;
        let full = loop {
            match near.try_write(&pattern(sent, 1000)) {
                Ok(n) => sent += n,
                Err(e) => break e,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        // Not by a drop: on the proactor that waits for this thread.
        near.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), sent);
        check(0, &all);
    });
}

fn filling_a_buffer_says_if_the_stream_ends(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        far.write_all(b"one two").unwrap();
        let mut buf = [0; 4];
        near.read_exact(&mut buf).await.unwrap();
        assert_eq!(buf, *b"one ");
        far.shutdown(Shutdown::Write).unwrap();
        let error = near.read_exact(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("full"), "{error}");
        near.read_exact(&mut []).await.unwrap();
    });
}

fn reading_to_the_end_is_given_up_without_loss(rt: Runtime) {
    const PART: usize = 1_000;
    rt.block_on(async {
        let (near, far) = pair().await;
        let mut got = Vec::new();
        for i in 0..100 {
            far.send_all(pattern(i * PART, PART)).await.0.unwrap();
            assert!(give_up(near.read_to_end(&mut got)).await.is_pending());
            if i % 2 == 0 {
                yield_now().await;
            }
        }
        drop(far);
        let before = got.len();
        let n = near.read_to_end(&mut got).await.unwrap();
        assert_eq!((n, got.len()), (100 * PART - before, 100 * PART));
        check(0, &got);
        assert_eq!(near.read_to_end(&mut got).await.unwrap(), 0);
    });
}

fn slices_are_filled_in_their_order(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let parts = [&pattern(0, 10)[..], &[], &pattern(10, 5000)];
        let slices = parts.map(IoSlice::new);
        let sent = far.write_vectored(&slices).await.unwrap();
        assert_eq!(sent, 5010);
        let mut place = 0;
        while place < sent {
            let (mut a, mut b, mut c) = ([0; 7], [0; 0], [0; 1000]);
            let mut bufs = [&mut a[..], &mut b, &mut c].map(IoSliceMut::new);
            let n = near.read_vectored(&mut bufs).await.unwrap();
            assert!(n > 0);
            let all = [&a[..], &c].concat();
            check(place, &all[..n]);
            place += n;
        }
        assert_eq!(place, sent);
        assert_eq!(near.read_vectored(&mut []).await.unwrap(), 0);
        drop(far);
        let mut a = [0; 7];
        let mut bufs = [IoSliceMut::new(&mut a)];
        assert_eq!(near.read_vectored(&mut bufs).await.unwrap(), 0, "the end");
    });
}

fn borrowed_bytes_are_written_whole(rt: Runtime) {
    const SIZE: usize = 300_000;
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        let writes = async {
            near.write_all(&pattern(0, SIZE)).await.unwrap();
            near.write_all(&[]).await.unwrap();
            near.shutdown(Shutdown::Write).unwrap();
        };
        let reads = async {
            let mut place = 0;
            loop {
                let data = far.recv().await.unwrap();
                if data.is_empty() {
                    break place;
                }
                check(place, &data);
                place += data.len();
            }
        };
        assert_eq!(join(writes, reads).await.1, SIZE);
    });
}

fn halves_end_their_direction_and_come_together(rt: Runtime) {
    rt.block_on(async {
        let (mut near, far) = pair().await;
        let (read, write) = near.split();
        write.send_all("borrowed").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"borrowed");
        far.send_all("back").await.0.unwrap();
        assert_eq!(*read.recv().await.unwrap(), *b"back");

        // Apart and together: nothing is ended by that.
        let (read, write) = near.into_split();
        let near = read.reunite(write).unwrap();
        let (read, write) = near.into_split();
        let near = write.reunite(read).unwrap();
        near.send_all("whole").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"whole");

        let (far_read, far_write) = far.into_split();
        let (read, write) = near.into_split();
        let error = read.reunite(far_write).unwrap_err();
        assert!(error.to_string().contains("two connections"), "{error}");
        let (read, far_write) = (error.0, error.1);
        assert!(format!("{:?}", far_read.reunite(write).unwrap_err()).contains("TcpStream"));
        // The writing half of `near` was dropped with the error; the peer's
        // reading half too, which ends nothing.
        far_write.send_all("still").await.0.unwrap();
        assert_eq!(*read.recv().await.unwrap(), *b"still");

        let (near, far) = pair().await;
        let (read, write) = near.into_split();
        drop(write);
        assert!(far.recv().await.unwrap().is_empty(), "half closed");
        far.send_all("after").await.0.unwrap();
        assert_eq!(*read.recv().await.unwrap(), *b"after");

        // Forgotten, it ends nothing; the connection ends with the other.
        let (near, far) = pair().await;
        let (read, write) = near.into_split();
        assert_eq!(write.as_raw_fd(), read.as_fd().as_raw_fd());
        write.forget();
        assert!(give_up(far.recv()).await.is_pending());
        let connection: &TcpStream = read.as_ref();
        connection.send_all("still").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"still");
        assert!(give_up(far.recv()).await.is_pending());
        drop(read);
        assert!(far.recv().await.unwrap().is_empty());
    });
}

fn ending_the_reading_half_ends_a_receive(rt: Runtime) {
    rt.block_on(async {
        for both in [false, true] {
            let (near, far) = pair().await;
            let mut recv = Box::pin(near.recv());
            assert!(poll_once(&mut recv).await.is_pending());
            yield_now().await;
            let how = if both { Shutdown::Both } else { Shutdown::Read };
            near.shutdown(how).unwrap();
            assert!(recv.await.unwrap().is_empty());
            assert!(near.recv().await.unwrap().is_empty());
            if both {
                assert!(far.recv().await.unwrap().is_empty());
                let error = near.send_all("x").await.0.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            } else {
                near.send_all("still").await.0.unwrap();
                assert_eq!(*far.recv().await.unwrap(), *b"still");
            }
        }
    });
}

fn ends_are_those_of_std(rt: Runtime) {
    fn same(ours: io::Error, std: io::Error) {
        assert_eq!(ours.raw_os_error(), std.raw_os_error());
    }
    rt.block_on(async {
        // The same on a socket of ours and on one of std: after the writing
        // half was ended, after a reset, and after both were ended.
        let (near, mut far) = std_pair().await;
        near.shutdown(Shutdown::Write).unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        same(
            near.send_all("x").await.0.unwrap_err(),
            far.write_all(b"x").unwrap_err(),
        );
        assert_eq!(
            near.recv().await.unwrap().len(),
            far.read(&mut [0]).unwrap()
        );
        match (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both)) {
            (Err(ours), Err(std)) => same(ours, std),
            (Ok(()), Ok(())) => {}
            (ours, std) => panic!("{ours:?}, but std {std:?}"),
        }

        let mut errors = Vec::new();
        for ours in [true, false] {
            let (near, mut far) = std_pair().await;
            let zero = Some(std::time::Duration::ZERO);
            if ours {
                socket2::SockRef::from(&far).set_linger(zero).unwrap();
                drop(far);
                errors.push(near.recv().await.unwrap_err());
                errors.push(near.send_all("x").await.0.unwrap_err());
            } else {
                near.set_linger(zero).unwrap();
                drop(near);
                errors.push(far.read(&mut [0]).unwrap_err());
                errors.push(far.write_all(b"x").unwrap_err());
            }
        }
        let std = errors.split_off(2);
        for (ours, std) in errors.into_iter().zip(std) {
            same(ours, std);
        }
    });
}

/// So many bytes of the pattern.
async fn receive(far: &TcpStream, len: usize) {
    let mut place = 0;
    while place < len {
        let got = far.recv().await.unwrap();
        assert!(!got.is_empty());
        check(place, &got);
        place += got.len();
    }
}

fn a_send_without_a_copy_gives_the_buffer_back(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        for size in [0, 1, 5_000, 1_000_000] {
            let data = pattern(0, size);
            let address = data.as_ptr();
            let sends = async {
                let (sent, back) = near.send_zc(data).await;
                sent.unwrap();
                assert_eq!((back.as_ptr(), back.len()), (address, size));
                check(0, &back);
            };
            let reads = receive(&far, size);
            join(sends, reads).await;
        }
        // Plain sends come between, in their order.
        let (a, b) = join(near.send_zc("zero "), near.send_all("copy")).await;
        a.0.unwrap();
        b.0.unwrap();
        let mut both = [0; 9];
        far.read_exact(&mut both).await.unwrap();
        assert_eq!(both, *b"zero copy");
        near.shutdown(Shutdown::Write).unwrap();
        let (sent, back) = near.send_zc(vec![1; 9]).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(back, [1; 9]);
    });
}

fn a_dropped_send_without_a_copy_ends(rt: Runtime) {
    rt.block_on(async {
        for polls in 0..4 {
            let (near, far) = pair().await;
            shrink(&near);
            let mut sending = Box::pin(near.send_zc(pattern(0, 4_000_000)));
            for _ in 0..polls {
                assert!(poll_once(&mut sending).await.is_pending());
                yield_now().await;
            }
            drop(sending);
            drop(near);
            prefix_of_four_megabytes(&far).await;
        }
    });
    // Nothing of it is with the kernel any more.
    assert_eq!(rt.shutdown(), 0);
}

fn several_buffers_are_sent_as_one(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        // None; nothing; some, with empty ones between; more than the kernel
        // takes at once, empty ones in front; more than there is room for.
        let some = [0, 10, 0, 3_000, 1, 0].to_vec();
        let hollow = [vec![0; 2_500], vec![10], vec![0; 2_500], vec![3]].concat();
        let lots = vec![2_000_000; 5];
        for lens in [vec![], vec![0; 3], some, vec![3; 2_500], hollow, lots] {
            let mut len = 0;
            let mut bufs = Vec::new();
            for part in lens {
                bufs.push(pattern(len, part));
                len += part;
            }
            let address = bufs.as_ptr();
            let copies = bufs.clone();
            let sends = async {
                let (sent, back) = near.send_vectored(bufs).await;
                sent.unwrap();
                assert_eq!(back.as_ptr(), address);
                assert!(back == copies);
            };
            let reads = receive(&far, len);
            join(sends, reads).await;
        }
        // Each in its turn, and nobody's bytes between.
        let [a, b] = [vec![b'a'; 300_000], vec![b'b'; 300_000]];
        let first = near.send_vectored(vec![a.clone(), a]);
        let sends = join(first, join(near.send_all(b), near.send_vectored(vec!["c"])));
        let reads = async {
            let mut got = vec![0; 900_001];
            far.read_exact(&mut got).await.unwrap();
            got
        };
        let ((a, (b, c)), got) = join(sends, reads).await;
        a.0.and(b.0).and(c.0).unwrap();
        assert!(got.is_sorted());
        near.shutdown(Shutdown::Write).unwrap();
        let (sent, back) = near.send_vectored(vec!["x", "y"]).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(back, ["x", "y"]);
    });
}

fn several_buffers_that_are_given_up_leave_a_prefix(rt: Runtime) {
    rt.block_on(async {
        for polls in 0..4 {
            let (near, far) = pair().await;
            shrink(&near);
            let bufs = vec![pattern(0, 1_000_000), pattern(1_000_000, 3_000_000)];
            let mut sending = Box::pin(near.send_vectored(bufs));
            for _ in 0..polls {
                assert!(poll_once(&mut sending).await.is_pending());
                yield_now().await;
            }
            drop(sending);
            drop(near);
            prefix_of_four_megabytes(&far).await;
        }
    });
    assert_eq!(rt.shutdown(), 0);
}

/// Whoever reads nothing acknowledges nothing, and the kernel keeps the buffer.
fn a_dropped_send_without_a_copy_holds_nothing_open(rt: Runtime) {
    const SIZE: usize = 300_000;
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        let open = descriptors().len();
        let mut sending = Box::pin(near.send_zc(pattern(0, SIZE)));
        let _ = poll_once(&mut sending).await;
        far.set_nonblocking(true).unwrap();
        eventually_async("it is sent", || far.peek(&mut [0]).is_ok()).await;
        drop(sending);
        // The next does not wait for it.
        near.shutdown(Shutdown::Write).unwrap();
        let refused = timeout(PATIENCE / 2, near.send_all("more")).await;
        let refused = refused.expect("it has its turn").0.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        drop(near);
        eventually_async("it is closed", || descriptors().len() < open).await;
        far.set_nonblocking(false).unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert!(!got.is_empty() && got.len() <= SIZE);
        check(0, &got);
    });
    assert_eq!(rt.shutdown(), 0);
}

/// A part of it, and then the end.
async fn prefix_of_four_megabytes(far: &TcpStream) {
    let mut place = 0;
    while let Ok(got) = far.recv().await {
        if got.is_empty() {
            break;
        }
        check(place, &got);
        place += got.len();
    }
    assert!(place < 4_000_000);
}

fn a_group_has_a_listener_for_each_worker(rt: Runtime) {
    const CONNECTIONS: usize = 64;
    let workers = rt.workers();
    rt.block_on(async {
        let group = TcpListener::bind_group(common::LOCAL).await.unwrap();
        assert_eq!(group.len(), workers);
        let address = group[0].local_addr().unwrap();
        let handle = Handle::current().unwrap();
        let stop = common::futures::Event::default();
        let tasks: Vec<_> = (group.into_iter().enumerate())
            .map(|(worker, listener)| {
                assert_eq!(listener.local_addr().unwrap(), address);
                let stop = stop.clone();
                handle.spawn_pinned(worker, async move {
                    let here = std::thread::current().id();
                    let mut count = 0;
                    while let Either::First(accepted) = race(listener.accept(), stop.wait()).await {
                        let (stream, _) = accepted.unwrap();
                        assert_eq!(std::thread::current().id(), here, "it stays");
                        stream.send_all(vec![worker as u8]).await.0.unwrap();
                        count += 1;
                    }
                    (here, count)
                })
            })
            .collect();
        let clients = Color::new().spawn(async move {
            let mut seen = vec![0; workers];
            for _ in 0..CONNECTIONS {
                let stream = isochrome::net::TcpStream::connect(address).await.unwrap();
                seen[usize::from(stream.recv().await.unwrap()[0])] += 1;
            }
            seen
        });
        let seen = clients.await.unwrap();
        stop.set();
        let mut threads = Vec::new();
        for (task, seen) in tasks.into_iter().zip(&seen) {
            let (thread, count) = task.await.unwrap();
            assert!(!threads.contains(&thread), "a thread each");
            threads.push(thread);
            assert_eq!(count, *seen);
            assert!(count > 0, "each has a share: {seen:?}");
        }
    });
}
