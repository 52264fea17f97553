//! Connecting: to several addresses, in time, and given up.

mod common;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use common::futures::poll_once;
use common::{everywhere, listen};
use isochrome::net::{ConnectError, TcpListener, TcpStream};
use isochrome::{Runtime, yield_now};
use socket2::{Domain, Socket, Type};

everywhere!(
    one_address_answers_as_the_system_does,
    every_address_says_why_not,
    an_address_that_hangs_does_not_hold_up_the_next,
    the_families_take_turns,
    a_time_limit_ends_all_attempts,
    a_time_limit_of_zero_is_refused,
    a_connect_dropped_at_any_moment_leaves_no_descriptor,
);

/// A port that never answers: its queue of connections is full, so that the
/// kernel drops what comes.
struct Silent {
    address: SocketAddr,
    _listener: Socket,
    _filler: std::net::TcpStream,
}

impl Silent {
    fn new() -> Silent {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = common::LOCAL.parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let filler = std::net::TcpStream::connect(address).unwrap();
        Silent {
            address,
            _listener: listener,
            _filler: filler,
        }
    }
}

/// A port that nobody listens at: bound, so that nobody will.
fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = common::LOCAL.parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn attempts(error: &std::io::Error) -> Vec<(SocketAddr, ErrorKind)> {
    let inner = error.get_ref().expect("it says more");
    let several = inner.downcast_ref::<ConnectError>().expect("of several");
    let attempts = several.attempts().iter();
    attempts.map(|(a, e)| (*a, e.kind())).collect()
}

fn one_address_answers_as_the_system_does(rt: Runtime) {
    rt.block_on(async {
        let (_bound, refused) = refusing();
        // None of these needs a network to be refused.
        let others = ["127.0.0.1:0", "255.255.255.255:9", "224.0.0.1:9", "[::]:0"];
        let others = others.map(|a| a.parse::<SocketAddr>().unwrap());
        for address in others.into_iter().chain([refused]) {
            let expected = std::net::TcpStream::connect(address).unwrap_err();
            for limited in [false, true] {
                let error = match limited {
                    false => TcpStream::connect(address).await,
                    true => TcpStream::connect_timeout(address, common::PATIENCE).await,
                };
                let error = error.unwrap_err();
                assert_eq!(error.raw_os_error(), expected.raw_os_error(), "{address}");
                assert_eq!(error.kind(), expected.kind(), "{address}");
            }
        }
    });
}

fn every_address_says_why_not(rt: Runtime) {
    rt.block_on(async {
        let ((_a, one), (_b, two)) = (refusing(), refusing());
        let unreachable: SocketAddr = "255.255.255.255:9".parse().unwrap();
        let all = [one, unreachable, two];
        let error = TcpStream::connect(&all[..]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let tried = attempts(&error);
        assert_eq!(tried.len(), 3);
        for address in all {
            let expected = std::net::TcpStream::connect(address).unwrap_err().kind();
            assert!(tried.contains(&(address, expected)), "{tried:?}");
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
        // The route says less than who was reached.
        let error = TcpStream::connect(&[one, unreachable][..]).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

fn an_address_that_hangs_does_not_hold_up_the_next(rt: Runtime) {
    rt.block_on(async {
        let silent = Silent::new();
        let (_bound, refused) = refusing();
        let (listener, good) = listen().await;
        for all in [
            &[silent.address, good][..],
            &[refused, silent.address, refused, good],
            &[good, silent.address],
        ] {
            let near = TcpStream::connect(all).await.unwrap();
            assert_eq!(near.peer_addr().unwrap(), good);
            let (far, peer) = listener.accept().await.unwrap();
            assert_eq!(near.local_addr().unwrap(), peer);
            drop((near, far));
        }
    });
}

fn the_families_take_turns(rt: Runtime) {
    rt.block_on(async {
        let listener = match TcpListener::bind("[::1]:0").await {
            Ok(listener) => listener,
            Err(e) => return println!("skipped: no IPv6 here: {e}"),
        };
        let six = listener.local_addr().unwrap();
        let silent = Silent::new();
        // Eight times 250 ms, if it were not the second turn's.
        let mut all = vec![silent.address; 8];
        all.push(six);
        let begun = Instant::now();
        let near = TcpStream::connect(&all[..]).await.unwrap();
        assert_eq!(near.peer_addr().unwrap(), six);
        drop(near);
        // The first has had its head start.
        assert!(begun.elapsed() >= Duration::from_millis(250));
    });
}

fn a_time_limit_ends_all_attempts(rt: Runtime) {
    rt.block_on(async {
        let silent = Silent::new();
        let limit = Duration::from_millis(30);
        let begun = Instant::now();
        let error = TcpStream::connect_timeout(silent.address, limit).await;
        let error = error.unwrap_err();
        let expected = std::net::TcpStream::connect_timeout(&silent.address, limit);
        assert_eq!(error.kind(), expected.unwrap_err().kind());
        assert!(begun.elapsed() >= limit);
        let text = error.to_string();
        assert!(text.contains(&silent.address.to_string()), "{text}");
        assert!(text.contains("30ms"), "{text}");

        let (_bound, refused) = refusing();
        let unreachable: SocketAddr = "255.255.255.255:9".parse().unwrap();
        let never: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let all = [refused, silent.address, unreachable, never];
        let mut limit = limit;
        let tried = loop {
            let error = TcpStream::connect_timeout(&all[..], limit).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let tried = attempts(&error);
            assert_eq!(tried.len(), 4);
            if tried[0] == (refused, ErrorKind::ConnectionRefused) {
                break tried;
            }
            // On a busy machine a refusal takes longer.
            assert_eq!(tried[0], (refused, ErrorKind::TimedOut));
            limit *= 4;
            assert!(limit < common::PATIENCE, "nobody refuses");
        };
        // Begun or not: it is not known what it would have said.
        for late in [silent.address, never] {
            assert!(tried.contains(&(late, ErrorKind::TimedOut)), "{tried:?}");
        }
        // In time, the limit is not seen.
        let (_listener, good) = listen().await;
        for limit in [common::PATIENCE, Duration::MAX] {
            let near = TcpStream::connect_timeout(good, limit).await.unwrap();
            assert_eq!(near.peer_addr().unwrap(), good);
        }
    });
}

fn a_time_limit_of_zero_is_refused(rt: Runtime) {
    rt.block_on(async {
        let (_listener, good) = listen().await;
        let error = TcpStream::connect_timeout(good, Duration::ZERO).await;
        let expected = std::net::TcpStream::connect_timeout(&good, Duration::ZERO);
        assert_eq!(error.unwrap_err().kind(), expected.unwrap_err().kind());
    });
}

async fn give_up_after<F: Future>(polls: usize, future: F) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if poll_once(&mut future).await.is_ready() {
            return;
        }
        yield_now().await;
    }
}

fn a_connect_dropped_at_any_moment_leaves_no_descriptor(rt: Runtime) {
    rt.block_on(async {
        let silent = Silent::new();
        let (_bound, refused) = refusing();
        let (listener, good) = listen().await;
        let before = common::descriptors();
        for polls in 0..6 {
            for all in [
                &[good][..],
                &[silent.address],
                &[refused, silent.address],
                &[silent.address, good],
                &[good, silent.address],
            ] {
                give_up_after(polls, TcpStream::connect(all)).await;
                let patience = common::PATIENCE;
                give_up_after(polls, TcpStream::connect_timeout(all, patience)).await;
            }
        }
        // Who was connected to before it was dropped waits at the listener;
        // it is not accepted, and so no descriptor of this process.
        common::eventually_async("the sockets are closed", || {
            common::descriptors().len() == before.len()
        })
        .await;
        drop(listener);
    });
}
