//! Memory that operations lend to the kernel.
//!
//! * [`IoBuf`] / [`IoBufMut`]: owned buffers, as completion users know them.
//! * [`RecvBuf`]: a lease on a buffer of the runtime's, handed out only when
//!   data is there.
//! * [`Lent`], [`LentMut`], [`LentSlices`], [`LentSlicesMut`], [`Gather`]: buffers with
//!   their types forgotten, owned by an operation until the last completion.
//! * [`Pool`]: where leases come from; used by drivers.

#[cfg(not(all(test, loom)))]
mod erased;
mod free;
#[cfg(not(all(test, loom)))]
mod gather;
#[cfg(not(all(test, loom)))]
mod kept;
#[cfg(not(all(test, loom)))]
mod lent;
#[cfg(not(all(test, loom)))]
mod pool;

#[cfg(not(all(test, loom)))]
pub(crate) use lent::MOST_SLICES;
#[cfg(not(all(test, loom)))]
pub use {
    gather::Gather,
    lent::{Lent, LentMut, LentSlices, LentSlicesMut},
    pool::{Pool, RecvBuf},
};
#[cfg(not(all(test, loom)))]
pub(crate) use {kept::Kept, pool::OF_A_WORKER};

use std::sync::Arc;

/// An owned buffer that can be read by the kernel while nobody looks.
///
/// Implemented for `Vec<u8>`, `Box<[u8]>`, `String`, `Arc<[u8]>`, static
/// slices and strings, arrays behind a box, and [`RecvBuf`].
///
/// # Safety
///
/// The slice that [`bytes`](IoBuf::bytes) returns must stay where it is, valid
/// and unchanged, when the value is moved, until the value is dropped or is
/// borrowed mutably.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no buffer that can be handed over",
    note = "what the kernel uses must not be borrowed, and must not move with the value: give a `Vec<u8>`, a `Box`, or what is `'static`",
    note = "borrowed bytes are for the calls that take a slice, such as `write_all`"
)]
pub unsafe trait IoBuf: Send + 'static {
    /// The bytes that are sent.
    fn bytes(&self) -> &[u8];
}

/// An owned buffer that can be written to, as far as it is long: reading into a
/// `Vec<u8>` takes at most its length, and so nothing into one that has only
/// capacity. Begin with `vec![0; 4096]`.
///
/// # Safety
///
/// As for [`IoBuf`], for the slice that [`bytes_mut`](IoBufMut::bytes_mut)
/// returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no buffer that can be handed over to be filled",
    note = "what the kernel uses must not be borrowed, and must not move with the value: give a `Vec<u8>` or a `Box`",
    note = "borrowed memory is for the calls that take a slice, such as `read` of a connection"
)]
pub unsafe trait IoBufMut: IoBuf {
    /// The bytes that may be overwritten: for a `Vec<u8>` its current length,
    /// not its spare capacity.
    fn bytes_mut(&mut self) -> &mut [u8];
}

macro_rules! io_buf {
    ($($t:ty),* $(,)?) => {$(
        // SAFETY: the bytes are static or on the heap, where they do not move
        // with the value, and only methods that take `&mut self` move them.
        unsafe impl IoBuf for $t {
            fn bytes(&self) -> &[u8] {
                self.as_ref()
            }
        }
    )*};
}

io_buf!(
    Vec<u8>,
    Box<[u8]>,
    String,
    Arc<[u8]>,
    &'static [u8],
    &'static str
);

// SAFETY: the elements of a vector live on the heap; moving the vector does
// not move them.
unsafe impl IoBufMut for Vec<u8> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

// SAFETY: as for vectors.
unsafe impl IoBufMut for Box<[u8]> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

// SAFETY: an array in a box lives on the heap; moving the box does not move it.
unsafe impl<const N: usize> IoBuf for Box<[u8; N]> {
    fn bytes(&self) -> &[u8] {
        &self[..]
    }
}

// SAFETY: as for reading.
unsafe impl<const N: usize> IoBufMut for Box<[u8; N]> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self[..]
    }
}
