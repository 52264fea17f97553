//! The driver under a runtime, with rings and pools that are too small.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use isochrome_runtime::buf::{Lent, RecvBuf};
use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::op::{Address, InFlight, Interest, Op, Port, Yield};
use isochrome_runtime::{Builder, Descriptor, Runtime, yield_now};

use crate::Proactor;
use crate::setup::Config;

/// What a [`Spy`] saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    parks: usize,
    in_flight: usize,
    most_backlog: usize,
    most_starved: usize,
    strangers: u64,
    leaked: Option<usize>,
}

/// A proactor that can be looked into while a runtime has it.
struct Spy {
    inner: Proactor,
    seen: Arc<Mutex<Seen>>,
    /// Leave the ending to `Drop`.
    forgetful: bool,
}

impl Spy {
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.in_flight = self.inner.table.len();
        seen.most_backlog = seen.most_backlog.max(self.inner.backlog.len());
        seen.most_starved = seen.most_starved.max(self.inner.starved.len());
        seen.strangers = self.inner.strangers;
    }
}

impl Driver for Spy {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn nonblocking(&self) -> bool {
        self.inner.nonblocking()
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        let result = self.inner.submit(op);
        self.look();
        result
    }

    fn cancel(&mut self, key: u64) {
        self.inner.cancel(key);
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.look();
        let result = self.inner.park(wait);
        self.look();
        self.seen.lock().unwrap().parks += 1;
        result
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.inner.unparker()
    }

    fn shutdown(&mut self, grace: Duration) -> usize {
        if self.forgetful {
            return 0;
        }
        let leaked = self.inner.shutdown(grace);
        self.seen.lock().unwrap().leaked = Some(leaked);
        leaked
    }
}

struct Fixture {
    runtime: Runtime,
    seen: Arc<Mutex<Seen>>,
}

impl Fixture {
    fn new(config: Config) -> Fixture {
        Fixture::with(config, false)
    }

    fn with(config: Config, forgetful: bool) -> Fixture {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let for_driver = seen.clone();
        let driver = move |_worker: usize| {
            let spy = Spy {
                inner: Proactor::with_config(&config)?,
                seen: for_driver.clone(),
                forgetful,
            };
            Ok(Box::new(spy) as Box<dyn Driver>)
        };
        let runtime = Builder::new().build_with(driver).unwrap();
        Fixture { runtime, seen }
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    fn port(&self, fd: impl Into<OwnedFd>) -> Port {
        Port::new(Descriptor::new(fd.into(), self.runtime.handle()).unwrap())
    }

    /// A port and its peer.
    fn pair(&self) -> (Port, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        (self.port(ours), theirs)
    }

    fn tcp_pair(&self) -> (Port, TcpStream) {
        let (listener, at) = listen();
        let peer = client(at);
        let (ours, _) = listener.accept().unwrap();
        (self.port(ours), peer)
    }

    /// Lets the driver have `turns` turns.
    fn turn(&self, turns: usize) {
        self.runtime.block_on(async {
            for _ in 0..turns {
                yield_now().await;
            }
        });
    }

    /// Turns until `done`.
    fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        let start = Instant::now();
        while !done(&self.seen()) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.seen());
            self.turn(1);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

fn tiny() -> Config {
    Config {
        entries: 16,
        completions: 16,
        buffers: 4,
        buffer_size: 64,
    }
}

async fn recv(port: &Port) -> io::Result<RecvBuf> {
    match poll_fn(|cx| port.poll_next(cx, || Op::Recv)).await? {
        Yield::Buf(buf) => Ok(buf),
        other => panic!("a receive yielded {other:?}"),
    }
}

async fn accept(port: &Port) -> io::Result<OwnedFd> {
    match poll_fn(|cx| port.poll_next(cx, || Op::Accept)).await? {
        Yield::Socket(socket) => Ok(socket),
        other => panic!("an accept yielded {other:?}"),
    }
}

/// One receive from each, at once.
async fn recv_each(ports: &[Port]) -> Vec<RecvBuf> {
    let mut got: Vec<Option<RecvBuf>> = ports.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (port, got) in ports.iter().zip(&mut got).filter(|(_, got)| got.is_none()) {
            match port.poll_next(cx, || Op::Recv) {
                Poll::Ready(Ok(Yield::Buf(buf))) => *got = Some(buf),
                Poll::Ready(other) => panic!("a receive yielded {other:?}"),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    got.into_iter().flatten().collect()
}

/// Starts an operation and does not wait for it.
fn begin(fixture: &Fixture, port: &Port, op: fn() -> Op) {
    fixture.runtime.block_on(poll_fn(|cx| {
        assert!(port.poll_next(cx, op).is_pending());
        Poll::Ready(())
    }));
}

async fn send(port: &Port, data: Vec<u8>, all: bool) -> io::Result<usize> {
    let op = Op::Send {
        data: Lent::new(data),
        from: 0,
        all,
    };
    match port.run(op).await.0? {
        Yield::Done(n) => Ok(n),
        other => panic!("a send yielded {other:?}"),
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn client(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn address(of: SocketAddr) -> Box<Address> {
    Box::new(Address::from(of))
}

#[test]
fn the_probe_works_here() {
    crate::probe().unwrap();
    // And leaves nothing behind that would stand in the way.
    crate::probe().unwrap();
}

#[test]
fn receives_sends_and_sees_the_end() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    let out = f.port(peer.try_clone().unwrap());
    f.runtime.block_on(async {
        assert_eq!(send(&out, b"ping".to_vec(), true).await.unwrap(), 4);
        assert_eq!(*recv(&port).await.unwrap(), *b"ping");
        assert_eq!(send(&port, b"pong".to_vec(), false).await.unwrap(), 4);
        assert_eq!(send(&port, Vec::new(), true).await.unwrap(), 0);
    });
    let mut got = [0; 4];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, *b"pong");
    peer.shutdown(std::net::Shutdown::Both).unwrap();
    f.runtime.block_on(async {
        // Again and again, if asked.
        for _ in 0..3 {
            assert!(recv(&port).await.unwrap().is_empty());
        }
        // Without SIGPIPE.
        let error = send(&port, b"x".to_vec(), true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn a_large_send_is_sent_whole() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    let data: Vec<u8> = (0..8_000_000u32).map(|i| (i % 251) as u8).collect();
    let expected = data.clone();
    let reader = thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
    });
    let sent = f.runtime.block_on(send(&port, data, true)).unwrap();
    assert_eq!(sent, 8_000_000);
    reader.join().unwrap();
}

#[test]
fn a_stream_arrives_in_order_through_pauses_and_starvation() {
    for config in [Config::default(), tiny()] {
        let f = Fixture::new(config);
        let (port, mut peer) = f.tcp_pair();
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 253) as u8).collect();
        let expected = data.clone();
        let writer = thread::spawn(move || peer.write_all(&data).unwrap());
        let got = f.runtime.block_on(async {
            let mut got = Vec::new();
            loop {
                let buf = recv(&port).await.unwrap();
                if buf.is_empty() {
                    return got;
                }
                got.extend_from_slice(&buf);
            }
        });
        writer.join().unwrap();
        assert!(got == expected, "{} bytes", got.len());
        assert_eq!(f.seen().strangers, 0);
    }
}

#[test]
fn an_end_together_with_data_is_seen() {
    fn ends(f: &Fixture, (port, mut peer): (Port, impl Write)) {
        begin(f, &port, || Op::Recv);
        f.turn(2);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        // The receive is armed, and meets both at once.
        f.runtime.block_on(async {
            assert_eq!(*recv(&port).await.unwrap(), *b"last words");
            assert!(recv(&port).await.unwrap().is_empty());
        });
    }
    fn begins_late(f: &Fixture, (port, mut peer): (Port, impl Write)) {
        peer.write_all(b"last words").unwrap();
        drop(peer);
        f.runtime.block_on(async {
            assert_eq!(*recv(&port).await.unwrap(), *b"last words");
            assert!(recv(&port).await.unwrap().is_empty());
        });
    }
    let f = Fixture::new(Config::default());
    ends(&f, f.tcp_pair());
    ends(&f, f.pair());
    begins_late(&f, f.tcp_pair());
    begins_late(&f, f.pair());
}

#[test]
fn an_untaken_stream_pauses_and_loses_nothing() {
    let f = Fixture::new(Config {
        buffer_size: 64,
        ..Config::default()
    });
    let (port, mut peer) = f.tcp_pair();
    begin(&f, &port, || Op::Recv);
    for i in 0..200u8 {
        peer.write_all(&[i; 64]).unwrap();
    }
    f.until("paused", |seen| seen.in_flight == 0);
    drop(peer);
    let mut got = Vec::new();
    f.runtime.block_on(async {
        loop {
            let buf = recv(&port).await.expect("a pause is no error");
            if buf.is_empty() {
                break;
            }
            got.extend_from_slice(&buf);
        }
    });
    let expected: Vec<u8> = (0..200u8).flat_map(|i| [i; 64]).collect();
    assert_eq!(got, expected);
}

#[test]
fn connects_and_accepts() {
    let f = Fixture::new(Config::default());
    let (listener, at) = listen();
    let listener = f.port(listener);
    let mut clients = Vec::new();
    f.runtime.block_on(async {
        for _ in 0..3 {
            let socket = socket2_stream();
            let port = f.port(socket);
            let (result, op) = port.run(Op::Connect(address(at))).await;
            assert!(matches!(result.unwrap(), Yield::Done(0)));
            assert!(matches!(op, Op::Connect(_)), "the operation comes back");
            let accepted = accept(&listener).await.unwrap();
            // SAFETY: F_GETFD takes no pointer.
            let flags = unsafe { libc::fcntl(accepted.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
            clients.push((port, accepted));
        }
    });
    drop(listener);
    f.until("accept ended", |seen| seen.in_flight == 0);
    let refused = f.port(socket2_stream());
    let (result, _) = f.runtime.block_on(refused.run(Op::Connect(address(at))));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn socket2_stream() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: just opened, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn polls_both_ways() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    let wait = |interest| port.run(Op::Poll(interest));
    f.runtime.block_on(async {
        assert!(matches!(wait(Interest::Write).await.0, Ok(Yield::Done(0))));
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            peer.write_all(b"x").unwrap();
            peer
        });
        assert!(matches!(wait(Interest::Read).await.0, Ok(Yield::Done(0))));
        writer.join().unwrap();
    });
}

#[test]
fn more_operations_than_the_ring_has_room_for() {
    let f = Fixture::new(tiny());
    let (ports, mut peers): (Vec<_>, Vec<_>) = (0..100).map(|_| f.tcp_pair()).unzip();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        for (i, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[i as u8]).unwrap();
        }
        peers
    });
    let got = f.runtime.block_on(recv_each(&ports));
    for (i, buf) in got.iter().enumerate() {
        assert_eq!(**buf, [i as u8]);
    }
    drop(got);
    let peers = writer.join().unwrap();
    assert!(f.seen().most_backlog >= 80, "{:?}", f.seen());
    drop(ports);
    f.until("all cancelled", |seen| seen.in_flight == 0);
    drop(peers);
}

#[test]
fn cancels_what_the_kernel_never_saw() {
    let f = Fixture::new(tiny());
    let (ports, peers): (Vec<_>, Vec<_>) = (0..100).map(|_| f.pair()).unzip();
    f.runtime.block_on(poll_fn(|cx| {
        for port in &ports {
            assert!(port.poll_next(cx, || Op::Recv).is_pending());
        }
        Poll::Ready(())
    }));
    drop(ports);
    f.until("all cancelled", |seen| seen.in_flight == 0);
    // The descriptors went with them.
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_dropped_port_is_cancelled_and_closed() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    begin(&f, &port, || Op::Recv);
    f.until("in flight", |seen| seen.in_flight == 1);
    f.turn(2);
    drop(port);
    f.until("cancelled", |seen| seen.in_flight == 0);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn an_abandoned_send_frees_its_port() {
    let f = Fixture::new(Config::default());
    let (port, peer) = f.pair();
    f.runtime.block_on(async {
        // Nobody reads: it blocks.
        let mut stuck = Box::pin(send(&port, vec![1; 4_000_000], true));
        poll_fn(|cx| {
            assert!(stuck.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    });
    f.turn(3);
    // The next one waits for the end of the abandoned one.
    peer.shutdown(std::net::Shutdown::Read).unwrap();
    let error = f.runtime.block_on(send(&port, vec![2], true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(f.seen().in_flight, 0);
}

#[test]
fn held_leases_starve_nobody() {
    let f = Fixture::new(tiny());
    let (ports, mut peers): (Vec<_>, Vec<_>) = (0..12).map(|_| f.tcp_pair()).unzip();
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&[i as u8; 64]).unwrap();
    }
    // Four buffers, twelve leases.
    let held = f.runtime.block_on(recv_each(&ports));
    for (i, lease) in held.iter().enumerate() {
        assert_eq!(**lease, [i as u8; 64]);
    }
    assert!(f.seen().most_starved > 0, "{:?}", f.seen());
    // Nor does anybody spin for a buffer, with receives pending and none left.
    f.runtime.block_on(poll_fn(|cx| {
        for port in &ports {
            assert!(port.poll_next(cx, || Op::Recv).is_pending());
        }
        Poll::Ready(())
    }));
    f.turn(4);
    let before = f.seen().parks;
    let start = Instant::now();
    let waker = thread::spawn({
        let mut peer = peers[11].try_clone().unwrap();
        move || {
            thread::sleep(Duration::from_millis(100));
            peer.write_all(b"late").unwrap();
        }
    });
    let late = f.runtime.block_on(recv(&ports[11])).unwrap();
    assert_eq!(*late, *b"late");
    assert!(start.elapsed() >= Duration::from_millis(90));
    let parks = f.seen().parks - before;
    assert!(parks < 20, "{parks} turns in an idle tenth of a second");
    waker.join().unwrap();
    // An end of file needs no buffer either.
    peers.truncate(11);
    drop(late);
    let end = f.runtime.block_on(recv(&ports[11])).unwrap();
    assert!(end.is_empty());
    // Given back, they are used again.
    drop(held);
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&[i as u8]).unwrap();
    }
    let again = f.runtime.block_on(recv_each(&ports[..11]));
    assert_eq!(again.len(), 11);
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    let f = Fixture::new(Config {
        buffers: 256,
        ..tiny()
    });
    let (ports, mut peers): (Vec<_>, Vec<_>) = (0..150).map(|_| f.tcp_pair()).unzip();
    f.runtime.block_on(poll_fn(|cx| {
        for port in &ports {
            assert!(port.poll_next(cx, || Op::Recv).is_pending());
        }
        Poll::Ready(())
    }));
    f.turn(20);
    // All at once, into sixteen places.
    for round in 0..3 {
        for (i, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[i as u8, round]).unwrap();
        }
        for (i, buf) in f.runtime.block_on(recv_each(&ports)).iter().enumerate() {
            assert_eq!(**buf, [i as u8, round]);
        }
    }
    assert_eq!(f.seen().strangers, 0);
}

#[test]
fn an_abandoned_accept_closes_what_it_accepted() {
    let f = Fixture::new(Config::default());
    let (listener, at) = listen();
    let port = f.port(listener);
    begin(&f, &port, || Op::Accept);
    f.turn(2);
    // One is accepted and not taken, the other in the kernel's hands when the
    // port goes.
    let mut early = client(at);
    f.turn(2);
    let mut late = client(at);
    drop(port);
    f.until("accept ended", |seen| seen.in_flight == 0);
    for client in [&mut early, &mut late] {
        match client.read(&mut [0]) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("still open: {other:?}"),
        }
    }
}

#[test]
fn a_crowd_of_untaken_sockets_pauses_the_accept() {
    let f = Fixture::new(Config::default());
    let (listener, at) = listen();
    let port = f.port(listener);
    begin(&f, &port, || Op::Accept);
    f.turn(2);
    let clients: Vec<_> = (0..100).map(|_| client(at)).collect();
    f.until("paused", |seen| seen.in_flight == 0);
    f.runtime.block_on(async {
        for _ in &clients {
            accept(&port).await.expect("a pause is no error");
        }
    });
}

#[test]
fn wakes_from_other_threads_are_not_lost() {
    let f = Fixture::new(Config::default());
    for i in 0..2000 {
        let mut sent = false;
        let done = Arc::new(Mutex::new(false));
        let mut waker = None;
        f.runtime.block_on(poll_fn(|cx| {
            if *done.lock().unwrap() {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut sent, true) {
                let (wake, done) = (cx.waker().clone(), done.clone());
                waker = Some(thread::spawn(move || {
                    if i % 2 == 0 {
                        thread::yield_now();
                    }
                    *done.lock().unwrap() = true;
                    wake.wake();
                }));
            }
            Poll::Pending
        }));
        waker.unwrap().join().unwrap();
    }
}

#[test]
fn shutdown_ends_what_is_pending() {
    for forgetful in [false, true] {
        let f = Fixture::with(Config::default(), forgetful);
        let (port, mut peer) = f.pair();
        let (stuck, other) = f.pair();
        let (listener, _) = listen();
        let listener = f.port(listener);
        begin(&f, &port, || Op::Recv);
        begin(&f, &listener, || Op::Accept);
        let mut sending = Box::pin(send(&stuck, vec![0; 4_000_000], true));
        f.runtime.block_on(poll_fn(|cx| {
            assert!(sending.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        }));
        f.turn(3);
        // Not seen by the kernel yet.
        let (queued, _peer) = f.pair();
        begin(&f, &queued, || Op::Recv);
        let Fixture { runtime, seen } = f;
        let start = Instant::now();
        drop(runtime);
        assert!(start.elapsed() < Duration::from_millis(150));
        let leaked = seen.lock().unwrap().leaked;
        assert_eq!(leaked, (!forgetful).then_some(0));
        drop((port, listener, sending, queued));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "closed");
        drop(other);
    }
}

#[test]
fn leases_outlive_the_driver() {
    let f = Fixture::new(Config::default());
    let (port, mut peer) = f.pair();
    peer.write_all(b"still here").unwrap();
    let lease = f.runtime.block_on(recv(&port)).unwrap();
    drop(port);
    drop(f);
    assert_eq!(*lease, *b"still here");
}
