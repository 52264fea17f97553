//! The examples, as their users run them: child processes, plain blocking
//! clients.

#[path = "common/example_process.rs"]
mod example_process;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use example_process::{
    PATIENCE, Process, Server, an_address_in_use_is_told, bad_flags_are_explained,
    io_uring_refused, on_both_drivers,
};
use libc::{SIGCONT, SIGINT, SIGSTOP, SIGTERM};
use socket2::{Domain, Socket, Type};

on_both_drivers! {
    the_first_line_says_where_and_on_what
    what_comes_goes_back
    the_default_color_serves_all_the_same
    a_listener_that_is_handed_over_is_served
    delimited_at_every_split
    those_above_the_maximum_are_refused
    the_silent_are_closed
    the_speaking_are_not_closed_for_silence
    statistics_are_printed
    a_signal_under_load_loses_nothing
    a_slow_client_loses_nothing_at_the_end
    a_signal_with_idle_clients_ends_promptly
    a_stuck_client_is_cut_at_the_end
    a_second_signal_ends_at_once
    the_client_verifies_every_byte
    the_client_notices_a_server_that_leaves
}

/// Sends and reads back.
fn exchange(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    assert!(answer == message, "wrong bytes");
    Ok(())
}

fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an orderly end");
    bytes
}

/// Bytes that do not repeat soon.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect()
}

/// Tries `attempt` until it says yes.
fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !attempt() {
        assert!(begun.elapsed() < PATIENCE, "waited too long: {what}");
        thread::yield_now();
    }
}

fn the_first_line_says_where_and_on_what(driver: &str) {
    let server = Server::start(driver, &[]);
    let port = server.addr.port();
    assert_eq!(
        server.first_line,
        format!("listening on 127.0.0.1:{port} driver={driver} workers=2")
    );
    assert_ne!(port, 0);
    let totals = server.stop(SIGINT);
    assert_eq!(totals.connections, 0);
}

fn echo_some(server: &Server) -> u64 {
    let mut client = server.connect();
    exchange(&mut client, b"hello").unwrap();
    for len in [1, 100, 10_000, 60_000] {
        exchange(&mut client, &bytes(len)).unwrap();
    }
    // More than all buffers on the way hold: it comes back while it is sent.
    let large = bytes(8 << 20);
    thread::scope(|s| {
        s.spawn(|| {
            (&client).write_all(&large).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        // And what was sent before the end of the stream is still answered.
        assert!(read_to_end(&client) == large, "wrong bytes");
    });
    (5 + 1 + 100 + 10_000 + 60_000 + large.len()) as u64
}

fn what_comes_goes_back(driver: &str) {
    let server = Server::start(driver, &[]);
    let first = echo_some(&server);
    let second = echo_some(&server);
    let totals = server.stop(SIGTERM);
    assert_eq!(totals.connections, 2);
    assert_eq!(totals.received, first + second);
    assert_eq!(totals.sent, first + second);
    assert_eq!((totals.errors, totals.cut, totals.discarded), (0, 0, 0));
}

fn a_listener_that_is_handed_over_is_served(driver: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let args = ["--listen-fds", "--driver", driver];
    let server = Server::listening(Process::start_with(&listener, "echo_server", &args));
    assert_eq!(server.addr, listener.local_addr().unwrap());
    // Connections come to the server alone.
    drop(listener);
    let bytes = echo_some(&server);
    assert_eq!(server.stop(SIGTERM).sent, bytes);

    let none = Process::start("echo_server", &args);
    let (status, _, errors) = none.end();
    assert_eq!(status.code(), Some(1));
    assert!(errors.concat().contains("was handed over"), "{errors:?}");
}

fn the_default_color_serves_all_the_same(driver: &str) {
    let server = Server::start(driver, &["--color", "default"]);
    let bytes = echo_some(&server);
    assert_eq!(server.stop(SIGTERM).sent, bytes);
}

const DELIMITED: [(&[u8], &[u8]); 3] = [
    (b"^abc$de^abte$f", b"bcdbcuf"),
    (b"xyz^123", b"234"),
    (b"25$^ab$abab", b"36bc"),
];

/// What the first `len` bytes of a session are answered with.
fn delimited_answer(input: &[u8]) -> Vec<u8> {
    let mut echoing = false;
    let mut answer = Vec::new();
    for &byte in input {
        match byte {
            b'^' if !echoing => echoing = true,
            b'$' if echoing => echoing = false,
            _ if echoing => answer.push(byte.wrapping_add(1)),
            _ => {}
        }
    }
    answer
}

fn delimited_at_every_split(driver: &str) {
    let server = Server::start(driver, &["--protocol", "delimited"]);
    let (input, output) = DELIMITED.iter().fold((vec![], vec![]), |(i, o), (a, b)| {
        ([&i, *a].concat(), [&o, *b].concat())
    });
    assert_eq!(output, b"bcdbcuf23436bc");
    let single: Vec<usize> = (0..input.len()).collect();
    let splits = (0..=input.len()).map(|at| vec![at]).chain([single]);
    let mut sent = 0;
    for cuts in splits {
        let mut client = server.connect();
        let (mut from, mut read) = (0, 0);
        expect(&mut client, b"*");
        for to in cuts.into_iter().chain([input.len()]) {
            client.write_all(&input[from..to]).unwrap();
            // Reading the answer keeps what follows from joining what was
            // sent, wherever there is an answer.
            let answer = delimited_answer(&input[..to]);
            expect(&mut client, &answer[read..]);
            (from, read) = (to, answer.len());
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&client), b"", "nothing but the answer");
        assert_eq!(read, output.len());
        sent += 1 + output.len() as u64;
    }
    assert_eq!(server.stop(SIGTERM).sent, sent);
}

fn expect(client: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

/// Waits until the server closes the connection. It is free to reset it.
fn expect_close(client: &mut TcpStream) {
    match client.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

fn those_above_the_maximum_are_refused(driver: &str) {
    let server = Server::start(driver, &["--max-connections", "2"]);
    let (mut first, mut second) = (server.connect(), server.connect());
    exchange(&mut first, b"first").unwrap();
    exchange(&mut second, b"second").unwrap();
    expect_close(&mut server.connect());
    exchange(&mut first, b"still here").unwrap();
    drop(second);
    let mut attempts = 1;
    let mut third = None;
    eventually("there is room again", || {
        attempts += 1;
        let mut client = server.connect();
        let served = exchange(&mut client, b"third").is_ok();
        third = Some(client);
        served
    });
    exchange(&mut first, b"and still").unwrap();
    let totals = server.stop(SIGTERM);
    assert_eq!(totals.connections, 3);
    assert_eq!(totals.refused, attempts - 1);
}

fn the_silent_are_closed(driver: &str) {
    let server = Server::start(driver, &["--idle-timeout", "0.3"]);
    let mut never_spoke = server.connect();
    let mut spoke = server.connect();
    exchange(&mut spoke, b"hello").unwrap();
    let begun = Instant::now();
    expect_close(&mut spoke);
    // It was silent for a while before the clock was read here.
    assert!(begun.elapsed() >= Duration::from_millis(100));
    expect_close(&mut never_spoke);
    let totals = server.stop(SIGTERM);
    assert_eq!((totals.idle, totals.errors), (2, 0));
}

fn the_speaking_are_not_closed_for_silence(driver: &str) {
    let server = Server::start(driver, &["--idle-timeout", "2"]);
    let mut client = server.connect();
    let begun = Instant::now();
    let mut count = 0;
    // Longer than the timeout; a pause between two bytes is far shorter.
    while begun.elapsed() < Duration::from_millis(2500) {
        exchange(&mut client, b"x").unwrap();
        count += 1;
    }
    let totals = server.stop(SIGTERM);
    assert_eq!((totals.idle, totals.sent), (0, count));
}

fn statistics_are_printed(driver: &str) {
    let mut server = Server::start(driver, &["--stats", "0.1"]);
    let mut client = server.connect();
    exchange(&mut client, b"hello").unwrap();
    eventually("a line that counts the client", || {
        let line = server.process.error_line();
        assert!(line.starts_with("connections open="), "{line}");
        assert!(line.ends_with(" errors=0"), "{line}");
        line.contains("open=1 total=1 ")
    });
}

/// A client that has one message under way at a time, until the server is
/// gone. Returns how many bytes it received.
fn closed_loop(mut client: TcpStream, after_some: impl FnOnce()) -> u64 {
    let message = bytes(3000);
    let (mut received, mut after_some) = (0, Some(after_some));
    for round in 0.. {
        if round == 50 {
            after_some.take().unwrap()();
        }
        // The server may be gone; what it answered can still be read.
        let sent = client.write_all(&message);
        let mut answer = Vec::new();
        let limit = message.len() as u64;
        (&mut client)
            .take(limit)
            .read_to_end(&mut answer)
            .expect("an orderly end");
        assert!(message.starts_with(&answer), "wrong bytes");
        received += answer.len() as u64;
        if answer.len() < message.len() || sent.is_err() {
            break;
        }
    }
    received
}

/// A client that sends without waiting for answers, and rests between two looks
/// at them.
fn flood(client: TcpStream, rest: Duration, after_some: impl FnOnce()) -> u64 {
    let block = bytes(251 * 100);
    let mut received = 0;
    thread::scope(|s| {
        s.spawn(|| while (&client).write_all(&block).is_ok() {});
        let mut after_some = Some(after_some);
        let mut buffer = [0; 65536];
        loop {
            thread::sleep(rest);
            let n = (&client).read(&mut buffer).expect("an orderly end");
            for (i, &byte) in buffer[..n].iter().enumerate() {
                assert_eq!(byte, block[(received + i) % block.len()]);
            }
            received += n;
            if n == 0 {
                break;
            }
            if received > 1_000_000 {
                if let Some(tell) = after_some.take() {
                    tell();
                }
            }
        }
        // Lets the writer end.
        client.shutdown(Shutdown::Both).ok();
    });
    received as u64
}

fn a_signal_under_load_loses_nothing(driver: &str) {
    let server = Server::start(driver, &[]);
    let (tell, told) = channel();
    let clients: Vec<_> = (0..18)
        .map(|number| {
            let client = server.connect();
            let tell = tell.clone();
            let tell = move || tell.send(()).unwrap();
            thread::spawn(move || match number {
                0 | 1 => flood(client, Duration::ZERO, tell),
                _ => closed_loop(client, tell),
            })
        })
        .collect();
    let many = clients.len();
    for _ in 0..many {
        told.recv_timeout(PATIENCE).expect("all clients are served");
    }
    let begun = Instant::now();
    let totals = server.stop(SIGTERM);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(6), "took {took:?}");
    let received: u64 = clients.into_iter().map(|c| c.join().unwrap()).sum();
    assert_eq!(totals.connections, many as u64);
    assert_eq!(totals.sent, received, "{totals:?}");
    assert_eq!(totals.received, totals.sent, "{totals:?}");
    assert_eq!((totals.errors, totals.cut), (0, 0));
}

/// It has all answers in its time, and sends as long as it likes.
fn a_slow_client_loses_nothing_at_the_end(driver: &str) {
    let server = Server::start(driver, &[]);
    let client = server.connect();
    let (tell, told) = channel();
    let rest = Duration::from_millis(15);
    let client = thread::spawn(move || flood(client, rest, move || tell.send(()).unwrap()));
    told.recv_timeout(PATIENCE).expect("it is served");
    let totals = server.stop(SIGTERM);
    assert_eq!(totals.sent, client.join().unwrap(), "{totals:?}");
    assert_eq!((totals.errors, totals.cut), (0, 0));
}

fn a_signal_with_idle_clients_ends_promptly(driver: &str) {
    let server = Server::start(driver, &[]);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        exchange(client, b"hello").unwrap();
    }
    // What has arrived is answered, seen by a task or not: the server gets to
    // know of it and of the signal at the same time.
    server.process.signal(SIGSTOP);
    for client in &mut clients {
        client.write_all(b"last words").unwrap();
    }
    let begun = Instant::now();
    server.process.signal(SIGTERM);
    server.process.signal(SIGCONT);
    for client in clients {
        assert_eq!(read_to_end(&client), b"last words");
    }
    let totals = server.ended();
    // Well before exchanges would be cut.
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!((totals.sent, totals.cut), (20 * 15, 0));
}

/// A client that sends and never reads, until the server cannot send.
fn stuck(server: &Server) -> TcpStream {
    let mut client = server.connect();
    let block = bytes(1 << 20);
    // A whole second without progress: both directions are full.
    client
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    while client.write(&block).is_ok() {}
    client
}

fn a_stuck_client_is_cut_at_the_end(driver: &str) {
    let server = Server::start(driver, &[]);
    let client = stuck(&server);
    let begun = Instant::now();
    let totals = server.stop(SIGTERM);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(5), "took {took:?}");
    assert!(took < Duration::from_secs(6), "took {took:?}");
    assert_eq!((totals.connections, totals.cut), (1, 1));
    drop(client);
}

fn a_second_signal_ends_at_once(driver: &str) {
    let server = Server::start(driver, &[]);
    let client = stuck(&server);
    server.process.signal(SIGTERM);
    eventually("the first signal is heard", || {
        TcpStream::connect(server.addr).is_err()
    });
    let begun = Instant::now();
    server.process.signal(SIGINT);
    let (status, ..) = server.process.end();
    assert_eq!(status.code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(3));
    drop(client);
}

fn client(addr: &str, driver: &str, args: &[&str]) -> (Option<i32>, Vec<String>, Vec<String>) {
    let common = [addr, "--workers", "2", "--driver", driver];
    let process = Process::start("echo_client", &[&common, args].concat());
    let (status, stdout, stderr) = process.end();
    (status.code(), stdout, stderr)
}

fn the_client_verifies_every_byte(driver: &str) {
    let server = Server::start(driver, &[]);
    let addr = server.addr.to_string();
    let limit = PATIENCE.as_secs() - 10;
    // The last size is more than the sockets hold.
    for (connections, size, requests) in [(200, 64, 20), (20, 9_000, 20), (2, 20_000_000, 2)] {
        let args = format!(
            "--connections {connections} --size {size} --requests {requests} --duration {limit} --verify"
        );
        let args: Vec<&str> = args.split(' ').collect();
        let (code, stdout, stderr) = client(&addr, driver, &args);
        assert_eq!((code, stderr), (Some(0), vec![]));
        let expected = format!("established={connections} served={connections} failed=0 ");
        assert!(stdout[0].contains(&expected), "{stdout:?}");
        let expected = format!("round_trips={} ", connections * requests);
        assert!(stdout[1].starts_with(&expected), "{stdout:?}");
        assert!(stdout[2].starts_with("latency p50="), "{stdout:?}");
    }
    let totals = server.stop(SIGTERM);
    assert_eq!(totals.connections, 222);
    let bytes = 200 * 20 * 64 + 20 * 20 * 9_000 + 2 * 2 * 20_000_000;
    assert_eq!((totals.received, totals.sent), (bytes, bytes));
    assert_eq!(totals.errors, 0);
}

fn the_client_notices_a_server_that_leaves(driver: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        stream.write_all(&[0; 4]).unwrap();
    });
    let args = ["--connections", "1", "--size", "10", "--duration", "50"];
    let (code, _, stderr) = client(&addr, driver, &args);
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr,
        [
            "echo_client: connection 0: closed by the server in round 0, \
          after 4 bytes of the answer (1 of 1 connections failed)"
        ]
    );
}

#[test]
fn the_client_notices_a_wrong_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut message = [0; 10];
        for round in 0.. {
            if stream.read_exact(&mut message).is_err() {
                break;
            }
            message[7] ^= u8::from(round == 3);
            stream.write_all(&message).unwrap();
        }
    });
    let args = "--connections 1 --size 10 --duration 50 --verify";
    let (code, _, stderr) = client(&addr, "reactor", &args.split(' ').collect::<Vec<_>>());
    assert_eq!(code, Some(1));
    assert_eq!(stderr.len(), 1, "{stderr:?}");
    let expected = "echo_client: connection 0: wrong byte at offset 7 of round 3: sent 0x";
    assert!(stderr[0].starts_with(expected), "{stderr:?}");
}

#[test]
fn the_client_says_when_nobody_listens() {
    // Bound, so that nobody else gets the port, but not listening.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    silent.bind(&any.into()).unwrap();
    let addr = silent.local_addr().unwrap().as_socket().unwrap();
    let addr = addr.to_string();
    let args = ["--connections", "3", "--duration", "50"];
    let (code, stdout, stderr) = client(&addr, "reactor", &args);
    assert_eq!(code, Some(1));
    assert!(stdout[0].contains("established=0 served=0 failed=3 "));
    assert_eq!(stderr.len(), 1, "{stderr:?}");
    assert!(stderr[0].contains("cannot connect: "), "{stderr:?}");
}

#[test]
fn a_bad_flag_is_explained() {
    bad_flags_are_explained(
        "echo_server",
        &[
            &["--colour"][..],
            &["--driver", "kqueue"],
            &["--workers", "0"],
            &["--idle-timeout", "-1"],
            &["127.0.0.1:0", "127.0.0.1:1"],
        ],
    );
}

#[test]
fn an_address_in_use_is_one_line() {
    an_address_in_use_is_told("echo_server");
}

#[test]
fn a_client_that_cannot_print_says_so_in_one_line() {
    let args = ["127.0.0.1:1", "--connections", "1"];
    let (status, _, stderr) = Process::start_with_full_stdout("echo_client", &args).end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stderr.len(), 1, "{stderr:?}");
    let expected = "echo_client: cannot print the summary: No space left";
    assert!(stderr[0].starts_with(expected), "{stderr:?}");
}

#[test]
fn a_proactor_that_is_refused_is_one_line() {
    let args = ["127.0.0.1:0", "--driver", "proactor"];
    let (status, stdout, stderr) = Process::start_without_io_uring("echo_server", &args).end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, [""; 0]);
    assert_eq!(stderr.len(), 1, "{stderr:?}");
    assert!(stderr[0].starts_with("echo_server: "), "{stderr:?}");
    assert!(stderr[0].contains("io_uring"), "{stderr:?}");
    assert!(stderr[0].contains("os error 1"), "{stderr:?}");
}

#[test]
fn the_reactor_steps_in_where_io_uring_is_refused() {
    let args = ["127.0.0.1:0", "--driver", "auto", "--workers", "2"];
    let process = Process::start_without_io_uring("echo_server", &args);
    let mut server = Server::listening(process);
    let expected = " driver=reactor workers=2";
    assert!(server.first_line.ends_with(expected));
    let why = server.process.error_line();
    assert!(why.contains("io_uring"), "{why}");
    let bytes = echo_some(&server);
    assert_eq!(server.stop(SIGTERM).sent, bytes);
}
