//! An allocator that keeps what a thread frees, filled with a pattern, for as
//! long as that thread asks for it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::ptr;

/// What freed memory holds.
const CANARY: u8 = 0xa5;
const FILL: [u8; 4096] = [CANARY; 4096];

/// More is not freed by any test. The list must not grow: that would free.
const GRAVES: usize = 4096;

/// What this thread has freed since this value was made.
pub(super) struct Quarantine {
    graves: RefCell<Vec<(*mut u8, Layout)>>,
}

thread_local! {
    static ARMED: Cell<*const Quarantine> = const { Cell::new(ptr::null()) };
}

impl Quarantine {
    /// From now on, and until it is dropped.
    pub(super) fn arm() -> Box<Quarantine> {
        let graves = RefCell::new(Vec::with_capacity(GRAVES));
        let quarantine = Box::new(Quarantine { graves });
        ARMED.set(&raw const *quarantine);
        quarantine
    }

    /// Keeps a block, if there is room for it.
    fn bury(&self, block: *mut u8, layout: Layout) -> bool {
        let mut graves = self.graves.borrow_mut();
        let room = graves.len() < GRAVES;
        if room {
            // SAFETY: the caller frees it, and nobody gets it while it is here.
            unsafe { block.write_bytes(CANARY, layout.size()) };
            graves.push((block, layout));
        }
        room
    }

    /// How many blocks of this size were freed.
    pub(super) fn count(&self, size: usize) -> usize {
        let graves = self.graves.borrow();
        graves.iter().filter(|grave| grave.1.size() == size).count()
    }

    /// The size of a block that was written to after it was freed.
    pub(super) fn changed(&self) -> Option<usize> {
        let graves = self.graves.borrow();
        assert!(
            graves.len() < GRAVES,
            "too many were freed to keep them all"
        );
        let changed = graves.iter().find(|(block, layout)| {
            // SAFETY: written when it was buried, and kept since.
            let bytes = unsafe { std::slice::from_raw_parts(*block, layout.size()) };
            let mut chunks = bytes.chunks(FILL.len());
            chunks.any(|chunk| *chunk != FILL[..chunk.len()])
        });
        changed.map(|(_, layout)| layout.size())
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        ARMED.set(ptr::null());
        for (block, layout) in self.graves.borrow_mut().drain(..) {
            // SAFETY: allocated with this layout, and given up when it was
            // buried.
            unsafe { System.dealloc(block, layout) };
        }
    }
}

struct Keeping;

#[global_allocator]
static KEEPING: Keeping = Keeping;

// SAFETY: the system's allocator does it, but that it gets some memory back
// later.
unsafe impl GlobalAlloc for Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: handed on from the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: handed on from the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let armed = ARMED.try_with(Cell::get).unwrap_or(ptr::null());
        // SAFETY: whoever armed it is on this thread, and disarms it before it
        // goes.
        if unsafe { armed.as_ref() }.is_some_and(|armed| armed.bury(block, layout)) {
            return;
        }
        // SAFETY: handed on from the caller.
        unsafe { System.dealloc(block, layout) }
    }
}
