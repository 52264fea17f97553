//! The one door to shared-memory primitives: std's, or loom's in a model.
//!
//! Nothing else in this crate imports atomics, cells or locks. Loom takes over
//! only in this crate's own tests (`cfg(all(test, loom))`), so that a
//! dependent's `--cfg loom` does not mock us by accident. Only the modules
//! that have models are compiled then; see the crate root.

#[cfg(not(all(test, loom)))]
mod imp {
    #[cfg(isochrome_tsan)]
    pub(crate) use super::watched::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::atomic;
    #[cfg(not(isochrome_tsan))]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

    /// `std::cell::UnsafeCell` with loom's access methods.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner()
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(all(test, loom))]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
}

#[cfg(isochrome_tsan)]
mod watched;

pub(crate) use imp::*;
