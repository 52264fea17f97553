//! The memory of a task, and what is done with it by its erased type.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use super::join::{JoinError, JoinHandle, Reason};
use super::joiner::Joiner;
use super::owned::FOREIGN;
use super::state::{State, Turn};
use super::waker;
use crate::budget;
use crate::color::{self, ColorRef, Core, Linked};
use crate::contain::contain;
use crate::sync::UnsafeCell;
use crate::sync::atomic::AtomicPtr;

/// The part of a task that does not depend on the future.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) state: State,
    link: AtomicPtr<Header>,
    vtable: &'static VTable,
    pub(super) joiner: UnsafeCell<Option<Joiner>>,
    pub(crate) spawned_at: &'static Location<'static>,
    /// Where it is in the list of its owner.
    pub(super) index: Cell<u32>,
    /// The worker whose list it is in. Written before the task is shared.
    pub(crate) owner: Cell<u16>,
    /// What is in the stage. It belongs to whom the stage belongs.
    holds: Cell<Holds>,
    /// What is right behind the header.
    behind: Behind,
}

/// Where the color of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// The color itself.
    Color,
    /// A counted reference to it.
    Reference,
    /// None: it runs outside of every color, as blocking closures do.
    Nothing,
}

impl Linked for Header {
    fn link(&self) -> &AtomicPtr<Header> {
        &self.link
    }
}

/// A task in memory. `C` is what it has of its color.
///
/// `repr(C)`: the header comes first, and `C` right behind it.
#[repr(C)]
struct Task<F: Future, C> {
    header: Header,
    color: C,
    stage: UnsafeCell<Stage<F>>,
}

// A promise to those who have millions of them.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Header>() <= 48);
    assert!(size_of::<Task<std::future::Pending<()>, ColorRef>>() <= 64);
    assert!(size_of::<Task<std::future::Pending<()>, Core>>() <= 96);
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Future,
    Output,
    Nothing,
}

union Stage<F: Future> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<Result<F::Output, JoinError>>,
    nothing: (),
}

/// What may stand between the header and the stage: right behind the header,
/// since it is aligned no more than that is.
trait InBlock: Sized {
    const BEHIND: Behind;
    const RIGHT_BEHIND: () = assert!(align_of::<Self>() <= align_of::<Header>());
}

impl InBlock for () {
    const BEHIND: Behind = Behind::Nothing;
}

impl InBlock for ColorRef {
    const BEHIND: Behind = Behind::Reference;
}

impl InBlock for Core {
    const BEHIND: Behind = Behind::Color;
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

struct Of<F, C>(std::marker::PhantomData<(F, C)>);

impl<F: Future, C: InBlock> Of<F, C> {
    const VTABLE: &'static VTable = &VTable {
        poll: poll::<F, C>,
        fail: fail::<F, C>,
        take_output: take_output::<F, C>,
        drop_stage: drop_stage::<F, C>,
        free: free::<F, C>,
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
        NewTask::from_block(match color {
            Some(color) => block(future, color, at).cast(),
            None => block(future, (), at).cast(),
        })
    }

    /// As `new`, with a color of its own in the same block.
    ///
    /// # Safety
    ///
    /// As for `new`.
    pub(crate) unsafe fn apart<F>(future: F, color: Core, at: &'static Location<'static>) -> Self
    where
        F: Future<Output = T>,
    {
        NewTask::from_block(block(future, color, at).cast())
    }

    fn from_block(header: NonNull<Header>) -> Self {
        NewTask {
            task: TaskRef(header),
            // SAFETY: one of the two references that the state began with.
            handle: unsafe { JoinHandle::from_raw(header) },
        }
    }
}

fn block<F: Future, C: InBlock>(
    future: F,
    color: C,
    at: &'static Location<'static>,
) -> NonNull<Task<F, C>> {
    let () = C::RIGHT_BEHIND;
    let task = Box::new(Task {
        header: Header {
            state: State::new(),
            link: AtomicPtr::new(std::ptr::null_mut()),
            vtable: Of::<F, C>::VTABLE,
            joiner: UnsafeCell::new(None),
            spawned_at: at,
            index: Cell::new(0),
            owner: Cell::new(FOREIGN),
            holds: Cell::new(Holds::Future),
            behind: C::BEHIND,
        },
        color,
        stage: UnsafeCell::new(Stage {
            future: ManuallyDrop::new(future),
        }),
    });
    NonNull::from(Box::leak(task))
}

impl TaskRef {
    /// The task in whose block a color lies.
    ///
    /// # Safety
    ///
    /// It lies in one, which is alive, and the pointer is that of its task.
    pub(crate) unsafe fn around(color: NonNull<Core>) -> TaskRef {
        // SAFETY: the header comes right before the color (`InBlock`).
        TaskRef(unsafe { color.cast::<Header>().sub(1) })
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the reference that this value stands for keeps it alive.
        unsafe { self.0.as_ref() }
    }

    /// Runs one turn of a task of a color.
    ///
    /// # Safety
    ///
    /// The caller is the runner and took the task off the queue.
    #[inline]
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
        /// Also if the waker of who waits panics.
        struct Release(TaskRef);

        impl Drop for Release {
            fn drop(&mut self) {
                self.0.release();
            }
        }

        let _release = Release(self);
        let turn = self.header().state.start_once();
        // SAFETY: handed on. The result says that an entry is queued, because
        // NOTIFIED is set; here there is none.
        let _ = unsafe { self.turn(turn) };
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
    #[inline(always)]
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
            // SAFETY: rule 6 in `task::state`: set, so the field is the runner's.
            let joiner = (header.joiner).with_mut(|joiner| unsafe { (*joiner).take() });
            if let Some(joiner) = joiner {
                joiner.into_waker().wake();
            }
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
/// `header` is that of a `Task<F, C>`.
unsafe fn stage<'a, F: Future, C: 'a>(header: NonNull<Header>) -> &'a UnsafeCell<Stage<F>> {
    // SAFETY: the header is the first field of the task, by `repr(C)`.
    unsafe { &header.cast::<Task<F, C>>().as_ref().stage }
}

/// # Safety
///
/// The caller is the runner, and the task is not complete.
unsafe fn poll<F: Future, C>(header: NonNull<Header>, cx: &mut Context<'_>) -> bool {
    // SAFETY: the vtable was made for these types.
    let stage = unsafe { stage::<F, C>(header) };
    let polled = catch_unwind(AssertUnwindSafe(|| {
        stage.with_mut(|stage| {
            // SAFETY: the runner alone touches the stage before COMPLETE, and
            // until then it holds the future. The task does not move, and the
            // future is dropped in place.
            let future =
                unsafe { Pin::new_unchecked(&mut *(&raw mut (*stage).future).cast::<F>()) };
            future.poll(cx)
        })
    }));
    let output = match polled {
        Ok(Poll::Pending) => return false,
        Ok(Poll::Ready(output)) => Ok(output),
        Err(panic) => Err(JoinError::new(Reason::Panic(panic))),
    };
    // SAFETY: the caller is the runner.
    unsafe { set_output::<F, C>(header, output) };
    true
}

/// # Safety
///
/// As for [`poll`].
unsafe fn fail<F: Future, C>(header: NonNull<Header>, error: JoinError) {
    // SAFETY: handed on; the vtable was made for these types.
    unsafe { set_output::<F, C>(header, Err(error)) };
}

/// Drops the future, then puts the output in its place. A panic in the drop
/// takes the place of the output.
///
/// # Safety
///
/// The stage is the caller's.
unsafe fn set_output<F: Future, C>(header: NonNull<Header>, output: Result<F::Output, JoinError>) {
    // SAFETY: handed on.
    let output = match unsafe { clear::<F, C>(header) } {
        None => output,
        Some(panic) => {
            contain(|| drop(output));
            Err(JoinError::new(Reason::Panic(panic)))
        }
    };
    let output = Stage {
        output: ManuallyDrop::new(output),
    };
    // SAFETY: the stage is the caller's, and holds nothing.
    unsafe { stage::<F, C>(header) }.with_mut(|stage| unsafe { stage.write(output) });
    // SAFETY: alive, as it is the caller's.
    unsafe { header.as_ref() }.holds.set(Holds::Output);
}

/// Drops what is in the stage, in place (it may be pinned). Returns the panic
/// of that drop.
///
/// # Safety
///
/// The stage is the caller's (rule 5 in `task::state`).
unsafe fn clear<F: Future, C>(header: NonNull<Header>) -> Option<Box<dyn Any + Send>> {
    // SAFETY: alive, as it is the caller's.
    let held = unsafe { header.as_ref() }.holds.replace(Holds::Nothing);
    // SAFETY: the vtable was made for these types.
    let stage = unsafe { stage::<F, C>(header) };
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        stage.with_mut(|stage| match held {
            // SAFETY: the stage is the caller's, and holds this.
            Holds::Future => unsafe { ManuallyDrop::drop(&mut (*stage).future) },
            // SAFETY: as above.
            Holds::Output => unsafe { ManuallyDrop::drop(&mut (*stage).output) },
            Holds::Nothing => {}
        });
    }));
    dropped.err()
}

/// # Safety
///
/// As for `VTable::take_output`.
unsafe fn take_output<F: Future, C>(header: NonNull<Header>, into: *mut ()) {
    // SAFETY: the caller has the handle, which keeps it alive; rule 5 in
    // `task::state`: the stage is the handle's.
    let held = unsafe { header.as_ref() }.holds.replace(Holds::Nothing);
    assert!(
        held == Holds::Output,
        "a JoinHandle was polled after it gave its output"
    );
    // SAFETY: the vtable was made for these types.
    let stage = unsafe { stage::<F, C>(header) };
    let nothing = Stage { nothing: () };
    // SAFETY: as above; it holds the output.
    let output = stage.with_mut(|stage| unsafe { stage.replace(nothing).output });
    let output = ManuallyDrop::into_inner(output);
    // SAFETY: the caller gave a place of this type.
    unsafe { into.cast::<Result<F::Output, JoinError>>().write(output) };
}

/// # Safety
///
/// The stage is the caller's.
unsafe fn drop_stage<F: Future, C>(header: NonNull<Header>) {
    // SAFETY: handed on; the vtable was made for these types.
    let panic = unsafe { clear::<F, C>(header) };
    // Nobody is there to hear of it but the panic hook, which has.
    contain(|| drop(panic));
}

/// # Safety
///
/// No reference is left.
unsafe fn free<F: Future, C: InBlock>(header: NonNull<Header>) {
    // SAFETY: made by `block` from a box of this type.
    let task = unsafe { Box::from_raw(header.cast::<Task<F, C>>().as_ptr()) };
    debug_assert!(task.header.holds.get() == Holds::Nothing, "dropped before");
    drop(task);
}

/// The color of a task; `None` for what runs outside of every color.
///
/// # Safety
///
/// The task is alive, and the pointer is that of its block.
#[inline(always)]
pub(super) unsafe fn color(header: NonNull<Header>) -> Option<NonNull<Core>> {
    // SAFETY: alive, says the caller, as is what is in its block.
    unsafe {
        match header.as_ref().behind {
            Behind::Color => Some(header.add(1).cast()),
            Behind::Reference => Some(header.add(1).cast::<ColorRef>().as_ref().as_ptr()),
            Behind::Nothing => None,
        }
    }
}

/// Queues a task in its color after a state transition asked for it.
pub(crate) fn queue(header: NonNull<Header>) {
    // SAFETY: not complete, so the live reference keeps it alive.
    let color = unsafe { color(header) };
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
