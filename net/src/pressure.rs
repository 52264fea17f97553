//! A listener that cannot accept because no descriptor or no memory is left.
//!
//! It does not spin: it *rests*, longer each time, and tries again. Whoever
//! asks to accept meanwhile rests too. The longest rest is how long a free
//! descriptor may wait for a connection.
//!
//! # Why a reserve, and when
//!
//! What is not accepted waits in the kernel's queue: for a short shortage that
//! is the best place, and nobody notices. In a long one the clients there
//! believe to be connected, and wait for an answer that does not come. So after
//! [`PATIENCE`] those that have waited longest are *shed*: the listener closes
//! a descriptor that it keeps in reserve, accepts one with that, resets it, and
//! takes the reserve back. The client learns that it is not served, and can go
//! elsewhere. A few at a time, so that this costs next to nothing: the rest
//! stay in the queue, where the kernel refuses more than the backlog.
//!
//! ```text
//!   accept says no: rest --> accept says no ... PATIENCE is over:
//!     lend the reserve --> accepted: can the reserve be had again already?
//!       yes: the shortage is over, and the connection is kept
//!       no: reset it, and take the reserve back
//! ```
//!
//! So nobody is shed when there is a descriptor for them. The reserve lies
//! with the listener, not with the process: descriptors taken meanwhile by
//! others cost one listener its reserve, until it accepts again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use isochrome_runtime::Report;
use isochrome_runtime::eventfd::EventFd;

/// The first rest and the longest. A descriptor that becomes free is used
/// within 100 ms, with what the timer and the worker need on top of this.
const REST: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// How long a shortage lasts before connections are shed. From thin air: long
/// for a burst, short for who waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How many are shed from one rest to the next: at most 100 a second, which at
/// 30 us each (measured, with all that the shortage costs) is 0.3% of a core.
const SHARE: u32 = 5;

/// The least time between two reports of a shortage.
const SILENCE: Duration = Duration::from_secs(10);

/// Whose trouble an error of accept is.
pub(crate) enum Trouble {
    /// The connection's: the next may be fine. accept(2) passes errors of the
    /// new socket on, and names these. (EOPNOTSUPP too, but on Linux that is
    /// what sockets answer that cannot listen.)
    Connection,
    /// The system's: it will pass.
    Resources,
    Listener,
}

impl Trouble {
    pub(crate) fn of(e: &io::Error) -> Trouble {
        match e.raw_os_error() {
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => Trouble::Connection,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Trouble::Resources,
            _ => Trouble::Listener,
        }
    }
}

/// What is to be done with an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Accepted {
    Keep,
    /// Reset it, and call [`Pressure::closed`].
    Shed,
}

/// What a listener knows of its shortages.
#[derive(Debug)]
pub(crate) struct Pressure {
    refusals: AtomicU64,
    shed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reserve: Option<EventFd>,
    /// The reserve was closed, for the next connection to have a descriptor.
    lent: bool,
    told: Option<Instant>,
    shortage: Option<Shortage>,
}

/// From the first refusal to the next connection that is kept.
#[derive(Debug)]
struct Shortage {
    since: Instant,
    rest: Duration,
    until: Instant,
    shed: u64,
    /// Since the last rest.
    share: u32,
    told: bool,
}

impl Pressure {
    pub(crate) fn new() -> Pressure {
        Pressure {
            refusals: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            state: Mutex::new(State {
                // Without, nobody is shed.
                reserve: EventFd::new().ok(),
                lent: false,
                told: None,
                shortage: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How often the system refused to accept.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// How many connections were shed.
    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Until when accepting rests.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        let until = self.state().shortage.as_ref()?.until;
        (until > Instant::now()).then_some(until)
    }

    /// Accepting was refused: rests, or lends the reserve. Says what is to be
    /// reported, of the listener with this name.
    #[cold]
    pub(crate) fn refused(&self, error: &io::Error, name: impl Fn() -> Arc<str>) -> Option<Report> {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let errno = error.raw_os_error().unwrap_or_default();
        let now = Instant::now();
        let mut state = self.state();
        let state = &mut *state;
        // Somebody else took what the reserve left.
        state.lent = false;
        let shortage = state.shortage.get_or_insert(Shortage {
            since: now,
            rest: REST.0,
            until: now,
            shed: 0,
            share: 0,
            told: false,
        });
        let lasts = now - shortage.since;
        let helps = matches!(errno, libc::EMFILE | libc::ENFILE);
        if helps && lasts >= PATIENCE && shortage.share < SHARE && state.reserve.take().is_some() {
            state.lent = true;
            shortage.share += 1;
        } else {
            shortage.until = now + shortage.rest;
            shortage.rest = (shortage.rest * 2).min(REST.1);
            shortage.share = 0;
        }
        if state.told.is_some_and(|told| now - told < SILENCE) {
            return None;
        }
        state.told = Some(now);
        shortage.told = true;
        Some(Report::accept_stalled(name(), errno, lasts, shortage.shed))
    }

    /// A connection was accepted. Says what is to be done with it, and what is
    /// to be reported.
    pub(crate) fn accepted(&self, name: impl Fn() -> Arc<str>) -> (Accepted, Option<Report>) {
        let mut state = self.state();
        if state.reserve.is_none() {
            state.reserve = EventFd::new().ok();
            if state.lent && state.reserve.is_none() {
                return (Accepted::Shed, None);
            }
            state.lent = false;
        }
        let over = state.shortage.take().filter(|shortage| shortage.told);
        drop(state);
        let report = over.map(|shortage| {
            let after = shortage.since.elapsed();
            Report::accept_resumed(name(), after, shortage.shed)
        });
        (Accepted::Keep, report)
    }

    /// A connection was shed, and its descriptor is free.
    #[cold]
    pub(crate) fn closed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        state.lent = false;
        state.reserve = EventFd::new().ok();
        if let Some(shortage) = &mut state.shortage {
            shortage.shed += 1;
        }
    }
}
