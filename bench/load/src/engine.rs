//! Epoll, the phases of a run, and the schedule of sends.
//!
//! | module | what it holds |
//! |---|---|
//! | `conn` | a connection |
//! | `events` | what happens on one |
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::options::Options;
use crate::pattern::{CHUNK, Pattern};
use crate::proc::{self, Sample};
use crate::report::{Clients, Latency, Report};
use conn::{Conn, State};

mod conn;
mod events;

/// Connects under way at once, where no rate is asked: less than any backlog.
const UNDER_WAY: usize = 128;
/// The end of a window waits for what is in flight until nothing came for this
/// long: 10 times what the slowest round trip of a server that is alive took in
/// trials.
const DRAIN_STALL: u64 = 250_000_000;
/// Connecting ends early when nothing came for this long: longer than the
/// kernel's first SYN retransmission (1 s).
const SETUP_STALL: u64 = 1_300_000_000;
/// The server has this long to go to sleep before it is sampled.
const SETTLE: Duration = Duration::from_micros(300);

struct Engine<'a> {
    options: &'a Options,
    pattern: Pattern,
    epoll: Epoll,
    base: Instant,
    conns: Vec<Conn>,
    scratch: Vec<u8>,
    histogram: Histogram<u64>,
    clients: Clients,
    /// Slots still to be connected for the first time.
    to_connect: VecDeque<usize>,
    connecting: usize,
    greeting: usize,
    /// Sessions that were refused, and when they may try again.
    retries: VecDeque<(u64, usize)>,
    /// Messages sent, or due, without their answer.
    outstanding: usize,
    /// Whether new messages are begun.
    running: bool,
    in_window: bool,
    round_trips: u64,
    bytes: u64,
    lost: u64,
    last_reply: u64,
    last_progress: u64,
    /// Fixed rate: when it began, how many are due already, whose turn it is.
    schedule: Option<(u64, u64)>,
    turn_of: usize,
    wrong: Option<String>,
}

/// Runs the load that `options` describe.
pub fn run(options: &Options) -> Result<Report> {
    if options.size == 0 || options.pipeline == 0 || options.connections == 0 {
        bail!("connections, size and pipeline must be at least 1");
    }
    if let Some(core) = options.client_core {
        let mut set = CpuSet::new();
        set.set(core).with_context(|| format!("core {core}"))?;
        sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pin to core {core}"))?;
    }
    let needed = (options.connections + options.idle + 64) as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)
            .with_context(|| format!("{needed} descriptors are needed"))?;
    }
    Engine::new(options)?.run()
}

impl<'a> Engine<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let mut conns: Vec<Conn> = Vec::with_capacity(options.connections + options.idle);
        conns.extend((0..options.connections).map(|_| Conn::new(false)));
        conns.extend((0..options.idle).map(|_| Conn::new(true)));
        Ok(Self {
            options,
            pattern: Pattern::new(options.protocol),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            base: Instant::now(),
            conns,
            scratch: vec![0; CHUNK],
            // 1 ns to 10 minutes at 3 figures.
            histogram: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
            clients: Clients::default(),
            to_connect: VecDeque::new(),
            connecting: 0,
            greeting: 0,
            retries: VecDeque::new(),
            outstanding: 0,
            running: false,
            in_window: false,
            round_trips: 0,
            bytes: 0,
            lost: 0,
            last_reply: 0,
            last_progress: 0,
            schedule: None,
            turn_of: 0,
            wrong: None,
        })
    }

    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    fn run(mut self) -> Result<Report> {
        let o = self.options;
        let sample = || o.pid.map(Sample::of);
        let me = std::process::id() as i32;
        let drops = proc::listen_drops();
        let server_before = sample();

        self.connect_all(0..o.connections)?;
        self.load_for(o.warmup)?;
        let server_before_idle = sample();
        if o.idle > 0 {
            self.connect_all(o.connections..o.connections + o.idle)?;
            self.drain()?;
        }

        self.histogram.reset();
        (self.round_trips, self.bytes, self.lost) = (0, 0, 0);
        self.in_window = true;
        std::thread::sleep(SETTLE);
        let busy = |core: Option<usize>| core.map(proc::core_busy_us);
        let cores_before = (busy(o.server_core), busy(o.client_core));
        let client_before = Sample::of(me);
        let before = sample();
        let start = self.now();
        let drained = self.load_for(o.duration)?;
        let end = if drained {
            self.last_reply.max(start + 1)
        } else {
            self.last_reply.max(start + seconds(o.duration))
        };
        std::thread::sleep(SETTLE);
        let after = sample();
        let client_after = Sample::of(me);
        let cores_after = (busy(o.server_core), busy(o.client_core));
        self.in_window = false;

        let unanswered = self.lost + self.count_the_unanswered();
        let server = after.zip(before).map(|(after, before)| after.since(before));
        let client = client_after.since(client_before);
        let others = |before: Option<u64>, after: Option<u64>, own: Option<u64>| {
            let busy = after? as i64 - before? as i64;
            Some(busy - (own? / 1000) as i64)
        };
        let active = &self.conns[..o.connections];
        self.clients.served_in_window = active.iter().filter(|c| c.served_in_window).count() as u64;
        let idle = self
            .conns
            .iter()
            .filter(|c| c.idle && c.state == State::Ready && c.replies > 0);
        self.clients.idle = idle.count() as u64;
        let elapsed_s = (end - start) as f64 / 1e9;
        Ok(Report {
            options: o.clone(),
            elapsed_s,
            round_trips: self.round_trips,
            per_second: self.round_trips as f64 / elapsed_s,
            unanswered,
            drained,
            bytes: self.bytes,
            latency: Latency::of(&self.histogram),
            clients: self.clients,
            others_on_server_core_us: others(
                cores_before.0,
                cores_after.0,
                server.map(|s| s.cpu_ns),
            ),
            others_on_client_core_us: others(cores_before.1, cores_after.1, Some(client.cpu_ns)),
            server,
            server_before,
            server_before_idle,
            server_memory: o.pid.map(proc::proportional_memory),
            client,
            listen_drops: proc::listen_drops().saturating_sub(drops),
            wrong: self.wrong,
        })
    }

    /// Connects `slots`; ends when all are ready, or at the limits.
    fn connect_all(&mut self, slots: std::ops::Range<usize>) -> Result<()> {
        let start = self.now();
        let limit = start + seconds(self.options.setup_timeout);
        let count = slots.len();
        self.to_connect.extend(slots);
        self.last_progress = start;
        loop {
            let now = self.now();
            let rate = self.options.connect_rate;
            let may_begin = if rate > 0.0 {
                let due = ((now - start) as f64 * rate / 1e9) as usize + 1;
                due.saturating_sub(count - self.to_connect.len())
            } else {
                UNDER_WAY.saturating_sub(self.connecting)
            };
            for _ in 0..may_begin {
                let Some(slot) = self.to_connect.pop_front() else {
                    break;
                };
                self.connect(slot);
            }
            let all_begun = self.to_connect.is_empty();
            let pending = self.connecting + self.greeting;
            let stalled = all_begun && now > self.last_progress + SETUP_STALL;
            if (all_begun && pending == 0) || stalled || now > limit || self.wrong.is_some() {
                self.to_connect.clear();
                return Ok(());
            }
            self.turn(now + 1_000_000)?;
        }
    }

    /// Load for `s` seconds, then the wait for what is in flight. True if all
    /// of it came.
    fn load_for(&mut self, s: f64) -> Result<bool> {
        let start = self.now();
        let end = start + seconds(s);
        self.running = true;
        if self.options.rate.is_some() {
            self.schedule = Some((start, 0));
        }
        for slot in 0..self.options.connections {
            match self.conns[slot].state {
                State::Ready => self.refill(slot, None),
                State::Vacant if self.options.session > 0 => self.connect(slot),
                _ => {}
            }
        }
        while self.wrong.is_none() {
            let now = self.now();
            if now >= end {
                break;
            }
            self.send_what_is_due(now);
            while self.retries.front().is_some_and(|r| r.0 <= now) {
                let Some((_, slot)) = self.retries.pop_front() else {
                    break;
                };
                self.connect(slot);
            }
            self.turn(end)?;
        }
        self.running = false;
        self.schedule = None;
        self.drain()
    }

    fn drain(&mut self) -> Result<bool> {
        self.last_progress = self.now();
        while self.outstanding > 0 && self.wrong.is_none() {
            let now = self.now();
            if now > self.last_progress + DRAIN_STALL {
                return Ok(false);
            }
            self.turn(now + 10_000_000)?;
        }
        Ok(true)
    }

    fn send_what_is_due(&mut self, now: u64) {
        let (Some((start, mut done)), Some(rate)) = (self.schedule, self.options.rate) else {
            return;
        };
        loop {
            let intended = start + (done as f64 * 1e9 / rate) as u64;
            if intended > now {
                break;
            }
            done += 1;
            // Round robin over the connections that are there.
            let n = self.options.connections;
            let at = (0..n).map(|k| (self.turn_of + k) % n);
            let ready = at
                .into_iter()
                .find(|&s| self.conns[s].state == State::Ready);
            let Some(slot) = ready else {
                self.lost += 1;
                continue;
            };
            self.turn_of = slot + 1;
            self.conns[slot].backlog.push_back(intended);
            self.outstanding += 1;
            self.refill(slot, None);
        }
        self.schedule = Some((start, done));
    }

    /// One wait and its events. Does not sleep past `until`.
    fn turn(&mut self, until: u64) -> Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let timeout = if self.schedule.is_some() {
            // A fixed rate needs the microsecond, and the core is the client's.
            0
        } else {
            let retry = self.retries.front().map_or(u64::MAX, |r| r.0);
            until
                .min(retry)
                .saturating_sub(self.now())
                .div_ceil(1_000_000)
                .min(1000) as u16
        };
        let n = match self.epoll.wait(&mut events, timeout) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e).context("epoll_wait"),
        };
        for event in &events[..n] {
            let (slot, generation) = (event.data() as u32 as usize, (event.data() >> 32) as u32);
            if self.conns[slot].generation == generation {
                self.on_event(slot, event.events());
            }
        }
        Ok(())
    }

    /// Enters what never came into the histogram with its age; how many.
    fn count_the_unanswered(&mut self) -> u64 {
        let now = self.now();
        let mut count = 0;
        for conn in self.conns.iter().filter(|c| !c.idle) {
            let waiting = matches!(conn.state, State::Connecting | State::Greeting);
            let since = waiting.then_some(conn.begun);
            for intended in since.iter().chain(&conn.in_flight).chain(&conn.backlog) {
                self.histogram
                    .saturating_record(now.saturating_sub(*intended).max(1));
                count += 1;
            }
        }
        count
    }
}

fn seconds(s: f64) -> u64 {
    (s.max(0.0) * 1e9) as u64
}
