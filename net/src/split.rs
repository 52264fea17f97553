//! Owned halves of a connection.

use std::net::Shutdown;
use std::ops::Deref;
use std::sync::Arc;

use crate::family::Family;
use crate::stream::StreamSocket;
use crate::tcp::Tcp;

pub(crate) fn split<F: Family>(stream: StreamSocket<F>) -> (ReadHalf<F>, WriteHalf<F>) {
    let stream = Arc::new(stream);
    (ReadHalf(stream.clone()), WriteHalf(stream))
}

/// The half that receives. Dereferences to the [`StreamSocket`].
#[derive(Debug)]
pub struct ReadHalf<F: Family = Tcp>(Arc<StreamSocket<F>>);

/// The half that sends. Dereferences to the [`StreamSocket`]. Dropping it ends
/// the writing direction, so that the peer sees the end of the stream.
#[derive(Debug)]
pub struct WriteHalf<F: Family = Tcp>(Arc<StreamSocket<F>>);

impl<F: Family> Deref for ReadHalf<F> {
    type Target = StreamSocket<F>;

    fn deref(&self) -> &StreamSocket<F> {
        &self.0
    }
}

impl<F: Family> Deref for WriteHalf<F> {
    type Target = StreamSocket<F>;

    fn deref(&self) -> &StreamSocket<F> {
        &self.0
    }
}

impl<F: Family> Drop for WriteHalf<F> {
    fn drop(&mut self) {
        // An error says that the connection is gone, which is as good.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}
