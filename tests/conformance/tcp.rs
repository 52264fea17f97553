//! TCP.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{self as std_net, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use isochrome::Runtime;
use isochrome::net::{TcpListener, TcpSocket, TcpStream};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common;
use crate::common::agree::{alike, same, same_error};
use crate::common::futures::join;
use crate::common::{LOCAL, eventually, everywhere};

everywhere!(
    connecting,
    connecting_in_time,
    binding,
    accepting,
    bytes,
    the_end,
    a_reset,
    ended_directions,
    without_a_connection,
    empty_buffers_ask_nobody,
    sockets_of_others,
    options,
);

/// A connection of ours and one of std, and the other ends of both.
struct Twins {
    ours: TcpStream,
    std: std_net::TcpStream,
    to_ours: std_net::TcpStream,
    to_std: std_net::TcpStream,
}

impl Twins {
    async fn new() -> Twins {
        let listener = std_net::TcpListener::bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        let ours = TcpStream::connect(address).await.unwrap();
        let to_ours = listener.accept().unwrap().0;
        let std = std_net::TcpStream::connect(address).unwrap();
        let to_std = listener.accept().unwrap().0;
        Twins {
            ours,
            std,
            to_ours,
            to_std,
        }
    }

    fn both(&self) -> [&std_net::TcpStream; 2] {
        [&self.to_ours, &self.to_std]
    }

    fn tell(&self, bytes: &[u8]) {
        for mut end in self.both() {
            end.write_all(bytes).unwrap();
        }
    }
}

/// Waits until poll(2) says one of these.
fn wait(socket: &impl AsFd, events: i16) {
    use std::os::fd::AsRawFd;
    let fd = socket.as_fd().as_raw_fd();
    let mut what = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    eventually("the socket is ready", || {
        // SAFETY: one entry, borrowed for the call.
        unsafe { libc::poll(&raw mut what, 1, 0) == 1 }
    });
}

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An address at which nobody listens, kept from others.
fn nobody() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&to(LOCAL).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn connecting(rt: Runtime) {
    rt.block_on(async {
        let (_kept, refused) = nobody();
        // Refused; no port; no route, or none allowed; a group; not of here.
        let wrong = [
            refused,
            to("127.0.0.1:0"),
            to("255.255.255.255:9"),
            to("224.0.0.1:9"),
            to("[ff02::1]:9"),
            to("[2001:db8::1]:9"),
        ];
        for address in wrong {
            // What a host without a route answers at once, another may send on.
            let std = std_net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
            if matches!(&std, Err(e) if e.kind() == ErrorKind::TimedOut) || std.is_ok() {
                continue;
            }
            let std = std_net::TcpStream::connect(address);
            same_error(TcpStream::connect(address).await, std);
            let std = std_net::TcpStream::connect(address);
            let socket = TcpSocket::like(address).unwrap();
            same_error(socket.connect(address).await, std);
        }
        for name in ["127.0.0.1", "no such host:1", "a:b", "[::1]", ""] {
            let ours = TcpStream::connect(name).await.unwrap_err();
            let std = std_net::TcpStream::connect(name).unwrap_err();
            assert_eq!(ours.kind(), std.kind(), "{name}: {ours}, but std: {std}");
        }
        let none: &[SocketAddr] = &[];
        same_error(
            TcpStream::connect(none).await,
            std_net::TcpStream::connect(none),
        );
    });
}

/// A listener whose queue is full, so that nobody more gets an answer.
fn full() -> (Socket, Vec<Socket>, SocketAddr) {
    let (listener, address) = nobody();
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        let _ = socket.connect(&address.into());
        waiting.push(socket);
    }
    (listener, waiting, address)
}

fn connecting_in_time(rt: Runtime) {
    rt.block_on(async {
        let (_listener, _waiting, address) = full();
        let limit = Duration::from_millis(50);
        let ours = TcpStream::connect_timeout(address, limit).await;
        let std = std_net::TcpStream::connect_timeout(&address, limit);
        assert_eq!(ours.unwrap_err().kind(), std.unwrap_err().kind());
        let zero = Duration::ZERO;
        same_error(
            TcpStream::connect_timeout(address, zero).await,
            std_net::TcpStream::connect_timeout(&address, zero),
        );
        let (_kept, refused) = nobody();
        same_error(
            TcpStream::connect_timeout(refused, common::PATIENCE).await,
            std_net::TcpStream::connect_timeout(&refused, common::PATIENCE),
        );
    });
}

fn binding(rt: Runtime) {
    rt.block_on(async {
        let held = std_net::TcpListener::bind(LOCAL).unwrap();
        // In use; not of this host; not allowed, but for root.
        for address in [
            held.local_addr().unwrap(),
            to("192.0.2.1:0"),
            to("127.0.0.1:1"),
        ] {
            let std = std_net::TcpListener::bind(address).map(drop);
            alike(TcpListener::bind(address).await.map(drop), std);
            let std = std_net::TcpListener::bind(address).map(drop);
            alike(TcpListener::bind_group(address).await.map(drop), std);
            // Of a socket, which has no SO_REUSEADDR: what is held is in use.
            let std = std_net::TcpListener::bind(address).map(drop);
            alike(TcpSocket::like(address).unwrap().bind(address), std);
        }
        let ours = TcpListener::bind(LOCAL).await.unwrap();
        let address = ours.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        same_error(
            TcpListener::bind(address).await,
            std_net::TcpListener::bind(address),
        );
        // Listening twice on one address is told by listen(2).
        let [a, b] = [(); 2].map(|()| {
            let socket = TcpSocket::v4().unwrap();
            socket.set_reuse_address(true).unwrap();
            socket
        });
        a.bind(to(LOCAL)).unwrap();
        let address = a.local_addr().unwrap();
        b.bind(address).unwrap();
        let _first = a.listen(1).unwrap();
        let error = b.listen(1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    });
}

fn accepting(rt: Runtime) {
    rt.block_on(async {
        let ours = TcpListener::bind(LOCAL).await.unwrap();
        let std = std_net::TcpListener::bind(LOCAL).unwrap();
        for _ in 0..3 {
            let client = std_net::TcpStream::connect(ours.local_addr().unwrap()).unwrap();
            let (stream, peer) = ours.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            same(stream.peer_addr(), client.local_addr());
            same(stream.local_addr(), client.peer_addr());
            let client = std_net::TcpStream::connect(std.local_addr().unwrap()).unwrap();
            assert_eq!(std.accept().unwrap().1, client.local_addr().unwrap());
        }
        let mut incoming = ours.incoming();
        let client = std_net::TcpStream::connect(ours.local_addr().unwrap()).unwrap();
        let stream = incoming.next().await.unwrap().unwrap();
        same(stream.peer_addr(), client.local_addr());
        // Of what does not listen.
        let deaf = |socket: Socket| std_net::TcpListener::from(socket);
        let ours = TcpListener::from_std(deaf(nobody().0)).unwrap();
        let std = deaf(nobody().0);
        same_error(ours.accept().await, std.accept());
        same(ours.take_error().map(drop), std.take_error().map(drop));
    });
}

fn bytes(rt: Runtime) {
    rt.block_on(async {
        let mut twins = Twins::new().await;
        let (ours, mut std) = (&twins.ours, &twins.std);
        twins.tell(b"0123456789abcdefghijklmnopqrstuvwxyz");
        wait(ours, libc::POLLIN);
        wait(&std, libc::POLLIN);
        let [mut a, mut b] = [[0; 4]; 2];
        same(ours.peek(&mut a).await, std.peek(&mut b));
        same(ours.read(&mut a).await, std.read(&mut b));
        assert_eq!(a, b);
        same(ours.read_exact(&mut a).await, std.read_exact(&mut b));
        assert_eq!(a, b);
        let [mut c, mut d] = [[0; 3]; 2];
        let of_ours = &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut c)];
        let of_std = &mut [IoSliceMut::new(&mut b), IoSliceMut::new(&mut d)];
        same(ours.read_vectored(of_ours).await, std.read_vectored(of_std));
        assert_eq!((a, c), (b, d));
        std.set_nonblocking(true).unwrap();
        same(ours.try_read(&mut a), std.read(&mut b));
        let of_ours = &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut c)];
        let of_std = &mut [IoSliceMut::new(&mut b), IoSliceMut::new(&mut d)];
        same(ours.try_read_vectored(of_ours), std.read_vectored(of_std));
        assert_eq!((a, c), (b, d));
        std.set_nonblocking(false).unwrap();
        let (read, a) = ours.read_owned(a.to_vec()).await;
        same(read, std.read(&mut b));
        assert_eq!(a, b.to_vec());
        // All that is left: as much as a buffer holds.
        let lease = ours.recv().await.unwrap();
        let mut rest = [0; 100];
        let n = std.read(&mut rest).unwrap();
        assert_eq!(*lease, rest[..n]);

        let (ours, mut std) = (&twins.ours, &twins.std);
        same(ours.write(b"one").await, std.write(b"one"));
        let slices = [
            IoSlice::new(b"two"),
            IoSlice::new(b""),
            IoSlice::new(b"three"),
        ];
        same(
            ours.write_vectored(&slices).await,
            std.write_vectored(&slices),
        );
        same(ours.write_all(b"four").await, std.write_all(b"four"));
        same(ours.try_write(b"five"), std.write(b"five"));
        same(ours.send("six").await.0, std.write(b"six"));
        same(ours.send_all("seven").await.0, std.write_all(b"seven"));
        same(ours.send_zc("eight").await.0, std.write_all(b"eight"));
        let parts = vec!["ni", "", "ne"];
        same(ours.send_vectored(parts).await.0, std.write_all(b"nine"));
        let mut got = [[0; 35]; 2];
        twins.to_ours.read_exact(&mut got[0]).unwrap();
        twins.to_std.read_exact(&mut got[1]).unwrap();
        assert_eq!(got[0], got[1]);
    });
}

fn the_end(rt: Runtime) {
    rt.block_on(async {
        let twins = Twins::new().await;
        twins.tell(b"last");
        for end in twins.both() {
            end.shutdown(Shutdown::Write).unwrap();
        }
        let (ours, mut std) = (&twins.ours, &twins.std);
        let [mut a, mut b] = [[0; 8]; 2];
        let error = ours.read_exact(&mut a).await.unwrap_err();
        assert_eq!(error.kind(), std.read_exact(&mut b).unwrap_err().kind());
        for _ in 0..2 {
            same(ours.peek(&mut a).await, std.peek(&mut b));
            same(ours.read(&mut a).await, std.read(&mut b));
            same(ours.try_read(&mut a), std.read(&mut b));
        }
        // The other direction goes on, until the other end is gone.
        same(ours.write_all(b"more").await, std.write_all(b"more"));
        let Twins {
            ours,
            mut std,
            to_ours,
            to_std,
        } = twins;
        for mut end in [to_ours, to_std] {
            end.read_exact(&mut [0; 4]).unwrap();
        }
        // The first is answered by a reset, and the second not sent.
        same(ours.write(b"x").await, std.write(b"x"));
        wait(&ours, libc::POLLERR);
        wait(&std, libc::POLLERR);
        same(ours.write(b"x").await, std.write(b"x"));
        same(ours.write_all(b"x").await, std.write_all(b"x"));
        same(ours.send_all("x").await.0, std.write_all(b"x"));
        same(ours.read(&mut a).await, std.read(&mut b));
        // As text, if it is.
        for text in ["gr\u{fc}n".as_bytes(), b"gr\xfcn", b""] {
            let twins = Twins::new().await;
            twins.tell(text);
            let Twins {
                ours,
                mut std,
                to_ours,
                to_std,
            } = twins;
            drop((to_ours, to_std));
            let [mut a, mut b] = ["first".to_owned(), "first".to_owned()];
            let of_ours = ours.read_to_string(&mut a).await;
            let of_std = std.read_to_string(&mut b);
            same(
                of_ours.map_err(|e| e.kind().into()),
                of_std.map_err(|e| e.kind().into()),
            );
            assert_eq!(a, b);
        }
        // All of it, behind what was there.
        let twins = Twins::new().await;
        twins.tell(&[7; 100_000]);
        let Twins {
            ours,
            mut std,
            to_ours,
            to_std,
        } = twins;
        drop((to_ours, to_std));
        let [mut a, mut b] = [b"first".to_vec(), b"first".to_vec()];
        for _ in 0..2 {
            same(ours.read_to_end(&mut a).await, std.read_to_end(&mut b));
            assert_eq!(a, b);
        }
    });
}

/// Connections that their other ends have reset after a word.
async fn reset_behind_data() -> (TcpStream, std_net::TcpStream) {
    let twins = Twins::new().await;
    for end in twins.both() {
        let zero = Some(Duration::ZERO);
        SockRef::from(end).set_linger(zero).unwrap();
    }
    twins.tell(b"data");
    let Twins {
        ours,
        std,
        to_ours,
        to_std,
    } = twins;
    drop((to_ours, to_std));
    wait(&ours, libc::POLLERR);
    wait(&std, libc::POLLERR);
    (ours, std)
}

fn a_reset(rt: Runtime) {
    rt.block_on(async {
        for asks in 0..8 {
            let (ours, mut std) = reset_behind_data().await;
            let [mut a, mut b] = [[0; 4]; 2];
            // What came before it is there; it is told once, to who asks.
            same(ours.read(&mut a).await, std.read(&mut b));
            assert_eq!(a, b);
            match asks {
                0 => same(ours.read(&mut a).await, std.read(&mut b)),
                6 => {
                    let (to, and) = (&mut Vec::new(), &mut Vec::new());
                    same(ours.read_to_end(to).await, std.read_to_end(and));
                }
                7 => {
                    let (to, and) = (&mut String::new(), &mut String::new());
                    same(ours.read_to_string(to).await, std.read_to_string(and));
                }
                1 => same(ours.recv().await.map(|r| r.len()), std.read(&mut b)),
                2 => same(ours.peek(&mut a).await, std.peek(&mut b)),
                3 => same(ours.read_exact(&mut a).await, std.read_exact(&mut b)),
                4 => {
                    let slices = &mut [IoSliceMut::new(&mut a)];
                    let ours = ours.read_vectored(slices).await;
                    same(ours, std.read(&mut b));
                }
                _ => same(ours.read_owned(a.to_vec()).await.0, std.read(&mut b)),
            }
            same(ours.read(&mut a).await, std.read(&mut b));
            same(ours.write(b"x").await, std.write(b"x"));
            same(
                ours.shutdown(Shutdown::Write),
                std.shutdown(Shutdown::Write),
            );
            same(ours.peer_addr(), std.peer_addr());
            assert!(ours.take_error().unwrap().is_none());
        }
        // Several slices, of which the first is filled by what came before.
        let (ours, mut std) = reset_behind_data().await;
        let [mut a, mut b, mut c, mut d] = [[0; 4]; 4];
        let of_ours = &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        let of_std = &mut [IoSliceMut::new(&mut c), IoSliceMut::new(&mut d)];
        same(ours.read_vectored(of_ours).await, std.read_vectored(of_std));
        same(ours.read(&mut a).await, std.read(&mut c));
    });
}

fn ended_directions(rt: Runtime) {
    rt.block_on(async {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let twins = Twins::new().await;
            let (ours, mut std) = (&twins.ours, &twins.std);
            same(ours.shutdown(how), std.shutdown(how));
            same(ours.shutdown(how), std.shutdown(how));
            if how != Shutdown::Write {
                let [mut a, mut b] = [[0; 4]; 2];
                same(ours.read(&mut a).await, std.read(&mut b));
                same(ours.peek(&mut a).await, std.peek(&mut b));
            }
            if how == Shutdown::Read {
                same(ours.write(b"x").await, std.write(b"x"));
                continue;
            }
            same(ours.write(b"x").await, std.write(b"x"));
            same(ours.write_all(b"x").await, std.write_all(b"x"));
            same(ours.try_write(b"x"), std.write(b"x"));
            same(ours.send("x").await.0, std.write(b"x"));
            same(ours.send_all("x").await.0, std.write_all(b"x"));
            same(ours.send_zc("x").await.0, std.write_all(b"x"));
            let parts = vec!["", "x"];
            same(ours.send_vectored(parts).await.0, std.write_all(b"x"));
            let slices = [IoSlice::new(b"x")];
            same(
                ours.write_vectored(&slices).await,
                std.write_vectored(&slices),
            );
        }
        // A receive that waits is ended, as a read of std that blocks is.
        let twins = Twins::new().await;
        let (ours, std) = (&twins.ours, &twins.std);
        let blocked = std.try_clone().unwrap();
        let thread = std::thread::spawn(move || (&blocked).read(&mut [0; 4]));
        let mut buf = [0; 4];
        let (read, ()) = join(ours.read(&mut buf), async {
            isochrome::yield_now().await;
            ours.shutdown(Shutdown::Read).unwrap();
            std.shutdown(Shutdown::Read).unwrap();
        })
        .await;
        same(read, thread.join().unwrap());
    });
}

fn without_a_connection(rt: Runtime) {
    rt.block_on(async {
        let fresh = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            std_net::TcpStream::from(socket)
        };
        let ours = TcpStream::from_std(fresh()).unwrap();
        let mut std = fresh();
        let [mut a, mut b] = [[0; 4]; 2];
        same(ours.peer_addr(), std.peer_addr());
        same(ours.local_addr(), std.local_addr());
        same(ours.shutdown(Shutdown::Both), std.shutdown(Shutdown::Both));
        same(ours.read(&mut a).await, std.read(&mut b));
        same(ours.recv().await.map(|r| r.len()), std.read(&mut b));
        same(ours.peek(&mut a).await, std.peek(&mut b));
        same(ours.try_read(&mut a), std.read(&mut b));
        same(ours.write(b"x").await, std.write(b"x"));
        same(ours.send_all("x").await.0, std.write_all(b"x"));
    });
}

fn empty_buffers_ask_nobody(rt: Runtime) {
    rt.block_on(async {
        let twins = Twins::new().await;
        let (ours, mut std) = (&twins.ours, &twins.std);
        // (A read of std waits for something that it does not take.)
        assert_eq!(ours.read(&mut []).await.unwrap(), 0);
        assert_eq!(ours.peek(&mut []).await.unwrap(), 0);
        same(ours.write(b"").await, std.write(b""));
        ours.shutdown(Shutdown::Write).unwrap();
        std.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ours.write(b"").await.unwrap(), 0);
        assert_eq!(ours.send("").await.0.unwrap(), 0);
        assert_eq!(std.write(b"").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

/// A socket that another library has made and set.
fn sockets_of_others(rt: Runtime) {
    rt.block_on(async {
        let (socket, address) = nobody();
        socket.set_keepalive(true).unwrap();
        let socket = TcpSocket::from_fd(socket.into()).unwrap();
        assert!(socket.keepalive().unwrap().is_some());
        let listener = socket.listen(7).unwrap();
        let fresh = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        fresh.bind(&to(LOCAL).into()).unwrap();
        let here = fresh.local_addr().unwrap().as_socket().unwrap();
        let socket = TcpSocket::try_from(std::os::fd::OwnedFd::from(fresh)).unwrap();
        let (stream, accepted) = join(socket.connect(address), listener.accept()).await;
        let (far, peer) = accepted.unwrap();
        assert_eq!(peer, here);
        stream.unwrap().write_all(b"x").await.unwrap();
        far.read_exact(&mut [0]).await.unwrap();
        let other = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let error = TcpSocket::from_fd(other.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        // And those of std.
        let listener = std_net::TcpListener::bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::try_from(listener).unwrap();
        let stream = std_net::TcpStream::connect(address).unwrap();
        let stream = TcpStream::try_from(stream).unwrap();
        let (far, peer) = listener.accept().await.unwrap();
        same(stream.local_addr(), Ok(peer));
        drop(far);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    });
}

fn options(rt: Runtime) {
    rt.block_on(async {
        let twins = Twins::new().await;
        let (ours, std) = (&twins.ours, &twins.std);
        for on in [true, false] {
            same(ours.set_nodelay(on), std.set_nodelay(on));
            same(ours.nodelay(), std.nodelay());
        }
        for ttl in [1, 255, 0, 256] {
            same(ours.set_ttl(ttl), std.set_ttl(ttl));
            same(ours.ttl(), std.ttl());
        }
        let reference = SockRef::from(std);
        for size in [1, 100_000] {
            same(
                ours.set_send_buffer_size(size),
                reference.set_send_buffer_size(size),
            );
            same(ours.send_buffer_size(), reference.send_buffer_size());
            same(
                ours.set_recv_buffer_size(size),
                reference.set_recv_buffer_size(size),
            );
            same(ours.recv_buffer_size(), reference.recv_buffer_size());
        }
        same(
            ours.take_error().map(|e| e.is_some()),
            std.take_error().map(|e| e.is_some()),
        );
    });
}
