//! Who keeps a slot alive, and where it lies.
//!
//! A descriptor has room for two slots in its own block of memory, because
//! most need one for each direction: so a socket is one allocation. It may have
//! two more aside, and what it needs beyond these lies alone.
//!
//! # Rules
//!
//! 1. A slot that is *within* its descriptor, or *aside*, is kept alive by
//!    references to the descriptor. One that lies *alone* has references of its
//!    own, and one to its descriptor.
//! 2. A slot says where it lies, for good, and its address says the rest: where
//!    the descriptor is, or where it is written. So an idle connection needs no
//!    pointers for that. The provenance of whatever has slots in it is exposed
//!    before anybody has a reference to one of them.
//! 3. A slot within is claimed once, for good. Who claimed it has a reference
//!    to the descriptor.

use std::mem::{ManuallyDrop, offset_of};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::slot::{InFlight, Slot};
use crate::descriptor::{Descriptor, DescriptorRef};
use crate::sync::atomic::Ordering::Relaxed;

/// A counted reference to a slot.
pub(crate) struct SlotRef(NonNull<Slot>);

// SAFETY: it is to a `Slot` what an `Arc` is, and a `Slot` can be shared
// (asserted below).
unsafe impl Send for SlotRef {}
// SAFETY: as above.
unsafe impl Sync for SlotRef {}

const fn can_be_shared<T: Send + Sync>() {}
const _: () = can_be_shared::<Slot>();

/// Where a slot lies.
#[derive(Clone, Copy)]
pub(crate) struct Lies {
    /// How far into its descriptor, if that is what it is in; else 0.
    within: u16,
    /// How far into an `Aside`, likewise.
    aside: u8,
}

impl Lies {
    const fn within(index: usize) -> Lies {
        let offset = Descriptor::WITHIN + offset_of!(Within, 0) + index * size_of::<Slot>();
        assert!(0 < offset && offset <= u16::MAX as usize);
        Lies {
            within: offset as u16,
            aside: 0,
        }
    }

    const fn aside(index: usize) -> Lies {
        let offset = offset_of!(Aside, slots) + index * size_of::<Slot>();
        assert!(0 < offset && offset <= u8::MAX as usize);
        Lies {
            within: 0,
            aside: offset as u8,
        }
    }

    const ALONE: Lies = Lies {
        within: 0,
        aside: 0,
    };

    #[inline]
    fn is_alone(self) -> bool {
        self.within == 0 && self.aside == 0
    }
}

/// The slots that a descriptor has within.
pub(crate) struct Within([Slot; 2]);

impl Within {
    /// Such slots, claimed by nobody.
    pub(crate) const fn unclaimed() -> Within {
        const { Within([Slot::that(Lies::within(0)), Slot::that(Lies::within(1))]) }
    }

    #[inline]
    pub(super) fn slots(&self) -> &[Slot; 2] {
        &self.0
    }
}

/// The slots that few descriptors have besides.
#[repr(C)]
pub(crate) struct Aside {
    /// Where they are; not counted, or the block would keep itself.
    descriptor: NonNull<Descriptor>,
    slots: [Slot; 2],
}

// SAFETY: by rule 1 the pointer is what a reference would be, as long as anybody
// sees the slots.
unsafe impl Send for Aside {}
// SAFETY: as above.
unsafe impl Sync for Aside {}

impl Aside {
    pub(crate) const fn of(descriptor: NonNull<Descriptor>) -> Aside {
        Aside {
            descriptor,
            slots: const { [Slot::that(Lies::aside(0)), Slot::that(Lies::aside(1))] },
        }
    }

    #[inline]
    pub(super) fn slots(&self) -> &[Slot; 2] {
        &self.slots
    }
}

/// A slot that lies by itself.
#[repr(C)]
struct Alone {
    slot: Slot,
    descriptor: DescriptorRef,
}

/// What a slot is in, whose provenance is exposed, by how far into it the slot
/// is.
#[inline(always)]
fn around<T>(slot: &Slot, offset: usize) -> *const T {
    ptr::with_exposed_provenance(ptr::from_ref(slot).addr() - offset)
}

/// The descriptor of a slot.
#[inline]
pub(super) fn descriptor(slot: &Slot) -> &Descriptor {
    let offset = slot.lies().within;
    if offset == 0 {
        return descriptor_elsewhere(slot);
    }
    // SAFETY: by rule 2 that is where it is; alive as long as the slot (rule 1).
    unsafe { &*around(slot, offset.into()) }
}

#[cold]
fn descriptor_elsewhere(slot: &Slot) -> &Descriptor {
    if slot.lies().is_alone() {
        // SAFETY: by rule 2 it is the slot of an `Alone`, which is there (rule 1).
        return unsafe { &(*alone(slot)).descriptor };
    }
    let aside: *const Aside = around(slot, slot.lies().aside.into());
    // SAFETY: by rule 2 it is a slot of an `Aside`; that and the descriptor are
    // there as long as the slot (rule 1).
    unsafe { (*aside).descriptor.as_ref() }
}

/// Of a slot that lies alone: the pointer that its `Arc` gave.
#[inline]
fn alone(slot: &Slot) -> *const Alone {
    around(slot, offset_of!(Alone, slot))
}

/// Claims both slots of the descriptor; `false` if one was claimed before.
pub(super) fn claim_both(descriptor: &DescriptorRef) -> bool {
    // Relaxed, here and in `claim_one`: the slots were made before the
    // descriptor was shared, and the number alone says whose they are.
    let mine = descriptor
        .claimed()
        .compare_exchange(0, 2, Relaxed, Relaxed);
    mine.is_ok()
}

fn claim_one(descriptor: &DescriptorRef) -> Option<&Slot> {
    let next = |claimed| (claimed < 2).then_some(claimed + 1);
    let mine = descriptor.claimed().fetch_update(Relaxed, Relaxed, next);
    descriptor.within().slots().get(usize::from(mine.ok()?))
}

/// The slots aside, of a descriptor of which the others are claimed.
pub(super) fn make_aside(descriptor: &Descriptor) -> &[Slot; 2] {
    let aside = descriptor.aside_or_make();
    // Rule 2; as often as anybody asks.
    ptr::from_ref(aside).expose_provenance();
    aside.slots()
}

impl SlotRef {
    /// Claims a slot of the descriptor, or makes one that lies alone.
    pub(super) fn new(descriptor: DescriptorRef) -> SlotRef {
        if let Some(slot) = claim_one(&descriptor) {
            let slot = NonNull::from(slot);
            // By rule 1 the reference is the slot's now.
            std::mem::forget(descriptor);
            return SlotRef(slot);
        }
        let slot = Slot::that(Lies::ALONE);
        let alone = Arc::into_raw(Arc::new(Alone { slot, descriptor }));
        alone.expose_provenance();
        // SAFETY: just made.
        SlotRef(NonNull::from(unsafe { &(*alone).slot }))
    }

    /// One more reference.
    #[inline]
    pub(crate) fn to(slot: &Slot) -> SlotRef {
        if slot.lies().is_alone() {
            // SAFETY: by rule 2 it lies in an `Arc`, in which it is alive.
            unsafe { Arc::increment_strong_count(alone(slot)) };
        } else {
            std::mem::forget(DescriptorRef::to(descriptor(slot)));
        }
        SlotRef(NonNull::from(slot))
    }

    /// The reference of an operation that ends otherwise than by being dropped.
    #[inline(always)]
    pub(super) fn out_of(op: InFlight) -> SlotRef {
        let op = ManuallyDrop::new(op);
        // SAFETY: read once, and not dropped where it was.
        unsafe { ptr::read(&op.0) }
    }

    #[inline]
    pub(crate) fn slot(&self) -> &Slot {
        // SAFETY: alive by our reference.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SlotRef {
    #[inline]
    fn drop(&mut self) {
        let slot = self.slot();
        if slot.lies().is_alone() {
            // SAFETY: by rule 2 it lies in an `Arc`, and one reference is ours.
            unsafe { Arc::decrement_strong_count(alone(slot)) };
        } else {
            // SAFETY: by rule 1 one reference to the descriptor is ours, and is
            // given up here.
            unsafe { DescriptorRef::release(descriptor(slot).into()) };
        }
    }
}
