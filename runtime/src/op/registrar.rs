//! Which worker's driver tells of a descriptor's edges, and what it calls the
//! descriptor: a pure state in two words.
//!
//! ```text
//!             get_or                set                begin_move
//!   nowhere ----------> asked for -------> registered ------------> moving
//!                                             ^  ^       stays        |  |
//!                                             |  +--------------------+  |
//!                                             +-------- moves_to --------+
//! ```
//!
//! # Rules
//!
//! 1. The first worker to ask has the descriptor, and names it: a token, which
//!    means something to that worker's driver only.
//! 2. While it moves it is still where it was. One worker at a time gets ready
//!    to take it over: if two tries met in one epoll set, the end of the first
//!    would take out what the second relies on.
//! 3. Who has it gives it away, and nobody else takes it. The new token is
//!    written before the new worker (Release). So who finds itself there
//!    (Acquire) finds its own token and not its predecessor's, under which its
//!    driver knows nothing, or another descriptor.

use crate::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// The worker, and whether another gets ready to take over.
pub(crate) struct Registrar(AtomicU16);

/// What that worker's driver calls the descriptor.
pub(crate) struct Token(AtomicU64);

/// Set beside the worker.
const MOVING: u16 = 1 << 15;

/// No worker has a higher number.
pub(crate) const LAST_WORKER: u16 = MOVING - 2;

const NOWHERE: u16 = u16::MAX;
const NO_TOKEN: u64 = u64::MAX;

impl Registrar {
    pub(crate) fn new() -> Registrar {
        Registrar(AtomicU16::new(NOWHERE))
    }

    /// The worker; `or`, from now on, if there was none.
    #[inline]
    pub(crate) fn get_or(&self, or: usize) -> usize {
        // Acquire: rule 3.
        let mut now = self.0.load(Ordering::Acquire);
        if now == NOWHERE {
            let mine = or as u16;
            // There was no token before, so this publishes nothing.
            let won = self.0.compare_exchange(
                NOWHERE,
                mine,
                Ordering::Relaxed,
                // Acquire: by now it may have moved.
                Ordering::Acquire,
            );
            now = won.map_or_else(|first| first, |_| mine);
        }
        usize::from(now & !MOVING)
    }

    /// Another worker gets ready to take over from this one. `false`: it is
    /// somewhere else by now, or a move has begun (rule 2).
    #[must_use]
    pub(crate) fn begin_move(&self, from: usize) -> bool {
        let from = from as u16;
        // Relaxed: an earlier try of this same worker ended on its own thread.
        let begun =
            (self.0).compare_exchange(from, from | MOVING, Ordering::Relaxed, Ordering::Relaxed);
        begun.is_ok()
    }

    /// The move came to nothing, and what was got ready for it is gone.
    pub(crate) fn stays(&self) {
        self.0.fetch_and(!MOVING, Ordering::Relaxed);
    }

    /// Called by the worker that has it. It must not touch the token after.
    pub(crate) fn moves_to(&self, worker: usize, token: &Token, name: u64) {
        token.set(name);
        self.0.store(worker as u16, Ordering::Release);
    }
}

impl Token {
    pub(crate) fn new() -> Token {
        Token(AtomicU64::new(NO_TOKEN))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<u64> {
        // Acquire, `set`: the drop of the descriptor, on another thread, must
        // see the token.
        let token = self.0.load(Ordering::Acquire);
        (token != NO_TOKEN).then_some(token)
    }

    pub(crate) fn set(&self, token: u64) {
        debug_assert_ne!(token, NO_TOKEN);
        self.0.store(token, Ordering::Release);
    }
}
