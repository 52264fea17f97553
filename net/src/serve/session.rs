//! What a handler knows of its connection, and the clocks that run beside it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use isochrome_runtime::WeakDescriptor;
use isochrome_runtime::time::{Sleep, sleep_until};

use super::closing::{Closing, Hearer};
use crate::family::Family;
use crate::tcp::{Tcp, TcpStream};

/// What [`serve`](super::serve) hands a handler along with the connection.
pub struct Session<F: Family = Tcp> {
    peer: F::Addr,
    head: Arc<Head>,
    closing: Arc<Closing>,
}

/// When the head of a request has to be complete. (Here and below, a time
/// beyond what the clock can say is as good as none.)
pub(super) struct Head {
    timeout: Option<Duration>,
    deadline: Mutex<Option<Instant>>,
}

impl Head {
    fn deadline(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nothing that can panic runs under the lock.
        self.deadline.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<F: Family> Session<F> {
    /// For a connection that was accepted at `since`.
    pub(super) fn new(
        peer: F::Addr,
        since: Instant,
        head_timeout: Option<Duration>,
        closing: Arc<Closing>,
    ) -> Session<F> {
        let head = Head {
            timeout: head_timeout,
            deadline: Mutex::new(head_timeout.and_then(|timeout| since.checked_add(timeout))),
        };
        Session {
            peer,
            head: Arc::new(head),
            closing,
        }
    }

    /// Where the connection comes from.
    pub fn peer(&self) -> F::Addr {
        self.peer.clone()
    }

    /// The head of a request is complete: the client has said what it wants,
    /// and [`head_timeout`](super::Serve::head_timeout) no longer runs.
    pub fn head_is_complete(&self) {
        *self.head.deadline() = None;
    }

    /// The client is expected to say what it wants: the head timeout runs from
    /// now on, as it did from the beginning of the connection. To be called in
    /// the handler's own task.
    pub fn head_begins(&self) {
        let end = |timeout| Instant::now().checked_add(timeout);
        *self.head.deadline() = self.head.timeout.and_then(end);
    }

    /// Whether the server is closing: a handler ends then as soon as it can.
    pub fn is_closing(&self) -> bool {
        self.closing.is_said()
    }

    /// Waits until the server is closing. What a handler waits for beside it
    /// has to be something that may be given up, such as
    /// [`recv`](crate::TcpStream::recv).
    ///
    /// Dropping the future loses nothing.
    pub async fn closing(&self) {
        let mut hearer = Hearer::new(self.closing.clone());
        poll_fn(|cx| hearer.poll(cx)).await;
    }

    pub(super) fn head(&self) -> &Arc<Head> {
        &self.head
    }
}

impl<F: Family> fmt::Debug for Session<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("closing", &self.is_closing())
            .finish_non_exhaustive()
    }
}

/// Why a connection is taken from its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimedOut {
    Idle,
    Head,
}

/// Runs beside a handler, in its task.
pub(super) struct Watch {
    head: Arc<Head>,
    idle: Option<Idle>,
    sleep: Option<Sleep>,
}

/// Looks now and then whether bytes still move. The kernel knows (tcp(7),
/// TCP_INFO), however the handler reads and writes.
struct Idle {
    limit: Duration,
    /// The handler decides when the connection is closed.
    connection: WeakDescriptor,
    next_look: Instant,
}

impl Watch {
    pub(super) fn new<F: Family>(
        session: &Session<F>,
        idle_timeout: Option<Duration>,
        connection: Option<&TcpStream>,
    ) -> Watch {
        let idle = idle_timeout.zip(connection).and_then(|(limit, tcp)| {
            Some(Idle {
                limit,
                connection: tcp.descriptor().downgrade(),
                next_look: Instant::now().checked_add(limit)?,
            })
        });
        Watch {
            head: session.head().clone(),
            idle,
            sleep: None,
        }
    }

    /// Pending for ever, if nothing is limited.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TimedOut> {
        loop {
            let head = *self.head.deadline();
            let look = self.idle.as_ref().map(|idle| idle.next_look);
            let Some(next) = head.into_iter().chain(look).min() else {
                self.sleep = None;
                return Poll::Pending;
            };
            let kept = self.sleep.as_ref().is_some_and(|s| s.deadline() == next);
            if !kept {
                self.sleep = None;
            }
            let sleep = self.sleep.get_or_insert_with(|| sleep_until(next));
            ready!(Pin::new(sleep).poll(cx));
            let now = Instant::now();
            if head.is_some_and(|head| head <= now) {
                return Poll::Ready(TimedOut::Head);
            }
            if self.is_idle(now) {
                return Poll::Ready(TimedOut::Idle);
            }
        }
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        let Some(idle) = &mut self.idle else {
            return false;
        };
        let quiet = idle.connection.upgrade().map(|tcp| tcp.quiet_for());
        let Some(Ok(quiet)) = quiet else {
            // Closed, or gone: the handler does something else.
            self.idle = None;
            return false;
        };
        if quiet >= idle.limit {
            return true;
        }
        match now.checked_add(idle.limit - quiet) {
            Some(next) => idle.next_look = next,
            None => self.idle = None,
        }
        false
    }
}
