//! Owned halves of a connection.

use std::net::Shutdown;
use std::ops::Deref;
use std::sync::Arc;

use crate::stream::TcpStream;

pub(crate) fn split(stream: TcpStream) -> (ReadHalf, WriteHalf) {
    let stream = Arc::new(stream);
    (ReadHalf(stream.clone()), WriteHalf(stream))
}

/// The half that receives. Dereferences to the [`TcpStream`].
#[derive(Debug)]
pub struct ReadHalf(Arc<TcpStream>);

/// The half that sends. Dereferences to the [`TcpStream`]. Dropping it ends
/// the writing direction, so that the peer sees the end of the stream.
#[derive(Debug)]
pub struct WriteHalf(Arc<TcpStream>);

impl Deref for ReadHalf {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl Deref for WriteHalf {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // An error says that the connection is gone, which is as good.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}
