//! A runtime driven by a host's own event loop: turn, descriptor, deadline.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use isochrome::net::TcpListener;
use isochrome::time::sleep;
use isochrome::{Builder, DriverChoice, Runtime};

/// Runs the loop that a host would run, until `done`. Returns how often it
/// turned.
fn host(runtime: &Runtime, done: impl Fn() -> bool) -> usize {
    let fd = runtime.as_fd().expect("both drivers have one").as_raw_fd();
    let mut turns = 0;
    runtime.turn(Some(Duration::ZERO));
    while !done() {
        let wait = match runtime.next_deadline() {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => Duration::from_secs(30),
        };
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let ms = wait.as_micros().div_ceil(1000) as i32;
        // SAFETY: one entry, which lives across the call.
        let ready = unsafe { libc::poll(&mut poll, 1, ms) };
        assert!(ready >= 0);
        assert!(
            ready > 0 || wait < Duration::from_secs(30),
            "nobody woke the host"
        );
        runtime.turn(Some(Duration::ZERO));
        turns += 1;
    }
    turns
}

fn each(body: impl Fn(Runtime)) {
    for driver in [DriverChoice::Reactor, DriverChoice::Proactor] {
        match Builder::new().driver(driver).workers(1).build() {
            Ok(runtime) => body(runtime),
            Err(e) if driver == DriverChoice::Proactor => println!("skipped: {e}"),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn timers_bound_the_wait() {
    each(|runtime| {
        let start = Instant::now();
        let task = runtime.handle().spawn(async {
            for _ in 0..5 {
                sleep(Duration::from_millis(10)).await;
            }
        });
        let turns = host(&runtime, || task.is_finished());
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert!(turns < 100, "{turns} turns for five timers: it spins");
    });
}

#[test]
fn foreign_threads_make_the_descriptor_readable() {
    each(|runtime| {
        let (send, receive) = mpsc::channel();
        runtime.turn(Some(Duration::ZERO));
        let handle = runtime.handle().clone();
        let other = std::thread::spawn(move || {
            for n in 0..100 {
                let send = send.clone();
                drop(handle.spawn(async move { send.send(n).unwrap() }));
            }
        });
        let mut got = Vec::new();
        let got = std::cell::RefCell::new(&mut got);
        host(&runtime, || {
            got.borrow_mut().extend(receive.try_iter());
            got.borrow().len() == 100
        });
        assert!(got.borrow().iter().copied().eq(0..100), "in order");
        other.join().unwrap();
    });
}

#[test]
fn sockets_are_served_between_other_work() {
    each(|runtime| {
        let (tell, told) = mpsc::channel();
        let server = runtime.handle().spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            loop {
                let data = stream.recv().await.unwrap();
                if data.is_empty() {
                    return;
                }
                stream.send_all(data).await.0.unwrap();
            }
        });
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(told.recv().unwrap()).unwrap();
            for round in 0..200u32 {
                let message = round.to_le_bytes();
                stream.write_all(&message).unwrap();
                let mut back = [0; 4];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, message);
            }
        });
        host(&runtime, || server.is_finished());
        client.join().unwrap();
    });
}
