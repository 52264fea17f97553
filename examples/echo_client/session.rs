//! One connection: a closed loop of round trips.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use isochrome::net::TcpStream;

use crate::figures::Figures;
use crate::pattern::Pattern;

/// What every connection is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) size: usize,
    pub(crate) verify: bool,
    /// Round trips of each connection, if not as many as time allows.
    pub(crate) requests: Option<u64>,
}

/// Why a connection failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(io::Error),
    /// The server closed the connection before all was answered.
    Closed {
        round: u64,
        got: usize,
    },
    Wrong {
        round: u64,
        place: usize,
        sent: u8,
        got: u8,
    },
    /// More came back than was sent.
    Surplus {
        round: u64,
        bytes: usize,
    },
    /// The time was over, and the patience with it.
    NoAnswer,
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Io(e)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Io(e) => e.fmt(f),
            Failure::Closed { round, got } => write!(
                f,
                "closed by the server in round {round}, after {got} bytes of the answer"
            ),
            Failure::Wrong {
                round,
                place,
                sent,
                got,
            } => write!(
                f,
                "wrong byte at offset {place} of round {round}: sent {sent:#04x}, got {got:#04x}"
            ),
            Failure::Surplus { round, bytes } => {
                write!(f, "{bytes} bytes too many in round {round}")
            }
            Failure::NoAnswer => f.write_str("no answer in time"),
        }
    }
}

/// Makes round trips until `end`, or as many as asked for, and tells how many
/// were made. The one that is under way at `end` is finished.
pub(crate) async fn run(
    stream: TcpStream,
    number: usize,
    plan: Plan,
    end: Instant,
    figures: Arc<Figures>,
) -> Result<u64, Failure> {
    let mut session = Session {
        stream,
        plan,
        message: vec![0; plan.size],
        pattern: Pattern::new(number, 0),
        round: 0,
    };
    session.pattern.fill(&mut session.message);
    let mut begun = Instant::now();
    while begun < end && plan.requests.is_none_or(|most| session.round < most) {
        if plan.verify {
            session.pattern = Pattern::new(number, session.round);
            session.pattern.fill(&mut session.message);
            begun = Instant::now();
        }
        session.round_trip().await?;
        let now = Instant::now();
        figures.record(number, now - begun);
        begun = now;
        session.round += 1;
    }
    Ok(session.round)
}

struct Session {
    stream: TcpStream,
    plan: Plan,
    /// Lent to each send, and given back by it.
    message: Vec<u8>,
    pattern: Pattern,
    round: u64,
}

impl Session {
    /// Sends and receives at the same time: a message larger than what the
    /// sockets hold comes back while it is still being sent.
    async fn round_trip(&mut self) -> Result<(), Failure> {
        let message = std::mem::take(&mut self.message);
        let send = async {
            let (sent, message) = self.stream.send_all(message).await;
            sent.map(|()| message).map_err(Failure::Io)
        };
        let (message, ()) = both(send, self.receive()).await?;
        self.message = message;
        Ok(())
    }

    async fn receive(&self) -> Result<(), Failure> {
        let round = self.round;
        let mut got = 0;
        while got < self.plan.size {
            let lease = self.stream.recv().await?;
            if lease.is_empty() {
                return Err(Failure::Closed { round, got });
            }
            if lease.len() > self.plan.size - got {
                let bytes = lease.len() - (self.plan.size - got);
                return Err(Failure::Surplus { round, bytes });
            }
            if self.plan.verify {
                self.check(&lease, got)?;
            }
            got += lease.len();
        }
        Ok(())
    }

    fn check(&self, answer: &[u8], from: usize) -> Result<(), Failure> {
        match self.pattern.first_difference(answer, from) {
            None => Ok(()),
            Some(place) => Err(Failure::Wrong {
                round: self.round,
                place,
                sent: self.pattern.at(place),
                got: answer[place - from],
            }),
        }
    }
}

/// Both outputs, of futures that take turns, or the error that comes first;
/// the other future is dropped then.
async fn both<A, B, E>(
    a: impl Future<Output = Result<A, E>>,
    b: impl Future<Output = Result<B, E>>,
) -> Result<(A, B), E> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut from_a, mut from_b) = (None, None);
    poll_fn(|cx| {
        if from_a.is_none() {
            if let Poll::Ready(output) = a.as_mut().poll(cx) {
                from_a = Some(output?);
            }
        }
        if from_b.is_none() {
            if let Poll::Ready(output) = b.as_mut().poll(cx) {
                from_b = Some(output?);
            }
        }
        match (from_a.take(), from_b.take()) {
            (Some(a), Some(b)) => Poll::Ready(Ok((a, b))),
            (a, b) => {
                (from_a, from_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    #[test]
    fn both_waits_for_both_but_not_after_an_error() {
        let mut cx = Context::from_waker(Waker::noop());
        let done = pin!(both(ready(Ok::<_, ()>(1)), ready(Ok(2)))).poll(&mut cx);
        assert_eq!(done, Poll::Ready(Ok((1, 2))));
        let stuck = || pending::<Result<i32, i32>>();
        let open = pin!(both(ready(Ok::<_, i32>(1)), stuck())).poll(&mut cx);
        assert_eq!(open, Poll::Pending);
        for failed in [
            pin!(both(stuck(), ready(Err::<i32, _>(3)))).poll(&mut cx),
            pin!(both(ready(Err::<i32, _>(3)), stuck())).poll(&mut cx),
        ] {
            assert_eq!(failed, Poll::Ready(Err(3)));
        }
    }
}
