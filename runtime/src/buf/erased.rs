//! A value with its type forgotten, so that an operation can own it.

use std::any::TypeId;
use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

/// Words kept inside. [`RecvBuf`](super::RecvBuf) takes one, `Vec<u8>` three,
/// `bytes::Bytes` four; anything larger is boxed.
const WORDS: usize = 4;

type Storage = MaybeUninit<[usize; WORDS]>;

/// A value of a type that only who made it knows: without an allocation if it
/// has up to four words.
pub(super) struct Erased {
    storage: Storage,
    kind: &'static Kind,
}

/// What is needed of the erased type.
struct Kind {
    id: fn() -> TypeId,
    drop: unsafe fn(&mut Storage),
}

// SAFETY: the value is `Send`, by `Erased::new`.
unsafe impl Send for Erased {}

// SAFETY: nothing can be reached through `&Erased`.
unsafe impl Sync for Erased {}

// A lease is sent without an allocation.
const _: () = assert!(fits::<super::RecvBuf>());

const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<Storage>() && align_of::<T>() <= align_of::<Storage>()
}

/// # Safety
///
/// `storage` holds a `T` by `Erased::new`, and is not used afterwards.
unsafe fn take<T>(storage: &mut Storage) -> T {
    if fits::<T>() {
        // SAFETY: the value was written here by `new`; the caller gives it up.
        unsafe { storage.as_mut_ptr().cast::<T>().read() }
    } else {
        // SAFETY: `new` stored the pointer of a box, which is given up too.
        unsafe { *Box::from_raw(storage.as_mut_ptr().cast::<*mut T>().read()) }
    }
}

/// # Safety
///
/// As for [`take`].
unsafe fn drop_in<T>(storage: &mut Storage) {
    // SAFETY: handed on from the caller.
    drop(unsafe { take::<T>(storage) });
}

struct Of<T>(std::marker::PhantomData<T>);

impl<T: 'static> Of<T> {
    const KIND: &'static Kind = &Kind {
        id: TypeId::of::<T>,
        drop: drop_in::<T>,
    };
}

impl Erased {
    #[inline]
    pub(super) fn new<T: Send + 'static>(value: T) -> Erased {
        let mut storage = Storage::uninit();
        if fits::<T>() {
            // SAFETY: size and alignment were checked.
            unsafe { storage.as_mut_ptr().cast::<T>().write(value) };
        } else {
            let boxed = Box::into_raw(Box::new(value));
            // SAFETY: a pointer fits into the storage.
            unsafe { storage.as_mut_ptr().cast::<*mut T>().write(boxed) };
        }
        Erased {
            storage,
            kind: Of::<T>::KIND,
        }
    }

    /// The value.
    ///
    /// # Panics
    ///
    /// If it is not a `T`.
    pub(super) fn value_mut<T: 'static>(&mut self) -> &mut T {
        self.assert_is::<T>();
        let place = self.storage.as_mut_ptr();
        if fits::<T>() {
            // SAFETY: the value was written here by `new`, and is not taken.
            unsafe { &mut *place.cast::<T>() }
        } else {
            // SAFETY: `new` stored the pointer of a box, which is ours.
            unsafe { &mut **place.cast::<*mut T>() }
        }
    }

    #[inline]
    fn assert_is<T: 'static>(&self) {
        assert!(
            (self.kind.id)() == TypeId::of::<T>(),
            "a lent buffer was asked back as another type"
        );
    }

    /// Gives the value back.
    ///
    /// # Panics
    ///
    /// If it is not a `T`.
    #[inline]
    pub(super) fn into_inner<T: 'static>(self) -> T {
        self.assert_is::<T>();
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the type was just checked; `this` is not dropped.
        unsafe { take::<T>(&mut this.storage) }
    }
}

impl Drop for Erased {
    fn drop(&mut self) {
        // SAFETY: the storage holds the value that `kind` was made for, and
        // is not used afterwards.
        unsafe { (self.kind.drop)(&mut self.storage) };
    }
}
