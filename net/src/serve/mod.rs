//! A server: connections to a handler, each in a color of its own.
//!
//! | file | concept |
//! |---|---|
//! | `mod` | accepting, limits, the end |
//! | `session` | what a handler knows, and its timeouts |
//! | `codel` | when to shed |
//! | `closing` | the word that it is over |

mod closing;
mod codel;
mod session;

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use isochrome_runtime::{AbortHandle, Handle};

use crate::family::Family;
use crate::listener::Listener;
use crate::tcp::Tcp;
use closing::{Closing, Hearer};
use codel::Codel;
pub use session::Session;
use session::{TimedOut, Watch};

/// How long connections have to end by themselves, if nothing else is said.
const GRACE: Duration = Duration::from_secs(10);

/// Serves the connections of `listener`, each by a task of its own with a color
/// of its own: what belongs to a connection runs one thing after another, and
/// connections run in parallel. The listener may be of any
/// [family](crate::Family).
///
/// Without further word there is no limit but descriptors and memory. Set what
/// the server needs, take a [`ServeHandle`] to end it, and
/// [`run`](Serve::run):
///
/// ```no_run
/// use std::time::Duration;
/// use isochrome_net::{TcpListener, serve};
///
/// # async fn example() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:7777").await?;
/// let server = serve(listener, |stream, session| async move {
///     loop {
///         let data = stream.recv().await?;
///         session.head_is_complete();
///         if data.is_empty() || session.is_closing() {
///             return stream.flush().await;
///         }
///         stream.feed(data).await?;
///     }
/// })
/// .limit(10_000)
/// .head_timeout(Duration::from_secs(10))
/// .idle_timeout(Duration::from_secs(60))
/// .shed(Duration::from_millis(5));
/// let handle = server.handle(); // handle.close() ends it
/// let stats = server.run().await?;
/// # drop((handle, stats));
/// # Ok(())
/// # }
/// ```
///
/// A handler's error is counted ([`ServeStats::failed`]) and dropped: what is to
/// be logged of it, the handler logs. Reports of polls that take long name the
/// place of this call.
#[track_caller]
pub fn serve<F, H, R>(listener: Listener<F>, handler: H) -> Serve<H, F>
where
    F: Family,
    H: Fn(F::Connection, Session<F>) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    Serve {
        listener,
        handler: Arc::new(handler),
        limits: Limits::default(),
        shared: Arc::default(),
        at: Location::caller(),
    }
}

/// A server that was not started yet; see [`serve`].
#[must_use = "a server does nothing before `run`"]
pub struct Serve<H, F: Family = Tcp> {
    listener: Listener<F>,
    handler: Arc<H>,
    limits: Limits,
    shared: Arc<Shared>,
    /// Where the program asked for it, which is where reports say that the
    /// tasks of the connections were spawned.
    at: &'static Location<'static>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    idle: Option<Duration>,
    head: Option<Duration>,
    grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: usize::MAX,
            idle: None,
            head: None,
            grace: GRACE,
        }
    }
}

#[derive(Default)]
struct Shared {
    closing: Arc<Closing>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stats: ServeStats,
    next: u64,
    /// The connections, by number; `None` for an instant at the beginning.
    open: HashMap<u64, Option<AbortHandle>>,
    /// Those among them whose handlers have not begun.
    queued: usize,
    codel: Option<Codel>,
    /// Who waits for a connection to end.
    waiter: Option<Waker>,
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeStats {
    /// Connections accepted. All of them are open or in one of the counts
    /// below.
    pub accepted: u64,
    /// Connections being served, or waiting for it.
    pub open: u64,
    /// Handlers that ended well.
    pub completed: u64,
    /// Handlers that ended with an error.
    pub failed: u64,
    /// Handlers that panicked.
    pub panicked: u64,
    /// Connections reset before they were served: there was too much to do
    /// ([`Serve::shed`]).
    pub shed: u64,
    /// Connections closed because no byte moved ([`Serve::idle_timeout`]).
    pub idle: u64,
    /// Connections closed because the client did not say what it wants
    /// ([`Serve::head_timeout`]).
    pub head: u64,
    /// Connections cut off at the end ([`Serve::grace`]).
    pub cut: u64,
}

/// A server's figures, and its end. Clones are of the same server.
#[derive(Clone)]
pub struct ServeHandle {
    shared: Arc<Shared>,
}

impl ServeHandle {
    /// Begins the end: accepting stops, handlers are told
    /// ([`Session::closing`]), and [`Serve::run`] returns when all have ended
    /// or their [grace](Serve::grace) is over. Doing it again changes nothing.
    pub fn close(&self) {
        self.shared.closing.say();
    }

    /// The figures of this moment.
    pub fn stats(&self) -> ServeStats {
        self.shared.stats()
    }
}

impl<H> Serve<H, Tcp> {
    /// Closes connections on which no byte came in or went out for this long,
    /// whatever the handler is at: its future is dropped. To the tick of the
    /// kernel's clock, some milliseconds.
    ///
    /// For TCP alone: of local sockets the kernel does not keep when bytes
    /// moved, and what the calls of a connection could count misses what
    /// others send and receive by its descriptor, and how far a large send has
    /// come. There [`head_timeout`](Serve::head_timeout) and
    /// [`timeout`](isochrome_runtime::time::timeout) do, which say what they
    /// wait for.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle = Some(timeout);
        self
    }
}

impl<H, F: Family> Serve<H, F> {
    /// How many connections may be open. When there are as many, no more are
    /// accepted until one ends: clients wait in the listener's backlog.
    pub fn limit(mut self, connections: usize) -> Self {
        self.limits.connections = connections.max(1);
        self
    }

    /// Closes connections whose client does not say what it wants within this
    /// time, however busily it sends: from the beginning to
    /// [`Session::head_is_complete`], and again from each
    /// [`Session::head_begins`] on. The handler's future is dropped.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.limits.head = Some(timeout);
        self
    }

    /// Sheds load: when connections wait for their handler to begin, and for
    /// 100 ms not one of them waited less than `target`, some are reset
    /// instead of served, ever more until one waits less. 5 ms is a good
    /// target (CoDel, RFC 8289): a burst that passes within 100 ms is served
    /// whole. Off by default.
    pub fn shed(self, target: Duration) -> Self {
        self.shared.lock().codel = Some(Codel::new(target));
        self
    }

    /// How long handlers have to end after [`ServeHandle::close`], before the
    /// futures of those that are left are dropped: 10 s by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.limits.grace = grace;
        self
    }

    /// The server's figures, and its end.
    pub fn handle(&self) -> ServeHandle {
        ServeHandle {
            shared: self.shared.clone(),
        }
    }
}

impl<F, H, R> Serve<H, F>
where
    F: Family,
    H: Fn(F::Connection, Session<F>) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    /// Serves until [`ServeHandle::close`], and tells what was done. A handler
    /// that panics takes its own connection along, and no other. Connections
    /// are served in the runtime that this runs in; on another executor, in
    /// that of the listener.
    ///
    /// Dropping the future closes the listener; connections that are open are
    /// served on, and handlers are not told.
    ///
    /// # Errors
    ///
    /// What accepting answers ([`Listener::accept`]), after the connections
    /// that are open have ended as by a close.
    pub async fn run(self) -> io::Result<ServeStats> {
        let Serve {
            listener,
            handler,
            limits,
            shared,
            at,
        } = self;
        let mut closing = Hearer::new(shared.closing.clone());
        let runtime = Handle::current().unwrap_or_else(|| listener.runtime().clone());
        let end = loop {
            let mut accept = pin!(listener.accept());
            let next = poll_fn(|cx| {
                if closing.poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                if !shared.has_room(limits.connections, cx) {
                    return Poll::Pending;
                }
                accept.as_mut().poll(cx).map(Some)
            });
            match next.await {
                Some(Ok((stream, peer))) => {
                    start::<F, _, _>(&runtime, at, &shared, limits, &handler, stream, peer)
                }
                Some(Err(e)) => break Err(e),
                None => break Ok(()),
            }
        };
        // Who connects from now on is refused.
        drop(listener);
        shared.closing.say();
        // An end beyond what the clock can say is as good as none.
        let end_of_grace = Instant::now().checked_add(limits.grace);
        let mut grace = end_of_grace.map(|at| runtime.sleep_until(at));
        poll_fn(|cx| match (shared.poll_empty(cx), &mut grace) {
            (Poll::Pending, Some(grace)) => Pin::new(grace).poll(cx),
            (empty, _) => empty,
        })
        .await;
        shared.cut();
        poll_fn(|cx| shared.poll_empty(cx)).await;
        end.map(|()| shared.stats())
    }
}

/// Spawns what serves a connection.
fn start<F, H, R>(
    runtime: &Handle,
    at: &'static Location<'static>,
    shared: &Arc<Shared>,
    limits: Limits,
    handler: &Arc<H>,
    stream: F::Connection,
    peer: F::Addr,
) where
    F: Family,
    H: Fn(F::Connection, Session<F>) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let since = Instant::now();
    let place = Place::new(shared);
    let (number, handler) = (place.number, handler.clone());
    let task = async move {
        let mut place = place;
        if place.begin(since) {
            if let Some(tcp) = F::as_tcp(&stream) {
                // The client is told at once. (If it cannot be, it is gone.)
                let _ = tcp.set_linger(Some(Duration::ZERO));
            }
            place.outcome = Outcome::Shed;
            return;
        }
        let session = Session::new(peer, since, limits.head, place.shared.closing.clone());
        let mut watch = Watch::new(&session, limits.idle, F::as_tcp(&stream));
        let mut served = pin!(handler(stream, session));
        let end = poll_fn(|cx| match served.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Outcome::Completed),
            Poll::Ready(Err(_)) => Poll::Ready(Outcome::Failed),
            Poll::Pending => watch.poll(cx).map(Outcome::TimedOut),
        });
        place.outcome = end.await;
    };
    let task = runtime.spawn_apart_at(at, task);
    // It may have ended by now.
    if let Some(abort) = shared.lock().open.get_mut(&number) {
        *abort = Some(task.abort_handle());
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Its future was dropped by somebody else, or panicked.
    Dropped,
    Completed,
    Failed,
    Shed,
    TimedOut(TimedOut),
}

/// A connection's place among the open ones. It is given up with the future,
/// however that ends.
struct Place {
    shared: Arc<Shared>,
    number: u64,
    begun: bool,
    outcome: Outcome,
}

impl Place {
    fn new(shared: &Arc<Shared>) -> Place {
        let mut state = shared.lock();
        state.stats.accepted += 1;
        state.queued += 1;
        state.next += 1;
        let number = state.next;
        state.open.insert(number, None);
        Place {
            shared: shared.clone(),
            number,
            begun: false,
            outcome: Outcome::Dropped,
        }
    }

    /// The handler's turn has come. Whether to shed the connection instead.
    fn begin(&mut self, since: Instant) -> bool {
        self.begun = true;
        let mut state = self.shared.lock();
        state.queued -= 1;
        let last = state.queued == 0;
        let now = Instant::now();
        let codel = state.codel.as_mut();
        codel.is_some_and(|codel| codel.sheds(now.duration_since(since), last, now))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let gone = state.open.remove(&self.number);
        state.queued -= usize::from(!self.begun);
        let stats = &mut state.stats;
        let count = match self.outcome {
            Outcome::Dropped if std::thread::panicking() => &mut stats.panicked,
            Outcome::Dropped => &mut stats.cut,
            Outcome::Completed => &mut stats.completed,
            Outcome::Failed => &mut stats.failed,
            Outcome::Shed => &mut stats.shed,
            Outcome::TimedOut(TimedOut::Idle) => &mut stats.idle,
            Outcome::TimedOut(TimedOut::Head) => &mut stats.head,
        };
        *count += 1;
        let waiter = state.waiter.take();
        drop(state);
        drop(gone);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, but the allocator.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn stats(&self) -> ServeStats {
        let state = self.lock();
        ServeStats {
            open: state.open.len() as u64,
            ..state.stats
        }
    }

    /// Whether another connection may be accepted. If not, the task is woken
    /// when one has ended.
    fn has_room(&self, limit: usize, cx: &Context<'_>) -> bool {
        if self.lock().open.len() < limit {
            return true;
        }
        // Unlocked: to clone a foreign one may run any code.
        let waker = cx.waker().clone();
        let mut state = self.lock();
        if state.open.len() < limit {
            return true;
        }
        let old = state.waiter.replace(waker);
        drop(state);
        drop(old);
        false
    }

    /// Ready when no connection is open.
    fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        match self.has_room(1, cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Drops the futures of all handlers that are left.
    fn cut(&self) {
        let mut state = self.lock();
        let aborts: Vec<_> = state.open.values_mut().filter_map(Option::take).collect();
        drop(state);
        aborts.iter().for_each(AbortHandle::abort);
    }
}

impl<H, F: Family> fmt::Debug for Serve<H, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ServeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServeHandle").field(&self.stats()).finish()
    }
}
