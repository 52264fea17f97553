//! A listening TCP socket.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use isochrome_runtime::op::{Op, Port, Yield};
use isochrome_runtime::time::{Sleep, sleep};
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
        let mut rest = Rest::default();
        poll_fn(move |cx| self.poll_accept(cx, &mut rest))
    }

    /// The connections, one after another, without end. See
    /// [`accept`](TcpListener::accept).
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming {
            listener: self,
            rest: Rest::default(),
        }
    }

    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
        rest: &mut Rest,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            ready!(rest.poll(cx));
            match ready!(self.accept.poll_next(cx, || Op::Accept)) {
                Ok(Yield::Socket(fd)) => {
                    rest.over();
                    let runtime = self.accept.descriptor().runtime();
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
                        self.pressure.fetch_add(1, Ordering::Relaxed);
                        rest.begin();
                    }
                    Trouble::Listener => return Poll::Ready(Err(e)),
                },
            }
        }
    }

    /// How often accepting had to rest because no descriptor or no memory was
    /// left.
    pub fn pressure(&self) -> u64 {
        self.pressure.load(Ordering::Relaxed)
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

/// The rests after refusals: each twice as long as the one before.
#[derive(Debug, Default)]
struct Rest {
    now: Option<Sleep>,
    last: Option<Duration>,
}

impl Rest {
    fn begin(&mut self) {
        let (first, longest) = REST;
        let time = self.last.map_or(first, |last| (last * 2).min(longest));
        self.last = Some(time);
        self.now = Some(sleep(time));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.now {
            ready!(Pin::new(sleep).poll(cx));
            self.now = None;
        }
        Poll::Ready(())
    }

    fn over(&mut self) {
        self.last = None;
    }
}

/// The stream of [`TcpListener::incoming`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    rest: Rest,
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
        let accepted = ready!(this.listener.poll_accept(cx, &mut this.rest));
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
