//! What sockets share that carry messages with boundaries.
//!
//! Their calls are made on the spot, and again when the socket is ready
//! (`isochrome_runtime::op::direct`): nothing but the question whether it is
//! ready is with the kernel while one waits. So giving up loses no message,
//! and who waits owns no buffer.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use isochrome_runtime::op::{Interest, Port, Slot};
use isochrome_runtime::{Descriptor, DescriptorRef, Handle};
use libc::c_int;
use socket2::{SockAddr, SockRef, Socket};

use crate::sys;

/// On the spot, and a broken pipe is an error.
pub(crate) const SEND: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// On the spot, and told how long the message was, however much of it fitted.
pub(crate) const RECV: c_int = libc::MSG_DONTWAIT | libc::MSG_TRUNC;

/// How much of a message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes are in the buffer.
    pub len: usize,
    /// How long the message was. What did not fit is lost, unless the call
    /// only looked.
    pub size: usize,
}

impl Received {
    pub(crate) fn of(size: usize, room: usize) -> Received {
        Received {
            len: size.min(room),
            size,
        }
    }

    /// Whether the buffer was too small for the message.
    pub fn truncated(&self) -> bool {
        self.len < self.size
    }
}

/// The two directions of a socket.
pub(crate) struct Ports {
    read: Port,
    write: Port,
}

impl Ports {
    /// Takes a socket over, in whatever mode it is.
    pub(crate) fn on(fd: OwnedFd, runtime: &Handle) -> io::Result<Ports> {
        Ok(Ports::of(Descriptor::new(fd, runtime)?))
    }

    pub(crate) fn of(descriptor: DescriptorRef) -> Ports {
        Ports {
            read: Port::new(descriptor.clone()),
            write: Port::new(descriptor),
        }
    }

    /// Makes a call that reads, until it does not say EAGAIN.
    pub(crate) fn reading<'a, T>(
        &'a self,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T> + Send + 'a,
    ) -> impl Future<Output = io::Result<T>> + Send + 'a {
        let mut waiter = self.read.waiter();
        poll_fn(move |cx| waiter.poll_io(cx, Interest::Read, &mut call))
    }

    /// As `reading`, of a call that writes.
    pub(crate) fn writing<'a, T>(
        &'a self,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T> + Send + 'a,
    ) -> impl Future<Output = io::Result<T>> + Send + 'a {
        let mut waiter = self.write.waiter();
        poll_fn(move |cx| waiter.poll_io(cx, Interest::Write, &mut call))
    }

    /// As `reading`, for a single user: only the last waker is kept.
    pub(crate) fn poll_read<T>(
        &self,
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.read.poll_io(cx, Interest::Read, call)
    }

    /// As `writing`, for a single user: only the last waker is kept.
    pub(crate) fn poll_write<T>(
        &self,
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.write.poll_io(cx, Interest::Write, call)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Ports> {
        Ok(Ports::of(self.read.descriptor().duplicate()?))
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        ready(&self.read, Interest::Read).await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        ready(&self.write, Interest::Write).await
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.read.poll_ready(cx, Interest::Read)
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.poll_ready(cx, Interest::Write)
    }

    pub(crate) fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.read.descriptor())
    }

    /// The socket by itself, blocking, as std has it. Nothing is in flight but
    /// waits, which bring nothing.
    pub(crate) async fn leave(self) -> io::Result<OwnedFd> {
        let descriptor = DescriptorRef::to(self.read.descriptor());
        drop(self);
        blocking(descriptor).await
    }
}

/// Waits until the direction is ready.
pub(crate) async fn ready(port: &Slot, interest: Interest) -> io::Result<()> {
    let mut waiter = port.waiter();
    poll_fn(|cx| waiter.poll_ready(cx, interest)).await
}

impl AsFd for Ports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.descriptor().as_fd()
    }
}

pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8], flags: c_int) -> io::Result<Received> {
    let size = sys::recv(fd, buf, RECV | flags)?;
    Ok(Received::of(size, buf.len()))
}

pub(crate) fn recv_from(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: c_int,
) -> io::Result<(Received, SockAddr)> {
    let room = buf.len();
    let (size, from) = sys::recv_from(fd, buf, RECV | flags)?;
    Ok((Received::of(size, room), from))
}

pub(crate) fn send_to(fd: BorrowedFd<'_>, data: &[u8], to: &SockAddr) -> io::Result<usize> {
    SockRef::from(&fd).send_to_with_flags(data, to, SEND)
}

pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    SockRef::from(&fd).send_with_flags(data, SEND)
}

/// What a socket has whose directions are in a field `ports`, and which sends
/// by `send`.
/// `$shared` are its other fields, which its clones share.
macro_rules! message_socket {
    ($type:ident $(, $shared:ident)*) => {
        impl $type {
            /// Another descriptor of the same socket: dup(2), of the same
            /// runtime and with a registration of its own. Each message goes to
            /// one of the two; options, the peer and the ends of
            /// shutdown(2) are the socket's, and so those of both. It is closed
            /// with the last descriptor.
            ///
            /// Tasks can share a socket by `&` or an
            /// [`Arc`](std::sync::Arc), which takes no descriptor. One of the two
            /// that is dropped on another thread, or outside of `block_on`, is
            /// closed when the worker gets to it.
            ///
            /// # Errors
            ///
            /// If no descriptor is left.
            pub fn try_clone(&self) -> ::std::io::Result<$type> {
                Ok($type {
                    ports: self.ports.try_clone()?,
                    $($shared: self.$shared.clone(),)*
                })
            }

            /// [`send`](Self::send) on the spot.
            ///
            /// # Errors
            ///
            /// As for `send`; [`WouldBlock`](std::io::ErrorKind::WouldBlock) if
            /// there is no room.
            pub fn try_send(&self, data: &[u8]) -> ::std::io::Result<usize> {
                crate::datagram::send(::std::os::fd::AsFd::as_fd(self), data)
            }

            /// The poll form of [`send`](Self::send), for a single sender: only
            /// the last waker is kept. What is pending has sent nothing.
            ///
            /// # Errors
            ///
            /// As for `send`.
            pub fn poll_send(
                &self,
                cx: &mut ::std::task::Context<'_>,
                data: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                let send = |fd: ::std::os::fd::BorrowedFd<'_>| crate::datagram::send(fd, data);
                self.ports.poll_write(cx, send)
            }

            /// Waits until there is something to receive: a message, the end,
            /// or an error. Somebody else may have received it when the caller
            /// does.
            ///
            /// With the calls that try, and for system calls of one's own on
            /// [`as_fd`](std::os::fd::AsFd::as_fd), which take MSG_DONTWAIT: the
            /// socket may be in blocking mode.
            ///
            /// Dropping the future loses nothing.
            ///
            /// # Errors
            ///
            /// ECANCELED once the runtime has ended. An error of the socket is
            /// left to who receives.
            pub async fn readable(&self) -> ::std::io::Result<()> {
                self.ports.readable().await
            }

            /// Waits until there is room to send a message, or an error. As
            /// [`readable`](Self::readable) otherwise.
            ///
            /// Dropping the future loses nothing.
            ///
            /// # Errors
            ///
            /// As for `readable`.
            pub async fn writable(&self) -> ::std::io::Result<()> {
                self.ports.writable().await
            }

            /// The poll form of [`readable`](Self::readable), for a single
            /// receiver: only the last waker is kept.
            ///
            /// # Errors
            ///
            /// As for `readable`.
            pub fn poll_readable(
                &self,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                self.ports.poll_readable(cx)
            }

            /// The poll form of [`writable`](Self::writable), for a single
            /// sender: only the last waker is kept.
            ///
            /// # Errors
            ///
            /// As for `writable`.
            pub fn poll_writable(
                &self,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                self.ports.poll_writable(cx)
            }

            fn socket(&self) -> ::socket2::SockRef<'_> {
                self.ports.socket()
            }
        }

        impl ::std::os::fd::AsFd for $type {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                self.ports.as_fd()
            }
        }

        impl ::std::os::fd::AsRawFd for $type {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                ::std::os::fd::AsRawFd::as_raw_fd(&self.ports.as_fd())
            }
        }

        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($type))
                    .field("fd", &::std::os::fd::AsRawFd::as_raw_fd(self))
                    .field("local", &self.local_addr().ok())
                    .field("peer", &self.peer_addr().ok())
                    .finish()
            }
        }
    };
}

pub(crate) use message_socket;

/// The descriptor by itself, in blocking mode, when the last operation on it
/// has ended.
pub(crate) async fn blocking(descriptor: DescriptorRef) -> io::Result<OwnedFd> {
    let fd = descriptor.reclaim().await;
    let fd = fd.expect("nobody else reclaims it, and it is no directory");
    SockRef::from(&fd).set_nonblocking(false)?;
    Ok(fd)
}

/// A connected pair, or an error.
pub(crate) fn pair<T>(
    kind: socket2::Type,
    make: impl Fn(OwnedFd, &Handle) -> io::Result<T>,
) -> io::Result<(T, T)> {
    let runtime = crate::runtime()?;
    let (a, b) = Socket::pair(socket2::Domain::UNIX, kind, None)?;
    Ok((make(a.into(), &runtime)?, make(b.into(), &runtime)?))
}
