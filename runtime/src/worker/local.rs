//! A worker, and its loop.
//!
//! A turn is: receive what others left, run ready colors within a budget, give
//! the driver its turn (sleeping if nothing is ready here and nothing can be
//! stolen), fire timers. One enter of the kernel a turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::command::Command;
use super::figures::LongPolls;
use super::pace::{self, Pace};
use super::shared::WorkerShared;
use super::sleep::Woken;
use crate::buf::Kept;
use crate::color::{ColorRef, Core, Held};
use crate::driver::Driver;
use crate::op::Flights;
use crate::runtime::{Handle, Placement, Shared};
use crate::sync::atomic::Ordering;
use crate::task::owned::Owned;
use crate::task::{Header, TaskRef};
use crate::time::Timers;

/// A worker: the state that only its own thread touches.
pub(crate) struct Worker {
    pub(super) runtime: Handle,
    pub(super) index: usize,
    /// What others reach of it, at hand.
    here: Arc<WorkerShared>,
    pub(super) driver: RefCell<Box<dyn Driver>>,
    /// Ready colors that only this worker may run.
    pub(super) pinned: RefCell<VecDeque<NonNull<Core>>>,
    /// Whose turn it is: the queue's or the pinned colors'.
    pub(super) pinned_next: Cell<bool>,
    /// The live references of the tasks that it spawned.
    pub(super) owned: RefCell<Owned>,
    /// The first task of the running color that yielded in this turn of it.
    pub(super) yielder: Cell<*const Header>,
    /// Where the colors of tasks that yielded begin in the queue, and how many
    /// pinned ones come before: they run when the driver has had its turn.
    pub(super) queue_end: Cell<Option<usize>>,
    pub(super) pinned_left: Cell<Option<usize>>,
    /// Something was put into the queue that others were not told of.
    pub(super) unoffered: Cell<bool>,
    pub(super) pace: Pace,
    /// Whether this is the scout, how often it has napped, and the progress of
    /// the others when it last fell asleep.
    pub(super) scouting: Cell<bool>,
    pub(super) naps: Cell<u32>,
    pub(super) seen: RefCell<Vec<u64>>,
    pub(super) long_polls: LongPolls,
    /// The color that it runs.
    pub(super) running: Cell<*const Core>,
    /// The task that it polls.
    pub(super) task: Cell<Option<NonNull<Header>>>,
    /// The hold that waits and is to have the color that it runs.
    pub(super) handed: Cell<Option<Arc<Held>>>,
    /// The hold whose block it polls.
    hold: RefCell<Option<Arc<Held>>>,
    /// Whether its thread is in it, perhaps further out than another worker.
    entered: Cell<bool>,
    /// Memory for commands and wakers, kept from turn to turn.
    pub(super) commands: RefCell<Vec<Command>>,
    wakers: RefCell<Vec<Waker>>,
    /// For the operations that begin here.
    pub(crate) flights: Flights,
    /// Where receives go if the driver works by readiness; made when first
    /// asked for.
    pub(super) kept: Kept,
}

thread_local! {
    /// The innermost worker of this thread: a runtime may run inside another.
    static CURRENT: Cell<*const Worker> = const { Cell::new(ptr::null()) };
    /// Its number, for those who want no more.
    static HERE: Cell<u16> = const { Cell::new(NOWHERE) };
}

/// The number of this thread, if it is no worker.
const NOWHERE: u16 = u16::MAX;

/// The number of this thread's worker, of whatever runtime; no worker's, if it
/// has none.
#[inline(always)]
pub(crate) fn here() -> u16 {
    HERE.get()
}

/// Restores the outer worker when the inner one leaves the thread.
pub(crate) struct Entered<'a> {
    worker: &'a Worker,
    outer: *const Worker,
    outer_number: u16,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
        HERE.set(self.outer_number);
        self.worker.entered.set(false);
    }
}

impl Worker {
    /// On the thread that it will have.
    pub(crate) fn new(runtime: Handle, index: usize, driver: Box<dyn Driver>) -> Worker {
        let here = runtime.shared().workers[index].clone();
        let _ = here.unpark.set(driver.unparker());
        if let Some(unknown) = driver.unknown_completions() {
            let _ = here.unknown.set(unknown);
        }
        here.figures.starts();
        let long_polls = LongPolls::new(runtime.shared().reports.long_poll);
        let flights = Flights::new(runtime.workers());
        Worker {
            owned: RefCell::new(Owned::new(index as u16)),
            runtime,
            index,
            here,
            driver: RefCell::new(driver),
            pinned: RefCell::default(),
            pinned_next: Cell::new(false),
            yielder: Cell::new(ptr::null()),
            queue_end: Cell::new(None),
            pinned_left: Cell::new(None),
            unoffered: Cell::new(false),
            pace: Pace::new(),
            scouting: Cell::new(false),
            naps: Cell::new(0),
            seen: RefCell::default(),
            long_polls,
            running: Cell::new(ptr::null()),
            task: Cell::new(None),
            handed: Cell::new(None),
            hold: RefCell::default(),
            entered: Cell::new(false),
            commands: RefCell::default(),
            wakers: RefCell::default(),
            flights,
            kept: Kept::default(),
        }
    }

    /// Makes this the worker of the thread.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.entered.set(true);
        Entered {
            worker: self,
            outer: CURRENT.replace(self),
            outer_number: HERE.replace(self.index as u16),
        }
    }

    /// Whether its thread is at work for it, or in a runtime within.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered.get()
    }

    /// The worker of this thread, if it is one. After thread-locals are gone
    /// it is none.
    #[inline(always)]
    pub(crate) fn with<R>(f: impl FnOnce(Option<&Worker>) -> R) -> R {
        let current = CURRENT.try_with(Cell::get).unwrap_or(ptr::null());
        // SAFETY: `enter` was given a reference, and the `Entered` that ends
        // its reign lives no longer than it: both callers keep them in one
        // scope.
        f(unsafe { current.as_ref() })
    }

    /// The worker of this thread, for calls that make sense on one only.
    #[track_caller]
    pub(crate) fn expect<R>(what: &str, f: impl FnOnce(&Worker) -> R) -> R {
        let current = CURRENT.get();
        assert!(
            !current.is_null(),
            "{what} needs a runtime: call it from a task, or use the method of `Handle`"
        );
        // SAFETY: as for `with`.
        f(unsafe { &*current })
    }

    #[inline]
    pub(crate) fn runs_color(color: NonNull<Core>) -> bool {
        Worker::with(|worker| worker.is_some_and(|w| w.runs(color)))
    }

    #[inline]
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Where a color starts that is made here.
    pub(crate) fn home_of_new(&self) -> usize {
        let shared = self.runtime.shared();
        match shared.scheduling.placement {
            Placement::Here => self.index,
            Placement::RoundRobin => shared.next_worker(),
        }
    }

    #[inline]
    pub(crate) fn is_of(&self, shared: &Shared) -> bool {
        ptr::eq(self.runtime.shared(), shared)
    }

    #[inline]
    pub(super) fn shared(&self) -> &WorkerShared {
        &self.here
    }

    /// The color of the code that runs on this thread: a task, a step, a hold.
    pub(crate) fn color(&self) -> Option<ColorRef> {
        let running = NonNull::new(self.running.get().cast_mut())?;
        // SAFETY: who runs it keeps it alive.
        Some(unsafe { ColorRef::count_up(running) })
    }

    /// The color of what is spawned without a word about it, and its runtime:
    /// not always this one, because steps run where they are asked for.
    pub(crate) fn inherited(&self) -> (&Shared, ColorRef) {
        match NonNull::new(self.running.get().cast_mut()) {
            // SAFETY: who runs it keeps it alive, and is further out on this
            // thread's stack.
            Some(color) => unsafe { (color.as_ref().shared(), ColorRef::count_up(color)) },
            None => {
                let shared = self.runtime.shared();
                (shared, shared.default_color())
            }
        }
    }

    /// Whether this is the home of the color that it runs.
    pub(crate) fn runs_at_home(&self) -> bool {
        let running = NonNull::new(self.running.get().cast_mut());
        running.is_some_and(|color| {
            // SAFETY: who runs it keeps it alive.
            let color = unsafe { color.as_ref() };
            // Steps of another runtime's colors may run here.
            self.is_of(color.shared()) && color.home() == self.index
        })
    }

    /// Makes this the color that the thread runs, and returns the one before.
    #[inline]
    pub(crate) fn run_as(&self, color: *const Core) -> *const Core {
        self.running.replace(color)
    }

    #[inline]
    pub(crate) fn runs(&self, color: NonNull<Core>) -> bool {
        ptr::eq(self.running.get(), color.as_ptr())
    }

    /// The runner's role of the color that it runs goes to this hold, when the
    /// task that says so has been polled.
    pub(crate) fn hand_over(&self, to: Arc<Held>) {
        self.handed.set(Some(to));
    }

    pub(crate) fn hold(&self) -> &RefCell<Option<Arc<Held>>> {
        &self.hold
    }

    /// Takes the live reference of a task that was spawned here.
    pub(crate) fn own(&self, task: TaskRef) {
        self.owned.borrow_mut().add(task);
    }

    /// Wakes the running task, and puts what its color still has to do off
    /// until the driver has had its turn. `false`: no task runs here.
    pub(crate) fn wake_after_driver(waker: &Waker) -> bool {
        waker.wake_by_ref();
        Worker::with(|worker| {
            let Some((worker, task)) = worker.and_then(|w| Some((w, w.task.get()?))) else {
                return false;
            };
            if worker.yielder.get().is_null() {
                worker.yielder.set(task.as_ptr());
            }
            true
        })
    }

    /// Runs until `done`, which is asked after every color.
    pub(crate) fn run(&self, done: impl Fn() -> bool) {
        self.rouse();
        while !done() {
            self.receive();
            if self.run_ready(&done) {
                break;
            }
            self.rest(None, &done);
        }
        // The cancels of what was just given up, for which the close of a
        // connection waits: the thread may stay away for long.
        if self.driver.borrow().is_due() {
            self.park(Some(Duration::ZERO));
        }
        self.leave();
    }

    /// Hands over what the others may run: nobody looks after it here while
    /// the thread is away.
    fn leave(&self) {
        self.shared().set_away();
        self.stop_scouting();
        if self.shared().has_stealable() {
            self.runtime.shared().offer(self.index);
        }
    }

    /// One turn, for a host loop that has the thread in between. Afterwards
    /// the worker counts as asleep: whoever has work for it makes the driver's
    /// descriptor readable.
    pub(crate) fn turn(&self, limit: Option<Duration>) {
        // Tells the driver that someone sleeps outside of `park`.
        let _ = self.driver_fd();
        self.rouse();
        self.receive();
        self.run_ready(&|| false);
        self.rest(limit, &|| false);
        self.leave();
        self.shared().sleep.leave_to_host();
    }

    /// When the next turn is due by itself: now, if something is ready.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.has_work() || self.driver.borrow().is_due() {
            return Some(Instant::now());
        }
        self.shared().timers.next(self.runtime.shared().clock())
    }

    pub(crate) fn driver_fd(&self) -> Option<RawFd> {
        self.driver.borrow().as_fd().map(|fd| fd.as_raw_fd())
    }

    /// Ends the sleep that a host loop's last turn left it in.
    fn rouse(&self) {
        self.shared().pace.store(pace::UNKNOWN, Ordering::Relaxed);
        self.wake_up();
    }

    fn wake_up(&self) {
        let shared = self.runtime.shared();
        let woken = self.shared().sleep.wake_up(&shared.sleepers);
        self.shared().figures.woke(woken);
        if woken == Woken::Summoned {
            self.become_scout();
        } else if self.scouting.get() {
            shared.scout.search();
        }
    }

    /// Gives the driver its turn, asleep if there is nothing to do, and then
    /// the timers.
    fn rest(&self, limit: Option<Duration>, done: &impl Fn() -> bool) {
        let here = self.shared();
        here.figures.keeps(self.owned.borrow().len());
        let steals = self.runtime.shared().steals();
        if self.has_work() || (steals && self.steal()) {
            self.park(Some(Duration::ZERO));
        } else {
            self.sleep(limit, done);
            if steals {
                self.fire_late_timers();
            }
        }
        self.queue_end.set(None);
        self.pinned_left.set(None);
        self.fire(&here.timers);
        here.figures.turned();
    }

    /// Takes over what other threads left here.
    fn receive(&self) {
        let shared = self.shared();
        // SAFETY: this is the owner of the queue.
        let push = |color| unsafe { shared.queue.push(color) };
        shared.inbox.take(|color| {
            self.unoffered.set(true);
            push(color);
        });
        shared
            .pinned
            .take(|color| self.pinned.borrow_mut().push_back(color));
        self.collect();
        self.obey();
    }

    /// Releases the tasks that others completed.
    pub(super) fn collect(&self) {
        self.shared().finished.take(|task| {
            // SAFETY: whoever completed it sent it to its owner.
            unsafe { self.owned.borrow_mut().remove(TaskRef(task)) };
            TaskRef(task).release();
        });
    }

    fn has_work(&self) -> bool {
        let shared = self.shared();
        shared.has_stealable() || self.has_own_work()
    }

    /// Work that nobody else can do.
    fn has_own_work(&self) -> bool {
        let shared = self.shared();
        !self.pinned.borrow().is_empty()
            || !shared.pinned.is_empty()
            || !shared.commands.is_empty()
            || !shared.finished.is_empty()
    }

    /// Sleeps until there is something to do, or for `limit`. Rule 1 in
    /// `worker::sleep`.
    fn sleep(&self, limit: Option<Duration>, done: &impl Fn() -> bool) {
        let shared = self.runtime.shared();
        let here = self.shared();
        here.sleep.prepare(&shared.sleepers);
        let wait = if self.has_work() || done() {
            Some(Duration::ZERO)
        } else {
            let timer = here.timers.until_next(shared.clock());
            let watch = shared.steals().then(|| self.watch()).flatten();
            timer.into_iter().chain(limit).chain(watch).min()
        };
        if wait != Some(Duration::ZERO) {
            self.shared().figures.slept();
        }
        self.park(wait);
        self.wake_up();
    }

    fn park(&self, wait: Option<Duration>) {
        let parked = self.driver.borrow_mut().park(wait);
        if let Err(e) = parked {
            panic!("worker {} cannot wait for I/O: {e}", self.index);
        }
    }

    /// Fires what is due of this worker's timers, or of a stuck one's.
    #[inline]
    pub(super) fn fire(&self, timers: &Timers) {
        if !timers.is_idle() {
            self.fire_due(timers);
        }
    }

    fn fire_due(&self, timers: &Timers) {
        let mut wakers = self.wakers.take();
        timers.fire(self.runtime.shared().clock(), &mut wakers);
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.replace(wakers);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}
