//! A listening socket, of any family.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use isochrome_runtime::op::{Op, Port, Waiter, Yield};
use isochrome_runtime::time::Sleep;
use isochrome_runtime::{Descriptor, Handle};
use socket2::SockRef;

use crate::family::Family;
use crate::tcp::Tcp;

/// How long accepting rests after the first refusal of a descriptor, and at
/// most: one is free again after 100 ms at the latest.
const REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// A socket that listens for connections: a [`TcpListener`](crate::TcpListener),
/// say. How it is made depends on the family, and stands there.
pub struct Listener<F> {
    accept: Port,
    pressure: AtomicU64,
    rest: Mutex<Rest>,
    family: PhantomData<fn() -> F>,
}

impl<F: Family> Listener<F> {
    pub(crate) fn on(fd: OwnedFd, runtime: &Handle) -> io::Result<Listener<F>> {
        Ok(Listener {
            accept: Port::new(Descriptor::new(fd, runtime)?),
            pressure: AtomicU64::new(0),
            rest: Mutex::default(),
            family: PhantomData,
        })
    }

    /// The next connection, and where it comes from.
    ///
    /// A connection that was reset before it was accepted is passed over. When
    /// the process or the system has no descriptor left, accepting rests for a
    /// moment and goes on (see [`pressure`](Listener::pressure)).
    ///
    /// Dropping the future loses nothing: what the kernel accepted waits here.
    ///
    /// # Errors
    ///
    /// What accept(2) answers otherwise: the listener is of no more use then.
    pub fn accept(&self) -> impl Future<Output = io::Result<(F::Connection, F::Addr)>> + Send + '_ {
        let mut asker = Asker::new(self);
        poll_fn(move |cx| asker.poll(cx))
    }

    /// The connections, one after another, without end. See
    /// [`accept`](Listener::accept).
    pub fn incoming(&self) -> Incoming<'_, F> {
        Incoming {
            asker: Asker::new(self),
        }
    }

    /// How often accepting had to rest because no descriptor or no memory was
    /// left.
    pub fn pressure(&self) -> u64 {
        self.pressure.load(Ordering::Relaxed)
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        // Nothing that can panic runs under the lock.
        self.rest.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The address that it listens on, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// What getsockname(2) answers.
    pub fn local_addr(&self) -> io::Result<F::Addr> {
        F::addr(self.socket().local_addr()?)
    }

    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(&**self.accept.descriptor())
    }
}

/// Whose trouble an error of accept is.
enum Trouble {
    /// The connection's: the next may be fine. accept(2) passes errors of the
    /// new socket on, and names these.
    Connection,
    /// The system's: it will pass.
    Resources,
    Listener,
}

impl Trouble {
    fn of(e: &io::Error) -> Trouble {
        match e.raw_os_error() {
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => Trouble::Connection,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Trouble::Resources,
            _ => Trouble::Listener,
        }
    }
}

/// The rests after refusals, each twice as long as the one before. All askers
/// share them, so that giving up and asking again does not cut one short.
#[derive(Debug, Default)]
struct Rest {
    until: Option<Instant>,
    last: Option<Duration>,
}

impl Rest {
    fn begin(&mut self) {
        let (first, longest) = REST;
        let time = self.last.map_or(first, |last| (last * 2).min(longest));
        self.last = Some(time);
        self.until = Some(Instant::now() + time);
    }
}

/// One who waits for a connection.
struct Asker<'a, F> {
    listener: &'a Listener<F>,
    waiter: Waiter<'a>,
    sleep: Option<Sleep>,
}

impl<'a, F: Family> Asker<'a, F> {
    fn new(listener: &'a Listener<F>) -> Asker<'a, F> {
        Asker {
            listener,
            waiter: listener.accept.waiter(),
            sleep: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(F::Connection, F::Addr)>> {
        let runtime = self.listener.accept.descriptor().runtime();
        loop {
            ready!(self.poll_rest(cx));
            match ready!(self.waiter.poll_next(cx, || Op::Accept)) {
                Ok(Yield::Socket(fd)) => {
                    *self.listener.rest() = Rest::default();
                    let connection = F::accepted(fd, runtime);
                    // It fails if the connection was reset meanwhile.
                    if let Ok(peer) = SockRef::from(&connection).peer_addr() {
                        return Poll::Ready(F::addr(peer).map(|peer| (connection, peer)));
                    }
                }
                Ok(Yield::Done(_) | Yield::Buf(_) | Yield::File(_)) => {}
                Err(e) => match Trouble::of(&e) {
                    Trouble::Connection => {}
                    Trouble::Resources => {
                        self.listener.pressure.fetch_add(1, Ordering::Relaxed);
                        self.listener.rest().begin();
                    }
                    Trouble::Listener => return Poll::Ready(Err(e)),
                },
            }
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.listener.rest().until;
        let Some(until) = until.filter(|until| *until > Instant::now()) else {
            self.sleep = None;
            return Poll::Ready(());
        };
        let runtime = self.listener.accept.descriptor().runtime();
        let sleep = self.sleep.get_or_insert_with(|| runtime.sleep_until(until));
        Pin::new(sleep).poll(cx)
    }
}

/// The stream of [`Listener::incoming`].
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a, F = Tcp> {
    asker: Asker<'a, F>,
}

impl<F: Family> Incoming<'_, F> {
    /// The next connection; never `None`.
    pub async fn next(&mut self) -> Option<io::Result<F::Connection>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<F: Family> Stream for Incoming<'_, F> {
    type Item = io::Result<F::Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let accepted = ready!(this.asker.poll(cx));
        Poll::Ready(Some(accepted.map(|(connection, _)| connection)))
    }
}

impl<F: Family> fmt::Debug for Incoming<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Incoming")
            .field(self.asker.listener)
            .finish()
    }
}

impl<F> AsFd for Listener<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.accept.descriptor().as_fd()
    }
}

impl<F> AsRawFd for Listener<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.accept.descriptor().as_raw_fd()
    }
}

impl<F: Family> fmt::Debug for Listener<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(F::LISTENER)
            .field("fd", &self.as_raw_fd())
            .field("local", &self.local_addr().ok())
            .finish()
    }
}
