//! Sends that nobody waits for: their order, their errors, and their buffers.

mod common;

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream as Peer};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::bytes::{Random, check, pattern};
use common::futures::{Event, give_up, join, park_on, poll_once};
use common::{eventually_async, everywhere, pair, shrink, std_pair};
use isochrome::fs::File;
use isochrome::net::{Family, IoBuf, RecvBuf, StreamSocket, TcpStream, UnixStream, sendfile};
use isochrome::time::sleep;
use isochrome::{Color, Runtime, spawn_apart, yield_now};

everywhere!(
    all_arrives_in_order,
    local_streams_and_their_halves_feed_too,
    all_ways_to_send_come_behind_what_was_fed,
    feeders_of_many_tasks_take_turns,
    a_task_is_not_woken_for_the_end,
    one_buffer_at_a_time_is_under_way,
    who_gives_a_turn_up_passes_it_on,
    a_poll_that_was_given_up_holds_no_turn,
    an_error_is_told_once,
    the_end_of_the_stream_comes_behind,
    a_half_that_goes_ends_the_stream_behind,
    a_stream_leaves_with_nothing_under_way,
    what_is_dropped_is_dropped_once_in_any_order,
    foreign_threads_feed,
    a_thread_is_told_of_what_a_waker_fed,
    who_waits_already_is_told_of_what_a_turn_before_feeds,
    nothing_is_nothing,
    the_end_of_the_runtime_is_told,
);

/// More than any socket takes while nobody reads.
const LOTS: usize = 1 << 20;

/// A buffer that says when it is dropped, and is no pattern any more then.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    fn new(bytes: Vec<u8>, alive: &Arc<AtomicUsize>) -> Counted {
        alive.fetch_add(1, Ordering::Relaxed);
        let alive = alive.clone();
        Counted { bytes, alive }
    }
}

// SAFETY: the bytes are on the heap, and nobody changes them before the drop.
unsafe impl IoBuf for Counted {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.bytes.fill(0xa5);
        self.alive.fetch_sub(1, Ordering::Release);
    }
}

fn is_none(alive: &Arc<AtomicUsize>) -> bool {
    alive.load(Ordering::Acquire) == 0
}

/// Receives `len` bytes of the pattern from `place` on.
async fn take<F: Family>(stream: &StreamSocket<F>, mut place: usize, len: usize) {
    let end = place + len;
    let mut buf = vec![0; 64 << 10];
    while place < end {
        let most = buf.len().min(end - place);
        let n = stream.read(&mut buf[..most]).await.unwrap();
        assert_ne!(n, 0, "the end at {place} of {end}");
        check(place, &buf[..n]);
        place += n;
    }
}

/// Receives the pattern from `place` on up to the end; says where that is.
async fn take_to_end<F: Family>(stream: &StreamSocket<F>, mut place: usize) -> usize {
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            return place;
        }
        check(place, &data);
        place += data.len();
    }
}

/// Reads `len` bytes of the pattern on a thread, and then the end, if it is to
/// come.
fn read_by_a_thread(mut from: Peer, len: usize, ends: bool) -> JoinHandle<Peer> {
    thread::spawn(move || {
        let mut got = vec![0; len];
        from.read_exact(&mut got).unwrap();
        check(0, &got);
        if ends {
            assert_eq!(from.read(&mut [0]).unwrap(), 0, "more than was fed");
        }
        from
    })
}

async fn joined<T>(what: &str, thread: JoinHandle<T>) -> T {
    eventually_async(what, || thread.is_finished()).await;
    thread.join().unwrap()
}

/// A connection whose other end reads nothing by itself.
async fn slow_pair() -> (TcpStream, Peer) {
    let (near, far) = std_pair().await;
    shrink(&near);
    (near, far)
}

/// Whether what is fed goes on by itself.
fn goes_on(rt: &Runtime) -> bool {
    rt.driver() == "proactor"
}

fn all_arrives_in_order(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        let mut random = Random::seeded();
        let alive = Arc::default();
        let left = Arc::clone(&alive);
        let feeder = Color::new().spawn(async move {
            let mut place = 0;
            for _ in 0..200 {
                let len = random.below(60_000);
                let buf = Counted::new(pattern(place, len), &alive);
                near.feed(buf).await.unwrap();
                place += len;
            }
            near.flush().await.unwrap();
            place
        });
        let end = take_to_end(&far, 0).await;
        assert_eq!(end, feeder.await.unwrap());
        assert!(is_none(&left), "flushed, and not dropped");
    });
}

fn local_streams_and_their_halves_feed_too(rt: Runtime) {
    rt.block_on(async {
        const LEN: usize = 300_000;
        let (near, far) = UnixStream::pair().unwrap();
        let (read, write) = near.into_split();
        let feeder = Color::new().spawn(async move {
            let mut place = 0;
            while place < 4 * LEN {
                write.feed(pattern(place, LEN)).await.unwrap();
                place += LEN;
            }
            // A message that carries descriptors comes behind as well.
            let message = pattern(place, 100);
            let (one, _) = UnixStream::pair().unwrap();
            let fds = [std::os::fd::AsFd::as_fd(&one)];
            assert_eq!(write.send_with_fds(&message, &fds).await.unwrap(), 100);
            write
        });
        take(&far, 0, 4 * LEN + 100).await;
        let near = read.reunite(feeder.await.unwrap()).unwrap();
        let rest = Color::new().spawn(async move {
            near.feed(pattern(0, LEN)).await.unwrap();
            near.flush().await.unwrap();
        });
        assert_eq!(take_to_end(&far, 0).await, LEN);
        rest.await.unwrap();
    });
}

fn all_ways_to_send_come_behind_what_was_fed(rt: Runtime) {
    rt.block_on(async {
        const LEN: usize = 100_000;
        let (near, far) = pair().await;
        shrink(&near);
        let file = std::env::temp_dir().join(format!("isochrome-feed-{}", std::process::id()));
        let sender = async {
            let mut place = 0;
            for way in 0..9 {
                near.feed(pattern(place, LEN)).await.unwrap();
                place += LEN;
                let bytes = pattern(place, LEN);
                let sent = match way {
                    0 => near.send_all(bytes).await.0.map(|()| LEN),
                    1 => near.send(bytes).await.0,
                    2 => near.send_zc(bytes).await.0.map(|()| LEN),
                    3 => {
                        let halves = vec![bytes[..7].to_vec(), bytes[7..].to_vec()];
                        near.send_vectored(halves).await.0.map(|()| LEN)
                    }
                    4 => near.write(&bytes).await,
                    5 => {
                        let slices = [IoSlice::new(&bytes[..7]), IoSlice::new(&bytes[7..])];
                        near.write_vectored(&slices).await
                    }
                    6 => {
                        let mut tries = 0;
                        loop {
                            match near.try_write(&bytes) {
                                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                                sent => break sent,
                            }
                            near.writable().await.unwrap();
                            tries += 1;
                            assert!(tries < 10, "not writable, over and over");
                        }
                    }
                    7 => near.feed(bytes).await.map(|()| LEN),
                    _ => {
                        std::fs::write(&file, &bytes).unwrap();
                        let file = File::open(&file).await.unwrap();
                        let sent = sendfile(&file, 0, LEN as u64, &near).await;
                        sent.map(|n| n as usize)
                    }
                };
                place += sent.unwrap();
            }
            near.shutdown(Shutdown::Write).unwrap();
            place
        };
        let (sent, got) = join(sender, take_to_end(&far, 0)).await;
        assert_eq!(sent, got);
        std::fs::remove_file(&file).unwrap();
    });
}

fn feeders_of_many_tasks_take_turns(rt: Runtime) {
    rt.block_on(async {
        const FEEDERS: u8 = 4;
        const EACH: u8 = 50;
        const LEN: usize = 5_000;
        let (near, far) = pair().await;
        shrink(&near);
        let near = Arc::new(near);
        let feeder = |id: u8| {
            let near = near.clone();
            Color::new().spawn(async move {
                for n in 0..EACH {
                    let mut message = vec![id; LEN];
                    message[0] = n;
                    if n % 3 == 0 {
                        near.send_all(message).await.0.unwrap();
                    } else {
                        near.feed(message).await.unwrap();
                    }
                    if n % 7 == 0 {
                        near.flush().await.unwrap();
                    }
                }
                near.flush().await.unwrap();
            })
        };
        let feeders: Vec<_> = (0..FEEDERS).map(feeder).collect();
        let (mut next, mut message) = ([0; FEEDERS as usize], vec![0; LEN]);
        for _ in 0..u32::from(FEEDERS) * u32::from(EACH) {
            let mut got = 0;
            while got < LEN {
                let n = far.read(&mut message[got..]).await.unwrap();
                assert_ne!(n, 0);
                got += n;
            }
            let (n, id) = (message[0], message[1]);
            assert!(message[1..].iter().all(|&byte| byte == id), "mixed");
            assert_eq!(n, next[usize::from(id)], "out of order");
            next[usize::from(id)] += 1;
        }
        for feeder in feeders {
            feeder.await.unwrap();
        }
    });
}

fn a_task_is_not_woken_for_the_end(rt: Runtime) {
    rt.block_on(async {
        const TRIPS: usize = 400;
        let (near, far) = pair().await;
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = polls.clone();
        let echo = spawn_apart(async move {
            let mut echo = pin!(async {
                loop {
                    let data: RecvBuf = far.recv().await.unwrap();
                    if data.is_empty() {
                        return far.flush().await.unwrap();
                    }
                    far.feed(data).await.unwrap();
                }
            });
            poll_fn(|cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                echo.as_mut().poll(cx)
            })
            .await;
        });
        for _ in 0..TRIPS {
            near.send_all(pattern(0, 64)).await.0.unwrap();
            take(&near, 0, 64).await;
        }
        near.shutdown(Shutdown::Write).unwrap();
        echo.await.unwrap();
        let polls = polls.load(Ordering::Relaxed);
        // (A message may come in two pieces.)
        assert!(polls < TRIPS + TRIPS / 4, "{polls} polls");
    });
}

fn one_buffer_at_a_time_is_under_way(rt: Runtime) {
    let under_way = usize::from(goes_on(&rt));
    rt.block_on(async {
        let (near, far) = slow_pair().await;
        let (alive, handed) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let feeder = Color::new().spawn({
            let (alive, handed) = (Arc::clone(&alive), handed.clone());
            async move {
                for i in 0..3 {
                    let buf = Counted::new(pattern(i * LOTS, LOTS), &alive);
                    near.feed(buf).await.unwrap();
                    handed.fetch_add(1, Ordering::Release);
                }
                near.flush().await.unwrap();
            }
        });
        eventually_async("the next one waits", || {
            alive.load(Ordering::Acquire) == 1 + under_way
        })
        .await;
        for _ in 0..50 {
            yield_now().await;
        }
        assert_eq!(handed.load(Ordering::Acquire), under_way);
        assert_eq!(alive.load(Ordering::Acquire), 1 + under_way);
        joined("all is read", read_by_a_thread(far, 3 * LOTS, true)).await;
        feeder.await.unwrap();
        assert_eq!(handed.load(Ordering::Acquire), 3);
        assert!(is_none(&alive));
    });
}

fn who_gives_a_turn_up_passes_it_on(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = slow_pair().await;
        let alive = Arc::default();
        let buf = |bytes| Counted::new(bytes, &alive);
        let mut first = Box::pin(near.feed(buf(pattern(0, LOTS))));
        let waits = poll_once(&mut first).await.is_pending();
        assert_ne!(waits, goes_on(&rt));
        let mut second = Box::pin(near.feed(buf(vec![0; 1000])));
        assert!(poll_once(&mut second).await.is_pending());
        let mut flush = Box::pin(near.flush());
        assert_eq!(poll_once(&mut flush).await.is_pending(), goes_on(&rt));
        let mut third = Box::pin(near.feed(buf(pattern(LOTS, 1000))));
        assert!(poll_once(&mut third).await.is_pending());
        assert_eq!(alive.load(Ordering::Relaxed), 3);
        drop(second);
        assert_eq!(alive.load(Ordering::Relaxed), 2, "kept without need");
        let reader = read_by_a_thread(far, LOTS + 1000, true);
        if goes_on(&rt) {
            // Woken, or not, and not polled again.
            eventually_async("the first is sent", || alive.load(Ordering::Acquire) == 1).await;
        }
        drop(flush);
        let first = async {
            if waits {
                first.await.unwrap();
            }
        };
        let ((), third) = join(first, third).await;
        third.unwrap();
        near.flush().await.unwrap();
        drop(near);
        joined("all is read", reader).await;
        assert!(is_none(&alive));
    });
}

fn a_poll_that_was_given_up_holds_no_turn(rt: Runtime) {
    if !goes_on(&rt) {
        // There is nothing to wait for.
        return;
    }
    rt.block_on(async {
        let (near, far) = slow_pair().await;
        near.feed(pattern(0, LOTS)).await.unwrap();
        let flush = poll_fn(|cx| near.poll_flush(cx));
        assert!(give_up(flush).await.is_pending());
        let wrong = [0; 100];
        assert!(give_up(near.write(&wrong)).await.is_pending());
        let error = near.try_write(&wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let reader = read_by_a_thread(far, LOTS + 3000, true);
        near.send_all(pattern(LOTS, 1000)).await.0.unwrap();
        near.feed(pattern(LOTS + 1000, 1000)).await.unwrap();
        near.write_all(&pattern(LOTS + 2000, 1000)).await.unwrap();
        drop(near);
        joined("all is read", reader).await;
    });
}

/// Has the other end refuse what is under way.
fn reset(far: Peer) {
    socket2::SockRef::from(&far)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

fn an_error_is_told_once(rt: Runtime) {
    rt.block_on(async {
        for way in 0..11 {
            let (near, far) = slow_pair().await;
            let alive = Arc::default();
            let mut feed = Box::pin(near.feed(Counted::new(pattern(0, LOTS), &alive)));
            if !goes_on(&rt) {
                assert!(poll_once(&mut feed).await.is_pending());
                reset(far);
                feed.await.unwrap_err();
                assert!(is_none(&alive));
                near.flush().await.unwrap();
                continue;
            }
            feed.await.unwrap();
            // Some ask before it has failed, others after.
            let mut flush = Box::pin(near.flush());
            if way % 2 == 0 {
                assert!(poll_once(&mut flush).await.is_pending());
            }
            drop(flush);
            reset(far);
            if way >= 5 {
                eventually_async("it has failed", || is_none(&alive)).await;
            }
            let bytes = || vec![0; 100];
            let told: io::Result<()> = match way {
                0 => near.feed(bytes()).await,
                1 => near.flush().await,
                2 => near.send_all(bytes()).await.0,
                3 => near.send_vectored(vec![bytes()]).await.0,
                4 => near.write_all(&bytes()).await,
                5 => near.send(bytes()).await.0.map(|_| ()),
                6 => near.send_zc(bytes()).await.0,
                7 => near.shutdown(Shutdown::Write),
                8 => near.try_write(&bytes()).map(|_| ()),
                9 => poll_fn(|cx| near.poll_flush(cx)).await,
                _ => near.shutdown(Shutdown::Both),
            };
            let error = told.unwrap_err();
            let gone = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(gone.contains(&error.kind()), "{way}: {error}");
            near.flush().await.unwrap();
            assert!(is_none(&alive));
            if way == 0 {
                // And who leaves is told as well.
                let _ = near.feed(bytes()).await;
                near.into_std().await.unwrap_err();
            }
        }
    });
}

fn the_end_of_the_stream_comes_behind(rt: Runtime) {
    rt.block_on(async {
        for how in [Shutdown::Write, Shutdown::Both] {
            let (near, far) = slow_pair().await;
            let reader = match goes_on(&rt) {
                true => {
                    near.feed(pattern(0, LOTS)).await.unwrap();
                    near.shutdown(how).unwrap();
                    read_by_a_thread(far, LOTS, true)
                }
                false => {
                    let reader = read_by_a_thread(far, LOTS, true);
                    near.feed(pattern(0, LOTS)).await.unwrap();
                    near.shutdown(how).unwrap();
                    reader
                }
            };
            near.flush().await.unwrap();
            let error = near.feed(vec![0; 100]).await.and(near.flush().await);
            assert_eq!(error.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let mut far = joined("all is read", reader).await;
            if how == Shutdown::Write {
                far.write_all(&pattern(0, 100)).unwrap();
                take(&near, 0, 100).await;
            } else {
                assert!(near.recv().await.unwrap().is_empty());
            }
        }
    });
}

fn a_half_that_goes_ends_the_stream_behind(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = slow_pair().await;
        let (read, write) = near.into_split();
        let feeder = Color::new().spawn(async move {
            write.feed(pattern(0, LOTS)).await.unwrap();
        });
        if goes_on(&rt) {
            feeder.await.unwrap();
        }
        let reader = read_by_a_thread(far, LOTS, true);
        let mut far = joined("all is read", reader).await;
        far.write_all(&pattern(0, 100)).unwrap();
        take(&read, 0, 100).await;
    });
}

fn a_stream_leaves_with_nothing_under_way(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = slow_pair().await;
        far.write_all(&pattern(0, 100)).unwrap();
        let reader = read_by_a_thread(far, LOTS + 100, true);
        near.feed(pattern(0, LOTS)).await.unwrap();
        let (mut near, received) = near.into_std().await.unwrap();
        near.write_all(&pattern(LOTS, 100)).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        joined("all is read", reader).await;
        check(0, &received);
    });
}

fn what_is_dropped_is_dropped_once_in_any_order(rt: Runtime) {
    let alive = Arc::default();
    rt.block_on(async {
        for way in 0..5 {
            let (near, mut far) = slow_pair().await;
            let buf = |place| Counted::new(pattern(place, LOTS), &alive);
            let (first, second) = (buf(0), buf(LOTS));
            let (read, write) = near.into_split();
            let begun = Arc::new(AtomicUsize::new(0));
            let writing = begun.clone();
            let task = Color::new().spawn(async move {
                let mut first = Box::pin(write.feed(first));
                let waits = poll_once(&mut first).await.is_pending();
                writing.store(1, Ordering::Release);
                if waits {
                    let _ = first.await;
                } else {
                    drop(first);
                }
                let _ = write.feed(second).await;
                let _ = write.flush().await;
            });
            eventually_async("it is under way", || begun.load(Ordering::Acquire) == 1).await;
            match way {
                // The task's half in the middle of it, the other later.
                0 => {
                    task.abort();
                    let _ = task.await;
                    drop(read);
                }
                1 => {
                    drop(read);
                    task.abort();
                    drop(task);
                }
                // The other end.
                2 => {
                    reset(far);
                    task.await.unwrap();
                    continue;
                }
                // And nobody: the task goes on.
                3 => {
                    let reader = read_by_a_thread(far, 2 * LOTS, true);
                    joined("all is read", reader).await;
                    task.await.unwrap();
                    continue;
                }
                _ => {
                    task.abort();
                    yield_now().await;
                    drop(read);
                }
            }
            // Nothing but the beginning of what was fed.
            let mut got = Vec::new();
            let reader = thread::spawn(move || {
                let _ = far.read_to_end(&mut got);
                got
            });
            let got = joined("the end", reader).await;
            check(0, &got);
        }
        eventually_async("all are dropped", || is_none(&alive)).await;
    });
    // And the runtime with it.
    let (near, far) = rt.block_on(slow_pair());
    rt.block_on(async {
        let buf = Counted::new(pattern(0, LOTS), &alive);
        let _ = give_up(near.feed(buf)).await;
    });
    rt.shutdown();
    assert!(is_none(&alive), "kept by a runtime that is gone");
    drop((near, far));
}

fn foreign_threads_feed(rt: Runtime) {
    rt.block_on(async {
        const LEN: usize = 20_000;
        let (near, far) = pair().await;
        shrink(&near);
        let feeder = thread::spawn(move || {
            park_on(async {
                for i in 0..50 {
                    near.feed(pattern(i * LEN, LEN)).await.unwrap();
                }
                near.flush().await.unwrap();
            });
        });
        assert_eq!(take_to_end(&far, 0).await, 50 * LEN);
        joined("the feeder", feeder).await;
    });
}

fn nothing_is_nothing(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        near.flush().await.unwrap();
        near.feed(Vec::new()).await.unwrap();
        near.feed("").await.unwrap();
        near.flush().await.unwrap();
        near.feed(pattern(0, 1)).await.unwrap();
        near.flush().await.unwrap();
        drop(near);
        assert_eq!(take_to_end(&far, 0).await, 1);
    });
}

fn the_end_of_the_runtime_is_told(rt: Runtime) {
    let told = goes_on(&rt);
    let (near, far) = rt.block_on(slow_pair());
    let alive = Arc::default();
    rt.block_on(async {
        let buf = Counted::new(pattern(0, LOTS), &alive);
        let _ = give_up(near.feed(buf)).await;
    });
    assert_eq!(rt.shutdown(), 0);
    assert!(is_none(&alive));
    assert_eq!(park_on(near.flush()).is_err(), told);
    park_on(near.flush()).unwrap();
    park_on(near.feed(vec![0; 100]))
        .and_then(|()| park_on(near.flush()))
        .unwrap_err();
    drop(far);
}

/// Feeds when it is woken, and returns when another thread waits for the end.
struct Feeds {
    stream: Arc<TcpStream>,
    flushed: Event,
}

impl Wake for Feeds {
    fn wake(self: Arc<Self>) {
        let mut feed = pin!(self.stream.feed(pattern(0, 100)));
        let fed = feed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(fed, Poll::Ready(Ok(()))));
        let (stream, flushed) = (self.stream.clone(), self.flushed.clone());
        let (asks, asked) = mpsc::channel();
        thread::spawn(move || {
            let mut flush = Box::pin(stream.flush());
            let told = park_on(poll_fn(|cx| {
                let told = flush.as_mut().poll(cx);
                let _ = asks.send(());
                told
            }));
            told.unwrap();
            drop(flush);
            drop(stream);
            flushed.set();
        });
        asked.recv().unwrap();
    }
}

fn a_thread_is_told_of_what_a_waker_fed(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        let (stream, flushed) = (Arc::new(near), Event::default());
        // By the worker itself, between its sleep and its look at what others ask.
        let feeds = Arc::new(Feeds {
            stream: stream.clone(),
            flushed: flushed.clone(),
        });
        let mut nap = Box::pin(sleep(Duration::from_millis(1)));
        let waker = Waker::from(feeds);
        assert!(
            nap.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        drop(waker);
        flushed.wait().await;
        let mut got = [0; 100];
        far.read_exact(&mut got).unwrap();
        check(0, &got);
    });
}

/// Whose turn it is feeds, and goes away: nobody who waits behind polls again
/// before the end of that.
fn who_waits_already_is_told_of_what_a_turn_before_feeds(rt: Runtime) {
    rt.block_on(async {
        for way in 0..3 {
            let (near, far) = slow_pair().await;
            let near = Arc::new(near);
            let waiting = Arc::new(AtomicUsize::new(0));
            let color = Color::new();
            let user = |number: usize| {
                let (near, waiting) = (near.clone(), waiting.clone());
                color.spawn(async move {
                    let place = LOTS + number * 1000;
                    let mut fed = Box::pin(async {
                        match (number, way) {
                            (1, 1) => near.flush().await.unwrap(),
                            (1, 2) => near.send_all(pattern(place, 1000)).await.0.unwrap(),
                            _ => near.feed(pattern(place, 1000)).await.unwrap(),
                        }
                    });
                    let early = poll_once(&mut fed).await.is_ready();
                    waiting.fetch_add(1, Ordering::Release);
                    if !early {
                        fed.await;
                    }
                })
            };
            let mut first = Box::pin(near.feed(pattern(0, LOTS)));
            let waits = poll_once(&mut first).await.is_pending();
            let (one, other) = (user(0), user(1));
            eventually_async("both wait", || waiting.load(Ordering::Acquire) == 2).await;
            let len = LOTS + if way == 1 { 1000 } else { 2000 };
            let reader = read_by_a_thread(far, len, true);
            if waits {
                first.await.unwrap();
            }
            one.await.unwrap();
            other.await.unwrap();
            near.flush().await.unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            joined("all is read", reader).await;
        }
    });
}
