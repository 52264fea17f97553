//! Descriptors of the user's own.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use isochrome_runtime::op::{Interest, Port};
use isochrome_runtime::{Descriptor, DescriptorRef};

use crate::datagram::ready;

/// Anything with a descriptor that can be polled, as an asynchronous thing: an
/// eventfd, a timerfd, inotify, a socket of another library's.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use isochrome_net::Async;
///
/// let socket = Async::new(std::os::unix::net::UnixDatagram::bind("/run/my.sock")?)?;
/// let mut buf = [0; 2048];
/// let len = socket.read_with(|socket| socket.recv(&mut buf)).await?;
/// # Ok(())
/// # }
/// ```
///
/// What it wraps is used by closures, with system calls of its own, that are
/// tried and tried again when the descriptor is ready; this is the same on both
/// drivers. All calls take `&self`: reading and writing may go on in different
/// tasks, and several that read (or write) are all woken, and try.
///
/// It waits on a duplicate of the descriptor (dup(2)), so that one that the
/// user closes, or reuses, is never asked about: it takes two descriptors of
/// the process's limit. Dropping it drops both.
pub struct Async<T> {
    io: T,
    ports: Ports,
}

/// The two directions of the duplicate.
struct Ports {
    read: Port,
    write: Port,
}

impl Drop for Ports {
    fn drop(&mut self) {
        // An epoll set forgets a file when its last descriptor is closed, and
        // this is not the last: it would stay there, and wake the worker for
        // nobody with every edge. What is reclaimed is taken out before.
        drop(DescriptorRef::to(self.read.descriptor()).reclaim());
    }
}

impl<T: AsFd> Async<T> {
    /// Takes `io` over, and sets its O_NONBLOCK, which everyone sees who
    /// shares its open file description: see open(2).
    ///
    /// A regular file is always ready, so its system calls block: they belong
    /// to [`spawn_blocking`](isochrome_runtime::spawn_blocking).
    ///
    /// # Errors
    ///
    /// What dup(2) and fcntl(2) answer; if called outside a runtime.
    pub fn new(io: T) -> io::Result<Async<T>> {
        let runtime = crate::runtime()?;
        let descriptor = io.as_fd().try_clone_to_owned()?;
        let descriptor = Descriptor::nonblocking(descriptor, &runtime)?;
        let ports = Ports {
            read: Port::new(descriptor.clone()),
            write: Port::new(descriptor),
        };
        Ok(Async { io, ports })
    }
}

impl<T> Async<T> {
    /// What it wraps. Its calls do not wait: they answer
    /// [`WouldBlock`](io::ErrorKind::WouldBlock).
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// As [`get_ref`](Async::get_ref). What is put in its place is not waited
    /// for.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// Gives back what it wraps, which stays non-blocking.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// Waits until a read would not block: data, a connection, the end, or an
    /// error. Somebody else may have read it when the caller does.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// If the descriptor cannot be polled; ECANCELED once the runtime has
    /// ended.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + Send + '_ {
        ready(&self.ports.read, Interest::Read)
    }

    /// Waits until a write would not block: room, or an error.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As for [`readable`](Async::readable).
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + Send + '_ {
        ready(&self.ports.write, Interest::Write)
    }

    /// The poll form of [`readable`](Async::readable), for a single user: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `readable`.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ports.read.poll_ready(cx, Interest::Read)
    }

    /// The poll form of [`writable`](Async::writable), for a single user: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `writable`.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ports.write.poll_ready(cx, Interest::Write)
    }

    /// Calls `read` until it answers anything but
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) or
    /// [`Interrupted`](io::ErrorKind::Interrupted), and waits in between until
    /// a read would not block.
    ///
    /// Dropping the future loses nothing: it is in no call then.
    ///
    /// # Errors
    ///
    /// What `read` answers, or else as for [`readable`](Async::readable).
    pub async fn read_with<R>(&self, mut read: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut waiter = self.ports.read.waiter();
        let call = |cx: &mut Context<'_>| waiter.poll_io(cx, Interest::Read, |_| read(&self.io));
        poll_fn(call).await
    }

    /// As [`read_with`](Async::read_with), for writes.
    ///
    /// # Errors
    ///
    /// What `write` answers, or else as for [`writable`](Async::writable).
    pub async fn write_with<R>(&self, mut write: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let mut waiter = self.ports.write.waiter();
        let call = |cx: &mut Context<'_>| waiter.poll_io(cx, Interest::Write, |_| write(&self.io));
        poll_fn(call).await
    }

    /// The poll form of [`read_with`](Async::read_with), for a single user:
    /// only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `read_with`.
    pub fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.ports
            .read
            .poll_io(cx, Interest::Read, |_| read(&self.io))
    }

    /// The poll form of [`write_with`](Async::write_with), for a single user:
    /// only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `write_with`.
    pub fn poll_write_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.ports
            .write
            .poll_io(cx, Interest::Write, |_| write(&self.io))
    }
}

impl<T: AsFd> AsFd for Async<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl<T: AsFd> AsRawFd for Async<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.io.as_fd().as_raw_fd()
    }
}

impl<T: fmt::Debug> fmt::Debug for Async<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Async").field(&self.io).finish()
    }
}
