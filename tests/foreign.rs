//! Two runtimes in one process, and executors that are not ours.

mod common;

use std::future::poll_fn;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::bytes::{check, pattern};
use common::futures::{Event, park_on};
use common::{build, everywhere, listen, pair};
use isochrome::net::{TcpListener, TcpStream};
use isochrome::{Color, DriverChoice, Runtime};

everywhere!(
    two_runtimes_talk,
    a_socket_works_inside_another_runtime,
    a_socket_works_on_a_plain_thread,
    a_timer_of_a_handle_works_on_a_plain_thread,
    poll_forms_do_as_the_futures_do,
    one_runtime_runs_inside_another,
);

async fn echo(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            return;
        }
        stream.send_all(data).await.0.unwrap();
    }
}

async fn ask(stream: &TcpStream, rounds: usize) {
    stream.set_nodelay(true).unwrap();
    let mut place = 0;
    for i in 0..rounds {
        let len = 1 + (i * 977) % 30_000;
        stream.send_all(pattern(place, len)).await.0.unwrap();
        let end = place + len;
        let mut buf = [0; 5_000];
        while place < end {
            if i % 2 == 0 {
                let data = stream.recv().await.unwrap();
                assert!(!data.is_empty());
                check(place, &data);
                place += data.len();
            } else {
                let n = stream.read(&mut buf).await.unwrap();
                assert!(n > 0);
                check(place, &buf[..n]);
                place += n;
            }
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(stream.recv().await.unwrap().is_empty());
}

fn other(driver: &str) -> DriverChoice {
    match driver {
        "reactor" if common::works(DriverChoice::Proactor) => DriverChoice::Proactor,
        _ => DriverChoice::Reactor,
    }
}

fn two_runtimes_talk(rt: Runtime) {
    let (driver, workers) = (other(rt.driver()), rt.workers());
    let (tell, told) = channel();
    let server = thread::spawn(move || {
        let rt = build(driver, workers);
        rt.block_on(async {
            let (listener, address) = listen().await;
            tell.send(address).unwrap();
            let mut tasks = Vec::new();
            for _ in 0..10 {
                let (stream, _) = listener.accept().await.unwrap();
                tasks.push(Color::new().spawn(echo(stream)));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(rt.shutdown(), 0);
    });
    let address = told.recv().unwrap();
    rt.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..10 {
            let stream = TcpStream::connect(address).await.unwrap();
            tasks.push(Color::new().spawn(async move { ask(&stream, 20).await }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    server.join().unwrap();
}

/// Runs `body` on another thread with sockets of this runtime, which is in
/// `block_on` meanwhile: one end of a connection and a listener.
fn lend(rt: &Runtime, body: impl FnOnce(TcpStream, Arc<TcpListener>) + Send + 'static) {
    let over = Event::default();
    rt.block_on(async {
        let (near, far) = pair().await;
        let server = Color::new().spawn(echo(far));
        let (listener, address) = listen().await;
        let thread = thread::spawn({
            let over = over.clone();
            move || {
                // Also when it panics.
                struct Over(Event);
                impl Drop for Over {
                    fn drop(&mut self) {
                        self.0.set();
                    }
                }
                let _over = Over(over);
                body(near, Arc::new(listener));
            }
        });
        let visitors = Color::new().spawn(async move {
            for _ in 0..20 {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.send_all("visitor").await.0.unwrap();
                assert!(stream.recv().await.unwrap().is_empty());
            }
        });
        over.wait().await;
        thread.join().unwrap();
        server.await.unwrap();
        visitors.await.unwrap();
    });
}

async fn receive_visitors(listener: &TcpListener) {
    for _ in 0..20 {
        let (stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while got.len() < 7 {
            got.extend_from_slice(&stream.recv().await.unwrap());
        }
        assert_eq!(got, b"visitor");
    }
}

fn a_socket_works_inside_another_runtime(rt: Runtime) {
    for driver in [rt.driver().parse().unwrap(), other(rt.driver())] {
        let workers = rt.workers();
        lend(&rt, move |stream, listener| {
            let inner = build(driver, workers);
            inner.block_on(async {
                let visitors = Color::new().spawn({
                    let listener = listener.clone();
                    async move { receive_visitors(&listener).await }
                });
                ask(&stream, 50).await;
                visitors.await.unwrap();
            });
        });
    }
}

fn a_socket_works_on_a_plain_thread(rt: Runtime) {
    lend(&rt, |stream, listener| {
        let visitors = thread::spawn(move || park_on(receive_visitors(&listener)));
        park_on(ask(&stream, 50));
        visitors.join().unwrap();
    });
}

/// The runtime's workers sleep when the timer is started from outside.
fn a_timer_of_a_handle_works_on_a_plain_thread(rt: Runtime) {
    const TIME: Duration = Duration::from_millis(20);
    let over = Event::default();
    let (handle, set) = (rt.handle().clone(), over.clone());
    let thread = thread::spawn(move || {
        for _ in 0..5 {
            let start = Instant::now();
            park_on(handle.sleep_until(start + TIME));
            assert!(start.elapsed() >= TIME, "early");
        }
        set.set();
    });
    rt.block_on(over.wait());
    thread.join().unwrap();
}

fn poll_forms_do_as_the_futures_do(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        near.send_all("0123456789").await.0.unwrap();
        drop(near);
        let (mut buf, mut got) = ([0; 4], Vec::new());
        let n = poll_fn(|cx| far.poll_read(cx, &mut buf)).await.unwrap();
        got.extend_from_slice(&buf[..n]);
        loop {
            let lease = poll_fn(|cx| far.poll_recv(cx)).await.unwrap();
            if lease.is_empty() {
                break;
            }
            got.extend_from_slice(&lease);
        }
        assert_eq!(got, b"0123456789");
        assert_eq!(poll_fn(|cx| far.poll_read(cx, &mut buf)).await.unwrap(), 0);
    });
}

fn one_runtime_runs_inside_another(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let server = Color::new().spawn(echo(far));
        let inner = build(other(rt.driver()), 1);
        inner.block_on(async {
            let (a, b) = pair().await;
            let echo = isochrome::spawn(echo(b));
            ask(&a, 10).await;
            echo.await.unwrap();
        });
        drop(inner);
        ask(&near, 10).await;
        server.await.unwrap();
    });
}
