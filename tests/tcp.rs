//! TCP as everybody uses it: addresses, names, errors, echoes.

mod common;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use common::bytes::{Random, check, pattern};
use common::{eventually_async, everywhere, listen, pair};
use isochrome::net::{TcpListener, TcpStream, resolve};
use isochrome::{Color, Runtime, yield_now};

everywhere!(
    addresses_and_options,
    an_address_in_use_says_so,
    a_connect_to_nobody_is_refused,
    names_are_resolved,
    bad_names_say_what_is_wrong,
    version_six,
    every_way_to_receive_echoes_random_sizes,
    incoming_gives_one_connection_after_another,
    accepting_by_polls_and_attempts,
    std_sockets_are_taken_over,
    empty_buffers_are_no_operation,
);

fn addresses_and_options(rt: Runtime) {
    rt.block_on(async {
        let (listener, address) = listen().await;
        assert!(address.ip().is_loopback());
        assert_ne!(address.port(), 0, "the system chose one");
        let near = TcpStream::connect(address).await.unwrap();
        let (far, peer) = listener.accept().await.unwrap();
        assert_eq!(near.peer_addr().unwrap(), address);
        assert_eq!(near.local_addr().unwrap(), peer);
        assert_eq!(far.peer_addr().unwrap(), peer);
        assert_eq!(far.local_addr().unwrap(), address);
        for on in [true, false] {
            near.set_nodelay(on).unwrap();
            assert_eq!(near.nodelay().unwrap(), on);
        }
        assert!(format!("{near:?}").contains(&address.to_string()));
        assert!(format!("{listener:?}").contains(&address.to_string()));
    });
}

fn an_address_in_use_says_so(rt: Runtime) {
    rt.block_on(async {
        let (_listener, address) = listen().await;
        let error = TcpListener::bind(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        // The second of two addresses may do.
        let free: SocketAddr = common::LOCAL.parse().unwrap();
        let second = TcpListener::bind(&[address, free][..]).await.unwrap();
        assert_ne!(second.local_addr().unwrap(), address);
    });
}

fn a_connect_to_nobody_is_refused(rt: Runtime) {
    rt.block_on(async {
        let (listener, address) = listen().await;
        drop(listener);
        // On the proactor the close waits for the end of what was in flight.
        common::eventually_async("the port is closed", || {
            std::net::TcpStream::connect(address).is_err()
        })
        .await;
        for _ in 0..20 {
            let error = TcpStream::connect(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        let (listener, good) = listen().await;
        let both = [address, good];
        let stream = TcpStream::connect(&both[..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        drop(listener);
    });
}

fn names_are_resolved(rt: Runtime) {
    rt.block_on(async {
        // Whatever localhost is here, what was bound can be connected to.
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let by_text = TcpStream::connect(format!("localhost:{port}")).await;
        let by_pair = TcpStream::connect(("localhost", port)).await;
        for stream in [by_text.unwrap(), by_pair.unwrap()] {
            assert_eq!(stream.peer_addr().unwrap().port(), port);
        }
        let known = resolve(("127.0.0.1", 80)).await.unwrap();
        assert_eq!(known, ["127.0.0.1:80".parse().unwrap()]);
    });
}

fn bad_names_say_what_is_wrong(rt: Runtime) {
    rt.block_on(async {
        for (bad, hint) in [
            ("nonsense", "HOST:PORT"),
            ("127.0.0.1", "HOST:PORT"),
            ("host:port", "HOST:PORT"),
            ("", "HOST:PORT"),
            ("host:99999", "65535"),
        ] {
            let error = TcpStream::connect(bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
            let text = error.to_string();
            assert!(text.contains(&format!("`{bad}`")), "{text}");
            assert!(text.contains(hint), "{text}");
        }
        // RFC 6761: this top level never resolves, and needs no network to.
        for name in ["isochrome.invalid:80", "no such host:80", "a\0b:80"] {
            let error = TcpStream::connect(name).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("cannot resolve"), "{text}");
            assert!(text.contains(name.trim_end_matches(":80")), "{text}");
        }
        let none: &[SocketAddr] = &[];
        let error = TcpStream::connect(none).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

fn version_six(rt: Runtime) {
    rt.block_on(async {
        let listener = match TcpListener::bind("[::1]:0").await {
            Ok(listener) => listener,
            Err(e) => return println!("skipped: no IPv6 here: {e}"),
        };
        let address = listener.local_addr().unwrap();
        assert!(address.is_ipv6());
        let near = TcpStream::connect(address).await.unwrap();
        let (far, peer) = listener.accept().await.unwrap();
        assert_eq!(near.local_addr().unwrap(), peer);
        near.send_all("six").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"six");
    });
}

#[test]
fn without_a_runtime_the_error_says_so() {
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("without_a_runtime");
    let errors = [
        common::futures::park_on(TcpStream::connect("127.0.0.1:1")).unwrap_err(),
        common::futures::park_on(TcpListener::bind(common::LOCAL)).unwrap_err(),
        common::futures::park_on(resolve("localhost:1")).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.contains("no isochrome runtime"), "{text}");
        assert!(text.contains("block_on"), "it says what to do: {text}");
    }
}

/// How the server receives and sends back.
#[derive(Clone, Copy, Debug)]
enum Way {
    Lease,
    Borrowed,
    Owned,
    Mixed,
}

async fn echo(stream: TcpStream, way: Way) -> io::Result<()> {
    // Else the peer's late acknowledgements make this a test of patience.
    stream.set_nodelay(true)?;
    for round in 0.. {
        let turn = match way {
            Way::Mixed => [Way::Lease, Way::Borrowed, Way::Owned][round % 3],
            way => way,
        };
        let data = match turn {
            Way::Borrowed => {
                let mut buf = vec![0; 1 + round % 700];
                let n = stream.read(&mut buf).await?;
                buf.truncate(n);
                buf
            }
            Way::Owned => {
                let (n, mut buf) = stream.read_owned(vec![0; 3000]).await;
                buf.truncate(n?);
                buf
            }
            _ => {
                let lease = stream.recv().await?;
                if !lease.is_empty() {
                    let (sent, lease) = stream.send_all(lease).await;
                    sent?;
                    drop(lease);
                    continue;
                }
                Vec::new()
            }
        };
        if data.is_empty() {
            break;
        }
        stream.send_all(data).await.0?;
    }
    Ok(())
}

/// Sends messages of random sizes, expects each back, and then the end.
async fn client(to: SocketAddr, mut random: Random, rounds: usize) {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut place = 0;
    for _ in 0..rounds {
        let most = [10, 1000, 20_000][random.below(3)];
        let len = 1 + random.below(most);
        let (sent, back) = stream.send_all(pattern(place, len)).await;
        sent.unwrap();
        assert_eq!(back.len(), len, "the buffer comes back");
        let end = place + len;
        while place < end {
            let got = stream.recv().await.unwrap();
            assert!(!got.is_empty(), "ended at {place} of {end}");
            check(place, &got);
            place += got.len();
        }
        assert_eq!(place, end);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(stream.recv().await.unwrap().is_empty());
}

fn every_way_to_receive_echoes_random_sizes(rt: Runtime) {
    let mut random = Random::seeded();
    rt.block_on(async {
        for way in [Way::Lease, Way::Borrowed, Way::Owned, Way::Mixed] {
            let (listener, address) = listen().await;
            let mut tasks = Vec::new();
            for _ in 0..4 {
                let random = Random(random.next() | 1);
                tasks.push(Color::new().spawn(client(address, random, 40)));
                let (stream, _) = listener.accept().await.unwrap();
                tasks.push(Color::new().spawn(async move {
                    let echoed = echo(stream, way).await;
                    echoed.unwrap_or_else(|e| panic!("{way:?}: {e}"));
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        }
    });
}

fn incoming_gives_one_connection_after_another(rt: Runtime) {
    rt.block_on(async {
        let (listener, address) = listen().await;
        let mut incoming = listener.incoming();
        for i in 0..100u8 {
            let near = TcpStream::connect(address).await.unwrap();
            near.send_all(vec![i]).await.0.unwrap();
            let far = incoming.next().await.unwrap().unwrap();
            assert_eq!(far.peer_addr().unwrap(), near.local_addr().unwrap());
            assert_eq!(*far.recv().await.unwrap(), [i]);
        }
        assert_eq!(listener.pressure(), 0);
    });
}

fn accepting_by_polls_and_attempts(rt: Runtime) {
    rt.block_on(async {
        let (listener, address) = listen().await;
        let error = listener.try_accept().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        for i in 0..20u8 {
            // Every way finds what another began.
            let near = TcpStream::connect(address).await.unwrap();
            let mut tried = None;
            let (far, peer) = match i % 4 {
                0 => {
                    eventually_async("a connection", || {
                        tried = listener.try_accept().ok();
                        tried.is_some()
                    })
                    .await;
                    tried.unwrap()
                }
                1 => listener.accept().await.unwrap(),
                _ => poll_fn(|cx| listener.poll_accept(cx)).await.unwrap(),
            };
            assert_eq!(peer, near.local_addr().unwrap());
            near.send_all(vec![i]).await.0.unwrap();
            assert_eq!(*far.recv().await.unwrap(), [i]);
        }
        // Who waits by a poll is woken.
        let server = Color::new().spawn(async move {
            let (far, _) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
            far.send_all(b"woken".to_vec()).await.0.unwrap();
        });
        yield_now().await;
        let near = TcpStream::connect(address).await.unwrap();
        assert_eq!(*near.recv().await.unwrap(), *b"woken");
        server.await.unwrap();
    });
}

fn std_sockets_are_taken_over(rt: Runtime) {
    rt.block_on(async {
        // In either mode: the runtime sets the one that it needs.
        for nonblocking in [false, true] {
            let listener = std::net::TcpListener::bind(common::LOCAL).unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let address = listener.local_addr().unwrap();
            let near = std::net::TcpStream::connect(address).unwrap();
            near.set_nonblocking(nonblocking).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let near = TcpStream::from_std(near).unwrap();
            let (far, _) = listener.accept().await.unwrap();
            let received = Color::new().spawn(async move { far.recv().await.unwrap().to_vec() });
            isochrome::time::sleep(Duration::from_millis(1)).await;
            near.send_all(b"hello".to_vec()).await.0.unwrap();
            assert_eq!(received.await.unwrap(), b"hello");
        }
    });
}

fn empty_buffers_are_no_operation(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        assert_eq!(near.read(&mut []).await.unwrap(), 0);
        assert_eq!(near.send(Vec::new()).await.0.unwrap(), 0);
        near.send_all(Vec::new()).await.0.unwrap();
        near.send_all(isochrome::net::RecvBuf::empty())
            .await
            .0
            .unwrap();
        near.send_all("not the end").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"not the end");
    });
}
