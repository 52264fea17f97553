//! The timers of one worker, as everyone reaches them.

use std::fmt;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::wheel::{Key, Wheel};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The runtime's clock: ticks of a millisecond since it was made.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Nanoseconds since it began.
    pub(crate) fn nanos(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The last tick that has begun.
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The first tick at which `instant` has passed.
    pub(crate) fn tick_after(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start);
        since
            .as_nanos()
            .div_ceil(1_000_000)
            .min(u128::from(u64::MAX)) as u64
    }

    fn until(&self, tick: u64) -> Duration {
        Duration::from_millis(tick).saturating_sub(self.start.elapsed())
    }
}

/// A wheel behind a lock: it is mostly the worker's own tasks that start and
/// remove timers, so the lock is not contended unless a color was stolen.
pub(crate) struct Timers {
    wheel: Mutex<Wheel>,
    /// The tick at which the wheel has something to do, to be read without
    /// the lock. `u64::MAX`: never.
    next: AtomicU64,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            wheel: Mutex::new(Wheel::new()),
            next: AtomicU64::new(u64::MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wheel> {
        self.wheel.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Starts a timer. Another thread than the worker's has to tell it
    /// afterwards, in case it sleeps.
    pub(crate) fn start(&self, tick: u64, waker: Waker) -> Key {
        let mut wheel = self.lock();
        let key = wheel.start(tick, waker);
        self.publish(&wheel);
        key
    }

    fn publish(&self, wheel: &Wheel) {
        let next = wheel.next().unwrap_or(u64::MAX);
        // Relaxed: the fences in `worker::sleep` order it against the worker's
        // look, if it is another thread that starts the timer.
        self.next.store(next, Ordering::Relaxed);
    }

    /// Gives a timer another waker. `false`: it has fired.
    pub(crate) fn set_waker(&self, key: Key, waker: &Waker) -> bool {
        let mut wheel = self.lock();
        let Some(place) = wheel.waker(key) else {
            return false;
        };
        if place.will_wake(waker) {
            return true;
        }
        drop(wheel);
        // Unlocked: to clone a foreign one may run any code. It may have fired
        // meanwhile.
        let mut waker = waker.clone();
        let mut wheel = self.lock();
        let place = wheel.waker(key);
        let waits = place.is_some();
        if let Some(place) = place {
            std::mem::swap(place, &mut waker);
        }
        drop(wheel);
        drop(waker);
        waits
    }

    pub(crate) fn remove(&self, key: Key) {
        // `next` may stay early: that costs the worker one turn, where taking
        // it back would cost every cancelled timeout a look at all levels.
        let removed = self.lock().remove(key);
        drop(removed);
    }

    /// How long until there is something to do.
    pub(crate) fn until_next(&self, clock: &Clock) -> Option<Duration> {
        match self.next.load(Ordering::Relaxed) {
            u64::MAX => None,
            tick => Some(clock.until(tick)),
        }
    }

    /// As `until_next`, as a point in time.
    pub(crate) fn next(&self, clock: &Clock) -> Option<Instant> {
        let next = self.next.load(Ordering::Relaxed);
        (next != u64::MAX).then(|| clock.start + Duration::from_millis(next))
    }

    /// Whether nothing will be due, as it is now.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.next.load(Ordering::Relaxed) == u64::MAX
    }

    /// Whether the next is due, and has been for so long.
    pub(crate) fn is_late(&self, clock: &Clock, by: Duration) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        next != u64::MAX && clock.start.elapsed() >= Duration::from_millis(next) + by
    }

    /// Hands over the wakers of what is due.
    pub(crate) fn fire(&self, clock: &Clock, fired: &mut Vec<Waker>) {
        let now = clock.now();
        if self.next.load(Ordering::Relaxed) > now {
            return;
        }
        let mut wheel = self.lock();
        wheel.advance(now, fired);
        self.publish(&wheel);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Ends everything: the worker has ended. Who still waits is woken, to
    /// start again on the runtime that it has moved to.
    pub(crate) fn clear(&self) {
        let mut wheel = self.lock();
        let wakers = wheel.clear();
        self.publish(&wheel);
        drop(wheel);
        wakers.for_each(Waker::wake);
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
