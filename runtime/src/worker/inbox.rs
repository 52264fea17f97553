//! Where other threads leave things for a worker: a stack that is always
//! emptied whole (Treiber 1986), so that nobody can be fooled by a node that
//! went away and came back.

use std::ptr::{self, NonNull};

use crate::color::Linked;
use crate::sync::atomic::{AtomicPtr, Ordering};

pub(crate) struct Inbox<N> {
    newest: AtomicPtr<N>,
}

impl<N: Linked> Inbox<N> {
    pub(crate) fn new() -> Inbox<N> {
        Inbox {
            newest: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// # Safety
    ///
    /// The node stays valid until it is taken, and is in no other queue.
    pub(crate) unsafe fn push(&self, node: NonNull<N>) {
        let mut now = self.newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: valid by the contract; published by the CAS.
            unsafe { node.as_ref() }
                .link()
                .store(now, Ordering::Relaxed);
            // Release: the node, for `take`.
            match self.newest.compare_exchange_weak(
                now,
                node.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.newest.load(Ordering::Relaxed).is_null()
    }

    /// Takes everything, the oldest first. Anyone may call it.
    #[inline]
    pub(crate) fn take(&self, each: impl FnMut(NonNull<N>)) {
        if !self.is_empty() {
            self.take_some(each);
        }
    }

    #[cold]
    fn take_some(&self, mut each: impl FnMut(NonNull<N>)) {
        // Acquire: the nodes.
        let mut node = self.newest.swap(ptr::null_mut(), Ordering::Acquire);
        let mut reversed = ptr::null_mut();
        while !node.is_null() {
            // SAFETY: nodes are valid until they are handed out here.
            let link = unsafe { &*node }.link();
            let next = link.load(Ordering::Relaxed);
            link.store(reversed, Ordering::Relaxed);
            reversed = node;
            node = next;
        }
        while let Some(node) = NonNull::new(reversed) {
            // SAFETY: as above; read before it is handed out.
            reversed = unsafe { node.as_ref() }.link().load(Ordering::Relaxed);
            each(node);
        }
    }
}

impl<N> std::fmt::Debug for Inbox<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}
