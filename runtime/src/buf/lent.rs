//! A buffer with its type forgotten, so that an operation can own it.

use std::any::TypeId;
use std::fmt;
use std::mem::{MaybeUninit, align_of, size_of};

use super::IoBuf;

/// Words kept inside a [`Lent`]. `Vec<u8>` takes three, `bytes::Bytes` and
/// [`RecvBuf`](super::RecvBuf) four; anything larger is boxed.
const WORDS: usize = 4;

type Storage = MaybeUninit<[usize; WORDS]>;

/// An owned buffer lent to an operation: a pointer and a length for the
/// kernel, and the value that keeps both valid.
///
/// The type is erased without an allocation for values of up to four words,
/// so that sending a `Vec<u8>` or a lease costs none.
pub struct Lent {
    ptr: *const u8,
    len: usize,
    storage: Storage,
    kind: &'static Kind,
}

/// What is needed of the erased type.
struct Kind {
    id: fn() -> TypeId,
    drop: unsafe fn(&mut Storage),
}

// SAFETY: the erased value is an `IoBuf`, which is `Send`; `ptr` points into
// memory that this value keeps, so it moves with it.
unsafe impl Send for Lent {}

// SAFETY: nothing can be reached through `&Lent` but the pointer and the
// length, as plain values.
unsafe impl Sync for Lent {}

// A lease is sent without an allocation.
const _: () = assert!(fits::<super::RecvBuf>());

const fn fits<B>() -> bool {
    size_of::<B>() <= size_of::<Storage>() && align_of::<B>() <= align_of::<Storage>()
}

/// # Safety
///
/// `storage` holds a `B` by `Lent::new`, and is not used afterwards.
unsafe fn take<B>(storage: &mut Storage) -> B {
    if fits::<B>() {
        // SAFETY: the value was written here by `new`; the caller gives it up.
        unsafe { storage.as_mut_ptr().cast::<B>().read() }
    } else {
        // SAFETY: `new` stored the pointer of a box, which is given up too.
        unsafe { *Box::from_raw(storage.as_mut_ptr().cast::<*mut B>().read()) }
    }
}

/// # Safety
///
/// As for [`take`].
unsafe fn drop_in<B>(storage: &mut Storage) {
    // SAFETY: handed on from the caller.
    drop(unsafe { take::<B>(storage) });
}

struct Of<B>(std::marker::PhantomData<B>);

impl<B: 'static> Of<B> {
    const KIND: &'static Kind = &Kind {
        id: TypeId::of::<B>,
        drop: drop_in::<B>,
    };
}

impl Lent {
    /// Takes `buf` over; its bytes can be read until the value is given back.
    #[inline]
    pub fn new<B: IoBuf>(buf: B) -> Lent {
        let bytes = buf.bytes();
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        let mut storage = Storage::uninit();
        if fits::<B>() {
            // SAFETY: size and alignment were checked; by the contract of
            // `IoBuf` the move leaves `ptr` valid.
            unsafe { storage.as_mut_ptr().cast::<B>().write(buf) };
        } else {
            let boxed = Box::into_raw(Box::new(buf));
            // SAFETY: a pointer fits into the storage.
            unsafe { storage.as_mut_ptr().cast::<*mut B>().write(boxed) };
        }
        Lent {
            ptr,
            len,
            storage,
            kind: Of::<B>::KIND,
        }
    }

    /// Where the bytes are. Valid until this value is dropped or taken apart,
    /// also when it moves.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: by the contract of `IoBuf` they stay where they are and as
        // they are as long as the value is there, which is ours.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the buffer back.
    ///
    /// # Panics
    ///
    /// If it is not a `B`.
    #[inline]
    pub fn into_inner<B: IoBuf>(self) -> B {
        assert!(
            (self.kind.id)() == TypeId::of::<B>(),
            "a lent buffer was asked back as another type"
        );
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: the type was just checked; `this` is not dropped.
        unsafe { take::<B>(&mut this.storage) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: the storage holds the value that `kind` was made for, and
        // is not used afterwards.
        unsafe { (self.kind.drop)(&mut self.storage) };
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Large {
        data: Vec<u8>,
        _rest: [usize; 6],
        drops: Arc<AtomicUsize>,
    }

    // SAFETY: the bytes are on the heap.
    unsafe impl IoBuf for Large {
        fn bytes(&self) -> &[u8] {
            &self.data
        }
    }

    impl Drop for Large {
        fn drop(&mut self) {
            self.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn small_buffers_come_back_as_they_were() {
        let lent = Lent::new(vec![1u8, 2, 3]);
        let ptr = lent.as_ptr();
        assert_eq!(lent.len(), 3);
        let back: Vec<u8> = lent.into_inner();
        assert_eq!(back.as_ptr(), ptr);
        assert_eq!(back, [1, 2, 3]);
    }

    #[test]
    fn large_buffers_are_boxed_and_dropped_once() {
        let drops = Arc::new(AtomicUsize::new(0));
        let large = |drops: &Arc<AtomicUsize>| Large {
            data: vec![7; 100],
            _rest: [0; 6],
            drops: drops.clone(),
        };
        drop(Lent::new(large(&drops)));
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        let back: Large = Lent::new(large(&drops)).into_inner();
        assert_eq!(back.data.len(), 100);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        drop(back);
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    }

    #[test]
    #[should_panic(expected = "another type")]
    fn the_type_is_checked() {
        let _ = Lent::new(vec![1u8]).into_inner::<String>();
    }
}
