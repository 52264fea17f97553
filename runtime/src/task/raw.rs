//! The memory of a task, and what is done with it by its erased type.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use super::join::{JoinError, JoinHandle, Reason};
use super::owned::Links;
use super::state::{State, Turn};
use super::waker;
use crate::budget;
use crate::color::{self, ColorRef, Linked};
use crate::sync::UnsafeCell;
use crate::sync::atomic::AtomicPtr;

/// The part of a task that does not depend on the future.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) state: State,
    link: AtomicPtr<Header>,
    vtable: &'static VTable,
    /// `None` for what runs outside every color: blocking closures.
    pub(crate) color: Option<ColorRef>,
    pub(crate) links: Links,
    pub(crate) join_waker: UnsafeCell<Option<Waker>>,
    pub(crate) spawned_at: &'static Location<'static>,
}

impl Linked for Header {
    fn link(&self) -> &AtomicPtr<Header> {
        &self.link
    }
}

#[repr(C)]
struct Task<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Taken,
}

struct VTable {
    /// Polls the future, and puts the output in its place if it is done.
    /// Returns whether it is.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> bool,
    /// Puts an error in the place of the future.
    fail: unsafe fn(NonNull<Header>, JoinError),
    /// Moves the output to `*mut Result<F::Output, JoinError>`.
    take_output: unsafe fn(NonNull<Header>, *mut ()),
    drop_stage: unsafe fn(NonNull<Header>),
    free: unsafe fn(NonNull<Header>),
}

struct Of<F>(std::marker::PhantomData<F>);

impl<F: Future> Of<F> {
    const VTABLE: &'static VTable = &VTable {
        poll: poll::<F>,
        fail: fail::<F>,
        take_output: take_output::<F>,
        drop_stage: drop_stage::<F>,
        free: free::<F>,
    };
}

/// A counted reference to a task, not tied to a handle or a waker: the live
/// reference, mostly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskRef(pub(crate) NonNull<Header>);

// SAFETY: a task is reached by many threads, each touching only what its role
// allows (see the module's table); the future inside is `Send`, or the task is
// of a pinned color and only its worker touches it.
unsafe impl Send for TaskRef {}

/// A task just made: the live reference and the handle.
pub(crate) struct NewTask<T> {
    pub(crate) task: TaskRef,
    pub(crate) handle: JoinHandle<T>,
}

/// What became of a task that the runner took off the queue.
#[must_use]
#[derive(PartialEq, Eq)]
pub(crate) enum Ran {
    /// It waits, or is queued again.
    Alive,
    /// It is complete, and the live reference is the runner's to give up.
    Done,
}

impl<T> NewTask<T> {
    /// Makes a task, notified but not queued anywhere.
    ///
    /// # Safety
    ///
    /// If `F` or its output are not `Send`, or borrow, the caller sees to it
    /// that they are touched only on a thread and during a time where that is
    /// allowed: by running `color` and awaiting the handle only there.
    pub(crate) unsafe fn new<F>(
        future: F,
        color: Option<ColorRef>,
        at: &'static Location<'static>,
    ) -> Self
    where
        F: Future<Output = T>,
    {
        let task = Box::new(Task {
            header: Header {
                state: State::new(),
                link: AtomicPtr::new(std::ptr::null_mut()),
                vtable: Of::<F>::VTABLE,
                color,
                links: Links::new(),
                join_waker: UnsafeCell::new(None),
                spawned_at: at,
            },
            stage: UnsafeCell::new(Stage::Future(future)),
        });
        let header = NonNull::from(Box::leak(task)).cast::<Header>();
        NewTask {
            task: TaskRef(header),
            // SAFETY: one of the two references that the state began with.
            handle: unsafe { JoinHandle::from_raw(header) },
        }
    }
}

impl TaskRef {
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the reference that this value stands for keeps it alive.
        unsafe { self.0.as_ref() }
    }

    /// Runs one turn of a task of a color.
    ///
    /// # Safety
    ///
    /// The caller is the runner and took the task off the queue.
    pub(crate) unsafe fn run(self) -> Ran {
        let turn = self.header().state.start_poll();
        // SAFETY: handed on.
        unsafe { self.turn(turn) }
    }

    /// Runs a blocking closure, which nobody queues.
    ///
    /// # Safety
    ///
    /// The caller has the live reference of a task without a color, and runs
    /// it once.
    pub(crate) unsafe fn run_once(self) {
        let turn = self.header().state.start_once();
        // SAFETY: handed on. The result says that an entry is queued, because
        // NOTIFIED is set; here there is none.
        let _ = unsafe { self.turn(turn) };
        self.release();
    }

    /// Completes a task that will never run, with `reason`.
    ///
    /// # Safety
    ///
    /// The caller has the live reference, and nobody else has seen the task
    /// but the handle.
    pub(crate) unsafe fn refuse(self, reason: Reason) {
        let header = self.header();
        // SAFETY: nobody else touches the stage before COMPLETE.
        unsafe { (header.vtable.fail)(self.0, JoinError::new(reason)) };
        // NOTIFIED is set and no entry is queued: the reference is ours.
        // SAFETY: as above.
        let _ = unsafe { self.complete() };
        self.release();
    }

    /// # Safety
    ///
    /// As for `run`.
    unsafe fn turn(self, turn: Turn) -> Ran {
        let vtable = self.header().vtable;
        match turn {
            Turn::Stale => return Ran::Done,
            // SAFETY: the caller is the runner.
            Turn::Cancel => unsafe { (vtable.fail)(self.0, JoinError::new(Reason::Aborted)) },
            Turn::Poll => {
                budget::refill();
                let waker = waker::borrowed(self.0);
                let mut cx = Context::from_waker(&waker);
                // SAFETY: the caller is the runner.
                if !unsafe { (vtable.poll)(self.0, &mut cx) } {
                    return Ran::Alive;
                }
            }
        }
        // SAFETY: the output is in place.
        unsafe { self.complete() }
    }

    /// # Safety
    ///
    /// The caller is the runner, and the output is in place.
    unsafe fn complete(self) -> Ran {
        let header = self.header();
        let completed = header.state.complete();
        if !completed.joined {
            // SAFETY: rule 5 in `task::state`: the output is the runner's.
            unsafe { (header.vtable.drop_stage)(self.0) };
        }
        if completed.wake {
            header.join_waker.with(|w| {
                // SAFETY: rule 6 in `task::state`: set, so it may be read.
                if let Some(waker) = unsafe { &*w } {
                    waker.wake_by_ref();
                }
            });
        }
        if completed.release {
            Ran::Done
        } else {
            Ran::Alive
        }
    }

    /// Gives the reference up that this value stands for.
    pub(crate) fn release(self) {
        if self.header().state.release() {
            // SAFETY: that was the last reference.
            unsafe { self.free() };
        }
    }

    /// # Safety
    ///
    /// No reference is left.
    pub(crate) unsafe fn free(self) {
        // SAFETY: handed on.
        unsafe { (self.header().vtable.free)(self.0) };
    }

    /// Takes the output.
    ///
    /// # Safety
    ///
    /// The task is complete, the caller has the handle, `T` is its output, and
    /// the output was not taken.
    pub(crate) unsafe fn take_output<T>(self) -> Result<T, JoinError> {
        let mut output = std::mem::MaybeUninit::<Result<T, JoinError>>::uninit();
        // SAFETY: the contract; `output` is written.
        unsafe {
            (self.header().vtable.take_output)(self.0, output.as_mut_ptr().cast());
            output.assume_init()
        }
    }

    /// Drops the output, if it is still there.
    ///
    /// # Safety
    ///
    /// As for `take_output`, but it may have been taken.
    pub(crate) unsafe fn drop_output(self) {
        // SAFETY: handed on.
        unsafe { (self.header().vtable.drop_stage)(self.0) };
    }
}

/// # Safety
///
/// `header` is that of a `Task<F>`.
unsafe fn stage<'a, F: Future>(header: NonNull<Header>) -> &'a UnsafeCell<Stage<F>> {
    // SAFETY: the header is the first field of the task, by `repr(C)`.
    unsafe { &header.cast::<Task<F>>().as_ref().stage }
}

/// # Safety
///
/// The caller is the runner, and the task is not complete.
unsafe fn poll<F: Future>(header: NonNull<Header>, cx: &mut Context<'_>) -> bool {
    // SAFETY: the vtable was made for `F`.
    let stage = unsafe { stage::<F>(header) };
    let polled = catch_unwind(AssertUnwindSafe(|| {
        stage.with_mut(|stage| {
            // SAFETY: the runner alone touches the stage before COMPLETE.
            let Stage::Future(future) = (unsafe { &mut *stage }) else {
                unreachable!("polled after completion")
            };
            // SAFETY: the task does not move, and the future is dropped in
            // place.
            unsafe { Pin::new_unchecked(future) }.poll(cx)
        })
    }));
    let output = match polled {
        Ok(Poll::Pending) => return false,
        Ok(Poll::Ready(output)) => Ok(output),
        Err(panic) => Err(JoinError::new(Reason::Panic(panic))),
    };
    // SAFETY: the caller is the runner.
    unsafe { set_output(stage, output) };
    true
}

/// # Safety
///
/// As for [`poll`].
unsafe fn fail<F: Future>(header: NonNull<Header>, error: JoinError) {
    // SAFETY: handed on; the vtable was made for `F`.
    unsafe { set_output(stage::<F>(header), Err(error)) };
}

/// Drops the future, then puts the output in its place. A panic in the drop
/// takes the place of the output.
///
/// # Safety
///
/// The stage is the caller's.
unsafe fn set_output<F: Future>(
    stage: &UnsafeCell<Stage<F>>,
    output: Result<F::Output, JoinError>,
) {
    // SAFETY: handed on.
    let output = match unsafe { replace(stage, Stage::Taken) } {
        None => output,
        Some(panic) => Err(JoinError::new(Reason::Panic(panic))),
    };
    // SAFETY: handed on. What is replaced has no destructor to panic.
    let _ = unsafe { replace(stage, Stage::Output(output)) };
}

/// Replaces the stage, dropping what was there in place (it may be pinned).
/// Returns the panic of that drop.
///
/// # Safety
///
/// The stage is the caller's (rule 5 in `task::state`).
unsafe fn replace<F: Future>(
    stage: &UnsafeCell<Stage<F>>,
    with: Stage<F>,
) -> Option<Box<dyn Any + Send>> {
    stage.with_mut(|stage| {
        // SAFETY: the stage is the caller's; it is overwritten at once.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe {
            std::ptr::drop_in_place(stage);
        }));
        // SAFETY: what was there is dropped.
        unsafe { stage.write(with) };
        dropped.err()
    })
}

/// # Safety
///
/// As for `VTable::take_output`.
unsafe fn take_output<F: Future>(header: NonNull<Header>, into: *mut ()) {
    // SAFETY: the vtable was made for `F`.
    let stage = unsafe { stage::<F>(header) };
    // SAFETY: rule 5 in `task::state`: the output is the handle's.
    let taken = stage.with_mut(|stage| std::mem::replace(unsafe { &mut *stage }, Stage::Taken));
    let Stage::Output(output) = taken else {
        panic!("a JoinHandle was polled after it gave its output")
    };
    // SAFETY: the caller gave a place of this type.
    unsafe { into.cast::<Result<F::Output, JoinError>>().write(output) };
}

/// # Safety
///
/// The stage is the caller's.
unsafe fn drop_stage<F: Future>(header: NonNull<Header>) {
    // SAFETY: handed on; the vtable was made for `F`.
    let panic = unsafe { replace(stage::<F>(header), Stage::Taken) };
    // Nobody is there to hear of it but the panic hook, which has.
    drop(panic);
}

/// # Safety
///
/// No reference is left.
unsafe fn free<F: Future>(header: NonNull<Header>) {
    // SAFETY: made by `NewTask::new` from a box of this type.
    drop(unsafe { Box::from_raw(header.cast::<Task<F>>().as_ptr()) });
}

/// Queues a task in its color after a state transition asked for it.
pub(crate) fn queue(header: NonNull<Header>) {
    // SAFETY: not complete, so the live reference keeps it alive.
    let color = unsafe { header.as_ref() }
        .color
        .as_ref()
        .map(ColorRef::as_ptr);
    let color = color.expect("a task without a color is never queued");
    // SAFETY: by rule 1 in `task::state` it is in no queue, and by rule 4 it
    // stays valid until it is popped.
    unsafe { color::push(color, header) };
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("state", &self.header().state)
            .field("spawned_at", &self.header().spawned_at)
            .finish()
    }
}

/// A waker that is not counted, for the time of a poll.
pub(crate) type Borrowed = ManuallyDrop<Waker>;
