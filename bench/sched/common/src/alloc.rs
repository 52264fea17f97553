//! An allocator that counts, when it is told to.
//!
//! While it is not, it costs one load of a flag that nobody writes: the timed
//! repetitions run that way, and one more repetition counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

static COUNTING: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicI64 = AtomicI64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);
static FREED_CALLS: AtomicI64 = AtomicI64::new(0);
static FREED_BYTES: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to `System` as it came; the counters touch no memory
// of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_in(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_in(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_in(size);
        count_out(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count_out(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[inline]
fn count_in(bytes: usize) {
    if COUNTING.load(Relaxed) {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes as i64, Relaxed);
    }
}

#[inline]
fn count_out(bytes: usize) {
    if COUNTING.load(Relaxed) {
        FREED_CALLS.fetch_add(1, Relaxed);
        FREED_BYTES.fetch_add(bytes as i64, Relaxed);
    }
}

/// Starts or stops counting.
pub fn count(on: bool) {
    COUNTING.store(on, Relaxed);
}

/// What was counted since the process began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Blocks handed out; a reallocation is one.
    pub calls: i64,
    /// Bytes asked for.
    pub bytes: i64,
    /// Blocks handed out and not given back.
    pub live_calls: i64,
    /// Bytes handed out and not given back.
    pub live_bytes: i64,
}

/// The counters now.
pub fn counts() -> Counts {
    let (calls, bytes) = (CALLS.load(Relaxed), BYTES.load(Relaxed));
    Counts {
        calls,
        bytes,
        live_calls: calls - FREED_CALLS.load(Relaxed),
        live_bytes: bytes - FREED_BYTES.load(Relaxed),
    }
}
