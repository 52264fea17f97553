//! An end of a connection, of std or of the runtime.
//!
//! The futures own what they use, and do one operation: a receive of at most
//! so many bytes (a lease may have more), or a send of some of the bytes or of
//! all.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use isochrome::net::{StreamSocket, Tcp, TcpListener, TcpStream, Unix, UnixStream};

use super::program::Transport;

/// How many calls there are to receive, and to send.
pub(crate) const CALLS: u8 = 7;

pub(crate) type Doing<T> = Pin<Box<dyn Future<Output = io::Result<T>>>>;

pub(crate) trait AnEnd {
    fn recv(&self, room: usize, how: u8) -> Doing<Vec<u8>>;

    fn send(&self, data: Rc<[u8]>, how: u8) -> Doing<usize>;

    /// Whether a send that was given up has sent nothing; else that is open.
    fn gives_up_clean(&self, how: u8) -> bool;

    /// A call like this one whose bytes come after those of sends that were
    /// given up.
    fn in_turn(&self, how: u8) -> u8;

    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// TCP only.
    fn set_nodelay(&self, on: bool) -> io::Result<()>;
}

/// Small enough that a large send takes several system calls.
fn shrink(socket: &impl AsFd) -> io::Result<()> {
    socket2::SockRef::from(socket).set_send_buffer_size(16 << 10)
}

// -- std ------------------------------------------------------------------

/// A socket of std, asked again and again.
trait Stream: Sized + 'static {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
    fn write(&self, buf: &[u8]) -> io::Result<usize>;
    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    fn set_nodelay(&self, on: bool) -> io::Result<()>;
}

macro_rules! stream {
    ($t:ty, |$s:ident, $on:ident| $nodelay:expr) => {
        impl Stream for $t {
            fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, buf)
            }
            fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                Read::read_vectored(&mut &*self, bufs)
            }
            fn write(&self, buf: &[u8]) -> io::Result<usize> {
                Write::write(&mut &*self, buf)
            }
            fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                Write::write_vectored(&mut &*self, bufs)
            }
            fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                <$t>::shutdown(self, how)
            }
            fn set_nodelay(&self, $on: bool) -> io::Result<()> {
                let $s = self;
                $nodelay
            }
        }
    };
}

stream!(std::net::TcpStream, |s, on| s.set_nodelay(on));
stream!(std::os::unix::net::UnixStream, |_s, _on| Ok(()));

struct OfStd<S>(Rc<S>);

fn again<T>(cx: &Context<'_>, result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(e) if e.kind() == ErrorKind::WouldBlock => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        result => Poll::Ready(result),
    }
}

impl<S: Stream> AnEnd for OfStd<S> {
    fn recv(&self, room: usize, how: u8) -> Doing<Vec<u8>> {
        let socket = self.0.clone();
        let mut buf = vec![0; room];
        Box::pin(poll_fn(move |cx| {
            let read = match how % 2 {
                0 => socket.read(&mut buf),
                _ => {
                    let (a, b) = buf.split_at_mut(room / 2);
                    socket.read_vectored(&mut [IoSliceMut::new(a), IoSliceMut::new(b)])
                }
            };
            again(cx, read).map_ok(|n| buf[..n].to_vec())
        }))
    }

    fn send(&self, data: Rc<[u8]>, how: u8) -> Doing<usize> {
        let socket = self.0.clone();
        Box::pin(poll_fn(move |cx| {
            // No operation to the runtime; std asks the kernel.
            if data.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let written = match how % 2 {
                0 => socket.write(&data),
                _ => {
                    let (a, b) = data.split_at(data.len() / 2);
                    socket.write_vectored(&[IoSlice::new(a), IoSlice::new(b)])
                }
            };
            again(cx, written)
        }))
    }

    fn gives_up_clean(&self, _: u8) -> bool {
        true
    }

    fn in_turn(&self, how: u8) -> u8 {
        how
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.0.set_nodelay(on)
    }
}

/// Both ends, by std.
pub(crate) fn of_std(transport: Transport, small: bool) -> io::Result<[Box<dyn AnEnd>; 2]> {
    match transport {
        Transport::Unix => {
            let (a, b) = std::os::unix::net::UnixStream::pair()?;
            for socket in [&a, &b] {
                socket.set_nonblocking(true)?;
                if small {
                    shrink(socket)?;
                }
            }
            Ok([Box::new(OfStd(Rc::new(a))), Box::new(OfStd(Rc::new(b)))])
        }
        Transport::Tcp => {
            let (a, b) = tcp()?;
            for socket in [&a, &b] {
                socket.set_nonblocking(true)?;
                if small {
                    shrink(socket)?;
                }
            }
            Ok([Box::new(OfStd(Rc::new(a))), Box::new(OfStd(Rc::new(b)))])
        }
    }
}

fn tcp() -> io::Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let a = std::net::TcpStream::connect(listener.local_addr()?)?;
    Ok((a, listener.accept()?.0))
}

// -- the runtime ----------------------------------------------------------

/// How a connection of this family differs.
trait OurFamily: isochrome::net::Family {
    fn set_nodelay(stream: &StreamSocket<Self>, on: bool) -> io::Result<()>
    where
        Self: Sized;
}

impl OurFamily for Tcp {
    fn set_nodelay(stream: &TcpStream, on: bool) -> io::Result<()> {
        stream.set_nodelay(on)
    }
}

impl OurFamily for Unix {
    fn set_nodelay(_: &UnixStream, _: bool) -> io::Result<()> {
        Ok(())
    }
}

struct Ours<F>(Rc<StreamSocket<F>>);

impl<F: OurFamily + 'static> AnEnd for Ours<F> {
    fn recv(&self, room: usize, how: u8) -> Doing<Vec<u8>> {
        let stream = self.0.clone();
        let mut buf = vec![0; room];
        match how % CALLS {
            0 => Box::pin(async move { Ok(stream.recv().await?.to_vec()) }),
            1 => Box::pin(async move {
                let n = stream.read(&mut buf).await?;
                buf.truncate(n);
                Ok(buf)
            }),
            2 => Box::pin(async move {
                let (n, mut buf) = stream.read_owned(buf).await;
                buf.truncate(n?);
                Ok(buf)
            }),
            3 => Box::pin(poll_fn(move |cx| {
                let read = stream.poll_read(cx, &mut buf);
                read.map_ok(|n| buf[..n].to_vec())
            })),
            4 => Box::pin(async move {
                let (a, b) = buf.split_at_mut(room / 2);
                let mut bufs = [IoSliceMut::new(a), IoSliceMut::new(b)];
                let n = stream.read_vectored(&mut bufs).await?;
                buf.truncate(n);
                Ok(buf)
            }),
            // What is looked at is what comes.
            _ => Box::pin(async move {
                let n = stream.peek(&mut buf).await?;
                let mut taken = vec![0; n];
                if n > 0 {
                    let taken_n = stream.read(&mut taken).await?;
                    taken.truncate(taken_n);
                    assert_eq!(taken, buf[..taken_n], "another byte was seen before");
                    assert_ne!(taken_n, 0, "bytes were seen before the end");
                }
                Ok(taken)
            }),
        }
    }

    fn send(&self, data: Rc<[u8]>, how: u8) -> Doing<usize> {
        let stream = self.0.clone();
        match how % CALLS {
            0 => Box::pin(async move {
                stream.send_all(data.to_vec()).await.0?;
                Ok(data.len())
            }),
            1 => Box::pin(async move { stream.send(data.to_vec()).await.0 }),
            2 => Box::pin(async move {
                stream.send_zc(data.to_vec()).await.0?;
                Ok(data.len())
            }),
            3 => Box::pin(async move {
                let (a, b) = data.split_at(data.len() / 2);
                let halves = vec![a.to_vec(), b.to_vec()];
                stream.send_vectored(halves).await.0?;
                Ok(data.len())
            }),
            4 => Box::pin(poll_fn(move |cx| stream.poll_write(cx, &data))),
            5 => Box::pin(async move { stream.write(&data).await }),
            _ => Box::pin(poll_fn(move |cx| {
                let (a, b) = data.split_at(data.len() / 2);
                stream.poll_write_vectored(cx, &[IoSlice::new(a), IoSlice::new(b)])
            })),
        }
    }

    fn gives_up_clean(&self, how: u8) -> bool {
        how % CALLS >= 4
    }

    fn in_turn(&self, how: u8) -> u8 {
        how % 4
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        F::set_nodelay(&self.0, on)
    }
}

fn boxed<F: OurFamily + 'static>(
    ends: (StreamSocket<F>, StreamSocket<F>),
    small: bool,
) -> io::Result<[Box<dyn AnEnd>; 2]> {
    if small {
        shrink(&ends.0)?;
        shrink(&ends.1)?;
    }
    Ok([
        Box::new(Ours(Rc::new(ends.0))),
        Box::new(Ours(Rc::new(ends.1))),
    ])
}

/// Both ends, in the runtime that runs this.
pub(crate) async fn ours(
    transport: Transport,
    small: bool,
    taken_over: bool,
) -> io::Result<[Box<dyn AnEnd>; 2]> {
    match (transport, taken_over) {
        (Transport::Unix, false) => boxed(UnixStream::pair()?, small),
        (Transport::Unix, true) => {
            let (a, b) = std::os::unix::net::UnixStream::pair()?;
            boxed((UnixStream::from_std(a)?, UnixStream::from_std(b)?), small)
        }
        (Transport::Tcp, false) => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let a = TcpStream::connect(listener.local_addr()?).await?;
            boxed((a, listener.accept().await?.0), small)
        }
        (Transport::Tcp, true) => {
            let (a, b) = tcp()?;
            boxed((TcpStream::from_std(a)?, TcpStream::from_std(b)?), small)
        }
    }
}
