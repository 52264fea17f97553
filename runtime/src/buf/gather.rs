//! Several owned buffers that are sent one after another.

use std::fmt;

use super::IoBuf;
use super::erased::Erased;
use super::lent::MOST_SLICES;

/// Several owned buffers lent to an operation that sends all their bytes, one
/// buffer after another: what the kernel is told of them, how far it has come,
/// and the value that keeps the bytes valid.
///
/// To be kept where it is, in a box, while the kernel has the
/// [`header`](Gather::header).
pub struct Gather {
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
    /// The first slice of which not all was sent.
    next: usize,
    sent: usize,
    len: usize,
    owner: Erased,
}

// SAFETY: the slices are of memory that the owner keeps, so they move with it;
// the header points to the slices, which are ours on the heap.
unsafe impl Send for Gather {}

// SAFETY: nothing can be reached through `&Gather` but lengths, as plain
// values.
unsafe impl Sync for Gather {}

impl Gather {
    /// Takes buffers over, whose bytes can be read until they are given back.
    pub fn new<B: IoBuf>(bufs: Vec<B>) -> Gather {
        let slice = |buf: &B| {
            let bytes = buf.bytes();
            libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }
        };
        let slices: Vec<_> = bufs.iter().map(slice).collect();
        let mut gather = Gather {
            // SAFETY: a header of zeroes is an empty one.
            header: unsafe { std::mem::zeroed() },
            len: slices.iter().map(|slice| slice.iov_len).sum(),
            slices,
            next: 0,
            sent: 0,
            // By the contract of `IoBuf` the move leaves the pointers valid.
            owner: Erased::new(bufs),
        };
        // Past empty ones in front: nothing but those in a call would be sent
        // as nothing, which is no progress.
        gather.advance(0);
        gather
    }

    /// What sendmsg(2) is to be called with for what is left. (At most 1,024
    /// slices of it at a time.) It points to this value, and to what this value
    /// keeps.
    pub fn header(&mut self) -> *const libc::msghdr {
        let rest = &mut self.slices[self.next..];
        self.header.msg_iov = rest.as_mut_ptr();
        self.header.msg_iovlen = rest.len().min(MOST_SLICES) as _;
        &raw const self.header
    }

    /// So many more bytes were sent.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len - self.sent, "more is sent than is there");
        self.sent += n;
        let mut n = n;
        while let Some(slice) = self.slices.get_mut(self.next) {
            if slice.iov_len > n {
                slice.iov_base = slice.iov_base.wrapping_byte_add(n);
                slice.iov_len -= n;
                return;
            }
            n -= slice.iov_len;
            self.next += 1;
        }
    }

    /// How many bytes were sent.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// How many bytes there are in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the buffers back.
    ///
    /// # Panics
    ///
    /// If they are not a `Vec<B>`.
    pub fn into_inner<B: IoBuf>(self) -> Vec<B> {
        self.owner.into_inner()
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("sent", &self.sent)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call would send.
    #[allow(clippy::unnecessary_cast, reason = "the C libraries differ")]
    fn rest(gather: &mut Gather) -> Vec<u8> {
        // SAFETY: the header, its slices and what they describe are valid.
        unsafe {
            let header = &*gather.header();
            let slices = std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen as usize);
            let bytes = |slice: &libc::iovec| {
                std::slice::from_raw_parts(slice.iov_base.cast::<u8>(), slice.iov_len).to_vec()
            };
            slices.iter().flat_map(bytes).collect()
        }
    }

    #[test]
    fn it_goes_on_where_it_stopped() {
        let bufs = ["", "ab", "", "cdef", ""];
        for step in 1..=6 {
            let mut gather = Gather::new(bufs.to_vec());
            assert_eq!((gather.len(), gather.is_empty()), (6, false));
            while gather.sent() < 6 {
                let left = &b"abcdef"[gather.sent()..];
                assert_eq!(rest(&mut gather), left);
                gather.advance(step.min(left.len()));
            }
            assert!(rest(&mut gather).is_empty());
            assert_eq!(gather.into_inner::<&str>(), bufs);
        }
    }

    #[test]
    fn very_many_are_shown_a_part_at_a_time() {
        let mut gather = Gather::new(vec!["x"; 2500]);
        for count in [1024, 1024, 452] {
            assert_eq!(rest(&mut gather).len(), count);
            gather.advance(count);
        }
        assert_eq!(gather.sent(), 2500);
    }

    #[test]
    #[should_panic(expected = "more is sent")]
    fn no_more_is_sent_than_is_there() {
        Gather::new(vec!["abc"]).advance(4);
    }
}
