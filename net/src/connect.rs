//! Connecting to one of several addresses: RFC 8305, "Happy Eyeballs".
//!
//! The addresses are tried in their order, but that the families take turns
//! (section 4). An attempt that has neither succeeded nor failed after a while
//! goes on, and the next begins beside it (section 5). The first connection
//! wins; the other attempts are given up and their sockets closed.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use isochrome_runtime::time::Sleep;
use isochrome_runtime::{Descriptor, Handle};

use crate::addr::{ToAddrs, resolve};
use crate::tcp::{TcpStream, new_socket};

/// How long an attempt is alone: what RFC 8305 recommends in section 5.
const HEAD_START: Duration = Duration::from_millis(250);

/// Why a connection could be made to none of several addresses. It is inside
/// of the [`io::Error`] that [`TcpStream::connect`] answers then:
///
/// ```no_run
/// # use isochrome_net::{ConnectError, TcpStream};
/// # async fn example() {
/// if let Err(e) = TcpStream::connect("example.org:80").await {
///     let several = e.get_ref().and_then(|e| e.downcast_ref::<ConnectError>());
///     for (address, error) in several.map_or(&[][..], ConnectError::attempts) {
///         println!("{address}: {error}");
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct ConnectError {
    attempts: Vec<(SocketAddr, io::Error)>,
}

impl ConnectError {
    /// The addresses that were tried, and what each answered, in the order in
    /// which they failed.
    pub fn attempts(&self) -> &[(SocketAddr, io::Error)] {
        &self.attempts
    }

    /// The kind that tells most: of the last that got as far as the other
    /// host. A family that this host has no route for says nothing about the
    /// service.
    fn kind(&self) -> ErrorKind {
        let far = |kind: &ErrorKind| {
            !matches!(
                kind,
                ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::Unsupported
            )
        };
        let mut kinds = self.attempts.iter().rev().map(|(_, e)| e.kind());
        let last = kinds.clone().next().unwrap_or(ErrorKind::Other);
        kinds.find(far).unwrap_or(last)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of {} addresses answered", self.attempts.len())?;
        for (i, (address, error)) in self.attempts.iter().enumerate() {
            let comma = if i == 0 { ": " } else { "; " };
            write!(f, "{comma}{address}: {error}")?;
        }
        Ok(())
    }
}

impl Error for ConnectError {}

pub(crate) async fn connect(to: impl ToAddrs) -> io::Result<TcpStream> {
    let runtime = crate::runtime()?;
    let addresses = resolve(to).await?;
    if let [only] = addresses[..] {
        return connect_one(only, &runtime).await;
    }
    let mut race = Race::new(addresses, runtime);
    poll_fn(|cx| race.poll(cx)).await
}

pub(crate) async fn connect_timeout(to: impl ToAddrs, limit: Duration) -> io::Result<TcpStream> {
    if limit.is_zero() {
        let message = "the time limit is zero: connecting takes some time";
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    let runtime = crate::runtime()?;
    // An end beyond what the clock can say is as good as none.
    let Some(end) = Instant::now().checked_add(limit) else {
        return connect(to).await;
    };
    let mut sleep = runtime.sleep_until(end);
    let late = |what: String| {
        let message = format!("{what} took longer than {limit:?}");
        io::Error::new(ErrorKind::TimedOut, message)
    };

    let Some(addresses) = before(&mut sleep, resolve(to)).await else {
        return Err(late("resolving the name".into()));
    };
    let addresses = addresses?;
    if let [only] = addresses[..] {
        let connected = before(&mut sleep, connect_one(only, &runtime)).await;
        return connected.unwrap_or_else(|| Err(late(format!("connecting to {only}"))));
    }
    let mut race = Race::new(addresses, runtime);
    let connected = before(&mut sleep, poll_fn(|cx| race.poll(cx))).await;
    connected.unwrap_or_else(|| Err(race.end(|| late("connecting".into()))))
}

/// What `future` gives, if it does before `sleep` ends.
async fn before<F: Future>(sleep: &mut Sleep, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Pin::new(&mut *sleep).poll(cx).map(|()| None),
    })
    .await
}

async fn connect_one(address: SocketAddr, runtime: &Handle) -> io::Result<TcpStream> {
    let socket = new_socket(address, runtime)?;
    TcpStream::connected(Descriptor::tcp(socket.into(), runtime), address).await
}

/// An attempt to connect to one of several addresses.
struct Attempt {
    address: SocketAddr,
    connecting: Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>,
}

/// The attempts to connect to several addresses.
struct Race {
    runtime: Handle,
    waiting: VecDeque<SocketAddr>,
    /// In the order in which they began.
    running: Vec<Attempt>,
    failed: Vec<(SocketAddr, io::Error)>,
    /// The head start of the last one to begin.
    head_start: Option<Sleep>,
}

impl Race {
    fn new(addresses: Vec<SocketAddr>, runtime: Handle) -> Race {
        Race {
            runtime,
            waiting: take_turns(addresses),
            running: Vec::new(),
            failed: Vec::new(),
            head_start: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        loop {
            let mut i = 0;
            while let Some(attempt) = self.running.get_mut(i) {
                match attempt.connecting.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(e)) => {
                        self.failed.push((attempt.address, e));
                        self.running.remove(i);
                        // The next need not wait.
                        self.head_start = None;
                    }
                    Poll::Pending => i += 1,
                }
            }
            let head_start = self.head_start.as_mut();
            if head_start.is_some_and(|sleep| Pin::new(sleep).poll(cx).is_pending()) {
                return Poll::Pending;
            }
            let Some(address) = self.waiting.pop_front() else {
                if self.running.is_empty() {
                    return Poll::Ready(Err(self.error()));
                }
                self.head_start = None;
                return Poll::Pending;
            };
            let runtime = self.runtime.clone();
            self.running.push(Attempt {
                address,
                connecting: Box::pin(async move { connect_one(address, &runtime).await }),
            });
            let end = Instant::now() + HEAD_START;
            self.head_start = Some(self.runtime.sleep_until(end));
        }
    }

    /// Gives the attempts up that are not over, each with this error.
    fn end(&mut self, error: impl Fn() -> io::Error) -> io::Error {
        let running = self.running.drain(..).map(|attempt| attempt.address);
        let unfinished = running.chain(self.waiting.drain(..));
        self.failed
            .extend(unfinished.map(|address| (address, error())));
        self.error()
    }

    fn error(&mut self) -> io::Error {
        let error = ConnectError {
            attempts: std::mem::take(&mut self.failed),
        };
        io::Error::new(error.kind(), error)
    }
}

/// The addresses in their order, but that the families take turns; the first
/// address stays the first. RFC 8305, section 4, with a "First Address Family
/// Count" of 1.
fn take_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else {
        return VecDeque::new();
    };
    let (one, other): (Vec<_>, Vec<_>) =
        (addresses.into_iter()).partition(|a| a.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = VecDeque::with_capacity(one.len() + other.len());
    while one.len() + other.len() > 0 {
        turns.extend(one.next());
        turns.extend(other.next());
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(of: &[&str]) -> Vec<SocketAddr> {
        of.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_first_stays_first() {
        let of = ["[::1]:1", "[::1]:2", "[::1]:3", "1.1.1.1:1", "1.1.1.1:2"];
        let turns = ["[::1]:1", "1.1.1.1:1", "[::1]:2", "1.1.1.1:2", "[::1]:3"];
        assert_eq!(take_turns(addresses(&of)), addresses(&turns));
        let of = ["1.1.1.1:1", "1.1.1.1:2", "[::1]:1"];
        let turns = ["1.1.1.1:1", "[::1]:1", "1.1.1.1:2"];
        assert_eq!(take_turns(addresses(&of)), addresses(&turns));
        assert_eq!(take_turns(Vec::new()), []);
    }

    #[test]
    fn the_kind_is_of_who_got_furthest() {
        let of = |kinds: &[ErrorKind]| {
            let address = addresses(&["1.1.1.1:1"])[0];
            let attempts = kinds.iter().map(|kind| (address, (*kind).into()));
            let error = ConnectError {
                attempts: attempts.collect(),
            };
            error.kind()
        };
        use ErrorKind::*;
        assert_eq!(
            of(&[ConnectionRefused, NetworkUnreachable]),
            ConnectionRefused
        );
        assert_eq!(of(&[ConnectionRefused, TimedOut]), TimedOut);
        assert_eq!(of(&[NetworkUnreachable, HostUnreachable]), HostUnreachable);
    }
}
