//! The receive buffers that the kernel chooses from.
//!
//! A ring of descriptors is shared with the kernel (io_uring_register(2),
//! IORING_REGISTER_PBUF_RING). Each names one buffer of the worker's
//! [`Pool`]; a receive takes the oldest when its data is there, and says in
//! its completion which one it took.
//!
//! # Rules
//!
//! 1. A buffer that was taken from the pool and put into the ring belongs to
//!    the kernel, until a completion brings it back ([`Buffers::claim`]). Then
//!    it belongs to the driver, which makes a lease of it or puts it back into
//!    the pool: the ring is filled from the pool alone.
//! 2. The ring has one place for each buffer of the pool, so it is never full.
//! 3. The descriptors, and the pool, outlive the registration: they are freed
//!    after [`Buffers::unregister`] said yes, and leaked if it did not.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use isochrome_runtime::buf::{Pool, RecvBuf};

use crate::faults::Ring;

/// The one group of buffers that a ring has.
pub(crate) const GROUP: u16 = 0;

/// The kernel wants the descriptors at the start of a page.
const PAGE: usize = 4096;

pub(crate) struct Buffers {
    /// `pool.count()` descriptors. The kernel reads them; the tail lies in an
    /// unused field of the first.
    ring: NonNull<BufRingEntry>,
    layout: Layout,
    tail: u16,
    /// How many buffers the kernel has.
    lent: usize,
    /// Dropped by hand, with the descriptors (rule 3).
    pool: ManuallyDrop<Arc<Pool>>,
    registered: bool,
}

impl Buffers {
    /// Registers a ring for the buffers of `pool`, of which there must be a
    /// power of two, and lends them all to the kernel.
    pub(crate) fn register(ring: &Ring, pool: Arc<Pool>) -> io::Result<Buffers> {
        let count = pool.count();
        debug_assert!(count.is_power_of_two());
        let bytes = size_of::<BufRingEntry>() * usize::from(count);
        let layout = Layout::from_size_align(bytes, PAGE).map_err(io::Error::other)?;
        // SAFETY: a pool has buffers, so the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) }.cast::<BufRingEntry>();
        let memory = NonNull::new(memory).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut buffers = Buffers {
            ring: memory,
            layout,
            tail: 0,
            lent: 0,
            pool: ManuallyDrop::new(pool),
            registered: false,
        };
        let address = memory.as_ptr() as u64;
        // SAFETY: the memory has room for `count` descriptors and stays until
        // it is unregistered, or for ever (rule 3).
        unsafe { (ring.submitter()).register_buf_ring_with_flags(address, count, GROUP, 0)? };
        buffers.registered = true;
        buffers.refill();
        Ok(buffers)
    }

    /// How many buffers the kernel has. Receives that completed already, and
    /// are not reaped, may have taken some.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// Whether the kernel has half of them, and so more than any connection
    /// takes (thin air).
    pub(crate) fn are_plenty(&self) -> bool {
        self.lent >= usize::from(self.pool.count()) / 2
    }

    /// The size of each buffer in bytes.
    pub(crate) fn size(&self) -> usize {
        self.pool.buffer_size()
    }

    /// Lends every free buffer to the kernel.
    pub(crate) fn refill(&mut self) {
        let mask = self.pool.count() - 1;
        let size = self.pool.buffer_size() as u32;
        let first = self.tail;
        let mut tail = first;
        let (pool, ring) = (&self.pool, self.ring);
        pool.take_all(|id| {
            // SAFETY: masked to be below the number of descriptors. The kernel
            // only reads them, and not this one: it is behind the tail, and by
            // rule 2 not in front of the head either.
            let entry = unsafe { &mut *ring.as_ptr().add(usize::from(tail & mask)) };
            entry.set_addr(pool.address(id).as_ptr() as u64);
            entry.set_len(size);
            entry.set_bid(id);
            tail = tail.wrapping_add(1);
        });
        if tail == first {
            return;
        }
        self.tail = tail;
        self.lent += usize::from(tail.wrapping_sub(first));
        // SAFETY: the first descriptor is there, and zeroed at least; its
        // unused field is two bytes, aligned, that nobody else writes.
        let shared = unsafe { &*BufRingEntry::tail(ring.as_ptr()).cast::<AtomicU16>() };
        // The partner is the kernel's acquire load when it picks a buffer.
        shared.store(tail, Ordering::Release);
    }

    /// The buffer that a completion with these flags brings back (rule 1).
    pub(crate) fn claim(&mut self, flags: u32) -> Option<Claimed> {
        let id = io_uring::cqueue::buffer_select(flags)?;
        if id >= self.pool.count() {
            return None;
        }
        self.lent = self.lent.saturating_sub(1);
        Some(Claimed(id))
    }

    /// A lease on the first `len` bytes of what was claimed.
    pub(crate) fn lease(&self, claimed: Claimed, len: usize) -> RecvBuf {
        // The kernel received no more than there is room for; should it say
        // otherwise, the buffer is right.
        let len = len.min(self.size());
        // SAFETY: by rule 1 the claim is the only one on this buffer, and it
        // is given up here.
        unsafe { self.pool.lease(claimed.0, len) }
    }

    /// Puts back what was claimed, unused.
    pub(crate) fn put(&self, claimed: Claimed) {
        self.pool.put(claimed.0);
    }

    /// Takes the ring back from the kernel. To be called when no receive is in
    /// flight; what is not unregistered is leaked (rule 3).
    pub(crate) fn unregister(&mut self, ring: &Ring) {
        if self.registered && ring.submitter().unregister_buf_ring(GROUP).is_ok() {
            self.registered = false;
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.registered {
            return;
        }
        // SAFETY: allocated with this layout, and the kernel has given it up.
        unsafe { dealloc(self.ring.as_ptr().cast(), self.layout) };
        // SAFETY: dropped once, here. Buffers that were in the ring do not go
        // back one by one: their memory is the pool's, and goes with it.
        unsafe { ManuallyDrop::drop(&mut self.pool) };
    }
}

/// A buffer that came back from the kernel, to be made a lease or put back.
#[must_use]
pub(crate) struct Claimed(u16);

/// A buffer on the heap, for a receive that found the ring empty.
pub(crate) struct Private(Vec<u8>);

impl Private {
    pub(crate) fn new(size: usize) -> Private {
        Private(Vec::with_capacity(size))
    }

    /// Where the kernel writes, and how much. The memory stays where it is
    /// when this value moves.
    pub(crate) fn space(&mut self) -> (*mut u8, u32) {
        (self.0.as_mut_ptr(), self.0.capacity() as u32)
    }

    /// A lease on the first `len` bytes.
    ///
    /// # Safety
    ///
    /// The kernel has written `len` bytes to [`space`](Private::space), and
    /// will write no more.
    pub(crate) unsafe fn lease(mut self, len: usize) -> RecvBuf {
        // SAFETY: written by the kernel, says the caller; not more than there
        // is room for.
        unsafe { self.0.set_len(len.min(self.0.capacity())) };
        RecvBuf::private(self.0)
    }
}
