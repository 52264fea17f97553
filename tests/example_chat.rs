//! The chat, as its users run it: a child process, plain blocking clients.

#[path = "common/example_process.rs"]
mod example_process;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use example_process::{
    PATIENCE, Server, an_address_in_use_is_told, bad_flags_are_explained, io_uring_refused,
    on_both_drivers,
};
use libc::{SIGINT, SIGTERM};
use socket2::{Domain, Socket, Type};

on_both_drivers! {
    what_is_said_reaches_the_room_and_nobody_else
    everybody_reads_the_same_in_the_same_order
    rooms_come_and_go
    names_are_taken_once
    wrong_commands_are_explained
    lines_that_are_too_long_end_the_session
    a_flood_in_one_write_is_served_in_order
    those_who_vanish_leave_the_room
    the_oldest_lines_of_the_slow_are_dropped
    the_slow_are_disconnected
    those_above_the_maximum_are_refused
    the_silent_are_closed
    a_signal_says_goodbye
}

fn start(driver: &str, args: &[&str]) -> Server {
    Server::start_example("chat", driver, args)
}

struct Client(BufReader<TcpStream>);

impl Client {
    /// Connected, and welcomed.
    fn new(server: &Server) -> Client {
        let mut client = Client(BufReader::new(server.connect()));
        assert!(client.line().starts_with("* welcome, guest"));
        client
    }

    /// With a name, in a room.
    fn named(server: &Server, name: &str, room: &str) -> Client {
        let mut client = Client::new(server);
        client.take_part(name, room);
        client
    }

    fn take_part(&mut self, name: &str, room: &str) {
        self.say(&format!("/name {name}"));
        assert!(self.line().ends_with(&format!(" is now {name}")));
        self.say(&format!("/join {room}"));
        self.expect(&format!("* {name} joins {room}"));
    }

    fn say(&self, line: &str) {
        let line = format!("{line}\n");
        self.0.get_ref().write_all(line.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert_eq!(line.pop(), Some('\n'), "the end");
        line
    }

    #[track_caller]
    fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    #[track_caller]
    fn ask(&mut self, line: &str, answer: &str) {
        self.say(line);
        self.expect(answer);
    }

    /// Leaves, and reads everything: to close with something unread would be
    /// a reset, which the server counts as an error.
    fn quit(self) -> String {
        self.say("/quit");
        self.rest()
    }

    /// What comes until the end. The server is free to reset.
    fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("{e}"),
        }
        String::from_utf8(bytes).unwrap()
    }
}

fn what_is_said_reaches_the_room_and_nobody_else(driver: &str) {
    let server = start(driver, &[]);
    let mut ann = Client::named(&server, "ann", "den");
    let mut bob = Client::named(&server, "bob", "den");
    let mut eve = Client::named(&server, "eve", "loft");
    ann.expect("* bob joins den");
    ann.say("hello, world\r");
    for client in [&mut ann, &mut bob] {
        client.expect("[den] ann: hello, world");
    }
    bob.ask("/who", "* in den: ann bob");
    eve.ask("/who", "* in loft: eve");
    eve.ask("/rooms", "* rooms: den(2) loft(1)");
    assert_eq!(bob.quit(), "* goodbye\n* bob leaves den\n");
    ann.expect("* bob leaves den");
    ann.ask("/who", "* in den: ann");
    ann.quit();
    eve.quit();
    let totals = stop(server, SIGINT);
    let figures = ["connections", "said", "dropped", "slow", "errors", "cut"];
    assert_eq!(figures.map(|f| totals.get(f)), [3, 1, 0, 0, 0, 0]);
}

fn stop(server: Server, signal: i32) -> example_process::Figures {
    server.process.signal(signal);
    server.figures()
}

fn everybody_reads_the_same_in_the_same_order(driver: &str) {
    const MEMBERS: usize = 8;
    const LINES: usize = 200;
    // No line is dropped.
    let server = start(driver, &["--queue", "10000"]);
    let mut clients: Vec<_> = (0..MEMBERS)
        .map(|i| Client::named(&server, &format!("m{i}"), "den"))
        .collect();
    for (i, client) in clients.iter_mut().enumerate() {
        for other in i + 1..MEMBERS {
            client.expect(&format!("* m{other} joins den"));
        }
    }
    let threads = clients.into_iter().enumerate().map(|(i, mut client)| {
        thread::spawn(move || {
            for line in 0..LINES {
                client.say(&format!("{i} {line}"));
            }
            let all: Vec<_> = (0..MEMBERS * LINES).map(|_| client.line()).collect();
            (client, all)
        })
    });
    let threads: Vec<_> = threads.collect();
    let read: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let first = &read[0].1;
    for (i, (_, lines)) in read.iter().enumerate() {
        assert!(lines == first, "m{i} read something else than m0");
        let mine = format!("[den] m{i}: {i} ");
        let mine: Vec<_> = first.iter().filter_map(|l| l.strip_prefix(&mine)).collect();
        let expected: Vec<_> = (0..LINES).map(|line| line.to_string()).collect();
        assert_eq!(mine, expected);
    }
    drop(read);
    let totals = stop(server, SIGTERM);
    assert_eq!(totals.get("said"), (MEMBERS * LINES) as u64);
    assert_eq!(totals.get("dropped"), 0);
}

fn rooms_come_and_go(driver: &str) {
    let server = start(driver, &[]);
    let mut watcher = Client::new(&server);
    watcher.ask("/rooms", "* rooms:");
    let threads: Vec<_> = (0..4)
        .map(|i| {
            let mut client = Client::named(&server, &format!("m{i}"), "own");
            // All at once into the same rooms and out: a room is closed while
            // somebody is on the way in.
            thread::spawn(move || {
                for round in 0..100 {
                    let room = format!("room{}", round % 3);
                    client.say(&format!("/join {room}"));
                    let joined = format!("* m{i} joins {room}");
                    while client.line() != joined {}
                    client.say("here");
                    let said = format!("[{room}] m{i}: here");
                    while client.line() != said {}
                }
                client
            })
        })
        .collect();
    let clients: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    watcher.ask("/rooms", "* rooms: room0(4)");
    for (i, mut client) in clients.into_iter().enumerate() {
        client.say("/leave");
        let left = format!("* m{i} leaves room0");
        while client.line() != left {}
        client.quit();
    }
    // Each told us after it had left.
    watcher.ask("/rooms", "* rooms:");
    watcher.ask("/leave", "! you are in no room: /join ROOM");
    watcher.quit();
    assert_eq!(stop(server, SIGTERM).get("errors"), 0);
}

fn names_are_taken_once(driver: &str) {
    let server = start(driver, &[]);
    let mut ann = Client::named(&server, "ann", "den");
    let mut bob = Client::named(&server, "bob", "den");
    ann.expect("* bob joins den");
    bob.ask("/name ann", "! ann is taken");
    bob.ask("/name bob", "! bob is taken");
    let wrong = "! a name has 1 to 32 of the characters a-z A-Z 0-9 - _";
    for name in ["", "a b", "\u{e4}", &"x".repeat(33)] {
        bob.ask(&format!("/name {name}"), wrong);
    }
    ann.say("/name anna");
    for client in [&mut ann, &mut bob] {
        client.expect("* ann is now anna");
    }
    // Free again.
    bob.ask("/name ann", "* bob is now ann");
    bob.ask("/who", "* in den: anna ann");
    ann.expect("* bob is now ann");
    bob.quit();
    ann.expect("* ann leaves den");
    ann.ask("/name ann", "* anna is now ann");
}

fn wrong_commands_are_explained(driver: &str) {
    let server = start(driver, &[]);
    let mut client = Client::new(&server);
    client.ask("/dance", "! no such command: /dance; try /help");
    client.ask("/who now", "! no such command: /who; try /help");
    client.ask("/who", "! you are in no room: /join ROOM");
    client.ask("hello", "! you are in no room: /join ROOM");
    let wrong = "! a room has 1 to 32 of the characters a-z A-Z 0-9 - _";
    client.ask("/join", wrong);
    client.ask("/join a/b", wrong);
    client.say("/join den");
    assert!(client.line().ends_with(" joins den"));
    client.ask("/join den", "! you are in den");
    client.say("/help");
    assert!(client.line().starts_with("* /name NAME"));
}

fn lines_that_are_too_long_end_the_session(driver: &str) {
    let server = start(driver, &["--max-line", "10"]);
    let mut ann = Client::named(&server, "ann", "den");
    let mut bob = Client::named(&server, "bob", "den");
    ann.expect("* bob joins den");
    bob.ask("0123456789", "[den] bob: 0123456789");
    ann.expect("[den] bob: 0123456789");
    bob.say("0123456789x");
    let end = bob.rest();
    let why = "! a line has at most 10 bytes: goodbye\n";
    assert_eq!(end, format!("{why}* bob leaves den\n"));
    ann.expect("* bob leaves den");
    // One without an end.
    let mut eve = Client::new(&server);
    eve.0.get_mut().write_all(&[b'x'; 100_000]).unwrap();
    assert_eq!(eve.rest(), why);
}

fn a_flood_in_one_write_is_served_in_order(driver: &str) {
    const LINES: usize = 2000;
    let server = start(driver, &["--queue", "10000"]);
    let mut ann = Client::named(&server, "ann", "den");
    let lines: String = (0..LINES).map(|i| format!("{i}\n")).collect();
    ann.0.get_ref().write_all(lines.as_bytes()).unwrap();
    // What has no end is a line all the same, if it is the last.
    ann.0.get_ref().write_all(b"end").unwrap();
    ann.0.get_ref().shutdown(Shutdown::Write).unwrap();
    for i in 0..LINES {
        ann.expect(&format!("[den] ann: {i}"));
    }
    assert_eq!(ann.rest(), "[den] ann: end\n* ann leaves den\n");
}

fn those_who_vanish_leave_the_room(driver: &str) {
    let server = start(driver, &[]);
    let mut ann = Client::named(&server, "ann", "den");
    for round in 0..10 {
        let name = format!("m{round}");
        let client = Client::named(&server, &name, "den");
        ann.expect(&format!("* {name} joins den"));
        if round % 2 == 0 {
            // A reset.
            let socket = socket2::SockRef::from(client.0.get_ref());
            socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
        drop(client);
        ann.expect(&format!("* {name} leaves den"));
    }
    drop(ann);
    let totals = stop(server, SIGTERM);
    assert_eq!(totals.get("connections"), 11);
    assert_eq!((totals.get("errors"), totals.get("cut")), (5, 0));
}

/// A member that does not read, with little room for what it does not read.
fn slow_member(server: &Server, room: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client(BufReader::new(socket.into()));
    assert!(client.line().starts_with("* welcome"));
    client.take_part("slow", room);
    client
}

const PADDING: usize = 900;

/// Says numbered long lines, a few at a time, and reads them all.
fn speak(client: &mut Client, from: usize, lines: usize) {
    let padding = "x".repeat(PADDING);
    for line in from..from + lines {
        client.say(&format!("{line} {padding}"));
    }
    for line in from..from + lines {
        client.expect(&format!("[den] ann: {line} {padding}"));
    }
}

fn the_oldest_lines_of_the_slow_are_dropped(driver: &str) {
    // More than all buffers on the way hold.
    const LINES: usize = 20_000;
    let server = start(driver, &["--queue", "64", "--slow", "drop-oldest"]);
    let mut slow = slow_member(&server, "den");
    let mut ann = Client::named(&server, "ann", "den");
    slow.expect("* ann joins den");
    for from in (0..LINES).step_by(32) {
        speak(&mut ann, from, 32);
    }
    let (mut next, mut missed) = (0, 0);
    while next < LINES {
        let line = slow.line();
        if let Some(notice) = line.strip_prefix("* ") {
            let (count, what) = notice.split_once(' ').unwrap();
            assert_eq!(what, "lines were dropped: you read too slowly");
            missed += count.parse::<usize>().unwrap();
            continue;
        }
        let line = line.strip_prefix("[den] ann: ").unwrap();
        let (number, padding) = line.split_once(' ').unwrap();
        assert_eq!(padding.len(), PADDING);
        let number: usize = number.parse().unwrap();
        assert!(number >= next, "{number} after {next}");
        next = number + 1;
    }
    assert_eq!(next, LINES, "the last line is never dropped");
    assert!(missed > 0);
    // It is a member like any other again.
    ann.ask("/who", "* in den: slow ann");
    slow.say("good morning");
    slow.expect("[den] slow: good morning");
    slow.quit();
    ann.quit();
    let totals = stop(server, SIGTERM);
    assert_eq!(totals.get("said"), LINES as u64 + 1);
    assert_eq!(totals.get("dropped"), missed as u64);
    assert_eq!((totals.get("slow"), totals.get("errors")), (0, 0));
}

fn the_slow_are_disconnected(driver: &str) {
    let server = start(driver, &["--queue", "64", "--slow", "disconnect"]);
    let slow = slow_member(&server, "den");
    let mut ann = Client::new(&server);
    ann.take_part("ann", "den");
    let padding = "x".repeat(PADDING);
    let mut said = 0;
    loop {
        ann.say(&format!("{said} {padding}"));
        said += 1;
        let line = ann.line();
        if line == "* slow leaves den" {
            break;
        }
        assert!(line.starts_with("[den] ann: "), "{line}");
        assert!(said < 100_000, "it is never disconnected");
    }
    // What was sent before that is there to be read.
    let read = slow.rest();
    assert!(read.starts_with("* ann joins den\n[den] ann: 0 x"));
    assert!(read.lines().count() < said);
    ann.quit();
    let totals = stop(server, SIGTERM);
    let figures = ["slow", "dropped", "errors", "cut"];
    assert_eq!(figures.map(|f| totals.get(f)), [1, 0, 0, 0]);
}

fn those_above_the_maximum_are_refused(driver: &str) {
    let server = start(driver, &["--max-connections", "2"]);
    let (first, _second) = (Client::new(&server), Client::new(&server));
    assert_eq!(Client(BufReader::new(server.connect())).rest(), "");
    first.0.get_ref().shutdown(Shutdown::Write).unwrap();
    first.rest();
    // The server closes its end, then counts it out.
    let mut third = loop {
        let mut client = Client(BufReader::new(server.connect()));
        let mut line = String::new();
        match client.0.read_line(&mut line) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Ok(_) => break client,
            Err(e) => panic!("{e}"),
        }
    };
    third.ask("/rooms", "* rooms:");
}

fn the_silent_are_closed(driver: &str) {
    let server = start(driver, &["--idle-timeout", "0.2"]);
    let silent = Client::new(&server);
    let end = "* you said nothing for too long: goodbye\n";
    assert_eq!(silent.rest(), end);
    assert_eq!(stop(server, SIGTERM).get("idle"), 1);
}

fn a_signal_says_goodbye(driver: &str) {
    let server = start(driver, &[]);
    let ann = Client::named(&server, "ann", "den");
    let eve = Client::named(&server, "eve", "loft");
    server.process.signal(SIGTERM);
    for (client, name, room) in [(ann, "ann", "den"), (eve, "eve", "loft")] {
        let expected = format!("* the server stops: goodbye\n* {name} leaves {room}\n");
        assert_eq!(client.rest(), expected);
    }
    let totals = server.figures();
    assert_eq!((totals.get("errors"), totals.get("cut")), (0, 0));
}

#[test]
fn a_bad_flag_is_explained() {
    bad_flags_are_explained(
        "chat",
        &[
            &["--queue", "0"][..],
            &["--slow", "never"],
            &["--max-line", "0"],
            &["--workers", "0"],
        ],
    );
}

#[test]
fn an_address_in_use_is_one_line() {
    an_address_in_use_is_told("chat");
}
