//! The shared ring of receive buffers.
//!
//! The ring and the buffers are mapped once and never unmapped: the kernel
//! writes to them as long as the ring exists, which is as long as the process
//! does.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::ring::Ring;

/// How many there are; a power of two.
pub const COUNT: u16 = 1024;
/// The size of each.
pub const SIZE: usize = server_common::BUFFER;
/// The name of the ring towards the kernel.
pub const GROUP: u16 = 0;

pub struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
    /// How many the kernel can take.
    free: usize,
}

impl Buffers {
    pub fn new(ring: &Ring) -> io::Result<Buffers> {
        let mut buffers = Buffers {
            entries: map(usize::from(COUNT) * size_of::<BufRingEntry>())?.cast(),
            memory: map(usize::from(COUNT) * SIZE)?,
            tail: 0,
            free: 0,
        };
        let submitter = ring.get().submitter();
        // SAFETY: the mapping is page-aligned, large enough, and stays.
        unsafe { submitter.register_buf_ring_with_flags(buffers.entries as u64, COUNT, GROUP, 0)? };
        for id in 0..COUNT {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// How many receives could succeed now.
    pub fn free(&self) -> usize {
        self.free
    }

    /// The kernel has put something into a buffer.
    pub fn taken(&mut self) {
        self.free -= 1;
    }

    /// Where a buffer is.
    pub fn address(&self, id: u16) -> *const u8 {
        // SAFETY: there are `COUNT` buffers in the mapping, and the kernel
        // names only those it was given.
        unsafe { self.memory.add(usize::from(id) * SIZE) }
    }

    /// A buffer is not used any more. The kernel learns it from the next
    /// [`publish`](Buffers::publish).
    pub fn give_back(&mut self, id: u16) {
        let address = self.address(id) as u64;
        let at = usize::from(self.tail & (COUNT - 1));
        // SAFETY: the entry is within the ring, and the kernel does not read
        // it before the tail has passed it: at most `COUNT` are given out.
        let entry = unsafe { &mut *self.entries.add(at) };
        entry.set_addr(address);
        entry.set_len(SIZE as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    /// Lets the kernel have what was given back.
    pub fn publish(&self) {
        // SAFETY: the address of the tail, which only this thread writes, and
        // the kernel reads as an atomic. Release pairs with its acquire: it
        // sees the entries that the tail has passed.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

fn map(len: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, which overlays nothing.
    match unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        at => Ok(at.cast()),
    }
}
