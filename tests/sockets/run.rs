//! Runs a program on two ends, and holds what happens against the oracle.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Agreed;
use super::ends::{AnEnd, CALLS, Doing};
use super::oracle::{Direction, Expected, State};
use super::program::{End, Mode, Program, Side, Step, Transport};

/// Lets the driver have its turn.
pub(crate) type Rest = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// So much fits into the kernel without anybody reading; with small buffers
/// and without.
const LIGHT: [usize; 2] = [8 << 10, 64 << 10];

/// Longer than what any program sends, and without a short period.
const NOISE: usize = 1 << 20;

struct Receiving {
    doing: Doing<Vec<u8>>,
    room: usize,
    /// A lease may be longer than the room.
    bounded: bool,
}

struct Sending {
    doing: Doing<usize>,
    data: Rc<[u8]>,
    piece: usize,
    how: u8,
    polled: bool,
    /// The rest is not sent if this is partial.
    once: bool,
}

struct Machine<'a> {
    name: &'a str,
    transport: Transport,
    light: usize,
    rest: Rest,
    step: &'a Cell<usize>,
    ends: [Option<Box<dyn AnEnd>>; 2],
    /// By who writes.
    directions: [Direction; 2],
    receiving: [Option<Receiving>; 2],
    sending: [Option<Sending>; 2],
    /// A send was given up that may have sent any of it.
    torn: [bool; 2],
    /// What this end sends, the kernel may keep for a minute or two.
    stalled: [bool; 2],
    noise: u64,
}

pub(crate) async fn run(
    program: &Program,
    name: &str,
    ends: [Box<dyn AnEnd>; 2],
    rest: Rest,
    step: &Cell<usize>,
) -> Agreed {
    let mut machine = Machine {
        name,
        transport: program.transport,
        light: LIGHT[usize::from(!program.small)],
        rest,
        step,
        ends: ends.map(Some),
        directions: [Direction::new(), Direction::new()],
        receiving: [None, None],
        sending: [None, None],
        torn: [false; 2],
        stalled: [false; 2],
        noise: 0x9e37_79b9_7f4a_7c15,
    };
    for (i, what) in program.steps.iter().enumerate() {
        machine.step.set(i);
        machine.take(what).await;
    }
    machine.step.set(program.steps.len());
    machine.finish().await
}

fn other(end: End) -> End {
    1 - end
}

/// The connection is gone, one way or the other.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET))
}

impl Machine<'_> {
    fn fail(&self, end: End, what: &str) -> ! {
        panic!("{}: step {}, end {end}: {what}", self.name, self.step.get());
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Send {
                end,
                len,
                how,
                mode,
            } if self.ends[end].is_some() => {
                self.finish_send(end).await;
                let data = self.bytes(len);
                self.begin_send(end, data, how, mode != Mode::Finish);
                if let Mode::GiveUp { polls } = mode {
                    self.poll_times(polls).await;
                    self.cancel_send(end);
                }
                match mode {
                    Mode::Finish => self.finish_send(end).await,
                    Mode::GiveUp { .. } => {}
                    Mode::Leave => self.poll_times(1).await,
                }
            }
            Step::Recv {
                end,
                room,
                how,
                mode,
            } if self.ends[end].is_some() => {
                self.finish_recv(end).await;
                self.begin_recv(end, room, how);
                match mode {
                    Mode::Finish => self.finish_recv(end).await,
                    Mode::GiveUp { polls } => {
                        self.poll_times(polls).await;
                        self.receiving[end] = None;
                    }
                    Mode::Leave => self.poll_times(1).await,
                }
            }
            Step::Settle { end } => {
                self.finish_send(end).await;
                self.finish_recv(end).await;
            }
            Step::Cancel { end } => {
                self.cancel_send(end);
                self.receiving[end] = None;
            }
            Step::Shutdown { end, side, settle } if self.ends[end].is_some() => {
                if settle {
                    self.finish_send(end).await;
                }
                self.directions[end].exact &= settle || side == Side::Read;
                self.shutdown(end, side);
            }
            Step::Drop { end, tidy } if self.ends[end].is_some() => self.drop(end, tidy).await,
            Step::Nodelay { end, on } => {
                if let Some(this) = &self.ends[end] {
                    if let Err(e) = this.set_nodelay(on) {
                        self.fail(end, &format!("TCP_NODELAY: {e}"));
                    }
                }
            }
            Step::Yield { times } => {
                for _ in 0..times {
                    (self.rest)().await;
                }
            }
            // Of an end that is gone.
            _ => {}
        }
    }

    fn bytes(&mut self, len: usize) -> Rc<[u8]> {
        assert!(len < NOISE);
        let mut next = || {
            self.noise ^= self.noise >> 12;
            self.noise ^= self.noise << 25;
            self.noise ^= self.noise >> 27;
            (self.noise.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    // -- what goes on -------------------------------------------------------

    /// Polls everything that goes on, once; whether something ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut ended = false;
        for end in [0, 1] {
            if let Some(sending) = &mut self.sending[end] {
                sending.polled = true;
                if let Poll::Ready(result) = sending.doing.as_mut().poll(cx) {
                    let sending = self.sending[end].take().expect("just polled");
                    self.sent(end, sending, result);
                    ended = true;
                }
            }
            if let Some(receiving) = &mut self.receiving[end] {
                if let Poll::Ready(result) = receiving.doing.as_mut().poll(cx) {
                    let receiving = self.receiving[end].take().expect("just polled");
                    self.received(end, &receiving, &result);
                    ended = true;
                }
            }
        }
        ended
    }

    /// Waits until something ends: by its waker, and no other way.
    async fn progress(&mut self) {
        poll_fn(|cx| match self.poll(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    async fn poll_times(&mut self, times: usize) {
        for i in 0..times {
            if i > 0 {
                (self.rest)().await;
            }
            poll_fn(|cx| {
                self.poll(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    // -- sending ------------------------------------------------------------

    fn begin_send(&mut self, end: End, data: Rc<[u8]>, how: u8, once: bool) {
        let this = self.ends[end].as_ref().expect("it is open");
        let how = match self.torn[end] {
            true => this.in_turn(how),
            false => how,
        };
        let doing = this.send(data.clone(), how);
        // To one who reads no more: it answers with a reset. A local one that
        // was dropped does so if it was not closed yet.
        match self.directions[end].reader {
            State::Dropped => self.shake(),
            State::Shut if self.transport == Transport::Tcp => self.shake(),
            State::Shut | State::Open => {}
        }
        // What is given up may have sent any of it.
        self.directions[end].exact &= !once;
        let piece = self.directions[end].begin(data.clone());
        self.sending[end] = Some(Sending {
            doing,
            data,
            piece,
            how,
            polled: false,
            once,
        });
    }

    /// From here on the connection may be reset at any time.
    fn shake(&mut self) {
        for direction in &mut self.directions {
            direction.lossy |= self.transport == Transport::Tcp;
            direction.reset = true;
            direction.exact = false;
        }
    }

    fn sent(&mut self, end: End, sending: Sending, result: io::Result<usize>) {
        let direction = &mut self.directions[end];
        let len = sending.data.len();
        match result {
            Ok(n) if n > len || (n == 0 && len > 0) => {
                self.fail(end, &format!("{n} of {len} bytes were sent"));
            }
            Ok(n) => {
                direction.sent(sending.piece, n);
                if n < len && !sending.once {
                    self.begin_send(end, sending.data[n..].into(), sending.how, false);
                }
            }
            Err(e) => {
                let (writer, reader) = (direction.writer, direction.reader);
                let refused = match self.transport {
                    Transport::Unix => reader != State::Open,
                    Transport::Tcp => reader == State::Dropped,
                };
                let own = writer == State::Shut && e.raw_os_error() == Some(libc::EPIPE);
                if !own && !((refused || direction.reset) && is_gone(&e)) {
                    self.fail(end, &format!("sending failed: {e}"));
                }
            }
        }
    }

    /// Whether it ends without anybody reading.
    fn ends_alone(&self, end: End) -> bool {
        let direction = &self.directions[end];
        // Poll does not tell of a local socket that is full and shut down.
        let told = self.transport == Transport::Tcp && direction.writer != State::Open;
        told || direction.reader == State::Dropped || direction.weight() <= self.light
    }

    async fn finish_send(&mut self, end: End) {
        let peer = other(end);
        let mut helps = false;
        while self.sending[end].is_some() {
            if self.stalled[end] {
                self.poll_times(3).await;
                return self.cancel_send(end);
            }
            helps |= !self.ends_alone(end);
            helps &= self.ends[peer].is_some();
            if helps && self.receiving[peer].is_none() {
                self.begin_recv(peer, 64 << 10, 1);
            }
            self.progress().await;
        }
    }

    fn cancel_send(&mut self, end: End) {
        self.directions[end].exact = false;
        let Some(sending) = self.sending[end].take() else {
            return;
        };
        let this = self.ends[end].as_ref().expect("it sends");
        if !sending.polled || this.gives_up_clean(sending.how) {
            self.directions[end].sent(sending.piece, 0);
        } else {
            self.torn[end] = true;
        }
    }

    // -- receiving ----------------------------------------------------------

    fn begin_recv(&mut self, end: End, room: usize, how: u8) {
        let this = self.ends[end].as_ref().expect("it is open");
        self.receiving[end] = Some(Receiving {
            doing: this.recv(room, how),
            room,
            bounded: how % CALLS != 0,
        });
    }

    fn received(&mut self, end: End, receiving: &Receiving, result: &io::Result<Vec<u8>>) -> bool {
        let direction = &mut self.directions[other(end)];
        if let Ok(bytes) = result {
            if receiving.bounded && bytes.len() > receiving.room {
                self.fail(end, "more was received than there is room");
            }
        }
        match direction.received(result) {
            Ok(end) => end,
            Err(what) => self.fail(end, &what),
        }
    }

    fn expected(&self, end: End) -> Expected {
        match self.directions[other(end)].expected() {
            // Who sends has room when nothing is left to be read.
            Expected::Unknown if self.sending[other(end)].is_some() => Expected::Something,
            expected => expected,
        }
    }

    async fn finish_recv(&mut self, end: End) {
        while self.receiving[end].is_some() {
            if self.expected(end) == Expected::Something {
                self.progress().await;
                continue;
            }
            // If anything comes, it is judged.
            self.poll_times(3).await;
            if self.expected(end) != Expected::Something {
                self.receiving[end] = None;
            }
        }
    }

    // -- ends ---------------------------------------------------------------

    fn shutdown(&mut self, end: End, side: Side) {
        let how = match side {
            Side::Read => Shutdown::Read,
            Side::Write => Shutdown::Write,
            Side::Both => Shutdown::Both,
        };
        let this = self.ends[end].as_ref().expect("it is open");
        if let Err(e) = this.shutdown(how) {
            let [own, others] = [end, other(end)].map(|end| self.directions[end].writer);
            let both = own != State::Open && others != State::Open;
            let may = self.transport == Transport::Tcp && (both || self.directions[end].reset);
            if !(may && e.raw_os_error() == Some(libc::ENOTCONN)) {
                self.fail(end, &format!("shutdown({how:?}): {e}"));
            }
        }
        if side != Side::Read {
            self.directions[end].writer = State::Shut;
        }
        if side != Side::Write {
            let incoming = &mut self.directions[other(end)];
            incoming.reader = State::Shut;
            incoming.lossy = true;
            incoming.exact = false;
            // What comes nevertheless may be answered with a reset.
            if self.transport == Transport::Tcp {
                self.shake();
            }
        }
    }

    async fn drop(&mut self, end: End, tidy: bool) {
        let peer = other(end);
        if tidy {
            self.finish_send(end).await;
            self.finish_recv(end).await;
            while self.expected(end) == Expected::Something
                && self.directions[peer].left().1 > 0
                && !self.directions[peer].ended
            {
                self.begin_recv(end, 64 << 10, 1);
                self.finish_recv(end).await;
            }
        }
        self.receiving[end] = None;
        // Also taints what is not tidy.
        if self.sending[end].is_some() || !tidy {
            self.cancel_send(end);
        }
        // Whether anything is unread is the moment's if what was sent is.
        if !tidy || !self.directions[peer].exact {
            self.directions[end].exact = false;
        }
        if !tidy || self.directions[peer].left().1 > 0 {
            self.shake();
        }
        let shut = [self.directions[end].writer, self.directions[peer].reader];
        self.stalled[peer] = self.transport == Transport::Tcp && shut == [State::Shut; 2];
        self.ends[end] = None;
        self.directions[end].writer = State::Dropped;
        self.directions[peer].reader = State::Dropped;
        self.directions[peer].exact = false;
    }

    /// What is open is ended in order, and read to its end.
    async fn finish(mut self) -> Agreed {
        for end in [0, 1] {
            if self.ends[end].is_some() {
                self.finish_send(end).await;
                self.shutdown(end, Side::Write);
            }
        }
        for end in [0, 1] {
            // The end stays the end.
            let mut ends = 0;
            while self.ends[end].is_some() && ends < 2 {
                if self.receiving[end].is_none() {
                    self.begin_recv(end, 64 << 10, ends as u8);
                }
                let receiving = self.receiving[end].as_mut().expect("just begun");
                let result = receiving.doing.as_mut().await;
                let receiving = self.receiving[end].take().expect("just awaited");
                ends += usize::from(self.received(end, &receiving, &result));
            }
        }
        self.ends = [None, None];
        [0, 1].map(|writer| self.directions[writer].agreed())
    }
}
