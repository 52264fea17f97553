//! Buffers with their types forgotten, so that an operation can own them.

use std::fmt;

use super::erased::Erased;
use super::{IoBuf, IoBufMut};

/// An owned buffer lent to an operation that reads it: a pointer and a length
/// for the kernel, and the value that keeps both valid.
///
/// The type is erased without an allocation for values of up to four words,
/// so that sending a `Vec<u8>` or a lease costs none.
pub struct Lent {
    ptr: *const u8,
    len: usize,
    owner: Erased,
}

// SAFETY: `ptr` points into memory that the owner keeps, so it moves with it.
unsafe impl Send for Lent {}

// SAFETY: nothing can be reached through `&Lent` but the pointer, the length
// and the bytes, as plain values.
unsafe impl Sync for Lent {}

impl Lent {
    /// Takes `buf` over; its bytes can be read until the value is given back.
    #[inline]
    pub fn new<B: IoBuf>(buf: B) -> Lent {
        let bytes = buf.bytes();
        // By the contract of `IoBuf` the move leaves the pointer valid.
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        let owner = Erased::new(buf);
        Lent { ptr, len, owner }
    }

    /// Lends what `buf` lends, which its owner keeps for now: if this value is
    /// to outlive `buf`, [`adopt`](Lent::adopt) it first.
    ///
    /// # Safety
    ///
    /// Nobody drops `buf`, borrows it mutably, or looks at the bytes by this
    /// value after that, as long as this value or anybody who got the pointer
    /// from it may read them. (To forget it is fine: what is never dropped
    /// keeps its bytes.)
    #[inline]
    pub(crate) unsafe fn kept<B: IoBuf>(buf: &B) -> Lent {
        let bytes = buf.bytes();
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        let owner = Erased::new(());
        Lent { ptr, len, owner }
    }

    /// Takes over what was [`kept`](Lent::kept).
    pub(crate) fn adopt<B: IoBuf>(&mut self, buf: B) {
        self.owner = Erased::new(buf);
    }

    /// Where the bytes are. Valid until this value is dropped or taken apart,
    /// also when it moves.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: by the contract of `IoBuf` they stay where they are and as
        // they are as long as the value is there, which is ours.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Leaves the first `n` bytes out.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn skip(&mut self, n: usize) {
        assert!(n <= self.len, "more is skipped than is there");
        self.ptr = self.ptr.wrapping_add(n);
        self.len -= n;
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the buffer back.
    ///
    /// # Panics
    ///
    /// If it is not a `B`.
    #[inline]
    pub fn into_inner<B: IoBuf>(self) -> B {
        self.owner.into_inner()
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("len", &self.len).finish()
    }
}

/// An owned buffer lent to an operation that writes to it. Its bytes cannot be
/// looked at until it is given back, because the kernel may be writing them.
pub struct LentMut {
    ptr: *mut u8,
    len: usize,
    owner: Erased,
}

// SAFETY: as for `Lent`.
unsafe impl Send for LentMut {}

// SAFETY: nothing can be reached through `&LentMut` but the pointer and the
// length, as plain values.
unsafe impl Sync for LentMut {}

impl LentMut {
    /// Takes `buf` over; its bytes can be written until the value is given
    /// back.
    pub fn new<B: IoBufMut>(buf: B) -> LentMut {
        let mut owner = Erased::new(buf);
        // Where it stays: to move a box is to say that nobody else writes to it.
        let bytes = owner.value_mut::<B>().bytes_mut();
        // By the contract of `IoBufMut` the pointer stays valid.
        let (ptr, len) = (bytes.as_mut_ptr(), bytes.len());
        LentMut { ptr, len, owner }
    }

    /// Where the bytes are. Valid until this value is dropped or taken apart,
    /// also when it moves.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// How many bytes there is room for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Leaves the first `n` bytes out.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn skip(&mut self, n: usize) {
        assert!(n <= self.len, "more is skipped than is there");
        self.ptr = self.ptr.wrapping_add(n);
        self.len -= n;
    }

    /// Whether there is no room at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the buffer back.
    ///
    /// # Panics
    ///
    /// If it is not a `B`.
    pub fn into_inner<B: IoBufMut>(self) -> B {
        self.owner.into_inner()
    }
}

impl fmt::Debug for LentMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentMut").field("len", &self.len).finish()
    }
}

/// The kernel refuses more at once.
pub(crate) const MOST_SLICES: usize = libc::UIO_MAXIOV as usize;

/// What the kernel is told of several buffers, and the value that keeps them.
struct Described {
    slices: Box<[libc::iovec]>,
    owner: Erased,
}

// SAFETY: as for `Lent`: the pointers are into memory that the owner keeps.
unsafe impl Send for Described {}

// SAFETY: nothing can be reached through `&Described` but pointers and
// lengths, as plain values.
unsafe impl Sync for Described {}

impl fmt::Debug for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lens = self.slices.iter().map(|slice| slice.iov_len);
        f.debug_list().entries(lens).finish()
    }
}

/// Several owned buffers lent to one operation that reads them, and what the
/// kernel is told of them. Of very many, the first 1,024.
#[derive(Debug)]
pub struct LentSlices(Described);

/// Several owned buffers lent to one operation that writes to them, and what
/// the kernel is told of them. Of very many, the first 1,024.
///
/// What may only be read is no such buffer:
///
/// ```compile_fail,E0277
/// # use std::sync::Arc;
/// use isochrome_runtime::buf::LentSlicesMut;
///
/// let shared: Arc<[u8]> = Arc::from(&b"seen by others"[..]);
/// LentSlicesMut::new(vec![shared]);
/// ```
///
/// and what was lent to be read cannot be read into:
///
/// ```compile_fail,E0308
/// use isochrome_runtime::buf::LentSlices;
/// use isochrome_runtime::op::{FileOp, Inline};
///
/// let into = LentSlices::new(vec!["constant"]);
/// FileOp::ReadVectored { into, at: 0, inline: Inline::Never };
/// ```
#[derive(Debug)]
pub struct LentSlicesMut(Described);

impl LentSlices {
    /// Takes buffers over; their bytes can be read until the value is given
    /// back.
    pub fn new<B: IoBuf>(bufs: Vec<B>) -> LentSlices {
        let slice = |buf: &B| {
            let bytes = buf.bytes();
            libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }
        };
        LentSlices(Described {
            slices: bufs.iter().take(MOST_SLICES).map(slice).collect(),
            owner: Erased::new(bufs),
        })
    }
}

impl LentSlicesMut {
    /// Takes buffers over; their bytes can be written until the value is given
    /// back.
    pub fn new<B: IoBufMut>(mut bufs: Vec<B>) -> LentSlicesMut {
        let slice = |buf: &mut B| {
            let bytes = buf.bytes_mut();
            libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            }
        };
        LentSlicesMut(Described {
            slices: bufs.iter_mut().take(MOST_SLICES).map(slice).collect(),
            owner: Erased::new(bufs),
        })
    }
}

macro_rules! described {
    ($lent:ident, $buffer:ident) => {
        impl $lent {
            /// Where the slices are described. Valid, as what they describe,
            /// until this value is dropped or taken apart, also when it moves.
            pub fn as_ptr(&self) -> *const libc::iovec {
                self.0.slices.as_ptr()
            }

            /// How many slices there are.
            pub fn len(&self) -> usize {
                self.0.slices.len()
            }

            /// Whether there is none.
            pub fn is_empty(&self) -> bool {
                self.0.slices.is_empty()
            }

            /// Gives the buffers back.
            ///
            /// # Panics
            ///
            /// If they are not a `Vec<B>`.
            pub fn into_inner<B: $buffer>(self) -> Vec<B> {
                self.0.owner.into_inner()
            }
        }
    };
}

described!(LentSlices, IoBuf);
described!(LentSlicesMut, IoBufMut);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Large {
        data: Vec<u8>,
        _rest: [usize; 6],
        drops: Arc<AtomicUsize>,
    }

    // SAFETY: the bytes are on the heap.
    unsafe impl IoBuf for Large {
        fn bytes(&self) -> &[u8] {
            &self.data
        }
    }

    impl Drop for Large {
        fn drop(&mut self) {
            self.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn small_buffers_come_back_as_they_were() {
        let lent = Lent::new(vec![1u8, 2, 3]);
        let ptr = lent.as_ptr();
        assert_eq!(lent.len(), 3);
        let back: Vec<u8> = lent.into_inner();
        assert_eq!(back.as_ptr(), ptr);
        assert_eq!(back, [1, 2, 3]);
    }

    #[test]
    fn large_buffers_are_boxed_and_dropped_once() {
        let drops = Arc::new(AtomicUsize::new(0));
        let large = |drops: &Arc<AtomicUsize>| Large {
            data: vec![7; 100],
            _rest: [0; 6],
            drops: drops.clone(),
        };
        drop(Lent::new(large(&drops)));
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        let back: Large = Lent::new(large(&drops)).into_inner();
        assert_eq!(back.data.len(), 100);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        drop(back);
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    }

    #[test]
    #[should_panic(expected = "another type")]
    fn the_type_is_checked() {
        let _ = Lent::new(vec![1u8]).into_inner::<String>();
    }

    #[test]
    fn what_is_written_by_pointer_is_in_the_buffer_that_comes_back() {
        let lent = LentMut::new(vec![0u8; 3]);
        assert_eq!(lent.len(), 3);
        // SAFETY: three bytes, and nobody else has them.
        unsafe { lent.as_mut_ptr().add(1).write(7) };
        assert_eq!(lent.into_inner::<Vec<u8>>(), [0, 7, 0]);

        let lent = LentSlicesMut::new(vec![vec![0u8; 2], vec![], vec![0u8; 1]]);
        assert_eq!(lent.len(), 3);
        // SAFETY: the third slice has one byte.
        unsafe { (*lent.as_ptr().add(2)).iov_base.cast::<u8>().write(9) };
        assert_eq!(
            lent.into_inner::<Vec<u8>>(),
            [vec![0, 0], vec![], vec![9u8]]
        );
    }
}
