//! Running ready colors: which is next, its turn, and what becomes of the tasks
//! that completed in it.

use std::ptr::{self, NonNull};

use super::figures::Probe;
use super::local::Worker;
use super::pace::Slice;
use crate::color::Core;
use crate::runtime::Shared;
use crate::sync::atomic::{AtomicPtr, Ordering, fence};
use crate::task::{Header, Ran, TaskRef};

/// Polls before the driver gets its turn. tokio's figure is 61; this one is from
/// thin air, larger so that one enter of the ring carries more.
const TURN: usize = 128;

/// Polls of one color before the next has its turn.
const COLOR: usize = 32;

/// Completed tasks for which their owner is woken, if it sleeps: a guess at how
/// many may keep their memory meanwhile, so many that the wake is not felt.
const SENT_BACK: u32 = 256;

impl Worker {
    /// Runs ready colors within the budget of a turn. `true`: `done`.
    pub(super) fn run_ready(&self, done: &impl Fn() -> bool) -> bool {
        self.pace.begin_turn();
        let mut left = TURN;
        while left > 0 {
            let Some(color) = self.next() else { break };
            left = left.saturating_sub(self.run_color(color));
            if done() {
                return true;
            }
        }
        false
    }

    /// The next ready color, in turn from the queue and the pinned ones.
    #[inline]
    fn next(&self) -> Option<NonNull<Core>> {
        if self.pinned.borrow().is_empty() {
            return self.pop_queue();
        }
        let pinned_first = self.pinned_next.get();
        self.pinned_next.set(!pinned_first);
        if pinned_first {
            self.pop_pinned().or_else(|| self.pop_queue())
        } else {
            self.pop_queue().or_else(|| self.pop_pinned())
        }
    }

    fn pop_pinned(&self) -> Option<NonNull<Core>> {
        if let Some(left) = self.pinned_left.get() {
            self.pinned_left.set(Some(left.checked_sub(1)?));
        }
        let color = self.pinned.borrow_mut().pop_front()?;
        self.offer_rest();
        Some(color)
    }

    #[inline]
    fn pop_queue(&self) -> Option<NonNull<Core>> {
        let shared = self.shared();
        if self
            .queue_end
            .get()
            .is_some_and(|end| shared.queue.is_past(end))
        {
            return None;
        }
        let color = shared.queue.pop()?;
        self.offer_rest();
        Some(color)
    }

    /// What waits here may have to wait long: nobody knows how long the color
    /// takes that was just popped.
    #[inline]
    fn offer_rest(&self) {
        self.stop_scouting();
        if self.unoffered.get() && self.shared().queue.len() > 0 {
            self.unoffered.set(false);
            self.runtime.shared().offer(self.index);
        }
    }

    /// Puts a ready color into this worker's queue.
    #[inline(always)]
    pub(super) fn enqueue(&self, color: NonNull<Core>, pinned: bool) {
        if pinned {
            self.enqueue_pinned(color);
            return;
        }
        // SAFETY: this is the owner of the queue.
        unsafe { self.shared().queue.push(color) };
        if self.running.get().is_null() {
            self.unoffered.set(true);
        } else {
            // Who knows how long the running color takes.
            self.runtime.shared().offer(self.index);
        }
    }

    #[inline(never)]
    fn enqueue_pinned(&self, color: NonNull<Core>) {
        self.pinned.borrow_mut().push_back(color);
    }

    #[inline(always)]
    fn run_color(&self, color: NonNull<Core>) -> usize {
        // SAFETY: scheduled, so alive: it has a task queued.
        match self.measures(unsafe { color.as_ref() }) {
            false => self.run_tasks(color, ()),
            true => self.run_measured(color),
        }
    }

    /// Runs the ready tasks of a color within its budget. Returns what it took
    /// off the turn's.
    #[inline(always)]
    pub(super) fn run_tasks(&self, color: NonNull<Core>, mut probe: impl Probe) -> usize {
        // SAFETY: scheduled, so alive: it has a task queued, whose reference
        // we give up only after `finish`.
        let core = unsafe { color.as_ref() };
        let shared = self.shared();
        core.runs_on(self.index);
        let outer = self.running.replace(color.as_ptr());
        debug_assert!(outer.is_null(), "a worker runs one color at a time");
        probe.begin(self);
        self.pace.begin_color();
        let mut polls = 0;
        let mut spent = 0;
        let mut done = Done::default();
        let pinned = core.is_pinned();
        let mut handed = None;
        while polls < COLOR {
            let yielder = self.yielder.get();
            // SAFETY: we took the color off its queue: we are the runner.
            if !yielder.is_null() && unsafe { core.ready.is_next(yielder) } {
                break;
            }
            // SAFETY: as above.
            let Some(task) = (unsafe { core.ready.pop() }) else {
                break;
            };
            polls += 1;
            probe.poll(self, task);
            self.task.set(Some(task));
            // SAFETY: as above.
            if unsafe { TaskRef(task).run() } == Ran::Done {
                done.push(task);
            }
            self.task.set(None);
            handed = self.handed.take();
            if handed.is_some() {
                break;
            }
            let measured = |ns| shared.pace.store(ns, Ordering::Relaxed);
            match self.pace.tick(measured) {
                Slice::Goes => {}
                Slice::ColorIsOver => break,
                Slice::TurnIsOver => {
                    spent = TURN;
                    break;
                }
            }
        }
        let found = probe.end(self, polls);
        // SAFETY: we are the runner; `core` is not touched after `true`.
        let kept = !handed.is_some_and(|hold| unsafe { hold.grant() });
        self.running.set(ptr::null());
        let yielded = !self.yielder.replace(ptr::null()).is_null();
        // SAFETY: if the role is still ours, as above.
        if kept && !unsafe { core.ready.finish() } {
            if yielded {
                self.put_off(pinned);
            }
            self.enqueue(color, pinned);
        }
        done.drain(|task| self.release(task));
        if let Some(found) = found {
            self.tell(&found);
        }
        spent.max(polls)
    }

    /// What is queued from now on waits for the driver's turn.
    fn put_off(&self, pinned: bool) {
        if pinned && self.pinned_left.get().is_none() {
            self.pinned_left.set(Some(self.pinned.borrow().len()));
        } else if !pinned && self.queue_end.get().is_none() {
            self.queue_end.set(Some(self.shared().queue.end()));
        }
    }

    /// Gives the live reference of a completed task up.
    #[inline(always)]
    fn release(&self, task: TaskRef) {
        let owner = task.header().owner.get();
        if owner == self.index as u16 {
            // SAFETY: it is in our list.
            unsafe { self.owned.borrow_mut().remove(task) };
            task.release();
        } else {
            self.runtime.shared().send_finished(owner, task);
        }
    }
}

impl Shared {
    /// Sends a completed task to whoever has it in a list.
    fn send_finished(&self, owner: u16, task: TaskRef) {
        match self.workers.get(owner as usize) {
            Some(worker) => {
                // SAFETY: the live reference keeps it alive, and it is in no
                // ready queue any more.
                unsafe { worker.finished.push(task.0) };
                // Relaxed: it only counts.
                let sent = worker.sent_back.fetch_add(1, Ordering::Relaxed);
                // An owner that runs looks by itself, sooner or later; one that
                // waits for its last tasks has to be told, and one that sleeps,
                // when there is memory to give back. The fence: if this
                // look at `closing` is too early, the owner, which saw it set
                // before the fence of its `Sleep::prepare`, sees the task.
                fence(Ordering::SeqCst);
                if sent % SENT_BACK == SENT_BACK - 1 || self.is_closing() {
                    self.notify(owner as usize);
                }
            }
            None => {
                // SAFETY: spawned by no worker, so it is in this list.
                unsafe { self.foreign().list.remove(task) };
                task.release();
                // Worker 0 waits for the last of them.
                if self.is_closing() {
                    self.notify(0);
                }
            }
        }
    }
}

/// Completed tasks of one turn of a color, chained through their links. They
/// keep the color alive until the turn has ended.
struct Done {
    first: *mut Header,
}

impl Default for Done {
    fn default() -> Done {
        Done {
            first: ptr::null_mut(),
        }
    }
}

impl Done {
    fn push(&mut self, task: NonNull<Header>) {
        link(task).store(self.first, Ordering::Relaxed);
        self.first = task.as_ptr();
    }

    fn drain(self, mut each: impl FnMut(TaskRef)) {
        let mut next = self.first;
        while let Some(task) = NonNull::new(next) {
            next = link(task).load(Ordering::Relaxed);
            each(TaskRef(task));
        }
    }
}

/// The link of a completed task, which is in no queue any more.
fn link<'a>(task: NonNull<Header>) -> &'a AtomicPtr<Header> {
    use crate::color::Linked;
    // SAFETY: its live reference is ours.
    unsafe { task.as_ref() }.link()
}
