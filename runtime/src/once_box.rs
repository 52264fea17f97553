//! A box that is made when it is first asked for: `OnceLock<Box<T>>` in one word
//! instead of two, because whoever comes second makes one in vain instead of
//! waiting.
//!
//! # Rules
//!
//! 1. The word is null, or points to a box, which is there until the `OnceBox`
//!    is dropped. Who made the box publishes it (Release), and whoever follows
//!    the word sees what is in it (Acquire).

use std::ptr::NonNull;

use crate::sync::atomic::{AtomicPtr, Ordering};

pub(crate) struct OnceBox<T: Send + Sync>(AtomicPtr<T>);

impl<T: Send + Sync> OnceBox<T> {
    pub(crate) fn new() -> OnceBox<T> {
        OnceBox(AtomicPtr::new(std::ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire: rule 1.
        let made = NonNull::new(self.0.load(Ordering::Acquire));
        // SAFETY: by rule 1 it is there as long as `self`.
        made.map(|made| unsafe { &*made.as_ptr() })
    }

    /// `make` may be called in vain.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(made) = self.get() {
            return made;
        }
        let mine = Box::into_raw(Box::new(make()));
        // Release, Acquire: rule 1.
        let (set, see) = (Ordering::Release, Ordering::Acquire);
        let first = (self.0).compare_exchange(std::ptr::null_mut(), mine, set, see);
        let made = match first {
            Ok(_) => mine,
            Err(first) => {
                // SAFETY: a box's, and shown to nobody.
                drop(unsafe { Box::from_raw(mine) });
                first
            }
        };
        // SAFETY: by rule 1 it is there as long as `self`.
        unsafe { &*made }
    }

    /// Takes the box out.
    pub(crate) fn take(&mut self) -> Option<Box<T>> {
        // Acquire: rule 1.
        let made = self.0.swap(std::ptr::null_mut(), Ordering::Acquire);
        // SAFETY: by rule 1 it is a box's, which nobody else looks at.
        (!made.is_null()).then(|| unsafe { Box::from_raw(made) })
    }
}

impl<T: Send + Sync> Drop for OnceBox<T> {
    #[inline]
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Fails with `get`'s Acquire, or the Release or the Acquire of `get_or_make`,
/// taken out.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    struct Value(UnsafeCell<u32>);

    // SAFETY: that it is written before it is seen is what the model proves.
    unsafe impl Sync for Value {}

    fn seen(once: &OnceBox<Value>) -> u32 {
        let value = once.get_or_make(|| {
            let value = Value(UnsafeCell::new(0));
            // SAFETY: nobody else has it.
            value.0.with_mut(|value| unsafe { *value = 7 });
            value
        });
        // SAFETY: as above.
        value.0.with(|value| unsafe { *value })
    }

    #[test]
    fn all_see_the_first() {
        loom::model(|| {
            let once = Arc::new(OnceBox::new());
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let once = once.clone();
                    thread::spawn(move || assert_eq!(seen(&once), 7))
                })
                .collect();
            if let Some(value) = once.get() {
                // SAFETY: as above.
                assert_eq!(value.0.with(|value| unsafe { *value }), 7);
            }
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_dropped() {
        let value = std::sync::Arc::new(());
        let mut once = OnceBox::new();
        assert!(once.get().is_none());
        let first: *const _ = once.get_or_make(|| value.clone());
        assert!(std::ptr::eq(first, once.get_or_make(|| unreachable!())));
        assert_eq!(std::sync::Arc::strong_count(&value), 2);
        drop(once.take());
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
        assert!(once.get().is_none());
        once.get_or_make(|| value.clone());
        drop(once);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }
}
