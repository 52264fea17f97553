//! A listening socket, of any family.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use isochrome_runtime::op::{Op, Port, Waiter, Yield};
use isochrome_runtime::time::Sleep;
use isochrome_runtime::{Descriptor, Handle, Report};
use socket2::SockRef;

use crate::datagram::blocking;
use crate::family::Family;
use crate::pressure::{Accepted, Pressure, Trouble};
use crate::tcp::Tcp;

/// A socket that listens for connections: a [`TcpListener`](crate::TcpListener),
/// say. How it is made depends on the family, and stands there.
pub struct Listener<F> {
    accept: Port,
    pressure: Pressure,
    family: PhantomData<fn() -> F>,
}

impl<F: Family> Listener<F> {
    pub(crate) fn on(fd: OwnedFd, runtime: &Handle) -> io::Result<Listener<F>> {
        Ok(Listener {
            accept: Port::new(Descriptor::new(fd, runtime)?),
            pressure: Pressure::new(),
            family: PhantomData,
        })
    }

    /// The next connection, and where it comes from.
    ///
    /// A connection that was reset before it was accepted is passed over.
    ///
    /// When the process or the system has no descriptor left, or no memory,
    /// accepting rests for 5 to 50 ms at a time, and tells of it
    /// ([`Report::AcceptStalled`]). Connections wait in the kernel's queue. If
    /// that lasts for longer than a second, those that have waited longest are
    /// reset, a few at a time, by means of a descriptor that the listener keeps
    /// in reserve: else they would wait for an answer that does not come. See
    /// [`pressure`](Listener::pressure) and [`shed`](Listener::shed).
    ///
    /// [`Report::AcceptStalled`]: isochrome_runtime::Report::AcceptStalled
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
        self.pressure.refusals()
    }

    /// How many connections were reset in a shortage that lasted, so that who
    /// made them learns of it.
    pub fn shed(&self) -> u64 {
        self.pressure.shed()
    }

    /// As reports name it.
    fn name(&self) -> Arc<str> {
        match self.local_addr() {
            Ok(address) => format!("{address:?}").into(),
            Err(_) => format!("descriptor {}", self.as_raw_fd()).into(),
        }
    }

    /// The address that it listens on, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// What getsockname(2) answers.
    pub fn local_addr(&self) -> io::Result<F::Addr> {
        F::addr(self.socket().local_addr()?)
    }

    /// The socket itself, blocking, and what was accepted and not taken.
    pub(crate) async fn leave(self) -> io::Result<(OwnedFd, Vec<F::Connection>)> {
        let descriptor = self.accept.descriptor().clone();
        let runtime = descriptor.runtime().clone();
        // An error is told again, by the next accept, if it is the listener's.
        let brought = self.accept.recall().await.into_iter();
        let accepted = brought.filter_map(|completion| match completion {
            Ok(Yield::Socket(fd)) => Some(F::accepted(fd, &runtime)),
            _ => None,
        });
        let accepted = accepted.collect();
        Ok((blocking(descriptor).await?, accepted))
    }

    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(&**self.accept.descriptor())
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
        let pressure = &self.listener.pressure;
        let runtime = self.listener.accept.descriptor().runtime();
        loop {
            ready!(self.poll_rest(cx));
            match ready!(self.waiter.poll_next(cx, || Op::Accept)) {
                Ok(Yield::Socket(fd)) => {
                    let (what, report) = pressure.accepted(|| self.listener.name());
                    self.tell(report);
                    if what == Accepted::Shed {
                        reset(fd);
                        pressure.closed();
                        continue;
                    }
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
                        let report = pressure.refused(&e, || self.listener.name());
                        self.tell(report);
                    }
                    Trouble::Listener => return Poll::Ready(Err(e)),
                },
            }
        }
    }

    #[inline]
    fn tell(&self, report: Option<Report>) {
        if let Some(report) = report {
            self.listener.accept.descriptor().runtime().report(report);
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.listener.pressure.rests_until() else {
            self.sleep = None;
            return Poll::Ready(());
        };
        let runtime = self.listener.accept.descriptor().runtime();
        let sleep = match &mut self.sleep {
            Some(sleep) if sleep.deadline() == until => sleep,
            other => other.insert(runtime.sleep_until(until)),
        };
        Pin::new(sleep).poll(cx)
    }
}

/// Closes a connection so that the other end sees a reset, not an answer that
/// is empty.
fn reset(fd: OwnedFd) {
    // If it cannot be set, an end is better than nothing.
    let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
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
