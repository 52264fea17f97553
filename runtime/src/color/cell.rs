//! Data with a color: no lock, and `&mut` for whoever runs under the color.
//!
//! # Rules
//!
//! 1. The value is reached under the cell's color only: in a step of it, or
//!    after a look at what this thread runs. The one exception is whoever has
//!    the last handle, whom nobody can meet.
//! 2. `borrowed` is set under the color, and before the value is reached. It is
//!    cleared by the guard, which may have left the color by then (one can put
//!    a guard into a thread-local): Release there, Acquire at the look. So a
//!    look that finds it clear comes after the last access.
//! 3. A guard that is forgotten leaves `borrowed` set: the value is not reached
//!    again, but by the last handle.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::ptr;
use std::sync::Arc;

use super::core::ColorRef;
use super::handle::Color;
use super::run::{Anchor, Step, Work, try_run};
use crate::runtime::spawn_on;
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::task::JoinHandle;
use crate::worker::Worker;

type Site = &'static Location<'static>;

/// A value that belongs to a [`Color`]: there is no lock, and only code that
/// runs under the color gets a `&mut` to it.
///
/// Made by [`Color::cell`]. It is a handle: clones are the same cell. The value
/// is dropped with the last handle, under the color (unless the runtime has
/// ended; then where the handle is dropped).
///
/// ```no_run
/// # use isochrome_runtime::{Color, ColorCell};
/// # use std::collections::HashMap;
/// # async fn example() {
/// let cache: ColorCell<HashMap<u32, String>> = Color::new().cell(HashMap::new());
/// // Any task of any color:
/// let hit = cache.with(|map| map.get(&7).cloned()).await;
/// # }
/// ```
///
/// It can be shared between threads if the value can be sent:
///
/// ```compile_fail,E0277
/// # use isochrome_runtime::Color;
/// Color::new().cell(std::rc::Rc::new(1));
/// ```
pub struct ColorCell<T>(ManuallyDrop<Arc<Inner<T>>>);

struct Inner<T> {
    anchor: Anchor,
    made_at: Site,
    /// Where the living borrow was made; null: there is none (rule 2).
    borrowed: AtomicPtr<Location<'static>>,
    /// `dispose`, from where `T` was known to be `Send + 'static`.
    dispose: fn(Inner<T>),
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time, in an order (rules 1
// and 2); it moves between threads, so it has to be `Send`. The rest is Sync.
unsafe impl<T: Send> Send for ColorCell<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for ColorCell<T> {}

impl<T> std::panic::UnwindSafe for ColorCell<T> {}
impl<T> std::panic::RefUnwindSafe for ColorCell<T> {}

impl Color {
    /// Puts a value under this color.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, if this is [`Color::DEFAULT`].
    #[track_caller]
    pub fn cell<T: Send + 'static>(&self, value: T) -> ColorCell<T> {
        ColorCell(ManuallyDrop::new(Arc::new(Inner {
            anchor: Anchor::new(self, "Color::DEFAULT.cell"),
            made_at: Location::caller(),
            borrowed: AtomicPtr::new(ptr::null_mut()),
            dispose: dispose::<T>,
            value: UnsafeCell::new(value),
        })))
    }
}

/// Drops the value under its color: at once if that can be, else queued. If
/// nothing can be queued any more it is dropped here.
fn dispose<T: Send + 'static>(inner: Inner<T>) {
    let Inner {
        anchor,
        value,
        made_at,
        ..
    } = inner;
    let value = value.into_inner();
    if let Err(later) = try_run(&anchor.color, move || drop(value)) {
        let shared = anchor.runtime.shared();
        let color = anchor.color.clone();
        drop(spawn_on(shared, color, async move { later() }, made_at));
    }
}

impl<T> ColorCell<T> {
    /// The color that the value belongs to.
    pub fn color(&self) -> Color {
        Color::from_ref(self.0.anchor.color.clone())
    }

    /// Borrows the value directly, for code that runs under the cell's color: a
    /// task, a step or a hold of it.
    ///
    /// The guard cannot be kept across an await in a task:
    ///
    /// ```compile_fail
    /// # use isochrome_runtime::{Color, spawn, yield_now};
    /// let cell = Color::new().cell(1);
    /// drop(cell.color().spawn(async move {
    ///     let mut value = cell.get().unwrap();
    ///     yield_now().await;
    ///     *value += 1;
    /// }));
    /// ```
    ///
    /// Where a future need not be `Send`, as in `block_on`, it can; whoever
    /// else comes meanwhile gets the error.
    ///
    /// # Errors
    ///
    /// Under another color or none ([`CellError::is_outside`]), and while the
    /// value is borrowed already ([`CellError::is_borrowed`]).
    #[track_caller]
    pub fn get(&self) -> Result<CellGuard<'_, T>, CellError> {
        if !Worker::runs_color(self.0.anchor.color.as_ptr()) {
            return Err(self.error(Why::Outside(Color::current())));
        }
        // SAFETY: this thread runs the color.
        unsafe { self.borrow(Location::caller()) }
    }

    /// # Safety
    ///
    /// The caller runs the color.
    #[inline]
    unsafe fn borrow(&self, at: Site) -> Result<CellGuard<'_, T>, CellError> {
        let inner = &**self.0;
        // Acquire: the last access (rule 2).
        let since = inner.borrowed.load(Ordering::Acquire);
        // SAFETY: null, or made from a reference to a static below.
        if let Some(since) = unsafe { since.as_ref() } {
            return Err(self.error(Why::Borrowed(since)));
        }
        // Relaxed: who looks next is under the color.
        let at = ptr::from_ref(at).cast_mut();
        inner.borrowed.store(at, Ordering::Relaxed);
        Ok(CellGuard {
            inner,
            stays_here: PhantomData,
        })
    }

    /// Gives the value back, if this is the last handle.
    ///
    /// # Errors
    ///
    /// This handle, if there are others. A queued step is one.
    pub fn into_inner(self) -> Result<T, ColorCell<T>> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used or dropped any more.
        let inner = unsafe { ManuallyDrop::take(&mut this.0) };
        match Arc::try_unwrap(inner) {
            // Nobody has a borrow: one would borrow a handle.
            Ok(inner) => Ok(inner.value.into_inner()),
            Err(inner) => Err(ColorCell(ManuallyDrop::new(inner))),
        }
    }

    #[cold]
    fn error(&self, why: Why) -> CellError {
        CellError {
            color: self.color(),
            made_at: self.0.made_at,
            why,
        }
    }
}

impl<T: Send + 'static> ColorCell<T> {
    /// Runs a closure with the value as an atomic step of its color, from
    /// anywhere. What stands at [`Color::run`] holds here: inline if the color
    /// is this one or idle, else queued; dropping the future before the step
    /// has begun is the end of it; no allocation if it is not queued.
    ///
    /// The reference stays inside:
    ///
    /// ```compile_fail,E0521
    /// # use isochrome_runtime::Color;
    /// # async fn example() {
    /// let cell = Color::new().cell(1);
    /// let mut out: Option<&'static mut i32> = None;
    /// cell.with(move |value| out = Some(value)).await;
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`Color::run`], and with the text of the [`CellError`] if the value is
    /// borrowed: inside another `with` of the same cell, or while a guard lives.
    #[track_caller]
    pub fn with<F, R>(&self, f: F) -> impl Future<Output = R> + Send
    where
        F: FnOnce(&mut T) -> R + Send + 'static,
        R: Send + 'static,
    {
        let at = Location::caller();
        let color = &self.0.anchor.color;
        Step::new(Some(color), Access { cell: self, at, f }, at)
    }
}

/// A step with the value.
struct Access<'a, T, F> {
    cell: &'a ColorCell<T>,
    at: Site,
    f: F,
}

impl<T, F, R> Work for Access<'_, T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut T) -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = R;

    #[inline]
    unsafe fn run(self) -> R {
        // SAFETY: the caller runs the color, by the contract of `Work::run`.
        match unsafe { self.cell.borrow(self.at) } {
            Ok(mut guard) => (self.f)(&mut guard),
            Err(e) => panic!("{e}"),
        }
    }

    fn queue(self, color: &ColorRef, at: Site) -> JoinHandle<R> {
        let Access { cell, f, .. } = self;
        let cell = cell.clone();
        let step = async move {
            let cell = &cell;
            // SAFETY: a task of the color runs it.
            unsafe { Access { cell, at, f }.run() }
        };
        spawn_on(color.core().shared(), color.clone(), step, at)
    }
}

impl<T> Clone for ColorCell<T> {
    fn clone(&self) -> ColorCell<T> {
        ColorCell(self.0.clone())
    }
}

impl<T> Drop for ColorCell<T> {
    fn drop(&mut self) {
        // SAFETY: not used any more.
        let inner = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(inner) = Arc::into_inner(inner) {
            (inner.dispose)(inner);
        }
    }
}

impl<T> fmt::Debug for ColorCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColorCell")
            .field("color", &self.0.anchor.color)
            .field("made_at", &format_args!("{}", self.0.made_at))
            .finish_non_exhaustive()
    }
}

/// A direct borrow of the value of a [`ColorCell`].
///
/// It stays on its thread. Forgetting it is safe, and keeps everybody else from
/// the value for ever.
pub struct CellGuard<'a, T> {
    inner: &'a Inner<T>,
    stays_here: PhantomData<*const ()>,
}

impl<T> Deref for CellGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as long as the guard lives, `borrowed` keeps others out
        // (rules 2 and 3).
        self.inner.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for CellGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        self.inner.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for CellGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: our accesses (rule 2).
        self.inner
            .borrowed
            .store(ptr::null_mut(), Ordering::Release);
    }
}

impl<T: fmt::Debug> fmt::Debug for CellGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Why a [`ColorCell`] could not be borrowed.
#[derive(Clone)]
pub struct CellError {
    color: Color,
    made_at: Site,
    why: Why,
}

#[derive(Clone)]
enum Why {
    /// The color of whoever asked.
    Outside(Option<Color>),
    /// Where the living borrow was made.
    Borrowed(Site),
}

impl CellError {
    /// Whoever asked does not run under the cell's color.
    pub fn is_outside(&self) -> bool {
        matches!(self.why, Why::Outside(_))
    }

    /// The value is borrowed already.
    pub fn is_borrowed(&self) -> bool {
        matches!(self.why, Why::Borrowed(_))
    }
}

impl fmt::Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CellError {
            color,
            made_at,
            why,
        } = self;
        write!(f, "the cell made at {made_at} ")?;
        match why {
            Why::Outside(other) => {
                write!(f, "belongs to {color:?} and was asked for under ")?;
                match other {
                    Some(other) => write!(f, "{other:?}")?,
                    None => f.write_str("no color")?,
                }
                f.write_str("; use ColorCell::with")
            }
            Why::Borrowed(since) => write!(
                f,
                "(of {color:?}) is borrowed already, since {since}; that borrow has to end first"
            ),
        }
    }
}

impl fmt::Debug for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellError({self})")
    }
}

impl std::error::Error for CellError {}

impl From<CellError> for std::io::Error {
    fn from(e: CellError) -> std::io::Error {
        std::io::Error::other(e)
    }
}
