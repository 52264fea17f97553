//! What a named color keeps of itself, and which named colors there are.
//!
//! # Rules
//!
//! 1. The figures, but for `pushed`, are written by whoever has the color: its
//!    runner, or who found it idle and has yet to schedule it, or who took it
//!    off a run queue and has yet to put it into another. That is one at a
//!    time, each after the one before (rules 1 and 2 in `color::ready`), as
//!    `Counter` wants it.
//! 2. Anyone may read them. Each is right by itself; together they may be of a
//!    turn that is half counted.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::counter::Counter;
use crate::stats::{ColorStats, WAITS, Waits};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// How long a color is watched before it is called hot.
const WINDOW: u64 = 1_000_000_000;

/// The share of a core from which on it is: a guess. What is left has to carry
/// everything else of the worker.
const HOT: f64 = 0.7;

/// How long nothing more is said of a color that is hot.
const QUIET: u64 = 10_000_000_000;

/// Times are nanoseconds of the runtime's clock.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) name: Arc<str>,
    pub(crate) made_at: &'static Location<'static>,
    /// Its place among the named colors.
    key: usize,
    /// Tasks made ready, by whoever makes them.
    pushed: AtomicU64,
    polls: Counter,
    turns: Counter,
    running: Counter,
    /// When it became ready, or was put back.
    ready_since: Counter,
    waited: Counter,
    longest_wait: Counter,
    waits: [Counter; WAITS],
    steals: Counter,
    moves: Counter,
    home: Counter,
    /// When the window began, and how long the color had been running.
    window: Counter,
    window_running: Counter,
    /// From when on the color may be called hot.
    quiet_until: Counter,
}

// The documentation of `Color::named` says so.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Figures>() <= 400);

/// A color took most of a core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hot {
    pub(crate) share: f64,
    pub(crate) window: Duration,
}

impl Figures {
    fn new(name: Arc<str>, at: &'static Location<'static>, key: usize, home: usize) -> Figures {
        Figures {
            name,
            made_at: at,
            key,
            pushed: AtomicU64::new(0),
            polls: Counter::default(),
            turns: Counter::default(),
            running: Counter::default(),
            ready_since: Counter::default(),
            waited: Counter::default(),
            longest_wait: Counter::default(),
            waits: std::array::from_fn(|_| Counter::default()),
            steals: Counter::default(),
            moves: Counter::default(),
            home: Counter::new(home as u64),
            window: Counter::default(),
            window_running: Counter::default(),
            quiet_until: Counter::default(),
        }
    }

    /// A task is about to be queued. Before it is, so that no poll is counted
    /// before its push.
    pub(super) fn push(&self) {
        self.pushed.fetch_add(1, Ordering::Relaxed);
    }

    /// The color, idle until now, is about to be scheduled.
    pub(super) fn ready_at(&self, now: u64) {
        self.ready_since.set(now);
    }

    /// A thief has it.
    #[cold]
    pub(super) fn stolen(&self) {
        self.steals.add(1);
    }

    #[cold]
    pub(super) fn moved(&self, home: usize) {
        self.moves.add(1);
        self.home.set(home as u64);
    }

    pub(crate) fn begin_turn(&self, now: u64) {
        let wait = now.saturating_sub(self.ready_since.get());
        self.turns.add(1);
        self.waited.add(wait);
        self.waits[Waits::bucket(wait)].add(1);
        if wait > self.longest_wait.get() {
            self.longest_wait.set(wait);
        }
    }

    /// A task was taken off the queue.
    pub(crate) fn poll(&self) {
        self.polls.add(1);
    }

    /// Before the color is given up. Says so if it was hot.
    pub(crate) fn end_turn(&self, begun: u64, now: u64) -> Option<Hot> {
        let running = self.running.get() + now.saturating_sub(begun);
        self.running.set(running);
        // If it is put back; else whoever schedules it says when.
        self.ready_since.set(now);
        let window = now.saturating_sub(self.window.get());
        if window < WINDOW {
            return None;
        }
        let ran = running - self.window_running.get();
        self.window.set(now);
        self.window_running.set(running);
        let share = ran as f64 / window as f64;
        if share < HOT || now < self.quiet_until.get() {
            return None;
        }
        self.quiet_until.set(now + QUIET);
        Some(Hot {
            // The turn may have begun before the window did.
            share: share.min(1.0),
            window: Duration::from_nanos(window),
        })
    }

    pub(crate) fn stats(&self) -> ColorStats {
        // Polls first: each comes after its push.
        let polls = self.polls.get();
        let pushed = self.pushed.load(Ordering::Relaxed);
        ColorStats {
            name: self.name.clone(),
            made_at: self.made_at,
            home: self.home.get() as usize,
            ready: pushed.saturating_sub(polls),
            polls,
            turns: self.turns.get(),
            running: Duration::from_nanos(self.running.get()),
            waits: Waits {
                counts: std::array::from_fn(|i| self.waits[i].get()),
                total: Duration::from_nanos(self.waited.get()),
                longest: Duration::from_nanos(self.longest_wait.get()),
            },
            steals: self.steals.get(),
            moves: self.moves.get(),
        }
    }
}

/// The named colors that someone holds.
pub(crate) struct Named(Mutex<Slab<Arc<Figures>>>);

impl Named {
    pub(crate) fn new() -> Named {
        Named(Mutex::new(Slab::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Figures>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Figures of a new color.
    pub(super) fn add(
        &self,
        name: Arc<str>,
        at: &'static Location<'static>,
        home: usize,
        now: u64,
    ) -> Arc<Figures> {
        let mut all = self.lock();
        let place = all.vacant_entry();
        let figures = Figures::new(name, at, place.key(), home);
        figures.window.set(now);
        place.insert(Arc::new(figures)).clone()
    }

    /// The color is gone.
    pub(super) fn forget(&self, figures: &Figures) {
        let mut all = self.lock();
        let gone = all.remove(figures.key);
        if all.is_empty() {
            // Leaves nothing behind of what were many.
            *all = Slab::new();
        }
        drop(all);
        drop(gone);
    }

    pub(crate) fn stats(&self) -> Vec<ColorStats> {
        let all: Vec<_> = self.lock().iter().map(|(_, f)| f.clone()).collect();
        all.iter().map(|figures| figures.stats()).collect()
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Named")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Arc<Figures> {
        Named::new().add("x".into(), Location::caller(), 0, 0)
    }

    /// Turns of `run` and pauses of `pause` until `end`; how often it was
    /// called hot.
    fn turns(figures: &Figures, now: &mut u64, run: u64, pause: u64, end: u64) -> Vec<Hot> {
        let mut hot = Vec::new();
        while *now < end {
            figures.begin_turn(*now);
            let begun = *now;
            *now += run;
            hot.extend(figures.end_turn(begun, *now));
            *now += pause;
        }
        hot
    }

    #[test]
    fn hot_is_said_once_and_again_after_a_while() {
        let (figures, mut now) = (figures(), 0);
        let hot = turns(&figures, &mut now, 200_000, 20_000, QUIET);
        assert_eq!(hot.len(), 1, "{hot:?}");
        assert!((0.88..0.93).contains(&hot[0].share), "{hot:?}");
        assert!(hot[0].window >= Duration::from_nanos(WINDOW));
        let hot = turns(&figures, &mut now, 200_000, 20_000, 2 * QUIET);
        assert_eq!(hot.len(), 1, "{hot:?}");
    }

    #[test]
    fn a_color_that_leaves_a_third_is_not_hot() {
        let (figures, mut now) = (figures(), 0);
        let hot = turns(&figures, &mut now, 200_000, 100_000, QUIET);
        assert!(hot.is_empty(), "{hot:?}");
    }

    #[test]
    fn hot_after_a_long_sleep_takes_a_window() {
        let (figures, mut now) = (figures(), 100 * WINDOW);
        assert!(turns(&figures, &mut now, 1_000, 0, 101 * WINDOW - 1_000).is_empty());
        assert_eq!(turns(&figures, &mut now, 1_000, 0, 103 * WINDOW).len(), 1);
    }

    #[test]
    fn what_is_ready_is_what_was_pushed_and_not_polled() {
        let figures = figures();
        (0..5).for_each(|_| figures.push());
        (0..3).for_each(|_| figures.poll());
        assert_eq!(figures.stats().ready, 2);
    }

    #[test]
    fn many_leave_nothing_behind() {
        let named = Named::new();
        let add = |_| named.add("x".into(), Location::caller(), 0, 0);
        let all: Vec<_> = (0..1_000).map(add).collect();
        assert_eq!(named.stats().len(), 1_000);
        all.iter().for_each(|figures| named.forget(figures));
        assert!(named.stats().is_empty());
        assert_eq!(named.lock().capacity(), 0);
    }
}
