//! The server helper: limits, timeouts, the end, and clients that mean harm.

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::futures::Event;
use common::{LOCAL, PATIENCE, eventually, everywhere, on_both_drivers};
use isochrome::net::{
    Serve, ServeHandle, ServeStats, Session, TcpListener, TcpStream, Unix, UnixListener,
    UnixSeqpacket, UnixSeqpacketListener, UnixStream, serve,
};
use isochrome::{Builder, Color, Report, Runtime, spawn};

/// Long for whoever waits for it, and never over by itself in a test.
const NEVER: Duration = Duration::from_secs(600);

/// Short, and long enough for a request on a busy machine.
const SHORT: Duration = Duration::from_millis(300);

async fn echo(stream: TcpStream, session: Session) -> io::Result<()> {
    loop {
        let data = stream.recv().await?;
        if data.is_empty() || session.is_closing() {
            return Ok(());
        }
        session.head_is_complete();
        stream.send_all(data).await.0?;
    }
}

/// Runs `clients` on a thread while the server runs, closes the server, and
/// returns its figures.
fn served<H, F>(
    rt: &Runtime,
    handler: H,
    set: impl FnOnce(Serve<H>) -> Serve<H>,
    clients: impl FnOnce(SocketAddr, ServeHandle) + Send + 'static,
) -> ServeStats
where
    H: Fn(TcpStream, Session) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    rt.block_on(async {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = set(serve(listener, handler));
        let handle = server.handle();
        let clients = thread::spawn(move || {
            clients(address, handle.clone());
            handle.close();
        });
        let stats = server.run().await.unwrap();
        // Connections are closed by the worker, so that it must not block.
        common::eventually_async("the clients", || clients.is_finished()).await;
        clients.join().unwrap();
        assert_eq!(stats.open, 0);
        let ended = stats.completed + stats.failed + stats.panicked + stats.shed;
        let taken = stats.idle + stats.head + stats.cut;
        assert_eq!(stats.accepted, ended + taken, "{stats:?}");
        stats
    })
}

fn connect(to: SocketAddr) -> StdStream {
    let stream = StdStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn exchange(stream: &mut StdStream) {
    stream.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
}

/// Waits for the end of the connection, orderly or not.
fn ends(stream: &mut StdStream) {
    loop {
        match stream.read(&mut [0; 100]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}");
                return;
            }
        }
    }
}

fn each_connection_has_a_color_of_its_own(rt: Runtime) {
    let colors = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = colors.clone();
    let handler = move |stream, session: Session| {
        let seen = seen.clone();
        async move {
            assert!(session.peer().ip().is_loopback());
            seen.lock().unwrap().push(Color::current().unwrap());
            echo(stream, session).await
        }
    };
    let stats = served(
        &rt,
        handler,
        |s| s,
        |address, _| {
            let mut clients: Vec<_> = (0..10).map(|_| connect(address)).collect();
            clients.iter_mut().for_each(exchange);
        },
    );
    assert_eq!((stats.accepted, stats.completed), (10, 10));
    let colors = colors.lock().unwrap();
    for (i, a) in colors.iter().enumerate() {
        assert!(colors[..i].iter().all(|b| a != b));
    }
}

fn who_is_too_many_waits(rt: Runtime) {
    let most = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (most.clone(), open.clone());
    let handler = move |stream, session| {
        let (seen, count) = (seen.clone(), count.clone());
        async move {
            let now = count.fetch_add(1, Ordering::Relaxed) + 1;
            seen.fetch_max(now, Ordering::Relaxed);
            let end = echo(stream, session).await;
            count.fetch_sub(1, Ordering::Relaxed);
            end
        }
    };
    let stats = served(
        &rt,
        handler,
        |s| s.limit(3),
        |address, handle| {
            let mut clients: Vec<_> = (0..12).map(|_| connect(address)).collect();
            while !clients.is_empty() {
                // The first three are served; nobody else is accepted.
                clients.iter_mut().take(3).for_each(exchange);
                assert!(handle.stats().open <= 3);
                clients.remove(0);
            }
        },
    );
    assert_eq!(stats.accepted, 12);
    assert_eq!(most.load(Ordering::Relaxed), 3);
}

fn the_idle_are_closed_and_the_busy_are_not(rt: Runtime) {
    let set = |s: Serve<_>| s.idle_timeout(SHORT);
    let stats = served(&rt, echo, set, |address, _| {
        let mut busy = connect(address);
        let mut silent: Vec<_> = (0..20).map(|_| connect(address)).collect();
        let mut once = connect(address);
        exchange(&mut once);
        let begun = Instant::now();
        while begun.elapsed() < 3 * SHORT {
            exchange(&mut busy);
            thread::sleep(SHORT / 30);
        }
        silent.iter_mut().for_each(ends);
        ends(&mut once);
        exchange(&mut busy);
    });
    assert_eq!((stats.idle, stats.completed), (21, 1));
}

fn slow_heads_are_closed_however_busy_they_are(rt: Runtime) {
    // A head ends with a line's end, as one of HTTP does.
    let handler = |stream: TcpStream, session: Session| async move {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let data = stream.recv().await?;
            if data.is_empty() {
                return Ok(());
            }
            line.extend_from_slice(&data);
        }
        session.head_is_complete();
        stream.send_all(line).await.0?;
        echo(stream, session).await
    };
    let set = |s: Serve<_>| s.head_timeout(SHORT).idle_timeout(NEVER);
    let stats = served(&rt, handler, set, |address, _| {
        let mut good = connect(address);
        good.write_all(b"hello\n").unwrap();
        let mut slow: Vec<_> = (0..50).map(|_| connect(address)).collect();
        while !slow.is_empty() {
            // One byte after another, for ever.
            slow.retain_mut(|client| client.write_all(b"x").is_ok());
            thread::sleep(Duration::from_millis(10));
        }
        let mut line = [0; 6];
        good.read_exact(&mut line).unwrap();
        exchange(&mut good);
    });
    assert_eq!((stats.head, stats.completed), (50, 1));
}

fn each_head_has_its_time(rt: Runtime) {
    let handler = |stream: TcpStream, session: Session| async move {
        loop {
            let data = stream.recv().await?;
            session.head_is_complete();
            if data.is_empty() {
                return Ok(());
            }
            // The answer takes longer than a head may.
            isochrome::time::sleep(SHORT + SHORT / 2).await;
            stream.send_all(data).await.0?;
            session.head_begins();
        }
    };
    let stats = served(
        &rt,
        handler,
        |s| s.head_timeout(SHORT),
        |address, _| {
            let mut client = connect(address);
            exchange(&mut client);
            exchange(&mut client);
            ends(&mut client);
        },
    );
    assert_eq!((stats.head, stats.accepted), (1, 1));
}

fn a_thousand_half_open_clients_keep_nobody_out(rt: Runtime) {
    let set = |s: Serve<_>| s.limit(100).idle_timeout(SHORT);
    let stats = served(&rt, echo, set, |address, _| {
        let mut silent: Vec<_> = (0..1000).map(|_| connect(address)).collect();
        let mut client = connect(address);
        exchange(&mut client);
        // Ten batches of a hundred, each as long as they may be silent: the
        // first have had their time when the client had its answer.
        silent.iter_mut().for_each(ends);
    });
    assert_eq!(stats.accepted, 1001);
    assert!(stats.idle >= 1000, "{stats:?}");
}

fn a_storm_of_resets_leaves_nothing(rt: Runtime) {
    const CLIENTS: usize = 2000;
    let stats = served(
        &rt,
        echo,
        |s| s,
        |address, handle| {
            for i in 0..CLIENTS {
                let client = connect(address);
                if i % 2 == 0 {
                    (&client).write_all(b"x").unwrap();
                }
                let client = socket2::Socket::from(client);
                client.set_linger(Some(Duration::ZERO)).unwrap();
            }
            let mut client = connect(address);
            exchange(&mut client);
            drop(client);
            eventually("all to be gone", || handle.stats().open == 0);
        },
    );
    // Some may be reset before they are accepted.
    assert!(stats.accepted <= CLIENTS as u64 + 1);
    assert!(stats.completed >= 1);
}

fn the_end_waits_for_who_is_being_served(rt: Runtime) {
    let handler = |stream: TcpStream, session: Session| async move {
        let data = stream.recv().await?;
        session.closing().await;
        stream.send_all(data).await.0
    };
    let stats = served(
        &rt,
        handler,
        |s| s.grace(NEVER),
        |address, handle| {
            let mut clients: Vec<_> = (0..10).map(|_| connect(address)).collect();
            for client in &mut clients {
                client.write_all(b"last").unwrap();
            }
            eventually("all to be served", || handle.stats().open == 10);
            handle.close();
            for mut client in clients {
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).unwrap();
                assert_eq!(answer, b"last");
            }
            eventually("nobody to listen", || StdStream::connect(address).is_err());
        },
    );
    assert_eq!((stats.completed, stats.cut), (10, 0));
}

fn who_does_not_end_is_cut(rt: Runtime) {
    let drops = Arc::new(AtomicUsize::new(0));
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = drops.clone();
    let handler = move |stream: TcpStream, _| {
        let dropped = Dropped(count.clone());
        async move {
            let _dropped = dropped;
            loop {
                let data = stream.recv().await?;
                stream.send_all(data).await.0?;
            }
        }
    };
    let set = |s: Serve<_>| s.grace(Duration::from_millis(20));
    let stats = served(&rt, handler, set, |address, handle| {
        let mut clients: Vec<_> = (0..10).map(|_| connect(address)).collect();
        clients.iter_mut().for_each(exchange);
        handle.close();
        clients.iter_mut().for_each(ends);
    });
    assert_eq!((stats.completed, stats.cut), (0, 10));
    assert_eq!(drops.load(Ordering::Relaxed), 10);
}

fn ends_of_all_kinds_are_counted(rt: Runtime) {
    let handler = |stream: TcpStream, _| async move {
        match &stream.recv().await?[..] {
            b"fail" => Err(io::Error::other("as asked")),
            b"boom" => panic!("as asked"),
            _ => Ok(()),
        }
    };
    let stats = served(
        &rt,
        handler,
        |s| s,
        |address, _| {
            for word in [&b"fail"[..], b"boom", b"well", b"boom"] {
                let mut client = connect(address);
                client.write_all(word).unwrap();
                ends(&mut client);
            }
        },
    );
    let counts = (stats.completed, stats.failed, stats.panicked);
    assert_eq!(counts, (1, 1, 2));
}

/// More work than can be done is shed, and what is not shed is answered.
fn what_cannot_be_done_in_time_is_shed(rt: Runtime) {
    const CLIENTS: usize = 200;
    let handler = |stream: TcpStream, session: Session| async move {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(10) {
            std::hint::spin_loop();
        }
        echo(stream, session).await
    };
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    let set = |s: Serve<_>| s.shed(Duration::from_millis(5));
    let stats = served(&rt, handler, set, move |address, _| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
        for mut client in clients {
            let mut answer = [0; 4];
            // To one that was reset, both may fail.
            let sent = client.write_all(b"ping");
            if sent.and_then(|()| client.read_exact(&mut answer)).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert_eq!(stats.accepted, CLIENTS as u64);
    assert_eq!(stats.completed, answered.load(Ordering::Relaxed) as u64);
    assert!(stats.shed > 0, "{stats:?}");
    assert!(stats.completed > 0, "{stats:?}");
}

fn a_server_that_is_dropped_lets_its_connections_be(rt: Runtime) {
    rt.block_on(async {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, echo);
        let handle = server.handle();
        let run = spawn(server.run());
        let gone = Event::with_room(1);
        let said = gone.clone();
        let client = thread::spawn(move || {
            let mut client = connect(address);
            exchange(&mut client);
            common::futures::park_on(said.wait());
            eventually("nobody to listen", || StdStream::connect(address).is_err());
            exchange(&mut client);
        });
        common::eventually_async("a client", || handle.stats().open == 1).await;
        run.abort();
        assert!(run.await.unwrap_err().is_aborted());
        gone.set();
        common::eventually_async("its end", || client.is_finished()).await;
        client.join().unwrap();
        common::eventually_async("the end", || handle.stats().open == 0).await;
        assert_eq!(handle.stats().completed, 1);
    });
}

/// `Duration::MAX`, as "no limit" is often written.
fn limits_beyond_the_clock_are_none(rt: Runtime) {
    let handler = |stream: TcpStream, session: Session| async move {
        session.head_begins();
        echo(stream, session).await
    };
    let set = |server: Serve<_>| {
        let server = server.idle_timeout(Duration::MAX);
        server.head_timeout(Duration::MAX).grace(Duration::MAX)
    };
    let stats = served(&rt, handler, set, |address, _| {
        exchange(&mut connect(address));
    });
    assert_eq!((stats.accepted, stats.completed), (1, 1), "{stats:?}");
}

fn another_executor_serves_too(rt: Runtime) {
    rt.block_on(async {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, echo);
        let handle = server.handle();
        let run = thread::spawn(move || common::futures::park_on(server.run()));
        let client = thread::spawn(move || {
            exchange(&mut connect(address));
            handle.close();
        });
        common::eventually_async("the end", || run.is_finished()).await;
        let stats = run.join().unwrap().unwrap();
        assert_eq!((stats.accepted, stats.completed), (1, 1), "{stats:?}");
        client.join().unwrap();
    });
}

/// One family after another, by the same code.
fn local_sockets_are_served_too(rt: Runtime) {
    rt.block_on(async {
        let name = format!("\0isochrome-serve-{}", std::process::id());
        let listener = UnixListener::bind(&name[..]).unwrap();
        let server = serve(listener, |stream, session: Session<Unix>| async move {
            assert!(session.peer().is_unnamed());
            let data = stream.recv().await?;
            session.head_is_complete();
            stream.send_all(data).await.0?;
            session.closing().await;
            Ok(())
        });
        let server = server.head_timeout(SHORT).limit(2);
        let handle = server.handle();
        let run = spawn(server.run());
        let mut answer = [0; 4];
        let first = UnixStream::connect(&name[..]).await.unwrap();
        first.send_all("ping").await.0.unwrap();
        first.read_exact(&mut answer).await.unwrap();
        // Says nothing, and is closed; who was third is served then.
        let silent = UnixStream::connect(&name[..]).await.unwrap();
        let third = UnixStream::connect(&name[..]).await.unwrap();
        third.send_all("pong").await.0.unwrap();
        third.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
        assert!(silent.recv().await.unwrap().is_empty());
        handle.close();
        let stats = run.await.unwrap().unwrap();
        assert_eq!((stats.accepted, stats.completed, stats.head), (3, 2, 1));

        let name = format!("\0isochrome-serve-packets-{}", std::process::id());
        let listener = UnixSeqpacketListener::bind(&name[..]).unwrap();
        let server = serve(listener, |socket, _| async move {
            let mut buf = [0; 10];
            while let Some(got) = socket.recv(&mut buf).await? {
                socket.send(&buf[..got.len]).await?;
            }
            Ok(())
        });
        let handle = server.handle();
        let run = spawn(server.run());
        let client = UnixSeqpacket::connect(&name[..]).await.unwrap();
        client.send(b"packet").await.unwrap();
        let mut buf = [0; 10];
        assert_eq!(client.recv(&mut buf).await.unwrap().unwrap().len, 6);
        drop(client);
        handle.close();
        assert_eq!(run.await.unwrap().unwrap().completed, 1);
    });
}

everywhere!(
    limits_beyond_the_clock_are_none,
    another_executor_serves_too,
    local_sockets_are_served_too,
    each_connection_has_a_color_of_its_own,
    who_is_too_many_waits,
    the_end_waits_for_who_is_being_served,
    who_does_not_end_is_cut,
    ends_of_all_kinds_are_counted,
    a_server_that_is_dropped_lets_its_connections_be,
);

on_both_drivers!(
    the_idle_are_closed_and_the_busy_are_not,
    slow_heads_are_closed_however_busy_they_are,
    each_head_has_its_time,
    a_thousand_half_open_clients_keep_nobody_out,
    a_storm_of_resets_leaves_nothing,
    what_cannot_be_done_in_time_is_shed,
);

/// What the library spawns for a handler is told by the place in the program.
#[test]
fn a_handler_that_takes_long_is_reported_with_the_place_of_serve() {
    const LIMIT: Duration = Duration::from_millis(5);
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("a handler that takes long");
    let (tell, told) = std::sync::mpsc::channel();
    let rt = Builder::new()
        .workers(2)
        .long_poll(LIMIT)
        .on_report(move |report| drop(tell.send(report.clone())))
        .build()
        .unwrap();
    rt.block_on(async {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler = |_: TcpStream, _| async move {
            thread::sleep(4 * LIMIT);
            Ok(())
        };
        let (server, line) = (serve(listener, handler), line!());
        let handle = server.handle();
        let running = spawn(server.run());
        TcpStream::connect(address).await.unwrap();
        let ours = |report: &Report| {
            // A busy machine makes others long.
            matches!(report, Report::LongPoll { spawned_at, .. }
                if spawned_at.file().ends_with("tests/serve.rs") && spawned_at.line() == line)
        };
        common::eventually_async("a report", || told.try_iter().any(|report| ours(&report))).await;
        handle.close();
        running.await.unwrap().unwrap();
    });
}
