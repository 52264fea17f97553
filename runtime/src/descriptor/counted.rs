//! References to a descriptor: an `Arc` that is smaller, and that can be had
//! again from the descriptor itself.
//!
//! # Rules
//!
//! 1. A descriptor lies in a block that `DescriptorRef::new` made, and is dropped
//!    there when the last reference is given up (rule 1 in `descriptor::counts`).
//!    The block is freed when the last weak one is, too (rule 2 there).
//! 2. The provenance of the block is exposed, so that a reference can be made of
//!    the descriptor's address. Whoever has a `&Descriptor` has it by a reference.

use std::fmt;
use std::mem::{ManuallyDrop, offset_of};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use super::Descriptor;
use super::counts::Counts;

/// A counted reference to a [`Descriptor`], which is closed when the last is
/// gone, be it a user's or an operation's.
pub struct DescriptorRef(NonNull<Block>);

// SAFETY: it is what an `Arc` is, and a `Descriptor` can be shared (asserted
// below).
unsafe impl Send for DescriptorRef {}
// SAFETY: as above.
unsafe impl Sync for DescriptorRef {}

const fn can_be_shared<T: Send + Sync>() {}
const _: () = can_be_shared::<Descriptor>();

/// What a descriptor lies in.
struct Block {
    counts: Counts,
    descriptor: ManuallyDrop<Descriptor>,
}

// A promise to those who have millions of connections.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Block>() <= 168);

impl DescriptorRef {
    /// The first reference.
    pub(super) fn new(descriptor: Descriptor) -> DescriptorRef {
        let block = Box::into_raw(Box::new(Block {
            counts: Counts::new(),
            descriptor: ManuallyDrop::new(descriptor),
        }));
        block.expose_provenance();
        // SAFETY: a box is not null.
        DescriptorRef(unsafe { NonNull::new_unchecked(block) })
    }

    /// One more reference.
    #[inline]
    pub fn to(descriptor: &Descriptor) -> DescriptorRef {
        let reference = ManuallyDrop::new(DescriptorRef::uncounted(descriptor.into()));
        (*reference).clone()
    }

    /// Not to be dropped.
    #[inline]
    fn uncounted(descriptor: NonNull<Descriptor>) -> DescriptorRef {
        let address = descriptor.addr().get() - offset_of!(Block, descriptor);
        // SAFETY: less than an address by what is before it.
        DescriptorRef(unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) })
    }

    #[inline]
    fn counts(&self) -> &Counts {
        // SAFETY: the block is there by our reference (rule 1).
        unsafe { &(*self.0.as_ptr()).counts }
    }

    /// Gives up a reference that was forgotten. By pointer: a reference in an
    /// argument would have to stay valid up to the return.
    ///
    /// # Safety
    ///
    /// Once for each that was; afterwards the descriptor is used by those who
    /// have another one.
    #[inline]
    pub(crate) unsafe fn release(descriptor: NonNull<Descriptor>) {
        // Counted, says the caller.
        drop(DescriptorRef::uncounted(descriptor));
    }

    /// A reference that keeps nothing open.
    pub fn downgrade(&self) -> WeakDescriptor {
        self.counts().weak_up();
        WeakDescriptor(self.0)
    }
}

impl Clone for DescriptorRef {
    #[inline]
    fn clone(&self) -> DescriptorRef {
        self.counts().up();
        DescriptorRef(self.0)
    }
}

impl Deref for DescriptorRef {
    type Target = Descriptor;

    #[inline]
    fn deref(&self) -> &Descriptor {
        // SAFETY: alive by our reference (rule 1).
        unsafe { &(*self.0.as_ptr()).descriptor }
    }
}

impl Drop for DescriptorRef {
    #[inline]
    fn drop(&mut self) {
        if self.counts().down() {
            // SAFETY: said by the count.
            unsafe { end(self.0) };
        }
    }
}

/// # Safety
///
/// The last reference was given up.
#[cold]
unsafe fn end(block: NonNull<Block>) {
    // The reference that all had together, given up also if the drop panics.
    let _block = WeakDescriptor(block);
    // SAFETY: by rule 1 nobody reaches it any more.
    unsafe { ManuallyDrop::drop(&mut (*block.as_ptr()).descriptor) };
}

impl AsFd for DescriptorRef {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl fmt::Debug for DescriptorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A reference to a [`Descriptor`] that does not keep it open.
pub struct WeakDescriptor(NonNull<Block>);

// SAFETY: as for `DescriptorRef`.
unsafe impl Send for WeakDescriptor {}
// SAFETY: as above.
unsafe impl Sync for WeakDescriptor {}

impl WeakDescriptor {
    fn counts(&self) -> &Counts {
        // SAFETY: the block is there (rule 1), and nobody has more of it to
        // themselves than the descriptor.
        unsafe { &(*self.0.as_ptr()).counts }
    }

    /// The descriptor, if someone has it still.
    pub fn upgrade(&self) -> Option<DescriptorRef> {
        let counted = self.counts().up_if_any();
        counted.then(|| DescriptorRef(self.0))
    }
}

impl Drop for WeakDescriptor {
    fn drop(&mut self) {
        if self.counts().weak_down() {
            // SAFETY: by rule 1 it came from a box; the descriptor was dropped.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl fmt::Debug for WeakDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakDescriptor").finish_non_exhaustive()
    }
}
