//! Names: what the resolver says, several results, and time limits.

mod common;

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

use common::everywhere;
use isochrome::net::{TcpStream, resolve};
use isochrome::time::timeout;
use isochrome::{Builder, DriverChoice, Runtime, spawn_blocking};

everywhere!(
    all_addresses_come_in_the_resolvers_order,
    every_form_of_an_address_is_taken,
    errors_are_those_of_std_and_name_the_name,
);

fn all_addresses_come_in_the_resolvers_order(rt: Runtime) {
    rt.block_on(async {
        for name in ["localhost:80", "127.1:80"] {
            let expected: Vec<_> = name.to_socket_addrs().unwrap().collect();
            assert_eq!(resolve(name).await.unwrap(), expected);
        }
    });
}

fn every_form_of_an_address_is_taken(rt: Runtime) {
    rt.block_on(async {
        let one: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let six: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(resolve(one).await.unwrap(), [one]);
        assert_eq!(resolve(&[one, six][..]).await.unwrap(), [one, six]);
        assert_eq!(resolve("127.0.0.1:80").await.unwrap(), [one]);
        assert_eq!(resolve("[::1]:80".to_owned()).await.unwrap(), [six]);
        assert_eq!(resolve(("::1", 80)).await.unwrap(), [six]);
        let pair = ("127.0.0.1".to_owned(), 80);
        assert_eq!(resolve(&pair).await.unwrap(), [one]);
    });
}

fn errors_are_those_of_std_and_name_the_name(rt: Runtime) {
    rt.block_on(async {
        for name in ["isochrome.invalid:80", "no such host:80", "a\0b:80"] {
            let expected = name.to_socket_addrs().unwrap_err();
            let error = resolve(name).await.unwrap_err();
            assert_eq!(error.kind(), expected.kind(), "{name}");
            let text = error.to_string();
            assert!(text.contains(name.trim_end_matches(":80")), "{text}");
            assert!(text.contains(&expected.to_string()), "{text}");
        }
    });
}

/// A resolver that takes its time: the pool's only thread is busy.
#[test]
fn a_look_up_can_be_given_up() {
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("a_look_up_can_be_given_up");
    for driver in [DriverChoice::Reactor, DriverChoice::Proactor] {
        if !common::works(driver) {
            continue;
        }
        let builder = Builder::new().driver(driver).workers(2);
        let runtime = builder.blocking_threads(1).blocking_queue(3);
        runtime.build().unwrap().block_on(async {
            let (free, busy) = mpsc::channel::<()>();
            let (began, begun) = mpsc::channel();
            let blocked = spawn_blocking(move || {
                began.send(()).unwrap();
                let _ = busy.recv();
            });
            begun.recv().unwrap();
            let limit = Duration::from_millis(5);
            // These three look-ups stay in the queue.
            timeout(limit, resolve("localhost:80")).await.unwrap_err();
            for _ in 0..2 {
                let error = TcpStream::connect_timeout("localhost:80", limit).await;
                let error = error.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                assert!(error.to_string().contains("resolving"), "{error}");
            }
            let error = resolve("localhost:80").await.unwrap_err();
            assert!(error.to_string().contains("full"), "{error}");
            drop(free);
            blocked.await.unwrap();
            let found = loop {
                match resolve("localhost:80").await {
                    Ok(found) => break found,
                    Err(_) => isochrome::yield_now().await,
                }
            };
            assert!(!found.is_empty());
        });
    }
}
