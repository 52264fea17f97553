//! The two ends of a pipe.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::task::{Context, Poll};

use isochrome_runtime::buf::{IoBuf, IoBufMut};
use isochrome_runtime::op::{Interest, Port, call};
use isochrome_runtime::{Descriptor, DescriptorRef, Handle};

use crate::borrowed::sendable;
use crate::datagram::ready;
use crate::reading::{append, ended_early};

/// What a pipe has room for if nothing else was said.
const FULL: usize = 64 << 10;

/// A new pipe: what is written to the first can be read from the second. Both
/// are close-on-exec.
///
/// # Errors
///
/// If the process or the system has no descriptor left; outside a runtime.
pub fn anonymous() -> io::Result<(Sender, Receiver)> {
    let runtime = crate::runtime()?;
    let (reading, writing) = call::pipe()?;
    let sender = Sender::on(writing, &runtime)?;
    Ok((sender, Receiver::on(reading, &runtime)?))
}

/// The end of a pipe that is read.
///
/// All calls take `&self`; several readers get what comes first come, first
/// served. Dropping it tells writers that nobody reads any more (EPIPE).
pub struct Receiver {
    port: Port,
}

/// The end of a pipe that is written to.
///
/// All calls take `&self`; what several write at once is not mixed as long as
/// each writes at most 4,096 bytes in one call (PIPE_BUF in pipe(7)). Dropping
/// the last sender is the end for the reader.
///
/// Writing to a pipe that nobody reads raises SIGPIPE, and there is no flag
/// against it: Rust's start-up code has it ignored, and who loads this into
/// another program does that too.
pub struct Sender {
    port: Port,
}

impl Receiver {
    /// Takes the reading end of a pipe over: std's `ChildStdout` and
    /// `ChildStderr`, an `OwnedFd`, or standard input that is a pipe. See the
    /// [module](super#modes) for what that does to those who share it.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it is no pipe, or not open
    /// for reading; if its mode cannot be set; outside a runtime.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Receiver> {
        let fd = checked(fd.into(), libc::O_RDONLY, "reading")?;
        Receiver::on(fd, &crate::runtime()?)
    }

    /// Reads into borrowed memory, and returns how many bytes. 0 is the end:
    /// the last sender is gone and all that was written has been read. (It
    /// also is an empty `buf`.) Where a FIFO has had no sender yet, the first
    /// is waited for.
    ///
    /// Dropping the future loses nothing: what was written stays in the pipe.
    ///
    /// # Errors
    ///
    /// What read(2) answers.
    pub fn read<'a>(
        &'a self,
        buf: &'a mut [u8],
    ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut waiter = self.port.waiter();
        poll_fn(move |cx| waiter.poll_io(cx, Interest::Read, |fd| read(fd, buf)))
    }

    /// The poll form of [`read`](Receiver::read), for a single reader: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `read`.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let port = &self.port;
        port.poll_io(cx, Interest::Read, |fd| read(fd, buf))
    }

    /// As [`poll_read`](Receiver::poll_read), into several slices in their
    /// order. Of very many, the first 1,024 are used.
    ///
    /// # Errors
    ///
    /// As for `read`.
    pub fn poll_read_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let port = &self.port;
        port.poll_io(cx, Interest::Read, |fd| read_vectored(fd, bufs))
    }

    /// As [`read`](Receiver::read), into several slices in their order. Of very
    /// many, the first 1,024 are used.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As for `read`.
    pub async fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut waiter = self.port.waiter();
        let mut call = |fd: BorrowedFd<'_>| read_vectored(fd, bufs);
        poll_fn(|cx| waiter.poll_io(cx, Interest::Read, &mut call)).await
    }

    /// Fills `buf`.
    ///
    /// Dropping the future loses what is in `buf` by then.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](ErrorKind::UnexpectedEof) if the end comes before;
    /// else as for [`read`](Receiver::read). What was read is in `buf`, and how
    /// much is not known.
    pub async fn read_exact(&self, buf: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            filled += match self.read(&mut buf[filled..]).await? {
                0 => return Err(ended_early()),
                n => n,
            };
        }
        Ok(())
    }

    /// Appends all that comes until the end, and says how many bytes that was.
    ///
    /// Dropping the future loses nothing: what was read is in `to`.
    ///
    /// # Errors
    ///
    /// As for [`read`](Receiver::read); what was read is in `to`.
    pub async fn read_to_end(&self, to: &mut Vec<u8>) -> io::Result<usize> {
        let before = to.len();
        // Not the room of `to`, which would have to be filled beforehand.
        let mut buf = vec![0; FULL];
        loop {
            match self.read(&mut buf).await? {
                0 => return Ok(to.len() - before),
                n => to.extend_from_slice(&buf[..n]),
            }
        }
    }

    /// Appends all that comes until the end, which has to be UTF-8, and says how
    /// many bytes that was.
    ///
    /// Dropping the future loses what was read by then.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](ErrorKind::InvalidData) if it is not UTF-8: it is lost
    /// then, and `to` as it was. Else as for [`read`](Receiver::read); what was
    /// read is in `to`, if it is UTF-8.
    pub async fn read_to_string(&self, to: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let read = self.read_to_end(&mut bytes).await;
        append(to, bytes, read)
    }

    /// Reads into a buffer that is handed over, and hands it back with the
    /// number of bytes.
    ///
    /// Dropping the future drops the buffer, and loses nothing else.
    ///
    /// # Errors
    ///
    /// As for [`read`](Receiver::read).
    pub async fn read_owned<B: IoBufMut>(&self, mut buf: B) -> (io::Result<usize>, B) {
        let result = self.read(buf.bytes_mut()).await;
        (result, buf)
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) if nothing is; else as for
    /// [`read`](Receiver::read).
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        read(self.as_fd(), buf)
    }

    /// As [`try_read`](Receiver::try_read), into several slices in their order.
    /// Of very many, the first 1,024 are used.
    ///
    /// # Errors
    ///
    /// As for `try_read`.
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        read_vectored(self.as_fd(), bufs)
    }

    /// Waits until there is something to read: bytes, or the end. Somebody else
    /// may have read it when the caller does. A system call of one's own on
    /// [`as_fd`](AsFd::as_fd) does not block.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// ECANCELED once the runtime has ended.
    pub async fn readable(&self) -> io::Result<()> {
        ready(&self.port, Interest::Read).await
    }

    /// The poll form of [`readable`](Receiver::readable), for a single reader:
    /// only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `readable`.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.port.poll_ready(cx, Interest::Read)
    }
}

impl Sender {
    /// Takes the writing end of a pipe over: std's `ChildStdin`, an `OwnedFd`,
    /// or standard output that is a pipe. See the [module](super#modes) for
    /// what that does to those who share it.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if it is no pipe, or not open
    /// for writing; if its mode cannot be set; outside a runtime.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Sender> {
        let fd = checked(fd.into(), libc::O_WRONLY, "writing")?;
        Sender::on(fd, &crate::runtime()?)
    }

    /// Writes some of the borrowed bytes, and returns how many. At most 4,096
    /// bytes are written whole.
    ///
    /// Dropping the future, if it was pending, has written nothing.
    ///
    /// # Errors
    ///
    /// [`BrokenPipe`](ErrorKind::BrokenPipe) if nobody reads any more.
    pub fn write<'a>(
        &'a self,
        buf: &'a [u8],
    ) -> impl Future<Output = io::Result<usize>> + Send + 'a {
        let mut waiter = self.port.waiter();
        poll_fn(move |cx| waiter.poll_io(cx, Interest::Write, |fd| call::write(fd, buf)))
    }

    /// The poll form of [`write`](Sender::write), for a single writer: only
    /// the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `write`.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let port = &self.port;
        port.poll_io(cx, Interest::Write, |fd| call::write(fd, buf))
    }

    /// As [`poll_write`](Sender::poll_write), of several slices in their
    /// order. Of very many, the first 1,024 are written.
    ///
    /// # Errors
    ///
    /// As for `write`.
    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (bufs, port) = (sendable(bufs), &self.port);
        port.poll_io(cx, Interest::Write, |fd| call::write_vectored(fd, bufs))
    }

    /// As [`write`](Sender::write), of several slices in their order. Of very
    /// many, the first 1,024 are written.
    ///
    /// Dropping the future, if it was pending, has written nothing.
    ///
    /// # Errors
    ///
    /// As for `write`.
    pub async fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let (bufs, mut waiter) = (sendable(bufs), self.port.waiter());
        let mut call = |fd: BorrowedFd<'_>| call::write_vectored(fd, bufs);
        poll_fn(|cx| waiter.poll_io(cx, Interest::Write, &mut call)).await
    }

    /// As of a connection: nothing is kept back.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// What the traits call closing or shutting down.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn end_writing(&self) -> io::Result<()> {
        Ok(())
    }

    /// Writes all of the borrowed bytes.
    ///
    /// Dropping the future leaves open how much was written.
    ///
    /// # Errors
    ///
    /// As for [`write`](Sender::write); how much was written is not known
    /// then.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write(buf).await? {
                0 => return Err(ErrorKind::WriteZero.into()),
                n => buf = &buf[n..],
            }
        }
        Ok(())
    }

    /// Writes all of a buffer that is handed over, and hands it back.
    ///
    /// Dropping the future leaves open how much was written.
    ///
    /// # Errors
    ///
    /// As for [`write_all`](Sender::write_all).
    pub async fn send_all<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
        let result = self.write_all(buf.bytes()).await;
        (result, buf)
    }

    /// Writes what there is room for, without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) if there is none; else as for
    /// [`write`](Sender::write).
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        call::write(self.as_fd(), buf)
    }

    /// As [`try_write`](Sender::try_write), of several slices in their order.
    /// Of very many, the first 1,024 are written.
    ///
    /// # Errors
    ///
    /// As for `try_write`.
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        call::write_vectored(self.as_fd(), sendable(bufs))
    }

    /// Waits until there is room for at least 4,096 bytes, or nobody reads any
    /// more. Somebody else may have used it when the caller does. A system call
    /// of one's own on [`as_fd`](AsFd::as_fd) does not block.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// ECANCELED once the runtime has ended.
    pub async fn writable(&self) -> io::Result<()> {
        ready(&self.port, Interest::Write).await
    }

    /// The poll form of [`writable`](Sender::writable), for a single writer:
    /// only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `writable`.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.port.poll_ready(cx, Interest::Write)
    }
}

fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let is_empty = buf.is_empty();
    read_by(fd, is_empty, || call::read(fd, buf))
}

fn read_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    // Else many empty ones in front would make it 0, which is the end.
    let first = bufs.iter().position(|buf| !buf.is_empty());
    let bufs = &mut bufs[first.unwrap_or(0)..];
    read_by(fd, first.is_none(), || call::read_vectored(fd, bufs))
}

/// read(2), which answers 0 also for a FIFO that nobody has opened to write
/// yet. poll(2) tells that from the end, see `fs/pipe.c`.
fn read_by(
    fd: BorrowedFd<'_>,
    is_empty: bool,
    mut read: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    if is_empty {
        return Ok(0);
    }
    match read()? {
        0 if !call::hung_up(fd)? => {}
        n => return Ok(n),
    }
    // There was nobody, but there may be by now, and may have gone again.
    match read()? {
        0 if !call::hung_up(fd)? => Err(ErrorKind::WouldBlock.into()),
        n => Ok(n),
    }
}

fn checked(fd: OwnedFd, access: i32, what: &str) -> io::Result<OwnedFd> {
    let file = std::fs::File::from(fd);
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "this descriptor is no pipe",
        ));
    }
    let mode = call::flags(file.as_fd())? & libc::O_ACCMODE;
    if mode != access && mode != libc::O_RDWR {
        let message = format!("this end of the pipe is not open for {what}");
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(file.into())
}

macro_rules! end {
    ($end:ident) => {
        impl $end {
            pub(super) fn on(fd: OwnedFd, runtime: &Handle) -> io::Result<$end> {
                let port = Port::new(Descriptor::nonblocking(fd, runtime)?);
                Ok($end { port })
            }

            /// Another descriptor of the same end: dup(2), of the same runtime
            /// and with a registration of its own. The end is gone when all its
            /// descriptors are: to be sure of that, drop all clones. One that is
            /// dropped on another thread, or outside of `block_on`, is closed
            /// when the worker gets to it.
            ///
            /// Tasks can share an end by `&` or an [`Arc`](std::sync::Arc), which
            /// takes no descriptor. Both descriptors have to leave the runtime
            /// before one is used that did
            /// ([`into_blocking_fd`](Self::into_blocking_fd)): the mode is that
            /// of both, and the one that is here would block a worker.
            ///
            /// # Errors
            ///
            /// If no descriptor is left.
            pub fn try_clone(&self) -> io::Result<$end> {
                let port = Port::new(self.port.descriptor().duplicate()?);
                Ok($end { port })
            }

            /// The descriptor, in blocking mode, for a child or whoever else. It
            /// is free once the last wait that was given up has ended.
            ///
            /// Dropping the future closes it.
            ///
            /// # Errors
            ///
            /// If its mode cannot be set.
            pub fn into_blocking_fd(self) -> impl Future<Output = io::Result<OwnedFd>> + Send {
                let descriptor = DescriptorRef::to(self.port.descriptor());
                drop(self);
                let fd = descriptor.reclaim();
                async {
                    let fd = fd.await.expect("nobody else reclaims it");
                    call::set_nonblocking(fd.as_fd(), false)?;
                    Ok(fd)
                }
            }

            /// How many bytes the pipe has room for: 65,536 if nothing else
            /// was said.
            ///
            /// # Errors
            ///
            /// What F_GETPIPE_SZ answers.
            pub fn capacity(&self) -> io::Result<usize> {
                call::pipe_size(self.as_fd())
            }

            /// Makes room for at least so many bytes, and says how many.
            ///
            /// # Errors
            ///
            /// What F_SETPIPE_SZ answers: more than is allowed
            /// (`/proc/sys/fs/pipe-max-size`), or less than is in it now.
            pub fn set_capacity(&self, bytes: usize) -> io::Result<usize> {
                call::set_pipe_size(self.as_fd(), bytes)
            }
        }

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.port.descriptor().as_fd()
            }
        }

        impl AsRawFd for $end {
            fn as_raw_fd(&self) -> RawFd {
                self.port.descriptor().as_raw_fd()
            }
        }

        impl fmt::Debug for $end {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end))
                    .field("fd", &self.as_raw_fd())
                    .finish_non_exhaustive()
            }
        }
    };
}

end!(Receiver);
end!(Sender);
