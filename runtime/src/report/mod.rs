//! What a runtime says by itself: [`Report`].

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tracing")]
mod events;
#[cfg(not(feature = "tracing"))]
#[path = "no_events.rs"]
mod events;

/// Something that the runtime noticed, and that whoever runs the program may
/// want to know: [`Builder::on_report`]. It displays as a sentence.
///
/// [`Builder::on_report`]: crate::Builder::on_report
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Report {
    /// A named color took most of a core: 70% or more of a window of a second.
    /// No scheduler can run it on more than one; what could have another color
    /// should. Said of a color at most once in ten seconds.
    #[non_exhaustive]
    HotColor {
        /// The color's name.
        name: Arc<str>,
        /// Where the color was made.
        made_at: &'static Location<'static>,
        /// The part of the window in which it ran, at most 1.
        share: f64,
        /// How long the window was: a second, or until the end of a turn that
        /// took longer.
        window: Duration,
        /// The worker that ran it last.
        worker: usize,
    },
    /// A poll took longer than [`Builder::long_poll`] allows. All else that is
    /// ready on the worker had to wait for it, or to be stolen.
    ///
    /// Of one turn of a color the longest poll is reported, and of a worker at
    /// most ten in a second.
    ///
    /// [`Builder::long_poll`]: crate::Builder::long_poll
    #[non_exhaustive]
    LongPoll {
        /// Where the task was spawned; for the future of `block_on`, where that
        /// was called.
        spawned_at: &'static Location<'static>,
        /// The name of its color, if it has one.
        color: Option<Arc<str>>,
        /// How long it took, by the clock: if the system took the processor
        /// away meanwhile, that is in it.
        took: Duration,
        /// The worker it ran on.
        worker: usize,
        /// Long polls of this worker that were not reported since the last
        /// that was.
        unreported: u64,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::HotColor {
                name,
                made_at,
                share,
                window,
                worker,
            } => write!(
                f,
                "the color {name:?} (made at {made_at}) took {:.0}% of a core for {window:.1?}, \
                 last on worker {worker}: its tasks cannot run in parallel",
                share * 100.0
            ),
            Report::LongPoll {
                spawned_at,
                color,
                took,
                worker,
                unreported,
            } => {
                write!(f, "a poll of the task spawned at {spawned_at}")?;
                if let Some(color) = color {
                    write!(f, " in the color {color:?}")?;
                }
                write!(f, " took {took:.1?} on worker {worker}")?;
                match unreported {
                    0 => Ok(()),
                    n => write!(f, "; {n} more were not reported"),
                }
            }
        }
    }
}

type Callback = dyn Fn(&Report) + Send + Sync;

/// Who is told, and of which polls.
#[derive(Clone, Default)]
pub(crate) struct Reports {
    pub(crate) callback: Option<Arc<Callback>>,
    /// Polls that take longer are reported. Without, no poll is timed.
    pub(crate) long_poll: Option<Duration>,
}

impl Reports {
    /// Tells everyone. A panic goes no further: its message was printed by the
    /// panic hook, and the next report is made as if nothing had been.
    pub(crate) fn tell(&self, report: &Report) {
        let told = catch_unwind(AssertUnwindSafe(|| {
            events::emit(report);
            if let Some(callback) = &self.callback {
                callback(report);
            }
        }));
        if let Err(payload) = told {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            // Someone means it; this one is leaked.
            dropped.unwrap_or_else(std::mem::forget);
        }
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports")
            .field("callback", &self.callback.is_some())
            .field("long_poll", &self.long_poll)
            .finish()
    }
}
