//! A listening TCP socket.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
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

use crate::addr::{ToAddrs, resolve};
use crate::stream::{TcpStream, inet, new_socket};

/// Connections that the kernel completes before they are accepted; it caps the
/// figure at net.core.somaxconn, 4096 by default, see listen(2).
const BACKLOG: i32 = 4096;

/// How long accepting rests after the first refusal of a descriptor, and at
/// most: one is free again after 100 ms at the latest.
const REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// A TCP socket that listens.
pub struct TcpListener {
    accept: Port,
    pressure: AtomicU64,
    rest: Mutex<Rest>,
}

impl TcpListener {
    /// Listens on the first of the addresses that `on` stands for that can be
    /// had. Port 0 asks the system for one. SO_REUSEADDR is set, as in std, so
    /// that a server can be restarted at once.
    ///
    /// # Errors
    ///
    /// That of the last address: in use, mostly, or not allowed; or of the
    /// look-up (see [`resolve`](crate::resolve)); if called outside a runtime.
    pub async fn bind(on: impl ToAddrs) -> io::Result<TcpListener> {
        let runtime = crate::runtime()?;
        let mut last = None;
        for addr in resolve(on).await? {
            match bind_one(addr, &runtime) {
                Ok(listener) => return Ok(listener),
                Err(e) => last = Some(e),
            }
        }
        Err(last.expect("resolve gives at least one address"))
    }

    /// Takes a listening std socket over.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        TcpListener::on(listener.into(), &crate::runtime()?)
    }

    fn on(fd: OwnedFd, runtime: &Handle) -> io::Result<TcpListener> {
        Ok(TcpListener {
            accept: Port::new(Descriptor::new(fd, runtime)?),
            pressure: AtomicU64::new(0),
            rest: Mutex::default(),
        })
    }

    /// The next connection, and where it comes from.
    ///
    /// A connection that was reset before it was accepted is passed over. When
    /// the process or the system has no descriptor left, accepting rests for a
    /// moment and goes on (see [`pressure`](TcpListener::pressure)).
    ///
    /// Dropping the future loses nothing: what the kernel accepted waits here.
    ///
    /// # Errors
    ///
    /// What accept(2) answers otherwise: the listener is of no more use then.
    pub fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send + '_ {
        let mut asker = Asker::new(self);
        poll_fn(move |cx| asker.poll(cx))
    }

    /// The connections, one after another, without end. See
    /// [`accept`](TcpListener::accept).
    pub fn incoming(&self) -> Incoming<'_> {
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
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        inet(SockRef::from(&**self.accept.descriptor()).local_addr()?)
    }
}

fn bind_one(addr: SocketAddr, runtime: &Handle) -> io::Result<TcpListener> {
    let socket = new_socket(addr, runtime)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::on(socket.into(), runtime)
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
#[derive(Debug)]
struct Asker<'a> {
    listener: &'a TcpListener,
    waiter: Waiter<'a>,
    sleep: Option<Sleep>,
}

impl<'a> Asker<'a> {
    fn new(listener: &'a TcpListener) -> Asker<'a> {
        Asker {
            listener,
            waiter: listener.accept.waiter(),
            sleep: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let runtime = self.listener.accept.descriptor().runtime();
        loop {
            ready!(self.poll_rest(cx));
            match ready!(self.waiter.poll_next(cx, || Op::Accept)) {
                Ok(Yield::Socket(fd)) => {
                    *self.listener.rest() = Rest::default();
                    let stream = TcpStream::accepted(fd, runtime);
                    // It fails if the connection was reset meanwhile.
                    if let Ok(peer) = stream.peer_addr() {
                        return Poll::Ready(Ok((stream, peer)));
                    }
                }
                Ok(Yield::Done(_) | Yield::Buf(_)) => {}
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

/// The stream of [`TcpListener::incoming`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a> {
    asker: Asker<'a>,
}

impl Incoming<'_> {
    /// The next connection; never `None`.
    pub async fn next(&mut self) -> Option<io::Result<TcpStream>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let accepted = ready!(this.asker.poll(cx));
        Poll::Ready(Some(accepted.map(|(stream, _)| stream)))
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.accept.descriptor().as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.accept.descriptor().as_raw_fd()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener")
            .field("fd", &self.as_raw_fd())
            .field("local", &self.local_addr().ok())
            .finish()
    }
}
