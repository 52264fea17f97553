//! Who keeps a slot alive, and where it lies.
//!
//! A descriptor has room for two slots in its own block of memory, because
//! most need one for each direction: so a socket is one allocation. What it
//! needs beyond these lies by itself.
//!
//! # Rules
//!
//! 1. A slot that is *within* its descriptor is kept alive by references to
//!    the descriptor. One that lies *alone* has references of its own, and one
//!    to its descriptor.
//! 2. Who claims a slot within writes into it where its descriptor is, which is
//!    not counted, or the block would keep itself. It is read by those only who
//!    have a reference to a slot that was claimed.
//! 3. A slot within is claimed once, for good. Who claimed it has a reference,
//!    so that the descriptor stays in its `Arc`, where the slot says it is.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::slot::{InFlight, Slot};
use crate::descriptor::Descriptor;
use crate::sync::UnsafeCell;
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

/// Where the descriptor of a slot is: counted if the slot lies alone.
pub(super) struct Home(UnsafeCell<Option<ManuallyDrop<Arc<Descriptor>>>>);

// SAFETY: it is written by `claimed` only, before anybody else sees it, and is
// then what an `Arc` is.
unsafe impl Sync for Home {}

impl Home {
    /// Of a slot that nobody has claimed.
    pub(crate) const fn unclaimed() -> Home {
        Home(UnsafeCell::new(None))
    }

    fn of(descriptor: ManuallyDrop<Arc<Descriptor>>) -> Home {
        Home(UnsafeCell::new(Some(descriptor)))
    }

    /// # Safety
    ///
    /// The caller has just claimed the slot, which is in the block of this
    /// descriptor, and nobody else has a reference to it.
    unsafe fn claimed(&self, descriptor: &Arc<Descriptor>) {
        // SAFETY: the pointer is that of an `Arc`, and the copy is not dropped,
        // so that it need not be counted.
        let uncounted = ManuallyDrop::new(unsafe { Arc::from_raw(Arc::as_ptr(descriptor)) });
        // SAFETY: nobody reads it now, says the caller.
        self.0.with_mut(|home| unsafe { *home = Some(uncounted) });
    }

    #[inline]
    pub(super) fn get(&self) -> &Arc<Descriptor> {
        // SAFETY: not written any more, since the slot was claimed or made (rule
        // 2).
        let home = self.0.with(|home| unsafe { &*home });
        // SAFETY: as above.
        unsafe { home.as_ref().unwrap_unchecked() }
    }
}

/// A slot that lies by itself.
#[repr(transparent)]
struct Alone(Slot);

impl Drop for Alone {
    fn drop(&mut self) {
        // SAFETY: counted, by rule 1, and nobody else is there.
        self.0
            .home
            .0
            .with_mut(|home| drop(unsafe { (*home).take() }.map(ManuallyDrop::into_inner)));
    }
}

/// The slots that a descriptor has within.
pub(crate) type Within = [Slot; 2];

/// Such slots, claimed by nobody.
pub(crate) const fn unclaimed() -> Within {
    [const { Slot::unclaimed() }; 2]
}

/// Whether a slot of this descriptor is within.
#[inline]
fn is_within(descriptor: &Descriptor, slot: &Slot) -> bool {
    let slot = ptr::from_ref(slot);
    let among = |slots: &Within| slots.as_ptr_range().contains(&slot);
    among(descriptor.within()) || descriptor.aside().is_some_and(among)
}

/// Claims both slots of the descriptor; `false` if one was claimed before.
pub(super) fn claim_both(descriptor: &Arc<Descriptor>) -> bool {
    // Relaxed, here and in `claim_one`: the slots were made before the
    // descriptor was shared, and the number alone says whose they are.
    let mine = descriptor
        .claimed()
        .compare_exchange(0, 2, Relaxed, Relaxed);
    if mine.is_ok() {
        claim(descriptor, descriptor.within());
    }
    mine.is_ok()
}

fn claim_one(descriptor: &Arc<Descriptor>) -> Option<&Slot> {
    let next = |claimed| (claimed < 2).then_some(claimed + 1);
    let mine = descriptor.claimed().fetch_update(Relaxed, Relaxed, next);
    let slots = descriptor.within().get(usize::from(mine.ok()?)..)?;
    claim(descriptor, &slots[..1]);
    slots.first()
}

/// The slots aside, of a descriptor of which the others are claimed.
pub(super) fn make_aside(descriptor: &Arc<Descriptor>) -> &Within {
    descriptor.aside_or_make(|slots| claim(descriptor, slots))
}

/// For those who have just claimed these slots.
fn claim(descriptor: &Arc<Descriptor>, slots: &[Slot]) {
    // SAFETY: so nobody else has a reference to them.
    let claim = |slot: &Slot| unsafe { slot.home.claimed(descriptor) };
    slots.iter().for_each(claim);
}

impl SlotRef {
    /// Claims a slot of the descriptor, or makes one that lies alone.
    pub(super) fn new(descriptor: Arc<Descriptor>) -> SlotRef {
        if let Some(slot) = claim_one(&descriptor) {
            let slot = NonNull::from(slot);
            // By rule 1 the reference is the slot's now.
            std::mem::forget(descriptor);
            return SlotRef(slot);
        }
        let alone = Arc::new(Alone(Slot::of(Home::of(ManuallyDrop::new(descriptor)))));
        let alone = Arc::into_raw(alone);
        // `to` makes a pointer of this one from the address of the slot.
        alone.expose_provenance();
        SlotRef(NonNull::new(alone.cast::<Slot>().cast_mut()).expect("an Arc is not null"))
    }

    /// One more reference.
    #[inline]
    pub(crate) fn to(slot: &Slot) -> SlotRef {
        if is_within(slot.descriptor(), slot) {
            std::mem::forget(Arc::clone(slot.descriptor()));
            return SlotRef(NonNull::from(slot));
        }
        let alone = alone(NonNull::from(slot));
        // SAFETY: by rule 1 it lies in an `Arc`, in which it is alive.
        unsafe { Arc::increment_strong_count(alone) };
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

/// The pointer that the `Arc` gave, whose provenance was exposed then.
fn alone(slot: NonNull<Slot>) -> *const Alone {
    ptr::with_exposed_provenance(slot.addr().get())
}

impl Drop for SlotRef {
    #[inline]
    fn drop(&mut self) {
        let slot = self.slot();
        if is_within(slot.descriptor(), slot) {
            // SAFETY: by rule 1 one reference to the descriptor is ours, and is
            // given up here.
            drop(unsafe { Arc::from_raw(Arc::as_ptr(slot.descriptor())) });
        } else {
            // SAFETY: by rule 1 it lies in an `Arc`, and one reference is ours.
            unsafe { Arc::decrement_strong_count(alone(self.0)) };
        }
    }
}
