//! std's locks, with a word to ThreadSanitizer: for `.ci/tsan` alone.
//!
//! std comes compiled, without instrumentation. Of a lock that had to be waited
//! for the sanitizer sees nothing then, and takes what is ordered by it for a
//! race.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self, LockResult, PoisonError, WaitTimeoutResult};
use std::time::Duration;

unsafe extern "C" {
    /// Of `sanitizer/tsan_interface.h`: what was before `__tsan_release` of this
    /// address, by whomever, is before what follows.
    safe fn __tsan_acquire(address: *mut u8);
    safe fn __tsan_release(address: *mut u8);
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// `None` once it is given back.
    guard: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.watch(self.0.lock())
    }

    fn watch<'a>(
        &'a self,
        locked: LockResult<sync::MutexGuard<'a, T>>,
    ) -> LockResult<MutexGuard<'a, T>> {
        __tsan_acquire(self.address());
        let watched = |guard| MutexGuard {
            lock: self,
            guard: Some(guard),
        };
        let poisoned = |e: PoisonError<_>| PoisonError::new(watched(e.into_inner()));
        locked.map(watched).map_err(poisoned)
    }

    fn address(&self) -> *mut u8 {
        (&raw const *self).cast_mut().cast()
    }
}

impl<'a, T> MutexGuard<'a, T> {
    /// What std has of it, which is unlocked, or waited with, next.
    fn give_back(&mut self) -> Option<sync::MutexGuard<'a, T>> {
        let guard = self.guard.take();
        if guard.is_some() {
            __tsan_release(self.lock.address());
        }
        guard
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("it is locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("it is locked")
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let lock = guard.lock;
        let locked = guard.give_back().expect("it is locked");
        let (locked, timed_out) = match self.0.wait_timeout(locked, limit) {
            Ok((locked, timed_out)) => (Ok(locked), timed_out),
            Err(e) => {
                let (locked, timed_out) = e.into_inner();
                (Err(PoisonError::new(locked)), timed_out)
            }
        };
        match lock.watch(locked) {
            Ok(guard) => Ok((guard, timed_out)),
            Err(e) => Err(PoisonError::new((e.into_inner(), timed_out))),
        }
    }
}
