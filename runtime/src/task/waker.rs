//! `std::task::Waker` for tasks: the pointer to the header, counted.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::raw::{Borrowed, Header, TaskRef, queue};
use super::state::Wake;

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker for the time of a poll: the task is alive then, and a reference is
/// counted only if the waker is cloned.
pub(crate) fn borrowed(header: NonNull<Header>) -> Borrowed {
    // SAFETY: the functions below keep the contract of RawWaker: each is
    // thread-safe, and the reference counting is that of the state word. This
    // one is never dropped, so it need not be counted.
    ManuallyDrop::new(unsafe { Waker::new(header.as_ptr().cast_const().cast(), &VTABLE) })
}

/// The task that a waker wakes, if it is one of this module.
#[inline]
pub(super) fn task(waker: &Waker) -> Option<NonNull<Header>> {
    let ours = std::ptr::eq(waker.vtable(), &VTABLE);
    let data = waker.data().cast_mut().cast();
    ours.then(|| NonNull::new(data)).flatten()
}

/// A waker that has this reference.
///
/// # Safety
///
/// The reference is counted, and given up.
pub(super) unsafe fn counted(header: NonNull<Header>) -> Waker {
    // SAFETY: as for `borrowed`; the reference is that of this waker.
    unsafe { Waker::new(header.as_ptr().cast_const().cast(), &VTABLE) }
}

/// # Safety
///
/// `data` is from a waker of this module that is alive.
unsafe fn header(data: *const ()) -> NonNull<Header> {
    // SAFETY: made from a `NonNull`.
    unsafe { NonNull::new_unchecked(data.cast_mut().cast()) }
}

/// # Safety
///
/// As for [`header`]; the vtable is called by `Waker` alone.
unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: a waker keeps the task alive.
    unsafe { header(data).as_ref() }.state.add_ref();
    RawWaker::new(data, &VTABLE)
}

/// # Safety
///
/// As for [`clone`].
unsafe fn wake(data: *const ()) {
    // SAFETY: a waker keeps the task alive.
    let header = unsafe { header(data) };
    // SAFETY: as above.
    match unsafe { header.as_ref() }.state.wake_and_release() {
        // The task is not complete: the live reference keeps it alive.
        Wake::Queue => queue(header),
        Wake::Nothing => {}
        // SAFETY: the state said that no reference is left.
        Wake::Free => unsafe { TaskRef(header).free() },
    }
}

/// # Safety
///
/// As for [`clone`].
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: a waker keeps the task alive.
    let header = unsafe { header(data) };
    // SAFETY: as above.
    if unsafe { header.as_ref() }.state.wake() == Wake::Queue {
        queue(header);
    }
}

/// # Safety
///
/// As for [`clone`].
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's reference is given up.
    TaskRef(unsafe { header(data) }).release();
}
