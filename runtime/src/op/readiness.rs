//! What is known of one direction of a descriptor: a pure state.
//!
//! ```text
//!      blocked, or short where that proves something
//!   ready -------------------------------------------> not ready
//!     ^                                                    |
//!     +---------------------- event -----------------------+
//! ```
//!
//! # Rules
//!
//! 1. Ready means "try": the system call decides. Not ready means that an
//!    edge is sure to come, so that trying would be wasted.
//! 2. EAGAIN makes a direction not ready. So does a transfer shorter than was
//!    asked for, on a TCP socket and while the end is not in sight: the
//!    kernel gives what it has, so less means that nothing is left.
//! 3. A short transfer proves nothing for other sockets. Datagrams end where
//!    they end; a local stream stops at a passed descriptor; and a TCP read
//!    stops at urgent data, read out of band or not. Once an event told of
//!    urgent data (EPOLLPRI), of an end or of an error, which will not be
//!    told again, only EAGAIN counts in that direction.
//! 4. An attempt and what is concluded from it are one step, and so is an
//!    event: both happen under the lock of the slot. So no event is lost
//!    between an attempt and its clear, and no generation has to be counted:
//!    an edge that the kernel raises after the attempt is delivered after it.
//!    (One that was raised before and is delivered after costs one attempt
//!    in vain.)
//! 5. An attempt that is not made under that lock (`op::direct`) takes the
//!    word "ready" along and leaves "not ready" behind. EAGAIN leaves it at
//!    that, unless an event came meanwhile; anything else puts the word back,
//!    and wakes those who found it gone.

/// One direction of a descriptor, and which, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness(u8);

const READY: u8 = 1;

/// An event told of more than room or data (rule 3).
const EXCEPTIONAL: u8 = 2;

/// It is what a write waits for.
const WRITE: u8 = 4;

/// What an attempt that was not blocked left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Perhaps more of the same: all that was asked for was done.
    Unknown,
    /// The transfer was shorter than asked for.
    Short,
}

impl Readiness {
    /// Nothing is known yet, which is a reason to try.
    pub(super) const UNKNOWN: Readiness = Readiness(READY);

    /// Likewise, of the direction that a write waits for.
    pub(super) const UNKNOWN_WRITE: Readiness = Readiness(READY | WRITE);

    #[inline]
    pub(super) fn is_of_writes(self) -> bool {
        self.0 & WRITE != 0
    }

    /// An edge was reported.
    #[inline]
    pub(super) fn event(&mut self, exceptional: bool) {
        self.0 |= READY | if exceptional { EXCEPTIONAL } else { 0 };
    }

    #[inline]
    pub(super) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    /// Takes the word "ready" along (rule 5); says whether there was one.
    #[inline]
    pub(super) fn take(&mut self) -> bool {
        let ready = self.is_ready();
        self.blocked();
        ready
    }

    /// An attempt met EAGAIN.
    #[inline]
    pub(super) fn blocked(&mut self) {
        self.0 &= !READY;
    }

    /// An attempt was not blocked; `tcp` says whether it was of a TCP socket.
    #[inline]
    pub(super) fn used(&mut self, left: Left, tcp: impl FnOnce() -> bool) {
        if left == Left::Short && tcp() && self.0 & EXCEPTIONAL == 0 {
            self.blocked();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_tried_and_eagain_ends_it() {
        let mut r = Readiness::UNKNOWN;
        assert!(r.is_ready());
        r.blocked();
        assert!(!r.is_ready());
        r.event(false);
        assert!(r.is_ready());
    }

    #[test]
    fn a_short_transfer_proves_nothing_at_the_end() {
        let mut r = Readiness::UNKNOWN;
        r.event(true);
        r.used(Left::Short, || true);
        assert!(r.is_ready(), "the end of the stream is still to be read");
        r.blocked();
        assert!(!r.is_ready(), "EAGAIN always counts");
        r.event(false);
        r.used(Left::Short, || true);
        assert!(r.is_ready(), "the end is still to come");
    }

    #[test]
    fn a_short_transfer_proves_nothing_but_on_tcp() {
        for tcp in [true, false] {
            let mut r = Readiness::UNKNOWN;
            r.event(false);
            r.used(Left::Unknown, || tcp);
            assert!(r.is_ready());
            r.used(Left::Short, || tcp);
            assert_eq!(r.is_ready(), !tcp);
        }
    }
}
