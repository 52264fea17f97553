//! A listening socket, of any family.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_core::Stream;
use isochrome_runtime::op::{Completion, Op, Port, Waiter, Yield};
use isochrome_runtime::time::Sleep;
use isochrome_runtime::{Descriptor, DescriptorRef, Handle, Report};
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
    /// The rest of who asks without a place of their own.
    rest: Mutex<Option<Sleep>>,
    family: PhantomData<fn() -> F>,
}

impl<F: Family> Listener<F> {
    pub(crate) fn on(fd: OwnedFd, runtime: &Handle) -> io::Result<Listener<F>> {
        Ok(Listener::of(Descriptor::new(fd, runtime)?))
    }

    fn of(descriptor: DescriptorRef) -> Listener<F> {
        Listener {
            accept: Port::new(descriptor),
            pressure: Pressure::new(),
            rest: Mutex::default(),
            family: PhantomData,
        }
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

    /// The poll form of [`accept`](Listener::accept), for a single user: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `accept`.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(F::Connection, F::Addr)>> {
        let rest = || self.rest.lock().unwrap_or_else(|e| e.into_inner());
        // Not locked while it is polled, which may run foreign code.
        let mut sleep = rest().take();
        let next = |cx: &mut Context<'_>| self.accept.poll_next(cx, || Op::Accept);
        let accepted = self.poll_next(cx, &mut sleep, next);
        *rest() = sleep;
        accepted
    }

    /// The next connection, if one is there at this moment, and where it comes
    /// from.
    ///
    /// On the proactor the first call begins to accept, and what has come since
    /// is there when the task has let the worker go on
    /// ([`yield_now`](isochrome_runtime::yield_now)): accept(2) itself has no
    /// way not to wait there.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if none is there, if accepting
    /// rests, or if the task has done much and is to let the worker go on; else
    /// as for [`accept`](Listener::accept).
    pub fn try_accept(&self) -> io::Result<(F::Connection, F::Addr)> {
        match Asker::new(self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(accepted) => accepted,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The connections, one after another, without end. See
    /// [`accept`](Listener::accept).
    pub fn incoming(&self) -> Incoming<'_, F> {
        Incoming {
            asker: Asker::new(self),
        }
    }

    /// Another descriptor of the same listener: dup(2), of the same runtime and
    /// with a registration of its own. Each connection goes to one of the two,
    /// and stays with it: on the proactor, who has once begun to accept is
    /// given what comes next, whoever waits, and closes what nobody took when it
    /// is dropped. The socket listens until the last descriptor is closed.
    ///
    /// Tasks can share a listener by `&` or an [`Arc`], which takes no
    /// descriptor; for one on each worker see
    /// [`bind_group`](crate::TcpListener::bind_group). One of the two that is
    /// dropped on another thread, or outside of `block_on`, is closed when the
    /// worker gets to it.
    ///
    /// Both have to leave the runtime before one is used that did: its mode,
    /// blocking, is that of both, and accept(2) would block a worker.
    ///
    /// # Errors
    ///
    /// If no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Listener<F>> {
        Ok(Listener::of(self.accept.descriptor().duplicate()?))
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
        let descriptor = DescriptorRef::to(self.accept.descriptor());
        let runtime = descriptor.runtime().clone();
        // An error is told again, by the next accept, if it is the listener's.
        let brought = self.accept.recall().await.into_iter();
        let accepted = brought.filter_map(|completion| match completion {
            Ok(Yield::Socket(fd)) => Some(F::accepted(fd, &runtime)),
            _ => None,
        });
        let accepted = accepted.collect();
        // Its port has the descriptor too.
        drop(self);
        Ok((blocking(descriptor).await?, accepted))
    }

    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.accept.descriptor())
    }
}

impl<F: Family> Listener<F> {
    /// The next connection that `next` brings and that is kept.
    fn poll_next(
        &self,
        cx: &mut Context<'_>,
        sleep: &mut Option<Sleep>,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Completion>,
    ) -> Poll<io::Result<(F::Connection, F::Addr)>> {
        loop {
            ready!(self.poll_rest(cx, sleep));
            match ready!(next(cx)) {
                Ok(Yield::Socket(fd)) => {
                    let (what, report) = self.pressure.accepted(|| self.name());
                    self.tell(report);
                    if what == Accepted::Shed {
                        reset(fd);
                        self.pressure.closed();
                        continue;
                    }
                    let connection = F::accepted(fd, self.runtime());
                    // It fails if the connection was reset meanwhile.
                    if let Ok(peer) = SockRef::from(&connection).peer_addr() {
                        return Poll::Ready(F::addr(peer).map(|peer| (connection, peer)));
                    }
                }
                Ok(Yield::Done(_) | Yield::Buf(_) | Yield::File(_)) => {}
                Err(e) => match Trouble::of(&e) {
                    Trouble::Connection => {}
                    Trouble::Resources => {
                        let report = self.pressure.refused(&e, || self.name());
                        self.tell(report);
                    }
                    Trouble::Listener => return Poll::Ready(Err(e)),
                },
            }
        }
    }

    fn poll_rest(&self, cx: &mut Context<'_>, sleep: &mut Option<Sleep>) -> Poll<()> {
        let Some(until) = self.pressure.rests_until() else {
            *sleep = None;
            return Poll::Ready(());
        };
        let sleep = match sleep {
            Some(sleep) if sleep.deadline() == until => sleep,
            other => other.insert(self.runtime().sleep_until(until)),
        };
        Pin::new(sleep).poll(cx)
    }

    #[inline]
    fn tell(&self, report: Option<Report>) {
        if let Some(report) = report {
            self.runtime().report(report);
        }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.accept.descriptor().runtime()
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
        let next = |cx: &mut Context<'_>| self.waiter.poll_next(cx, || Op::Accept);
        self.listener.poll_next(cx, &mut self.sleep, next)
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
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Listener::accept).
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
