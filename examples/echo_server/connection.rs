//! One connection: plain async/await.
//!
//! # Ending in order
//!
//! When the server stops, a connection
//!
//! 1. finishes sending the answer that it is at;
//! 2. answers what had arrived by then. A `recv` that is pending does not
//!    prove that nothing did, as the bytes may be on their way through the
//!    driver: nothing for [`QUIET`] does. A client that never pauses is cut
//!    off after [`GRACE`];
//! 3. says that no more will come, by shutting down its side, and reads on,
//!    without answering, until the client closes its own or is silent for
//!    [`LINGER`]. Closing at once would be shorter, but if the client is just
//!    sending, the kernel answers with a reset, which throws away whatever it
//!    has not delivered yet of our answers. One that sends on for ever is cut
//!    off with those that are stuck.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use isochrome::net::{RecvBuf, TcpStream};
use isochrome::time::timeout;

use crate::delimited::Delimited;
use crate::server::house::Ticket;
use crate::server::stop::{Listener, Stop};
use crate::totals::Totals;

/// Long enough for a worker's turn on a busy machine (thin air, doubled).
const QUIET: Duration = Duration::from_millis(20);

/// A client in a closed loop sends its next message as soon as it has its
/// answer; it would keep a stopping server busy for ever.
const GRACE: Duration = Duration::from_millis(250);

/// A client that has read to the end closes within a round trip; until then,
/// one that sends goes on with that. One that does neither gets this much.
const LINGER: Duration = Duration::from_secs(1);

/// What is answered.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Protocol {
    /// Every byte comes back as it is
    Echo,
    /// Greets with `*`; bytes between `^` and `$` come back incremented by one
    Delimited,
}

/// What a connection needs of its server.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) protocol: Protocol,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) stop: Arc<Stop>,
}

/// Serves one client until it leaves, falls silent or fails, or the server
/// stops.
pub(crate) async fn serve(stream: TcpStream, terms: Terms, ticket: Ticket) {
    let totals = terms.totals.clone();
    totals.connections.add(1);
    let connection = Connection {
        stream,
        machine: match terms.protocol {
            Protocol::Echo => None,
            Protocol::Delimited => Some(Delimited::default()),
        },
        idle_timeout: terms.idle_timeout,
        stop: terms.stop.listen(),
        totals: &totals,
    };
    if connection.run().await.is_err() {
        totals.errors.add(1);
    }
    // Only now, with the socket closed, is there room for another.
    drop(ticket);
}

struct Connection<'a> {
    stream: TcpStream,
    /// Of the delimited protocol; a plain echo has no state.
    machine: Option<Delimited>,
    idle_timeout: Option<Duration>,
    stop: Listener,
    totals: &'a Totals,
}

/// What there is to do next.
enum Next {
    Answer(RecvBuf),
    /// The client has no more to say, or said nothing for too long.
    Close,
    /// The server stops.
    WindUp,
}

impl Connection<'_> {
    async fn run(mut self) -> io::Result<()> {
        // If the client is gone already, the first receive will tell.
        let _ = self.stream.set_nodelay(true);
        if self.machine.is_some() {
            let (sent, _) = self.stream.send_all(Delimited::GREETING).await;
            sent?;
            self.totals.sent.add(Delimited::GREETING.len() as u64);
        }
        loop {
            match self.next().await? {
                Next::Answer(lease) => self.answer(lease).await?,
                Next::Close => return self.stream.flush().await,
                Next::WindUp => return self.wind_up().await,
            }
        }
    }

    async fn next(&mut self) -> io::Result<Next> {
        let receive = self.stop.until(self.stream.recv());
        let received = match self.idle_timeout {
            None => receive.await,
            Some(limit) => match timeout(limit, receive).await {
                Ok(received) => received,
                Err(_) => {
                    self.totals.idle.add(1);
                    return Ok(Next::Close);
                }
            },
        };
        Ok(match received.transpose()? {
            Some(lease) if lease.is_empty() => Next::Close,
            Some(lease) => Next::Answer(lease),
            None => Next::WindUp,
        })
    }

    /// Sends the answer in the very buffer that the bytes came in, and does not
    /// wait for that: whoever leaves flushes.
    async fn answer(&mut self, mut lease: RecvBuf) -> io::Result<()> {
        self.totals.received.add(lease.len() as u64);
        if let Some(machine) = &mut self.machine {
            let len = machine.transform(&mut lease);
            lease.truncate(len);
        }
        if lease.is_empty() {
            return Ok(());
        }
        let len = lease.len() as u64;
        self.stream.feed(lease).await?;
        self.totals.sent.add(len);
        Ok(())
    }

    /// Steps 2 and 3 of the module.
    async fn wind_up(mut self) -> io::Result<()> {
        let end = Instant::now() + GRACE;
        while let Some(lease) = self.receive_before(end, QUIET).await? {
            if lease.is_empty() {
                return self.stream.flush().await;
            }
            self.answer(lease).await?;
        }
        // So that a client that only reads is not silent for too long.
        self.stream.flush().await?;
        self.stream.shutdown(Shutdown::Write)?;
        // The conversation is over: a reset is no error any more.
        while let Ok(Ok(lease)) = timeout(LINGER, self.stream.recv()).await {
            if lease.is_empty() {
                break;
            }
            self.totals.discarded.add(lease.len() as u64);
        }
        Ok(())
    }

    /// What arrives before `end` and within `quiet` from now.
    async fn receive_before(&self, end: Instant, quiet: Duration) -> io::Result<Option<RecvBuf>> {
        let left = end.saturating_duration_since(Instant::now()).min(quiet);
        if left.is_zero() {
            return Ok(None);
        }
        timeout(left, self.stream.recv()).await.ok().transpose()
    }
}
