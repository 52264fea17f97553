//! The driver under the executor, with a look inside.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use isochrome_runtime::buf::{Lent, RecvBuf};
use isochrome_runtime::driver::{Driver, Unpark};
use isochrome_runtime::op::{InFlight, Interest, Op, Port, Yield};
use isochrome_runtime::{Builder, Color, Descriptor, Runtime};

use crate::Reactor;

/// Long enough that only a lost event takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reactor, with the test looking over its shoulder.
#[derive(Clone)]
struct Spied(Rc<RefCell<Reactor>>);

impl Driver for Spied {
    fn name(&self) -> &'static str {
        self.0.borrow().name()
    }
    fn nonblocking(&self) -> bool {
        self.0.borrow().nonblocking()
    }
    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        self.0.borrow_mut().submit(op)
    }
    fn cancel(&mut self, key: u64) {
        self.0.borrow_mut().cancel(key);
    }
    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        // A test that hangs fails.
        let start = Instant::now();
        let result = self.0.borrow_mut().park(Some(wait.unwrap_or(PATIENCE)));
        assert!(start.elapsed() < PATIENCE, "an event was lost");
        result
    }
    fn unparker(&self) -> Arc<dyn Unpark> {
        self.0.borrow().unparker()
    }
    fn recv_now(&mut self, d: &Descriptor, buf: &mut [u8]) -> Option<Poll<io::Result<usize>>> {
        self.0.borrow_mut().recv_now(d, buf)
    }
    fn forget(&mut self, token: u64) {
        self.0.borrow_mut().forget(token);
    }
    fn shutdown(&mut self, grace: Duration) -> usize {
        self.0.borrow_mut().shutdown(grace)
    }
}

thread_local! {
    static MADE: RefCell<Option<Spied>> = const { RefCell::new(None) };
}

struct Fixture {
    runtime: Runtime,
    reactor: Rc<RefCell<Reactor>>,
}

impl Fixture {
    fn new() -> Fixture {
        let build = Builder::new().workers(1).build_with(|worker| {
            let spied = Spied(Rc::new(RefCell::new(Reactor::new(worker)?)));
            MADE.set(Some(spied.clone()));
            Ok(Box::new(spied))
        });
        Fixture {
            runtime: build.unwrap(),
            reactor: MADE.take().unwrap().0,
        }
    }

    fn descriptor(&self, fd: impl Into<OwnedFd>) -> Arc<Descriptor> {
        Descriptor::new(fd.into(), self.runtime.handle()).unwrap()
    }

    fn port(&self, fd: impl Into<OwnedFd>) -> Port {
        Port::new(self.descriptor(fd))
    }

    /// One turn of the driver and what it wakes.
    fn turn(&self) {
        self.runtime.block_on(isochrome_runtime::yield_now());
    }

    fn registrations(&self) -> usize {
        self.reactor.borrow().registrations()
    }

    fn waiters(&self) -> usize {
        self.reactor.borrow().waiters()
    }

    fn free_buffers(&self) -> usize {
        self.reactor.borrow().free_buffers()
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
        Yield::Socket(fd) => Ok(fd),
        other => panic!("an accept yielded {other:?}"),
    }
}

async fn count(port: &Port, op: Op) -> io::Result<usize> {
    match port.run(op).await.0? {
        Yield::Done(n) => Ok(n),
        other => panic!("{other:?}"),
    }
}

async fn send(port: &Port, data: Vec<u8>, all: bool) -> io::Result<usize> {
    let data = Lent::new(data);
    count(port, Op::Send { data, from: 0, all }).await
}

async fn ready(port: &Port, interest: Interest) -> io::Result<usize> {
    count(port, Op::Poll(interest)).await
}

/// Polls a future once.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Begins to receive, and finds nothing.
fn begin(f: &Fixture, port: &Port) {
    f.runtime.block_on(async {
        assert!(poll_once(recv(port)).is_pending());
    });
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nodelay(true).unwrap();
    b.set_nodelay(true).unwrap();
    (a, b)
}

fn tcp_socket() -> OwnedFd {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0);
    // SAFETY: just opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A duplicate with the first free number from `least` on: other tests of
/// this process get lower ones, so that numbers can be reused on purpose.
fn duplicate(fd: &impl AsRawFd, least: RawFd) -> OwnedFd {
    // SAFETY: no pointers are passed.
    let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    assert!(new >= least);
    // SAFETY: just opened.
    unsafe { OwnedFd::from_raw_fd(new) }
}

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
    assert_eq!((f.waiters(), f.registrations()), (0, 0));
    assert_eq!(f.free_buffers(), 256, "every lease came back");
}

#[test]
fn idle_connections_own_no_buffer_and_are_registered_once() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    for i in 0..3 {
        begin(&f, &port);
        assert_eq!((f.registrations(), f.waiters()), (1, 1));
        assert_eq!(f.free_buffers(), 256);
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
fn many_waiters_are_served_in_order_by_one_edge() {
    // More of them than one share, and no second edge: the rest is served
    // because the direction is busy.
    const MANY: u8 = 100;
    let f = Fixture::new();
    let (a, b) = UnixDatagram::pair().unwrap();
    b.set_nonblocking(true).unwrap();
    let descriptor = f.descriptor(a);
    let ports: Vec<Port> = (0..MANY).map(|_| Port::new(descriptor.clone())).collect();
    ports.iter().for_each(|port| begin(&f, port));
    assert_eq!(f.waiters(), MANY.into());
    let mut served = 0;
    let mut sent = 0;
    while served < MANY {
        // The socket takes ten or so at a time.
        while sent < MANY && b.send(&[sent]).is_ok() {
            sent += 1;
        }
        f.runtime.block_on(async {
            assert_eq!(*recv(&ports[usize::from(served)]).await.unwrap(), [served]);
        });
        served += 1;
    }
    assert_eq!(f.waiters(), 0);
}

#[test]
fn polls_of_more_than_one_share_end_with_one_edge() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let descriptor = f.descriptor(a);
    let ports: Vec<Port> = (0..100).map(|_| Port::new(descriptor.clone())).collect();
    f.runtime.block_on(async {
        let mut runs: Vec<_> = ports
            .iter()
            .map(|p| Box::pin(p.run(Op::Poll(Interest::Read))))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            runs.iter_mut()
                .all(|run| run.as_mut().poll(&mut cx).is_pending())
        );
        b.write_all(b"x").unwrap();
        for run in runs {
            assert!(matches!(run.await.0, Ok(Yield::Done(0))));
        }
    });
}

#[test]
fn a_cancelled_operation_leaves_the_line() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let descriptor = f.descriptor(a);
    let ports = [(); 4].map(|()| Port::new(descriptor.clone()));
    ports.iter().for_each(|port| begin(&f, port));
    let [first, second, third, fourth] = ports;
    drop(second);
    f.turn();
    assert_eq!(f.waiters(), 3);
    drop(first);
    drop(fourth);
    f.turn();
    assert_eq!(f.waiters(), 1);
    b.write_all(b"for the third").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&third).await.unwrap(), *b"for the third");
    });
    assert_eq!(f.waiters(), 0);
}

#[test]
fn a_port_can_be_used_again_after_a_cancel() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let port = f.port(a);
    f.runtime.block_on(async {
        for _ in 0..3 {
            assert!(poll_once(ready(&port, Interest::Read)).is_pending());
        }
        b.write_all(b"x").unwrap();
        ready(&port, Interest::Read).await.unwrap();
    });
    assert_eq!(f.waiters(), 0);
}

#[test]
fn stale_keys_and_tokens_are_ignored() {
    let f = Fixture::new();
    let (a, _b) = tcp();
    let port = f.port(a);
    begin(&f, &port);
    let mut reactor = f.reactor.borrow_mut();
    for key in [0, 1, 7 << 32, 99 << 32 | 99, u64::MAX] {
        reactor.cancel(key);
        reactor.forget(key);
    }
    assert_eq!((reactor.waiters(), reactor.registrations()), (1, 1));
}

#[test]
fn an_event_of_a_closed_descriptor_does_not_reach_its_successor() {
    let f = Fixture::new();
    let (old, mut old_peer) = UnixStream::pair().unwrap();
    let first = duplicate(&old, 700);
    let number = first.as_raw_fd();
    let port = f.port(first);
    begin(&f, &port);
    // Its file stays open by `old`, and so in the epoll set.
    drop(port);
    f.turn();
    let (new, mut new_peer) = UnixStream::pair().unwrap();
    let second = duplicate(&new, number);
    assert_eq!(second.as_raw_fd(), number, "the number is reused");
    let port = f.port(second);
    begin(&f, &port);
    old_peer.write_all(b"stale").unwrap();
    f.turn();
    assert_eq!((f.registrations(), f.waiters()), (1, 1));
    new_peer.write_all(b"fresh").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&port).await.unwrap(), *b"fresh");
    });
}

#[test]
fn a_file_that_stayed_in_the_set_can_be_registered_again() {
    let f = Fixture::new();
    let (file, mut peer) = UnixStream::pair().unwrap();
    let first = duplicate(&file, 800);
    let number = first.as_raw_fd();
    let port = f.port(first);
    begin(&f, &port);
    drop(port);
    f.turn();
    let again = duplicate(&file, number);
    assert_eq!(again.as_raw_fd(), number, "the number is reused");
    let port = f.port(again);
    begin(&f, &port);
    peer.write_all(b"x").unwrap();
    f.runtime.block_on(async {
        assert_eq!(*recv(&port).await.unwrap(), *b"x");
    });
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
fn a_poll_tells_of_the_present_and_not_of_the_past() {
    let f = Fixture::new();
    let (a, mut b) = UnixStream::pair().unwrap();
    let mut ours = a.try_clone().unwrap();
    let port = f.port(a);
    let mut buf = [0; 8];
    f.runtime.block_on(async {
        ready(&port, Interest::Write).await.unwrap();
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
        ready(&port, Interest::Write).await.unwrap();
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
fn borrowed_memory_is_filled_on_readiness() {
    let f = Fixture::new();
    let (a, mut b) = tcp();
    let descriptor = f.descriptor(a);
    let port = Port::new(descriptor.clone());
    f.runtime.block_on(async {
        let mut buf = [0; 8];
        let mut now = |n: usize| {
            let mut reactor = f.reactor.borrow_mut();
            reactor.recv_now(&descriptor, &mut buf[..n]).unwrap()
        };
        assert!(now(8).is_pending());
        assert_eq!(f.registrations(), 1);
        b.write_all(b"abcdef").unwrap();
        ready(&port, Interest::Read).await.unwrap();
        assert!(matches!(now(4), Poll::Ready(Ok(4))));
        assert!(matches!(now(4), Poll::Ready(Ok(2))));
        assert!(now(4).is_pending());
        let wait = ready(&port, Interest::Read);
        b.write_all(b"gh").unwrap();
        b.shutdown(std::net::Shutdown::Both).unwrap();
        wait.await.unwrap();
        assert!(matches!(now(8), Poll::Ready(Ok(2))));
        assert!(matches!(now(8), Poll::Ready(Ok(0))));
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
        assert_eq!(f.free_buffers(), 0);
        for (i, buf) in held.iter().enumerate() {
            assert_eq!(**buf, (i as u32).to_ne_bytes());
        }
    });
    assert_eq!(f.free_buffers(), 256);
}

#[test]
fn the_end_of_the_runtime_ends_what_waits() {
    let f = Fixture::new();
    let (a, _b) = tcp();
    let port = f.port(a);
    begin(&f, &port);
    let Fixture { runtime, reactor } = f;
    assert_eq!(runtime.shutdown(), 0);
    assert_eq!(reactor.borrow().waiters(), 0);
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
