//! What a runtime says by itself: [`Report`].

use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::contain::contain;

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
    /// A listener cannot accept because no descriptor or no memory is left: it
    /// rests and tries again. Said of a listener when that begins, and at most
    /// once in ten seconds.
    #[non_exhaustive]
    AcceptStalled {
        /// The address that it listens on.
        listener: Arc<str>,
        /// What the system answered: EMFILE is a limit of this process, ENFILE
        /// one of the system, ENOBUFS and ENOMEM are about memory.
        errno: i32,
        /// How long ago the last connection could be accepted, or tried to.
        since: Duration,
        /// Connections that were closed since then, unserved, so that who made
        /// them learns of it.
        shed: u64,
    },
    /// A listener that was reported to be stalled accepts again.
    #[non_exhaustive]
    AcceptResumed {
        /// The address that it listens on.
        listener: Arc<str>,
        /// How long it could not accept.
        after: Duration,
        /// Connections that were closed meanwhile, unserved.
        shed: u64,
    },
}

/// For those who notice and are not of this crate.
impl Report {
    /// Makes a [`Report::AcceptStalled`].
    pub fn accept_stalled(listener: Arc<str>, errno: i32, since: Duration, shed: u64) -> Report {
        Report::AcceptStalled {
            listener,
            errno,
            since,
            shed,
        }
    }

    /// Makes a [`Report::AcceptResumed`].
    pub fn accept_resumed(listener: Arc<str>, after: Duration, shed: u64) -> Report {
        Report::AcceptResumed {
            listener,
            after,
            shed,
        }
    }
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
            Report::AcceptStalled {
                listener,
                errno,
                since,
                shed,
            } => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "the listener on {listener} cannot accept: {error}")?;
                write!(f, ", for {since:.1?}; {shed} connections were closed")
            }
            Report::AcceptResumed {
                listener,
                after,
                shed,
            } => write!(
                f,
                "the listener on {listener} accepts again after {after:.1?}; \
                 {shed} connections were closed meanwhile"
            ),
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
    /// Tells everyone. A panic goes no further.
    pub(crate) fn tell(&self, report: &Report) {
        contain(|| {
            events::emit(report);
            if let Some(callback) = &self.callback {
                callback(report);
            }
        });
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
