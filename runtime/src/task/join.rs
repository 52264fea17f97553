//! Handles to a task, and how it can fail.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use super::joiner::Joiner;
use super::raw::{self, Header, TaskRef, queue};
use super::state::Wake;
use crate::color;

/// Awaits the output of a task.
///
/// Dropping the handle detaches the task: it goes on, and its output is
/// dropped. Awaiting it gives the output, or a [`JoinError`] if the task
/// panicked or was aborted, or if it waits for the very color that is held
/// around the await ([`JoinError::is_deadlock`]).
///
/// # Panics
///
/// If it is polled again after it gave the output.
#[must_use = "dropping a JoinHandle detaches its task; write `drop(spawn(..))` or bind it if that is meant"]
pub struct JoinHandle<T> {
    header: NonNull<Header>,
    output: PhantomData<T>,
}

// SAFETY: the handle reaches the state word, and the output, which is `Send`.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: `&JoinHandle` reaches the state word only.
unsafe impl<T: Send> Sync for JoinHandle<T> {}
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// # Safety
    ///
    /// The task's output is `T`, and the caller gives a counted reference and
    /// the JOIN bit.
    pub(crate) unsafe fn from_raw(header: NonNull<Header>) -> JoinHandle<T> {
        JoinHandle {
            header,
            output: PhantomData,
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: the handle's reference keeps it alive.
        unsafe { self.header.as_ref() }
    }

    /// Asks for the end of the task: its future is dropped, under its color,
    /// before it is polled again. The handle then gives a [`JoinError`] that
    /// says so, or the output if the task was faster.
    ///
    /// A closure given to `spawn_blocking` is aborted only if it has not begun.
    pub fn abort(&self) {
        abort(self.header);
    }

    /// A handle that can abort the task, and is kept apart from this one.
    pub fn abort_handle(&self) -> AbortHandle {
        self.header().state.add_ref();
        AbortHandle {
            header: self.header,
        }
    }

    /// Whether the task is complete, so that awaiting it will not wait.
    pub fn is_finished(&self) -> bool {
        self.header().state.is_complete()
    }
}

/// Marks a task, which the caller keeps alive, for cancellation.
pub(crate) fn abort(header: NonNull<Header>) {
    // SAFETY: alive by the contract.
    if unsafe { header.as_ref() }.state.abort() == Wake::Queue {
        queue(header);
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let header = self.header();
        if !header.state.is_complete() && leave_waker(header, cx) {
            // SAFETY: the handle's reference keeps it alive.
            let held = unsafe { raw::color(self.header) }.and_then(color::held_around);
            return match held {
                None => Poll::Pending,
                Some(held_at) => Poll::Ready(Err(JoinError::new(Reason::Deadlock {
                    held_at,
                    spawned_at: header.spawned_at,
                }))),
            };
        }
        // SAFETY: complete, by either look; this is the handle, and a second
        // taking panics.
        Poll::Ready(unsafe { TaskRef(self.header).take_output() })
    }
}

/// Puts the waker in place. `false`: the task has completed meanwhile.
fn leave_waker(header: &Header, cx: &Context<'_>) -> bool {
    if header.state.has_join_waker() && !header.state.clear_join_waker() {
        return false;
    }
    let other = header.joiner.with(|joiner| {
        // SAFETY: rule 6 in `task::state`: clear, so the field is the handle's.
        let joiner = unsafe { &*joiner }.as_ref();
        joiner.is_none_or(|joiner| !joiner.will_wake(cx.waker()))
    });
    if other {
        let new = Joiner::new(cx.waker().clone());
        // SAFETY: as above.
        let old = (header.joiner).with_mut(|joiner| unsafe { (*joiner).replace(new) });
        drop(old);
    }
    if header.state.set_join_waker() {
        return true;
    }
    // SAFETY: as above.
    drop((header.joiner).with_mut(|joiner| unsafe { (*joiner).take() }));
    false
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let task = TaskRef(self.header);
        if self.header().state.drop_join() {
            // SAFETY: rule 6 in `task::state`: JOIN_WAKER is clear.
            drop((self.header().joiner).with_mut(|joiner| unsafe { (*joiner).take() }));
        } else {
            // SAFETY: complete, and this is the handle.
            unsafe { task.drop_output() };
        }
        task.release();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinHandle")
            .field(&TaskRef(self.header))
            .finish()
    }
}

/// Aborts a task without awaiting it. Made by [`JoinHandle::abort_handle`].
pub struct AbortHandle {
    header: NonNull<Header>,
}

// SAFETY: it reaches the state word only.
unsafe impl Send for AbortHandle {}
// SAFETY: as above.
unsafe impl Sync for AbortHandle {}

impl AbortHandle {
    /// See [`JoinHandle::abort`].
    pub fn abort(&self) {
        abort(self.header);
    }
}

impl Drop for AbortHandle {
    fn drop(&mut self) {
        TaskRef(self.header).release();
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AbortHandle")
            .field(&TaskRef(self.header))
            .finish()
    }
}

/// Why a task gave no output.
pub struct JoinError {
    /// In a box, because each task has room for a `Result` of it.
    reason: Box<Reason>,
}

pub(crate) enum Reason {
    Aborted,
    Panic(Box<dyn Any + Send>),
    ShutDown,
    PoolFull {
        threads: usize,
        queue: usize,
    },
    Deadlock {
        held_at: &'static Location<'static>,
        spawned_at: &'static Location<'static>,
    },
}

impl JoinError {
    pub(crate) fn new(reason: Reason) -> JoinError {
        JoinError {
            reason: Box::new(reason),
        }
    }

    /// The task was aborted: by a handle, or by the end of its runtime.
    pub fn is_aborted(&self) -> bool {
        matches!(*self.reason, Reason::Aborted)
    }

    /// The task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(*self.reason, Reason::Panic(_))
    }

    /// The task was refused, because its runtime is shutting down; or it was a
    /// closure of the blocking pool that had not begun then.
    pub fn is_shutdown(&self) -> bool {
        matches!(*self.reason, Reason::ShutDown)
    }

    /// The blocking pool had no room for the closure, which was dropped.
    pub fn is_pool_full(&self) -> bool {
        matches!(*self.reason, Reason::PoolFull { .. })
    }

    /// The handle was polled inside a [hold](crate::Color::hold) of the task's
    /// color, which keeps the task from finishing. The task is not lost: the
    /// handle can be awaited when the hold has ended.
    pub fn is_deadlock(&self) -> bool {
        matches!(*self.reason, Reason::Deadlock { .. })
    }

    /// The payload of the panic, for [`std::panic::resume_unwind`].
    ///
    /// # Errors
    ///
    /// Gives the error back if it was no panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match *self.reason {
            Reason::Panic(payload) => Ok(payload),
            reason => Err(JoinError::new(reason)),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.reason {
            Reason::Aborted => f.write_str("the task was aborted"),
            Reason::ShutDown => f.write_str("the runtime was shut down before the task could run"),
            Reason::PoolFull { threads, queue } => write!(
                f,
                "the blocking pool is full: {threads} threads are busy and {queue} closures wait; \
                 raise Builder::blocking_threads or Builder::blocking_queue, or spawn less"
            ),
            Reason::Deadlock {
                held_at,
                spawned_at,
            } => write!(
                f,
                "deadlock: the task spawned at {spawned_at} cannot finish while its color is \
                 held by the hold made at {held_at}, inside which it is awaited"
            ),
            Reason::Panic(payload) => match message(payload.as_ref()) {
                Some(message) => write!(f, "the task panicked: {message}"),
                None => f.write_str("the task panicked"),
            },
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&'static str>().copied())
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

// SAFETY: nothing is reached through `&JoinError` but the message of the
// payload, when that is a string.
unsafe impl Sync for JoinError {}

impl From<JoinError> for std::io::Error {
    fn from(e: JoinError) -> std::io::Error {
        std::io::Error::other(e)
    }
}
