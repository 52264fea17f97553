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

/// The kernel is lent what this many turns take that are like the busiest of
/// late (thin air).
const TURNS: usize = 3;

/// It is never lent fewer than these, if there are any: a turn of a server
/// with 1,000 busy connections took some 30.
const LEAST: usize = 64;

/// One part in this many of what the busiest turn took is forgotten each turn
/// (thin air).
const FORGET: usize = 64;

pub(crate) struct Buffers {
    /// `pool.count()` descriptors. The kernel reads them; the tail lies in an
    /// unused field of the first.
    ring: NonNull<BufRingEntry>,
    layout: Layout,
    tail: u16,
    /// How many buffers the kernel has.
    lent: usize,
    /// How many it had after the last refill.
    filled: usize,
    /// The most that were received into between two refills, of late.
    busy: usize,
    /// There were enough at the last refill.
    plenty: bool,
    /// Dropped by hand, with the descriptors (rule 3).
    pool: ManuallyDrop<Arc<Pool>>,
    registered: bool,
}

impl Buffers {
    /// Registers a ring for the buffers of `pool`, of which there must be a
    /// power of two, and lends some to the kernel.
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
            filled: 0,
            busy: 0,
            plenty: false,
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

    /// Whether there were enough at the last refill: what was wanted, or half
    /// of all.
    pub(crate) fn are_plenty(&self) -> bool {
        self.plenty
    }

    /// The size of each buffer in bytes.
    pub(crate) fn size(&self) -> usize {
        self.pool.buffer_size()
    }

    /// Lends free buffers to the kernel, those used last first.
    ///
    /// Not all of them. The kernel takes the oldest, and so goes through the
    /// memory of all that it has, over and over, which no cache holds: streams
    /// of 4 KiB messages took 9 to 14% less of the processor so, and 1,000
    /// connections with one message each 0 to 8% (three runs); with 1,024
    /// buffers, all lent, they took 5% more. Should a turn need more than it
    /// finds, receives starve, once: then more are lent.
    pub(crate) fn refill(&mut self) {
        let count = usize::from(self.pool.count());
        let used = self.filled.saturating_sub(self.lent);
        self.busy = used.max(self.busy - self.busy.div_ceil(FORGET));
        let wanted = (self.busy * TURNS).max(LEAST).min(count);
        let mask = self.pool.count() - 1;
        let size = self.pool.buffer_size() as u32;
        let first = self.tail;
        let mut tail = first;
        while self.lent < wanted {
            let Some(id) = self.pool.take() else { break };
            // SAFETY: masked to be below the number of descriptors. The kernel
            // only reads them, and not this one: it is behind the tail, and by
            // rule 2 not in front of the head either.
            let entry = unsafe { &mut *self.ring.as_ptr().add(usize::from(tail & mask)) };
            entry.set_addr(self.pool.address(id).as_ptr() as u64);
            entry.set_len(size);
            entry.set_bid(id);
            tail = tail.wrapping_add(1);
            self.lent += 1;
        }
        self.plenty = self.lent >= wanted.min(count / 2);
        self.filled = self.lent;
        if tail == first {
            return;
        }
        self.tail = tail;
        // SAFETY: the first descriptor is there, and zeroed at least; its
        // unused field is two bytes, aligned, that nobody else writes.
        let shared = unsafe { &*BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>() };
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
        // SAFETY: by rule 1 the claim is the only one on this buffer, and it
        // is given up here.
        unsafe { self.pool.put(claimed.0) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Config;

    /// A ring of buffers, and the ring, which is to be dropped later.
    fn buffers(count: u16) -> (Buffers, Ring) {
        let ring = Ring::new(&Config::default()).unwrap();
        let buffers = Buffers::register(&ring, Pool::new(count, 64)).unwrap();
        (buffers, ring)
    }

    /// Plays a kernel that receives into so many buffers.
    fn receive(buffers: &mut Buffers, ids: std::ops::Range<u32>) -> Vec<Claimed> {
        // IORING_CQE_F_BUFFER, and the number above.
        ids.map(|id| buffers.claim(1 | id << 16).unwrap()).collect()
    }

    #[test]
    fn as_many_are_lent_as_busy_turns_take() {
        let (mut buffers, ring) = buffers(512);
        assert_eq!(buffers.lent(), LEAST);
        // A turn that takes all that there are.
        let claimed = receive(&mut buffers, 0..64);
        assert_eq!(buffers.lent(), 0);
        claimed.into_iter().for_each(|claimed| buffers.put(claimed));
        buffers.refill();
        assert_eq!(buffers.lent(), 64 * TURNS);
        assert!(buffers.are_plenty());
        // Idle ones: in the end the usual number is enough again.
        for _ in 0..1000 {
            buffers.refill();
        }
        for id in 0..200 {
            let claimed = receive(&mut buffers, id..id + 1);
            claimed.into_iter().for_each(|claimed| buffers.put(claimed));
            buffers.refill();
        }
        assert_eq!(buffers.lent(), LEAST);
        buffers.unregister(&ring);
    }

    #[test]
    fn held_leases_leave_no_plenty() {
        let (mut buffers, ring) = buffers(128);
        let held = receive(&mut buffers, 0..64);
        buffers.refill();
        assert_eq!(buffers.lent(), 64);
        assert!(buffers.are_plenty(), "half of them are there");
        let more = receive(&mut buffers, 64..65);
        buffers.refill();
        assert!(!buffers.are_plenty());
        let back = held.into_iter().chain(more);
        back.for_each(|claimed| buffers.put(claimed));
        buffers.refill();
        assert!(buffers.are_plenty());
        buffers.unregister(&ring);
    }
}
