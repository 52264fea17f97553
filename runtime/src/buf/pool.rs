//! The receive buffers of one worker, and the leases on them.
//!
//! # Rules
//!
//! 1. A buffer is in one place at a time: free in the pool, lent to the
//!    kernel by the driver, or leased out as a [`RecvBuf`] (also if a worker
//!    keeps that for its next receive). Who has the number
//!    of a buffer by [`Pool::take`] or by a [`RecvBuf`] is the only one who
//!    touches its bytes.
//! 2. Leases may outlive their worker and be dropped on any thread: each keeps
//!    the memory of the whole pool alive. The pool itself never asks for a
//!    lease back.
//! 3. What a lease shows, and who owns its buffer, stands in a record beside
//!    the buffers, so that the lease itself is one pointer. Who has the lease
//!    has the record: nobody else reads or writes it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use super::free::Free;
use super::{IoBuf, IoBufMut};
use crate::sync::UnsafeCell;
use crate::worker::Worker;

/// Receive buffers of one size, in one piece of memory.
pub struct Pool {
    /// What was allocated, and where in it the first buffer begins.
    block: NonNull<u8>,
    layout: Layout,
    memory: NonNull<u8>,
    size: usize,
    count: u16,
    free: Free,
    /// The record of each buffer (rule 3).
    leases: Box<[UnsafeCell<Lease>]>,
}

// SAFETY: the memory belongs to the pool, and by rule 1 each buffer in it is
// touched by one party at a time; everything else is Sync by itself.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// Buffers start on a page, as the kernel likes them.
const PAGE: usize = 4096;

/// The size of the receive buffers of a worker whose driver works by readiness.
pub(crate) const OF_A_WORKER: usize = 16 * 1024;

impl Pool {
    /// The receive buffers of one worker whose driver works by readiness.
    ///
    /// 16 KiB is where the gain of larger ones flattens (4 KiB messages: 6.3,
    /// 2.1 and 1.1 us with 4, 16 and 64 KiB) at a size that many can be on
    /// lease. All together they are 4 MiB, of which is touched what is on
    /// lease at a time.
    pub(crate) fn of_a_worker() -> Arc<Pool> {
        Pool::new(256, OF_A_WORKER)
    }

    /// Makes `count` buffers of `size` bytes each, all free. Memory that was
    /// not used before is taken from the system when a buffer is first used.
    ///
    /// # Panics
    ///
    /// If `count` or `size` is zero, or the product overflows.
    pub fn new(count: u16, size: usize) -> Arc<Pool> {
        assert!(count > 0 && size > 0, "a pool needs buffers");
        let bytes = size.checked_mul(usize::from(count)).expect("pool size");
        // No alignment is asked for, but room for it: memory with an alignment
        // is zeroed by hand, all of it.
        let room = bytes.checked_add(PAGE).expect("pool size");
        let layout = Layout::array::<u8>(room).expect("pool size");
        // SAFETY: the size is not zero.
        let block = unsafe { alloc_zeroed(layout) };
        let Some(block) = NonNull::new(block) else {
            handle_alloc_error(layout)
        };
        // SAFETY: less than a page on, and so much more was allocated.
        let memory = unsafe { block.add(block.align_offset(PAGE)) };
        let record = |pool: &Weak<Pool>, id: u16| {
            // SAFETY: below the count, so within the memory.
            let start = unsafe { memory.add(usize::from(id) * size) };
            let (ptr, len, owner) = (start, 0, Owner::Pool(pool.as_ptr()));
            UnsafeCell::new(Lease {
                ptr,
                len,
                id,
                start,
                owner,
            })
        };
        Arc::new_cyclic(|pool| Pool {
            block,
            layout,
            memory,
            size,
            count,
            free: Free::full(count),
            leases: (0..count).map(|id| record(pool, id)).collect(),
        })
    }

    /// The size of each buffer in bytes.
    #[inline]
    pub fn buffer_size(&self) -> usize {
        self.size
    }

    /// How many buffers there are, free or not.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// How many are free, if nobody takes or gives any meanwhile.
    pub fn free_count(&self) -> usize {
        self.free.count()
    }

    /// Where buffer `id` begins. The bytes may be touched by who has it.
    ///
    /// # Panics
    ///
    /// If there is no such buffer.
    #[inline]
    pub fn address(&self, id: u16) -> NonNull<u8> {
        assert!(id < self.count, "no such buffer");
        // SAFETY: in range by the assertion.
        unsafe { self.memory.add(usize::from(id) * self.size) }
    }

    /// Takes one free buffer, the most recently used first.
    #[inline]
    pub fn take(&self) -> Option<u16> {
        self.free.pop()
    }

    /// Hands every free buffer to `each`.
    pub fn take_all(&self, each: impl FnMut(u16)) {
        self.free.take_all(each);
    }

    /// Gives a buffer back that [`take`](Pool::take) gave out.
    ///
    /// # Safety
    ///
    /// The caller has buffer `id` (rule 1) and gives it up: the next who takes
    /// it writes to it.
    #[inline]
    pub unsafe fn put(&self, id: u16) {
        debug_assert!(id < self.count);
        self.free.push(id);
    }

    /// A lease on a free buffer, which shows nothing yet.
    pub(crate) fn blank(self: &Arc<Pool>) -> Option<RecvBuf> {
        let id = self.take()?;
        // SAFETY: just taken.
        Some(unsafe { self.lease(id, 0) })
    }

    /// Makes a lease of a buffer in which the first `len` bytes were written.
    ///
    /// # Safety
    ///
    /// The caller has buffer `id` (rule 1) and gives it up.
    ///
    /// # Panics
    ///
    /// If `len` is more than a buffer holds.
    #[inline]
    pub unsafe fn lease(self: &Arc<Pool>, id: u16, len: usize) -> RecvBuf {
        assert!(len <= self.size);
        // Rule 2. It is given up by the drop of the lease.
        std::mem::forget(self.clone());
        self.leases[usize::from(id)].with_mut(|place| {
            // SAFETY: who has the buffer has its record (rule 3).
            let lease = unsafe { &mut *place };
            lease.show(len);
            RecvBuf(NonNull::from(lease))
        })
    }
}

impl Lease {
    /// Shows the first `len` bytes.
    #[inline]
    fn show(&mut self, len: usize) {
        self.ptr = self.start;
        self.len = len as u32;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; no lease and no driver is left.
        unsafe { dealloc(self.block.as_ptr(), self.layout) };
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("count", &self.count)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Received bytes, in a buffer that is on lease from the runtime.
///
/// Dereferences to the bytes. The buffer goes back when the lease is dropped;
/// hold it as long as you like, on any thread, but know that a worker has a
/// few hundred of them, and that with all of them held by tasks each receive
/// allocates a buffer of its own. Sending a lease (`send_all(lease)`) copies
/// nothing. An empty lease marks the end of the stream.
pub struct RecvBuf(NonNull<Lease>);

/// What a lease shows, and whose the buffer is.
#[repr(C)]
struct Lease {
    ptr: NonNull<u8>,
    len: u32,
    /// The number of the buffer in its pool.
    id: u16,
    /// Where the buffer begins.
    start: NonNull<u8>,
    owner: Owner,
}

enum Owner {
    /// Where its `Arc` has it: with a counted reference as long as there is a
    /// lease, by rule 2.
    Pool(*const Pool),
    /// It is the first part of a [`Private`].
    Heap,
    Nobody,
}

const NOTHING: Lease = Lease {
    ptr: NonNull::dangling(),
    len: 0,
    id: 0,
    start: NonNull::dangling(),
    owner: Owner::Nobody,
};

/// The record of all leases on nothing, which is never written: there is
/// nothing to leave out.
static EMPTY: Empty = Empty(NOTHING);

struct Empty(Lease);

// SAFETY: it is only read.
unsafe impl Sync for Empty {}

/// A buffer of its own and its record. The buffer is there by raw parts, so
/// that moving it asserts nothing about who points into it.
#[repr(C)]
struct Private {
    lease: Lease,
    capacity: usize,
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: the parts of a `Vec<u8>` taken apart by `RecvBuf::private`,
        // which are used no more.
        drop(unsafe { Vec::from_raw_parts(self.lease.start.as_ptr(), 0, self.capacity) });
    }
}

// SAFETY: by rule 1 a lease is the only one to touch its bytes.
unsafe impl Send for RecvBuf {}
// SAFETY: `&RecvBuf` only reads them.
unsafe impl Sync for RecvBuf {}

impl RecvBuf {
    /// A lease on nothing: the end of a stream.
    pub fn empty() -> RecvBuf {
        RecvBuf(NonNull::from(&EMPTY.0))
    }

    /// A lease on a buffer of its own, for when the pool has none.
    pub fn private(data: Vec<u8>) -> RecvBuf {
        let mut data = ManuallyDrop::new(data);
        let len = u32::try_from(data.len()).expect("a receive buffer is below 4 GiB");
        let ptr = NonNull::new(data.as_mut_ptr()).expect("a vector's pointer is not null");
        let private = Box::new(Private {
            lease: Lease {
                ptr,
                len,
                id: 0,
                start: ptr,
                owner: Owner::Heap,
            },
            capacity: data.capacity(),
        });
        RecvBuf(NonNull::from(Box::leak(private)).cast())
    }

    #[inline]
    fn lease(&self) -> &Lease {
        // SAFETY: the record is ours (rule 3), and lives as long as its pool,
        // of which it has a reference, or for ever.
        unsafe { self.0.as_ref() }
    }

    /// Receives by `call`, which is told where the buffer is, of
    /// [`OF_A_WORKER`] bytes, and says how many bytes it wrote. A lease into
    /// which nothing was received is given up.
    ///
    /// # Safety
    ///
    /// It is a [blank](Pool::blank) lease on such a buffer, and `call` has
    /// written as many bytes as it says, from the beginning on.
    #[inline]
    pub(crate) unsafe fn fill<E>(
        mut self,
        call: impl FnOnce(NonNull<u8>) -> Result<usize, E>,
    ) -> Result<Option<(RecvBuf, usize)>, E> {
        // SAFETY: as for `lease`, and exclusively; it is not `EMPTY`.
        let lease = unsafe { self.0.as_mut() };
        let len = call(lease.start)?;
        lease.show(len);
        Ok((len > 0).then_some((self, len)))
    }

    /// Drops the first `n` bytes from view.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advanced past the end");
        if n > 0 {
            // SAFETY: as for `lease`, and exclusively; it is not `EMPTY`, which
            // has no byte.
            let lease = unsafe { self.0.as_mut() };
            // SAFETY: within the buffer by the assertion.
            lease.ptr = unsafe { lease.ptr.add(n) };
            lease.len -= n as u32;
        }
    }

    /// Keeps the first `n` bytes only; does nothing if there are fewer.
    pub fn truncate(&mut self, n: usize) {
        if n < self.len() {
            // SAFETY: as in `advance`: there is a byte.
            unsafe { self.0.as_mut() }.len = n as u32;
        }
    }
}

impl Deref for RecvBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let lease = self.lease();
        // SAFETY: `len` bytes from `ptr` were written, belong to this lease
        // (rule 1) and live as long as its owner; for an empty one the pointer
        // is dangling, which is fine for no bytes.
        unsafe { std::slice::from_raw_parts(lease.ptr.as_ptr(), lease.len as usize) }
    }
}

impl DerefMut for RecvBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let lease = self.lease();
        // SAFETY: as for `deref`; `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(lease.ptr.as_ptr(), lease.len as usize) }
    }
}

impl AsRef<[u8]> for RecvBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

// SAFETY: the bytes lie in the pool or on the heap and do not move with the
// lease.
unsafe impl IoBuf for RecvBuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for RecvBuf {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for RecvBuf {
    #[inline]
    fn drop(&mut self) {
        if let Owner::Pool(pool) = self.lease().owner {
            let kept = |worker: Option<&Worker>| {
                let kept = worker.map(Worker::kept);
                let room = kept.filter(|kept| kept.has_room_for(pool));
                // The lease goes on by another name.
                room.map(|kept| kept.put(RecvBuf(self.0))).is_some()
            };
            if Worker::with(kept) {
                return;
            }
        }
        self.give_back();
    }
}

impl RecvBuf {
    /// For the drop alone.
    #[inline(never)]
    fn give_back(&mut self) {
        match self.lease().owner {
            Owner::Pool(pool) => {
                let id = self.lease().id;
                // SAFETY: the reference that the lease has, which goes.
                let pool = unsafe { Arc::from_raw(pool) };
                // SAFETY: the lease has the buffer, and ends here.
                unsafe { pool.put(id) };
            }
            // SAFETY: made from such a box by `private`, and used no more.
            Owner::Heap => drop(unsafe { Box::from_raw(self.0.cast::<Private>().as_ptr()) }),
            Owner::Nobody => {}
        }
    }
}

impl fmt::Debug for RecvBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_go_back_and_outlive_the_pool() {
        let pool = Pool::new(2, 64);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none());
        // SAFETY: both were just taken.
        let (mut lease, other) = unsafe { (pool.lease(a, 3), pool.lease(b, 0)) };
        lease.copy_from_slice(b"abc");
        drop(other);
        assert_eq!(pool.take(), Some(b));
        drop(pool);
        lease.advance(1);
        assert_eq!(&*lease, b"bc");
        std::thread::spawn(move || drop(lease)).join().unwrap();
    }

    #[test]
    fn private_leases_and_the_empty_one() {
        let mut lease = RecvBuf::private(vec![1, 2, 3, 4]);
        lease.advance(1);
        lease.truncate(2);
        assert_eq!(&*lease, [2, 3]);
        assert!(RecvBuf::empty().is_empty());
        lease.advance(0);
        lease.advance(2);
        assert!(lease.is_empty());
        let mut nothing = RecvBuf::empty();
        nothing.advance(0);
        nothing.truncate(0);
        assert!(nothing.is_empty());
        assert_eq!(size_of::<RecvBuf>(), size_of::<usize>());
        assert_eq!(size_of::<Option<crate::op::Completion>>(), 16);
    }
}
