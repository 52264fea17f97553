//! Keep-alive connections in a closed loop, on one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use load::proc::Sample;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::report::Measured;

/// A server that answers nobody for so long has failed.
const STALL: Duration = Duration::from_secs(5);

/// The longest wait that is told from longer ones, in ns.
const LONGEST: u64 = 10_000_000_000;

/// Where keys begin that are asked for once.
const FRESH: u64 = 1 << 32;

/// What to do to a server.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub addr: SocketAddr,
    pub pid: i32,
    pub connections: usize,
    /// Keys that are kept.
    pub keys: u64,
    /// Of the requests, the share that asks for one of them.
    pub hits: f64,
    pub warm_up: Duration,
    pub window: Duration,
}

impl Load {
    /// Fills the cache, warms up, and measures.
    pub fn run(self) -> Result<Measured> {
        let mut keys = Keys {
            random: 0x9e37_79b9_7f4a_7c15,
            fresh: FRESH,
            load: self,
        };
        let mut connections = (0..self.connections)
            .map(|_| Connection::to(self.addr))
            .collect::<Result<Vec<_>>>()?;
        if self.hits > 0.0 {
            prime(self.addr, self.keys)?;
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (i, connection) in connections.iter_mut().enumerate() {
            connection.stream.set_nonblocking(true)?;
            epoll.add(
                &connection.stream,
                EpollEvent::new(EpollFlags::EPOLLIN, i as u64),
            )?;
            connection.ask(keys.next())?;
        }
        let mut figures = Figures::new()?;
        serve(
            &epoll,
            &mut connections,
            &mut keys,
            self.warm_up,
            &mut figures,
        )?;
        figures = Figures::new()?;
        let before = Sample::of(self.pid);
        let begun = Instant::now();
        serve(
            &epoll,
            &mut connections,
            &mut keys,
            self.window,
            &mut figures,
        )?;
        let took = begun.elapsed().as_secs_f64();
        let cpu = Sample::of(self.pid).since(before).cpu_ns;
        ensure!(figures.answers > 0, "no answer in the window");
        Ok(Measured {
            requests_per_s: figures.answers as f64 / took,
            p50_us: figures.latency.value_at_quantile(0.5) as f64 / 1e3,
            p99_us: figures.latency.value_at_quantile(0.99) as f64 / 1e3,
            cpu_us: cpu as f64 / 1e3 / figures.answers as f64,
            hits: figures.hits as f64 / figures.answers as f64,
        })
    }
}

/// What a stretch of load came to.
struct Figures {
    answers: u64,
    hits: u64,
    /// In ns.
    latency: Histogram<u64>,
}

impl Figures {
    fn new() -> Result<Figures> {
        Ok(Figures {
            answers: 0,
            hits: 0,
            latency: Histogram::new_with_max(LONGEST, 3)?,
        })
    }
}

/// Lets the connections ask, one request at a time each.
fn serve(
    epoll: &Epoll,
    connections: &mut [Connection],
    keys: &mut Keys,
    span: Duration,
    figures: &mut Figures,
) -> Result<()> {
    let end = Instant::now() + span;
    let mut events = [EpollEvent::empty(); 64];
    while Instant::now() < end {
        let timeout = EpollTimeout::try_from(STALL)?;
        let n = match epoll.wait(&mut events, timeout) {
            Ok(0) => bail!("no answer for {STALL:?}"),
            Ok(n) => n,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        };
        for event in &events[..n] {
            let connection = &mut connections[event.data() as usize];
            let Some(hit) = connection.answered()? else {
                continue;
            };
            figures.answers += 1;
            figures.hits += u64::from(hit);
            let waited = connection.asked.elapsed().as_nanos() as u64;
            figures.latency.saturating_record(waited);
            connection.ask(keys.next())?;
        }
    }
    Ok(())
}

/// Asks for each key that is to be kept, twice: what was asked for again stays.
fn prime(addr: SocketAddr, keys: u64) -> Result<()> {
    let mut connection = Connection::to(addr)?;
    connection.stream.set_read_timeout(Some(STALL))?;
    for key in (0..keys).chain(0..keys) {
        connection.ask(key)?;
        while connection.answered()?.is_none() {}
    }
    Ok(())
}

/// The order of the keys: the same in each run.
struct Keys {
    random: u64,
    fresh: u64,
    load: Load,
}

impl Keys {
    fn next(&mut self) -> u64 {
        // 53 bits are what a float holds.
        let share = (self.random() >> 11) as f64 / (1u64 << 53) as f64;
        if share < self.load.hits {
            return self.random() % self.load.keys;
        }
        self.fresh += 1;
        self.fresh
    }

    /// xorshift64*.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

struct Connection {
    stream: TcpStream,
    /// What came of the answer so far.
    answer: Vec<u8>,
    key: u64,
    asked: Instant,
}

impl Connection {
    fn to(addr: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&addr, STALL)?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            answer: Vec::new(),
            key: 0,
            asked: Instant::now(),
        })
    }

    fn ask(&mut self, key: u64) -> Result<()> {
        self.key = key;
        self.answer.clear();
        self.asked = Instant::now();
        let request = format!("GET /key/{key} HTTP/1.1\r\nhost: bench\r\n\r\n");
        // Nothing else is on its way: there is room for so little.
        let n = self.stream.write(request.as_bytes())?;
        ensure!(n == request.len(), "a request was sent in part");
        Ok(())
    }

    /// Whether the answer is complete; it is right then, and this says whether
    /// it came from the cache.
    fn answered(&mut self) -> Result<Option<bool>> {
        let mut buf = [0; 4096];
        match self.stream.read(&mut buf) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(n) => self.answer.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let Some(head) = self.answer.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Ok(None);
        };
        let (head, body) = self.answer.split_at(head + 4);
        let head = std::str::from_utf8(head)?;
        let field = |name: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let len: usize = field("content-length").context("no length")?.parse()?;
        if body.len() < len {
            return Ok(None);
        }
        ensure!(head.starts_with("HTTP/1.1 200 "), "not served: {head}");
        let expected = value(self.key);
        ensure!(body == expected.as_bytes(), "a wrong value of {}", self.key);
        Ok(Some(field("x-cache") == Some("hit")))
    }
}

/// What the server has to answer.
fn value(key: u64) -> String {
    use std::fmt::Write;
    let mut text = format!("{key} ");
    for word in 0..4 {
        let word = mix(key.wrapping_mul(4).wrapping_add(word));
        write!(text, "{word:016x}").expect("a string has room");
    }
    text.push('\n');
    text
}

/// SplitMix64 (Steele, Lea and Flood, 2014), as the example has it.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
