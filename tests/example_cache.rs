//! The caching HTTP server, as its users run it: a child process, plain
//! blocking clients.

#[path = "common/example_process.rs"]
mod example_process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use example_process::{
    Figures, Server, an_address_in_use_is_told, bad_flags_are_explained, io_uring_refused,
};
use libc::{SIGINT, SIGTERM};

/// Runs each test on both drivers, with every way to share the cache.
macro_rules! everywhere {
    ($($test:ident)*) => {
        everywhere! { reactor_colored "reactor" "colored" $($test)* }
        everywhere! { reactor_mutex "reactor" "mutex" $($test)* }
        everywhere! { reactor_actor "reactor" "actor" $($test)* }
        everywhere! { reactor_one_color "reactor" "one-color" $($test)* }
        everywhere! { proactor_colored "proactor" "colored" $($test)* }
        everywhere! { proactor_mutex "proactor" "mutex" $($test)* }
        everywhere! { proactor_actor "proactor" "actor" $($test)* }
        everywhere! { proactor_one_color "proactor" "one-color" $($test)* }
    };
    ($place:ident $driver:literal $cache:literal $($test:ident)*) => {
        mod $place {
            $(#[test] fn $test() {
                match super::io_uring_refused() {
                    Some(e) if $driver == "proactor" => {
                        println!("skipped: the kernel refuses io_uring: {e}");
                    }
                    _ => super::$test($driver, $cache),
                }
            })*
        }
    };
}

everywhere! {
    a_value_is_made_once
    many_clients_get_the_right_values
    the_cache_is_bounded
    what_is_wrong_is_said
    a_signal_answers_what_was_asked
    the_silent_are_closed
}

fn start(driver: &str, cache: &str, args: &[&str]) -> Server {
    let args = [&["--cache", cache], args].concat();
    Server::start_example("colored_cache", driver, &args)
}

fn stop(server: Server, signal: i32) -> Figures {
    server.process.signal(signal);
    server.figures()
}

struct Client(BufReader<TcpStream>);

struct Answer {
    status: u16,
    /// Of the header `X-Cache`.
    from: String,
    body: String,
}

impl Client {
    fn new(server: &Server) -> Client {
        Client(BufReader::new(server.connect()))
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        self.answer()
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Answer {
        let status = self.line();
        let status = status.strip_prefix("HTTP/1.1 ").unwrap();
        let status = status.split(' ').next().unwrap().parse().unwrap();
        let (mut len, mut from) = (0, String::new());
        loop {
            let line = self.line();
            match line.split_once(": ") {
                None => break,
                Some(("content-length", value)) => len = value.parse().unwrap(),
                Some(("x-cache", value)) => from = value.to_owned(),
                Some(_) => {}
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        Answer { status, from, body }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}

/// SplitMix64, by which values are told to be right.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn value(key: u64) -> String {
    let words = (0..4).map(|i| format!("{:016x}", mix(key.wrapping_mul(4).wrapping_add(i))));
    format!("{key} {}\n", words.collect::<String>())
}

fn a_value_is_made_once(driver: &str, cache: &str) {
    let server = start(driver, cache, &[]);
    let port = server.addr.port();
    let expected = format!("listening on 127.0.0.1:{port} driver={driver} workers=2 cache={cache}");
    assert_eq!(server.first_line, expected);
    let (mut first, mut second) = (Client::new(&server), Client::new(&server));
    for key in [0, 7, u64::MAX] {
        let path = format!("/key/{key}");
        for (client, from) in [(&mut first, "miss"), (&mut second, "hit")] {
            let answer = client.get(&path);
            assert_eq!((answer.status, answer.from.as_str()), (200, from));
            assert_eq!(answer.body, value(key));
        }
    }
    let totals = stop(server, SIGINT);
    let figures = ["connections", "requests", "hits", "misses", "errors", "cut"];
    assert_eq!(figures.map(|f| totals.get(f)), [2, 6, 3, 3, 0, 0]);
}

fn many_clients_get_the_right_values(driver: &str, cache: &str) {
    const CLIENTS: u64 = 8;
    const REQUESTS: u64 = 200;
    let args = ["--cost", "10", "--capacity", "20"];
    let server = start(driver, cache, &args);
    thread::scope(|s| {
        for seed in 0..CLIENTS {
            let mut client = Client::new(&server);
            s.spawn(move || {
                for i in 0..REQUESTS {
                    let key = mix(seed * REQUESTS + i) % 30;
                    let answer = client.get(&format!("/key/{key}"));
                    assert_eq!(answer.status, 200);
                    assert_eq!(answer.body, value(key));
                }
            });
        }
    });
    let totals = stop(server, SIGTERM);
    assert_eq!(totals.get("requests"), CLIENTS * REQUESTS);
    assert_eq!(
        totals.get("hits") + totals.get("misses"),
        CLIENTS * REQUESTS
    );
    // Each key at least once.
    assert!(totals.get("misses") >= 30);
    assert!(totals.get("hits") > 0);
    assert_eq!((totals.get("errors"), totals.get("cut")), (0, 0));
}

fn the_cache_is_bounded(driver: &str, cache: &str) {
    let args = ["--cost", "0", "--capacity", "2"];
    let server = start(driver, cache, &args);
    let mut client = Client::new(&server);
    for round in 0..3 {
        for key in 0..5 {
            let answer = client.get(&format!("/key/{key}"));
            assert_eq!(answer.from, "miss", "{key} in round {round}");
            assert_eq!(client.get(&format!("/key/{key}")).from, "hit");
        }
    }
}

fn what_is_wrong_is_said(driver: &str, cache: &str) {
    let server = start(driver, cache, &[]);
    let mut client = Client::new(&server);
    for (path, status) in [
        ("/", 404),
        ("/keys", 404),
        ("/key/", 400),
        ("/key/-1", 400),
        ("/key/18446744073709551616", 400),
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.body.ends_with('\n'));
    }
    client.send("POST /key/1 HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 405);
    // The connection is as good as before.
    assert_eq!(client.get("/key/1").status, 200);
    let mut other = Client::new(&server);
    other.send("this is not HTTP\r\n\r\n");
    assert_eq!(other.answer().status, 400);
    assert_eq!(other.rest(), b"");
    let totals = stop(server, SIGTERM);
    assert_eq!((totals.get("requests"), totals.get("errors")), (7, 1));
}

/// Connections that wait for nothing end at once, and what was asked for is
/// still made.
fn a_signal_answers_what_was_asked(driver: &str, cache: &str) {
    let server = start(driver, cache, &["--cost", "200000"]);
    let mut idle = Client::new(&server);
    assert_eq!(idle.get("/").status, 404);
    let mut busy = Client::new(&server);
    // In one piece, so that the server is at the second when it has answered
    // the first.
    let request = |key| format!("GET /key/{key} HTTP/1.1\r\nhost: test\r\n\r\n");
    busy.send(&(request(1) + &request(2)));
    assert_eq!(busy.answer().body, value(1));
    let begun = Instant::now();
    server.process.signal(SIGTERM);
    assert_eq!(idle.rest(), b"");
    assert_eq!(busy.answer().body, value(2));
    assert_eq!(busy.rest(), b"");
    let totals = server.figures();
    let took = begun.elapsed();
    assert_eq!(
        (totals.get("errors"), totals.get("cut")),
        (0, 0),
        "{took:?}"
    );
    // Well before exchanges would be cut.
    assert!(took < Duration::from_secs(4), "{took:?}");
}

fn the_silent_are_closed(driver: &str, cache: &str) {
    let server = start(driver, cache, &["--idle-timeout", "0.2"]);
    let silent = Client::new(&server);
    silent.rest();
    let mut half = Client::new(&server);
    half.send("GET /key/1 HTT");
    half.rest();
    let totals = stop(server, SIGTERM);
    assert_eq!((totals.get("connections"), totals.get("errors")), (2, 0));
}

#[test]
fn a_bad_flag_is_explained() {
    bad_flags_are_explained(
        "colored_cache",
        &[
            &["--cache", "none"][..],
            &["--capacity", "0"],
            &["--cost", "-1"],
            &["--workers", "0"],
        ],
    );
}

#[test]
fn an_address_in_use_is_one_line() {
    an_address_in_use_is_told("colored_cache");
}
