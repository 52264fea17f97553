//! Halves of a connection, borrowed and owned.

use std::error::Error;
use std::fmt;
use std::net::Shutdown;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use crate::family::Family;
use crate::stream::StreamSocket;
use crate::tcp::Tcp;

pub(crate) fn split<F: Family>(stream: StreamSocket<F>) -> (ReadHalf<F>, WriteHalf<F>) {
    let stream = Arc::new(stream);
    let write = WriteHalf {
        stream: stream.clone(),
        ends: true,
    };
    (ReadHalf(stream), write)
}

/// The half that receives. Dereferences to the [`StreamSocket`].
#[derive(Debug)]
pub struct ReadHalf<F: Family = Tcp>(Arc<StreamSocket<F>>);

/// The half that sends. Dereferences to the [`StreamSocket`]. Dropping it ends
/// the writing direction, so that the peer sees the end of the stream, behind
/// what was [fed](StreamSocket::feed) if the other half stays that long.
#[derive(Debug)]
pub struct WriteHalf<F: Family = Tcp> {
    stream: Arc<StreamSocket<F>>,
    /// Dropping it ends the direction.
    ends: bool,
}

impl<F: Family> ReadHalf<F> {
    /// Puts the two halves of a connection together again.
    ///
    /// # Errors
    ///
    /// If the halves are of two connections: both are given back.
    pub fn reunite(self, mut write: WriteHalf<F>) -> Result<StreamSocket<F>, ReuniteError<F>> {
        if !Arc::ptr_eq(&self.0, &write.stream) {
            return Err(ReuniteError(self, write));
        }
        write.ends = false;
        drop(write);
        Ok(Arc::into_inner(self.0).expect("each half has one reference"))
    }
}

impl<F: Family> WriteHalf<F> {
    /// As [`ReadHalf::reunite`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reunite(self, read: ReadHalf<F>) -> Result<StreamSocket<F>, ReuniteError<F>> {
        read.reunite(self)
    }

    /// Drops it without ending the writing direction: the connection is closed
    /// with the other half.
    pub fn forget(mut self) {
        self.ends = false;
    }
}

/// Two halves that are of two connections, given back.
pub struct ReuniteError<F: Family = Tcp>(pub ReadHalf<F>, pub WriteHalf<F>);

impl<F: Family> fmt::Debug for ReuniteError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, write) = (&*self.0, &*self.1);
        f.debug_tuple("ReuniteError")
            .field(read)
            .field(write)
            .finish()
    }
}

impl<F: Family> fmt::Display for ReuniteError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these halves are of two connections")
    }
}

impl<F: Family> Error for ReuniteError<F> {}

impl<F: Family> Deref for ReadHalf<F> {
    type Target = StreamSocket<F>;

    fn deref(&self) -> &StreamSocket<F> {
        &self.0
    }
}

impl<F: Family> Deref for WriteHalf<F> {
    type Target = StreamSocket<F>;

    fn deref(&self) -> &StreamSocket<F> {
        &self.stream
    }
}

impl<F: Family> Drop for WriteHalf<F> {
    fn drop(&mut self) {
        if self.ends {
            // An error says that the connection is gone, which is as good.
            let _ = self.stream.end(Shutdown::Write);
        }
    }
}

/// The borrowed half that receives: [`StreamSocket::split`]. Dereferences to
/// the [`StreamSocket`].
#[derive(Debug)]
pub struct ReadRef<'a, F: Family = Tcp>(pub(crate) &'a StreamSocket<F>);

/// The borrowed half that sends: [`StreamSocket::split`]. Dereferences to the
/// [`StreamSocket`]. Dropping it ends nothing.
#[derive(Debug)]
pub struct WriteRef<'a, F: Family = Tcp>(pub(crate) &'a StreamSocket<F>);

impl<F: Family> Deref for ReadRef<'_, F> {
    type Target = StreamSocket<F>;

    fn deref(&self) -> &StreamSocket<F> {
        self.0
    }
}

impl<F: Family> Deref for WriteRef<'_, F> {
    type Target = StreamSocket<F>;

    fn deref(&self) -> &StreamSocket<F> {
        self.0
    }
}

/// What a half has of its connection for those who take these traits.
macro_rules! of_the_connection {
    ($half:ty) => {
        impl<F: Family> AsRef<StreamSocket<F>> for $half {
            fn as_ref(&self) -> &StreamSocket<F> {
                self
            }
        }

        impl<F: Family> AsFd for $half {
            fn as_fd(&self) -> BorrowedFd<'_> {
                StreamSocket::as_fd(self)
            }
        }

        impl<F: Family> AsRawFd for $half {
            fn as_raw_fd(&self) -> RawFd {
                StreamSocket::as_raw_fd(self)
            }
        }
    };
}

of_the_connection!(ReadHalf<F>);
of_the_connection!(WriteHalf<F>);
of_the_connection!(ReadRef<'_, F>);
of_the_connection!(WriteRef<'_, F>);
