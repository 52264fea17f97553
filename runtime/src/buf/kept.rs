//! The receive buffers of a worker whose driver works by readiness, and the
//! lease that was given up last.
//!
//! What is received is mostly dropped on the thread that received it, before
//! the next receive. So a worker keeps that lease for the next, instead of
//! giving the buffer back and taking it again, which are steps that all threads
//! share: four atomic ones a round trip.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use super::pool::{Pool, RecvBuf};

#[derive(Default)]
pub(crate) struct Kept {
    pool: OnceCell<Arc<Pool>>,
    /// A lease on a buffer of this pool.
    lease: Cell<Option<RecvBuf>>,
}

impl Kept {
    /// A lease on a free buffer, to be filled.
    #[inline]
    pub(crate) fn blank(&self) -> Option<RecvBuf> {
        match self.lease.take() {
            None => self.pool.get_or_init(Pool::of_a_worker).blank(),
            kept => kept,
        }
    }

    /// Whether there is room for a lease on a buffer of this pool, which then
    /// comes by `put`.
    #[inline]
    pub(super) fn has_room_for(&self, pool: *const Pool) -> bool {
        let own = self.pool.get();
        if own.is_none_or(|own| Arc::as_ptr(own) != pool) {
            return false;
        }
        let kept = self.lease.take();
        let room = kept.is_none();
        self.lease.set(kept);
        room
    }

    #[inline]
    pub(super) fn put(&self, lease: RecvBuf) {
        self.lease.set(Some(lease));
    }
}
