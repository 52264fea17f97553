//! What a worker counts, and what it measures of the turns of colors.
//!
//! Counting is always on. A clock is read only for named colors, when one is
//! scheduled and twice a turn, and for `Builder::long_poll`, once before a turn
//! and after each poll of it: two reads for a poll that is alone in its turn.
//! A turn of another color costs a look at whether it is to be measured.

use std::cell::Cell;
use std::panic::Location;
use std::ptr::NonNull;
use std::time::Duration;

use super::local::Worker;
use super::shared::WorkerShared;
use super::sleep::Woken;
use crate::color::{Core, Figures as ColorFigures, Hot};
use crate::counter::Counter;
use crate::report::Report;
use crate::runtime::Shared;
use crate::stats::{Stats, WorkerStats};
use crate::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use crate::task::{Header, TaskRef};

/// Counts of one worker, written by it alone but for what others take from it.
/// On cache lines of their own: the queues beside them are everyone's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Figures {
    turns: Counter,
    /// The parts are counted, and the wholes added up by who reads them: the
    /// difference of a whole and a part would go back at times.
    unnamed_polls: Counter,
    named_polls: Counter,
    unnamed_color_turns: Counter,
    named_color_turns: Counter,
    steals: Counter,
    stolen: Counter,
    parks: Counter,
    wakes: Counter,
    long_polls: Counter,
    tasks: Counter,
    /// What its thread uses of a processor; zero, which is no such clock, when
    /// it is not there.
    cpu_clock: AtomicI32,
    /// Added to by thieves, once a steal.
    lost: AtomicU64,
}

impl Figures {
    /// On the worker's thread, before it begins to work.
    pub(super) fn starts(&self) {
        let mut clock = 0;
        // SAFETY: the clock's name is written to during the call.
        let answer = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        if answer == 0 {
            self.cpu_clock.store(clock, Ordering::Relaxed);
        }
    }

    /// Its thread may end.
    pub(super) fn ends(&self) {
        self.cpu_clock.store(0, Ordering::Relaxed);
    }

    /// Colors begun.
    pub(super) fn progress(&self) -> u64 {
        self.unnamed_color_turns.get() + self.named_color_turns.get()
    }

    pub(super) fn slept(&self) {
        self.parks.add(1);
    }

    pub(super) fn woke(&self, woken: Woken) {
        if woken != Woken::Alone {
            self.wakes.add(1);
        }
    }

    /// Before a sleep, which may be long.
    #[inline]
    pub(super) fn keeps(&self, tasks: usize) {
        self.tasks.set(tasks as u64);
    }

    #[inline]
    pub(super) fn turned(&self) {
        self.turns.add(1);
    }

    /// This worker took so many colors from that one.
    pub(super) fn stole(&self, from: &Figures, colors: usize) {
        self.steals.add(1);
        self.stolen.add(colors as u64);
        from.lost.fetch_add(colors as u64, Ordering::Relaxed);
    }

    fn cpu_time(&self) -> Option<Duration> {
        let clock = self.cpu_clock.load(Ordering::Relaxed);
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the time is written to during the call. A name whose thread
        // is gone gives an error.
        if clock == 0 || unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
            return None;
        }
        Some(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

impl WorkerShared {
    fn stats(&self) -> WorkerStats {
        let figures = &self.figures;
        let unnamed_polls = figures.unnamed_polls.get();
        let unnamed_color_turns = figures.unnamed_color_turns.get();
        WorkerStats {
            polls: unnamed_polls + figures.named_polls.get(),
            unnamed_polls,
            color_turns: unnamed_color_turns + figures.named_color_turns.get(),
            unnamed_color_turns,
            turns: figures.turns.get(),
            steals: figures.steals.get(),
            colors_stolen: figures.stolen.get(),
            colors_lost: figures.lost.load(Ordering::Relaxed),
            parks: figures.parks.get(),
            wakes: figures.wakes.get(),
            long_polls: figures.long_polls.get(),
            unknown_completions: self
                .unknown
                .get()
                .map_or(0, |count| count.load(Ordering::Relaxed)),
            cpu_time: figures.cpu_time(),
            ready_colors: self.queue.len(),
            tasks: figures.tasks.get() as usize,
            timers: self.timers.len(),
        }
    }
}

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            workers: self.workers.iter().map(|worker| worker.stats()).collect(),
            colors: self.named.stats(),
            foreign_tasks: self.foreign().list.len(),
        }
    }
}

/// Reports of long polls in one second of one worker.
const REPORTS: u32 = 10;
const SECOND: u64 = 1_000_000_000;

/// How long polls may take, and how many were reported that took longer.
#[derive(Debug)]
pub(super) struct LongPolls {
    /// Nanoseconds; `u64::MAX`: polls are not timed.
    limit: u64,
    /// When the second began, and how many were reported in it.
    second: Cell<u64>,
    reported: Cell<u32>,
    unreported: Cell<u64>,
}

/// The measuring of one turn of a color.
#[derive(Debug)]
pub(super) struct Measure<'a> {
    color: Option<&'a ColorFigures>,
    limit: u64,
    begun: u64,
    /// When the last poll began, and whose it is.
    poll: u64,
    task: Option<&'static Location<'static>>,
    long_polls: u64,
    longest: u64,
    longest_task: Option<&'static Location<'static>>,
}

impl LongPolls {
    pub(super) fn new(limit: Option<Duration>) -> LongPolls {
        let nanos = |limit: Duration| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        LongPolls {
            limit: limit.map_or(u64::MAX, nanos),
            second: Cell::new(0),
            reported: Cell::new(0),
            unreported: Cell::new(0),
        }
    }

    /// Whether a report may be made now.
    fn may_report(&self, now: u64) -> bool {
        if now.saturating_sub(self.second.get()) >= SECOND {
            self.second.set(now);
            self.reported.set(0);
        }
        self.reported.set(self.reported.get().saturating_add(1));
        self.reported.get() <= REPORTS
    }
}

/// Looks at a turn of a color. `()` does not.
pub(super) trait Probe {
    /// When the turn begins.
    fn begin(&self, worker: &Worker);

    /// Before each poll.
    fn poll(&mut self, worker: &Worker, task: NonNull<Header>);

    /// Before the color is given up.
    fn end(self, worker: &Worker, polls: usize) -> Option<Box<Found>>;
}

impl Probe for () {
    #[inline(always)]
    fn begin(&self, worker: &Worker) {
        worker.shared().figures.unnamed_color_turns.add(1);
    }

    #[inline(always)]
    fn poll(&mut self, _: &Worker, _: NonNull<Header>) {}

    #[inline(always)]
    fn end(self, worker: &Worker, polls: usize) -> Option<Box<Found>> {
        worker.shared().figures.unnamed_polls.add(polls as u64);
        None
    }
}

impl Probe for Measure<'_> {
    fn begin(&self, worker: &Worker) {
        let figures = &worker.shared().figures;
        match self.color {
            Some(_) => figures.named_color_turns.add(1),
            None => figures.unnamed_color_turns.add(1),
        }
    }

    fn poll(&mut self, worker: &Worker, task: NonNull<Header>) {
        if self.limit != u64::MAX {
            self.end_poll(|| worker.clock_nanos());
            self.task = Some(TaskRef(task).header().spawned_at);
        }
        if let Some(color) = self.color {
            color.poll();
        }
    }

    fn end(mut self, worker: &Worker, polls: usize) -> Option<Box<Found>> {
        let now = worker.clock_nanos();
        self.end_poll(|| now);
        let figures = &worker.shared().figures;
        let hot = match self.color {
            None => {
                figures.unnamed_polls.add(polls as u64);
                None
            }
            Some(color) => {
                figures.named_polls.add(polls as u64);
                let hot = color.end_turn(self.begun, now);
                hot.map(|hot| worker.hot(hot, color))
            }
        };
        if hot.is_none() && self.long_polls == 0 {
            return None;
        }
        figures.long_polls.add(self.long_polls);
        let long_poll = worker.long_poll(&self, now);
        Some(Box::new(Found { hot, long_poll }))
    }
}

impl Measure<'_> {
    /// The poll before, if there was one, has ended.
    fn end_poll(&mut self, now: impl FnOnce() -> u64) {
        let Some(task) = self.task.take() else {
            return;
        };
        let now = now();
        let took = now.saturating_sub(self.poll);
        self.poll = now;
        if took > self.limit {
            self.long_polls += 1;
            if took > self.longest {
                self.longest = took;
                self.longest_task = Some(task);
            }
        }
    }
}

/// What came out of a measured turn, to be told when the color was given up.
#[derive(Debug)]
pub(super) struct Found {
    hot: Option<Report>,
    long_poll: Option<Report>,
}

impl Worker {
    fn clock_nanos(&self) -> u64 {
        self.runtime().shared().clock().nanos()
    }

    /// Whether anybody wants a turn of this color measured.
    #[inline]
    pub(super) fn measures(&self, color: &Core) -> bool {
        self.long_polls.limit != u64::MAX || color.figures().is_some()
    }

    /// `run_tasks`, measured: apart, so that what is not measured pays nothing
    /// for it.
    #[cold]
    #[inline(never)]
    pub(super) fn run_measured(&self, color: NonNull<Core>) -> usize {
        // SAFETY: scheduled, so alive, until the turn has ended.
        let measure = self.measure(unsafe { color.as_ref() }.figures());
        self.run_tasks(color, measure)
    }

    fn measure<'a>(&self, color: Option<&'a ColorFigures>) -> Measure<'a> {
        let now = self.clock_nanos();
        if let Some(color) = color {
            color.begin_turn(now);
        }
        Measure {
            color,
            limit: self.long_polls.limit,
            begun: now,
            poll: now,
            task: None,
            long_polls: 0,
            longest: 0,
            longest_task: None,
        }
    }

    fn hot(&self, hot: Hot, color: &ColorFigures) -> Report {
        Report::HotColor {
            name: color.name.clone(),
            made_at: color.made_at,
            share: hot.share,
            window: hot.window,
            worker: self.index,
        }
    }

    fn long_poll(&self, measure: &Measure<'_>, now: u64) -> Option<Report> {
        let spawned_at = measure.longest_task?;
        let unreported = self.long_polls.unreported.get() + measure.long_polls;
        let may = self.long_polls.may_report(now);
        self.long_polls
            .unreported
            .set(if may { 0 } else { unreported });
        may.then(|| Report::LongPoll {
            spawned_at,
            color: measure.color.map(|color| color.name.clone()),
            took: Duration::from_nanos(measure.longest),
            worker: self.index,
            unreported: unreported - 1,
        })
    }

    /// Runs what the user gave for reports: outside of every color, with
    /// nothing borrowed or locked.
    #[cold]
    pub(super) fn tell(&self, found: &Found) {
        let reports = &self.runtime().shared().reports;
        [&found.hot, &found.long_poll]
            .into_iter()
            .flatten()
            .for_each(|report| reports.tell(report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_ten_reports_a_second() {
        let long_polls = LongPolls::new(Some(Duration::ZERO));
        let count = |from: u64| {
            let times = (0..1_000).map(|n| from + n * SECOND / 1_000);
            times.filter(|now| long_polls.may_report(*now)).count()
        };
        assert_eq!(count(5 * SECOND), REPORTS as usize);
        assert_eq!(count(6 * SECOND), REPORTS as usize);
    }
}
