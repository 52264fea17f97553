//! What is known of one direction of a descriptor: a pure state.
//!
//! ```text
//!               event                      event
//!        +---------------+               +------+
//!        |               v               |      v
//!    not ready          ready, tick n ---+   ready, tick n+1
//!        ^               |
//!        +---------------+
//!     blocked(n), short(n): no event since attempt() gave n
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
//! 4. A clear counts only if no event came between the attempt and the clear.
//!    On one thread none can: an edge that the kernel raises after the
//!    attempt stays in the epoll set until the next epoll_wait(2), which
//!    comes after the clear. The tick holds whatever the order is, costs one
//!    addition, and makes the rule testable. Each direction has its own, of
//!    the same width, and it is compared whole.

/// One direction of a registered descriptor.
#[derive(Debug)]
pub(crate) struct Readiness {
    ready: bool,
    /// A short transfer can prove something here (rule 3).
    tcp: bool,
    /// An event told of more than room or data (rule 3).
    exceptional: bool,
    tick: u32,
}

/// The moment of an attempt, for rule 4.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Tick(u32);

impl Readiness {
    /// Nothing is known yet, which is a reason to try.
    pub(crate) fn unknown(tcp: bool) -> Readiness {
        Readiness {
            ready: true,
            tcp,
            exceptional: false,
            tick: 0,
        }
    }

    /// An edge was reported.
    pub(crate) fn event(&mut self, exceptional: bool) {
        self.ready = true;
        self.exceptional |= exceptional;
        self.tick = self.tick.wrapping_add(1);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Call before the system call, and hand the result to what follows it.
    pub(crate) fn attempt(&self) -> Tick {
        Tick(self.tick)
    }

    /// The attempt met EAGAIN.
    pub(crate) fn blocked(&mut self, at: Tick) {
        if at.0 == self.tick {
            self.ready = false;
        }
    }

    /// The attempt transferred less than it asked for.
    pub(crate) fn short(&mut self, at: Tick) {
        if self.tcp && !self.exceptional {
            self.blocked(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_tried_and_eagain_ends_it() {
        let mut r = Readiness::unknown(true);
        assert!(r.is_ready());
        let at = r.attempt();
        r.blocked(at);
        assert!(!r.is_ready());
        r.event(false);
        assert!(r.is_ready());
    }

    #[test]
    fn an_event_during_an_attempt_outlives_its_clear() {
        let mut r = Readiness::unknown(true);
        let at = r.attempt();
        r.event(false);
        r.blocked(at);
        assert!(r.is_ready(), "the edge came after the attempt");
        r.short(at);
        assert!(r.is_ready());
        let at = r.attempt();
        r.short(at);
        assert!(!r.is_ready());
    }

    #[test]
    fn ticks_are_compared_whole() {
        // A tick of eight bits would take event 256 for none.
        let mut r = Readiness::unknown(true);
        let at = r.attempt();
        for bits in [8, 16] {
            for _ in 0..1u32 << bits {
                r.event(false);
            }
            r.blocked(at);
            assert!(r.is_ready());
            r = Readiness::unknown(true);
        }
        r.tick = u32::MAX;
        let at = r.attempt();
        r.event(false);
        r.blocked(at);
        assert!(r.is_ready(), "the count wraps");
    }

    #[test]
    fn a_short_transfer_proves_nothing_at_the_end() {
        let mut r = Readiness::unknown(true);
        r.event(true);
        let at = r.attempt();
        r.short(at);
        assert!(r.is_ready(), "the end of the stream is still to be read");
        r.blocked(at);
        assert!(!r.is_ready(), "EAGAIN always counts");
        r.event(false);
        let at = r.attempt();
        r.short(at);
        assert!(r.is_ready(), "the end is still to come");
    }

    #[test]
    fn a_short_transfer_proves_nothing_but_on_tcp() {
        let mut r = Readiness::unknown(false);
        r.event(false);
        let at = r.attempt();
        r.short(at);
        assert!(r.is_ready());
    }
}
