//! Much data, slow readers, and every way that a connection ends.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::bytes::{Random, check, pattern};
use common::futures::{Either, Event, give_up, join, race};
use common::{eventually, everywhere, on_both_drivers, pair, shrink, std_pair};
use isochrome::net::TcpStream;
use isochrome::{Color, Runtime, yield_now};

everywhere!(
    a_slow_reader_gets_every_byte,
    a_half_closed_stream_still_carries_the_other_half,
    a_reset_is_an_error_of_the_receiver,
    an_end_that_is_there_together_with_data_is_told,
    sending_to_the_closed_is_an_error_and_no_signal,
    dropping_the_write_half_ends_the_stream,
    halves_in_two_tasks,
    both_directions_of_one_stream_at_once,
    two_tasks_send_whole_messages,
    two_tasks_send_in_turn,
    two_tasks_receive_each_byte_once,
    two_tasks_read_each_byte_once,
    a_reader_that_stops_leaves_the_rest_to_the_other,
    the_end_stays_the_end,
    operations_side_by_side_yield,
);

on_both_drivers!(sixty_four_mebibytes, silent_clients_starve_nobody);

/// Receives `len` bytes of the pattern in one way or another, then the end.
async fn take(stream: &TcpStream, len: usize, mut pause: impl FnMut() -> bool) {
    let mut place = 0;
    let mut buf = vec![0; 10_000];
    for round in 0.. {
        let n = if round % 3 == 0 {
            let lease = stream.recv().await.unwrap();
            check(place, &lease);
            lease.len()
        } else {
            let n = stream.read(&mut buf).await.unwrap();
            check(place, &buf[..n]);
            n
        };
        if n == 0 {
            break;
        }
        place += n;
        while pause() {
            yield_now().await;
        }
    }
    assert_eq!(place, len);
}

fn sixty_four_mebibytes(rt: Runtime) {
    const SIZE: usize = 64 << 20;
    rt.block_on(async {
        let (near, far) = pair().await;
        let sender = Color::new().spawn(async move {
            let (sent, data) = near.send_all(pattern(0, SIZE)).await;
            sent.unwrap();
            assert_eq!(data.len(), SIZE);
        });
        let reader = Color::new().spawn(async move { take(&far, SIZE, || false).await });
        sender.await.unwrap();
        reader.await.unwrap();
    });
}

fn a_slow_reader_gets_every_byte(rt: Runtime) {
    const SIZE: usize = 2 << 20;
    let mut random = Random::seeded();
    let mut sizes = Random(random.next() | 1);
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        let sender = Color::new().spawn(async move {
            let mut place = 0;
            let mut partial = 0;
            while place < SIZE {
                let len = (1 + sizes.below(300_000)).min(SIZE - place);
                if sizes.below(2) == 0 {
                    near.send_all(pattern(place, len)).await.0.unwrap();
                    place += len;
                } else {
                    let n = near.send(pattern(place, len)).await.0.unwrap();
                    assert!(0 < n && n <= len);
                    partial += usize::from(n < len);
                    place += n;
                }
            }
            partial
        });
        take(&far, SIZE, || random.below(3) > 0).await;
        let partial = sender.await.unwrap();
        assert!(partial > 0, "no send was partial: this tests nothing");
    });
}

fn a_half_closed_stream_still_carries_the_other_half(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        near.send_all("question").await.0.unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let far = Color::new().spawn(async move {
            let mut got = Vec::new();
            loop {
                let data = far.recv().await.unwrap();
                if data.is_empty() {
                    break;
                }
                got.extend_from_slice(&data);
            }
            assert_eq!(got, b"question");
            far.send_all(pattern(0, 500_000)).await.0.unwrap();
        });
        take(&near, 500_000, || false).await;
        far.await.unwrap();
        let error = near.send_all("more").await.0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        // Ending the reading half ends a receive that waits.
        let (near, _far) = pair().await;
        let near = Arc::new(near);
        let waits = Color::new().spawn({
            let near = near.clone();
            async move { near.recv().await.unwrap().len() }
        });
        yield_now().await;
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!(waits.await.unwrap(), 0);
    });
}

fn a_reset_is_an_error_of_the_receiver(rt: Runtime) {
    rt.block_on(async {
        // While it waits, and before it asks.
        for before in [false, true] {
            for read in [false, true] {
                let (near, far) = pair().await;
                far.set_linger(Some(Duration::ZERO)).unwrap();
                if before {
                    drop(far);
                    let error = reset(&near, read).await;
                    assert_eq!(error, ErrorKind::ConnectionReset);
                } else {
                    let ready = Event::default();
                    let waits = Color::new().spawn({
                        let ready = ready.clone();
                        async move {
                            assert!(give_up(near.recv()).await.is_pending());
                            ready.set();
                            reset(&near, read).await
                        }
                    });
                    ready.wait().await;
                    drop(far);
                    assert_eq!(waits.await.unwrap(), ErrorKind::ConnectionReset);
                }
            }
        }
    });
}

/// Both are there before anybody asks.
fn an_end_that_is_there_together_with_data_is_told(rt: Runtime) {
    rt.block_on(async {
        for len in [1, 40_000] {
            let (near, mut far) = std_pair().await;
            far.write_all(&pattern(0, len)).unwrap();
            near.shutdown(Shutdown::Read).unwrap();
            eventually("the data is there", || polled(&near) & libc::POLLIN != 0);
            take(&near, len, || false).await;

            let (near, mut far) = std_pair().await;
            far.write_all(&pattern(0, len)).unwrap();
            socket2::SockRef::from(&far)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(far);
            eventually("the reset is there", || polled(&near) & libc::POLLERR != 0);
            let mut place = 0;
            while place < len {
                let data = near.recv().await.unwrap();
                check(place, &data);
                place += data.len();
            }
            assert_eq!(reset(&near, false).await, ErrorKind::ConnectionReset);
            assert_eq!(near.recv().await.unwrap().len(), 0);
        }
    });
}

/// What poll(2) says of it.
fn polled(stream: &TcpStream) -> i16 {
    let mut what = libc::pollfd {
        fd: stream.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, borrowed for the call.
    let answer = unsafe { libc::poll(&raw mut what, 1, 0) };
    assert!(answer >= 0, "{}", std::io::Error::last_os_error());
    what.revents
}

async fn reset(stream: &TcpStream, read: bool) -> ErrorKind {
    if read {
        stream.read(&mut [0; 8]).await.unwrap_err().kind()
    } else {
        stream.recv().await.unwrap_err().kind()
    }
}

fn sending_to_the_closed_is_an_error_and_no_signal(rt: Runtime) {
    rt.block_on(async {
        for linger in [None, Some(Duration::ZERO)] {
            let (near, far) = pair().await;
            far.set_linger(linger).unwrap();
            drop(far);
            // The first may still be taken by the kernel. Rust ignores
            // SIGPIPE; take its default back, which would end the process.
            // SAFETY: nobody else cares for the signal.
            let old = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let error = loop {
                if let Err(e) = near.send_all("anybody there?").await.0 {
                    break e;
                }
                yield_now().await;
            };
            // SAFETY: as above.
            unsafe { libc::signal(libc::SIGPIPE, old) };
            let kind = error.kind();
            let expected = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(expected.contains(&kind), "{error}");
        }
    });
}

fn dropping_the_write_half_ends_the_stream(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let (read, write) = near.into_split();
        write.send_all("last").await.0.unwrap();
        drop(write);
        take_exactly(&far, b"last").await;
        assert!(far.recv().await.unwrap().is_empty());
        far.send_all("answer").await.0.unwrap();
        take_exactly(&read, b"answer").await;
        // And the other way round: the reader goes, the writer stays.
        let (near, far) = pair().await;
        let (read, write) = near.into_split();
        drop(read);
        write.send_all("still").await.0.unwrap();
        take_exactly(&far, b"still").await;
    });
}

async fn take_exactly(stream: &TcpStream, expected: &[u8]) {
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let data = stream.recv().await.unwrap();
        assert!(!data.is_empty());
        got.extend_from_slice(&data);
    }
    assert_eq!(got, expected);
}

fn halves_in_two_tasks(rt: Runtime) {
    const SIZE: usize = 1 << 20;
    rt.block_on(async {
        let (near, far) = pair().await;
        let mut tasks = Vec::new();
        for stream in [near, far] {
            let (read, write) = stream.into_split();
            tasks.push(Color::new().spawn(async move {
                for place in (0..SIZE).step_by(1 << 16) {
                    write.send_all(pattern(place, 1 << 16)).await.0.unwrap();
                }
            }));
            tasks.push(Color::new().spawn(async move { take(&read, SIZE, || false).await }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn both_directions_of_one_stream_at_once(rt: Runtime) {
    const SIZE: usize = 1 << 20;
    rt.block_on(async {
        let (near, far) = pair().await;
        let mut tasks = Vec::new();
        for stream in [near, far] {
            let stream = Arc::new(stream);
            let sender = stream.clone();
            tasks.push(Color::new().spawn(async move {
                sender.send_all(pattern(0, SIZE)).await.0.unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            }));
            tasks.push(Color::new().spawn(async move { take(&stream, SIZE, || false).await }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        // And in one task, which is neither.
        let (near, far) = pair().await;
        let far = Color::new().spawn(async move {
            join(take(&far, SIZE, || false), async {
                far.send_all(pattern(0, SIZE)).await.0.unwrap();
                far.shutdown(Shutdown::Write).unwrap();
            })
            .await;
        });
        join(take(&near, SIZE, || false), async {
            near.send_all(pattern(0, SIZE)).await.0.unwrap();
            near.shutdown(Shutdown::Write).unwrap();
        })
        .await;
        far.await.unwrap();
    });
}

/// Two tasks that send messages of one letter each; how many they sent.
fn two_senders(near: TcpStream, len: usize, each: usize) -> [Arc<AtomicUsize>; 2] {
    let near = Arc::new(near);
    let counts = [Arc::default(), Arc::default()];
    for (letter, count) in [b'a', b'b'].into_iter().zip(counts.clone()) {
        let near = near.clone();
        drop(Color::new().spawn(async move {
            let count: Arc<AtomicUsize> = count;
            let mut message = vec![letter; len];
            for _ in 0..each {
                let (sent, back) = near.send_all(message).await;
                if sent.is_err() {
                    break;
                }
                message = back;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    counts
}

fn two_tasks_send_whole_messages(rt: Runtime) {
    const LEN: usize = 100_000;
    const EACH: usize = 10;
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        two_senders(near, LEN, EACH);
        let mut got = Vec::new();
        loop {
            let data = far.recv().await.unwrap();
            if data.is_empty() {
                break;
            }
            got.extend_from_slice(&data);
        }
        assert_eq!(got.len(), 2 * EACH * LEN);
        for message in got.chunks(LEN) {
            assert!(message.iter().all(|b| *b == message[0]), "torn");
        }
        let a = got.iter().filter(|b| **b == b'a').count();
        assert_eq!(a, EACH * LEN);
    });
}

/// `TcpStream`: "several tasks that read (or write) take turns".
fn two_tasks_send_in_turn(rt: Runtime) {
    const LEN: usize = 100_000;
    const EACH: usize = 40;
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        let counts = two_senders(near, LEN, EACH);
        let mut got = 0;
        // When one of them is done, the other must have had its turns too.
        while got < EACH * LEN {
            let data = far.recv().await.unwrap();
            assert!(!data.is_empty());
            got += data.len();
        }
        let sent = counts.map(|count| count.load(Ordering::Relaxed));
        let least = sent[0].min(sent[1]);
        assert!(least > EACH / 10, "one of two senders starves: {sent:?}");
    });
}

/// Lets two tasks of two colors receive, and counts each value they get.
async fn two_receivers<F>(receive: fn(Arc<TcpStream>) -> F)
where
    F: Future<Output = Vec<u8>> + Send + 'static,
{
    const SIZE: usize = 400_000;
    let (near, far) = pair().await;
    let far = Arc::new(far);
    let tasks = [0, 1].map(|_| Color::new().spawn(receive(far.clone())));
    let sent = pattern(0, SIZE);
    near.send_all(sent.clone()).await.0.unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut counts = [0i64; 256];
    let mut got = 0;
    for task in tasks {
        let bytes = task.await.unwrap();
        got += bytes.len();
        bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
    }
    assert_eq!(got, SIZE, "bytes were lost, or came twice");
    sent.iter().for_each(|b| counts[usize::from(*b)] -= 1);
    assert!(counts.iter().all(|n| *n == 0));
}

fn two_tasks_receive_each_byte_once(rt: Runtime) {
    rt.block_on(two_receivers(|stream| async move {
        let mut got = Vec::new();
        loop {
            let data = stream.recv().await.unwrap();
            if data.is_empty() {
                return got;
            }
            got.extend_from_slice(&data);
        }
    }));
}

fn two_tasks_read_each_byte_once(rt: Runtime) {
    for _ in 0..10 {
        rt.block_on(two_receivers(|stream| async move {
            let mut got = Vec::new();
            // Small, so that most reads leave something of a lease.
            let mut buf = [0; 100];
            loop {
                match stream.read(&mut buf).await.unwrap() {
                    0 => return got,
                    n => got.extend_from_slice(&buf[..n]),
                }
            }
        }));
    }
}

/// One takes a byte of what has come, and no more; the rest is for the other,
/// which waited at the same time.
fn a_reader_that_stops_leaves_the_rest_to_the_other(rt: Runtime) {
    rt.block_on(async {
        for _ in 0..300 {
            let (near, far) = pair().await;
            let far = Arc::new(far);
            let reader = |stream: Arc<TcpStream>| async move {
                let mut buf = [0; 1];
                assert_eq!(stream.read(&mut buf).await.unwrap(), 1);
            };
            let first = Color::new().spawn(reader(far.clone()));
            let second = Color::new().spawn(reader(far.clone()));
            near.send_all("xy").await.0.unwrap();
            let both = async {
                first.await.unwrap();
                second.await.unwrap();
            };
            let late = isochrome::time::sleep(Duration::from_secs(10));
            let done = matches!(race(both, late).await, Either::First(()));
            assert!(done, "a byte is there, and its reader sleeps");
        }
    });
}

fn the_end_stays_the_end(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        far.write_all(b"end").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        take_exactly(&near, b"end").await;
        for _ in 0..5 {
            assert!(near.recv().await.unwrap().is_empty());
            assert_eq!(near.read(&mut [0; 9]).await.unwrap(), 0);
        }
        near.send_all("bye").await.0.unwrap();
        drop(near);
        let mut rest = Vec::new();
        rt_yield().await;
        far.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"bye");
    });
}

/// Gives the driver its turn, so that a close that waits for a cancel happens
/// before this thread blocks.
/// The one that waits leaves the budget as spent as the one that goes on finds
/// it: else neither yields, and what is waited for never comes.
fn operations_side_by_side_yield(rt: Runtime) {
    rt.block_on(async {
        let (waits, sender) = pair().await;
        let (ended, far) = pair().await;
        drop(far);
        let later = Color::DEFAULT.spawn(async move {
            sender.send_all("x").await.0.unwrap();
        });
        while let Either::Second(end) = race(waits.recv(), ended.recv()).await {
            assert!(end.unwrap().is_empty());
        }
        later.await.unwrap();
    });
}

async fn rt_yield() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn silent_clients_starve_nobody(rt: Runtime) {
    const SILENT: usize = 100;
    rt.block_on(async {
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            let (near, far) = pair().await;
            shrink(&near);
            // Sends until the buffers are full, and waits for ever.
            let stuck = Color::new()
                .spawn(async move { while near.send_all(vec![1; 100_000]).await.0.is_ok() {} });
            silent.push((far, stuck));
        }
        let (near, far) = pair().await;
        let echo = Color::new().spawn(async move {
            loop {
                let data = far.recv().await.unwrap();
                if data.is_empty() {
                    break;
                }
                far.send_all(data).await.0.unwrap();
            }
        });
        for i in 0..2_000usize {
            let message = pattern(i, 1 + i % 3000);
            let (sent, message) = near.send_all(message).await;
            sent.unwrap();
            take_exactly(&near, &message).await;
        }
        near.shutdown(Shutdown::Write).unwrap();
        echo.await.unwrap();
        // Those who waited are still there, and go when their readers go.
        for (far, stuck) in silent {
            assert!(!stuck.is_finished());
            drop(far);
            stuck.await.unwrap();
        }
    });
}
