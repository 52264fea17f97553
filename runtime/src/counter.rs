//! Figures that are kept always and read seldom.

use crate::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer at a time, who hands over to the next by something
/// that orders memory: so a load and a store do, and no count is lost. Anyone
/// may read it, and gets a value that it had.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn new(value: u64) -> Counter {
        Counter(AtomicU64::new(value))
    }

    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
