//! Which multishot receives can be trusted, and when.
//!
//! A multishot receive that has emptied its socket waits for the next wake.
//! Whether it is empty it asks the socket, and AF_UNIX (since Linux 6.17)
//! counts its bytes, but not the end of the stream behind them: if the end was
//! there before, no wake follows, and it is never reported. Seen on 6.18.44 by
//! a receive with POLL_FIRST that found data and end together; without
//! POLL_FIRST the same was mended in the wake path only lately. TCP counts a
//! FIN as a byte for this very reason. A one-shot receive looks for itself
//! each time, and that is what these sockets get.
//!
//! TCP does not count a reset, nor the end that shutdown(2) made on this side.
//! What comes while the receive waits has a wake of its own; but a receive
//! with POLL_FIRST that finds data and a reset together tells of the data alone.
//! So when such a receive has emptied its socket for the first time, that is
//! asked once ([`has_ended`]), and what has ended is received from anew. (Wakes
//! that are told at once count as one in kernels that do not have the mending
//! of the wake path. Asking each time would cost a system call a receive.)

use std::os::fd::RawFd;

/// Whether the socket has an end or an error to tell of.
pub(crate) fn has_ended(fd: RawFd) -> bool {
    let mut what = libc::pollfd {
        fd,
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one entry, borrowed for the call, which does not wait.
    let ready = unsafe { libc::poll(&raw mut what, 1, 0) };
    ready > 0
}

/// Whether `fd` is a socket that may hide its end from a multishot receive.
pub(crate) fn hides_the_end(fd: RawFd) -> bool {
    let mut domain: libc::c_int = 0;
    let mut len = size_of_val(&domain) as libc::socklen_t;
    // SAFETY: the option is an int, and there is room for one.
    let got = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut len,
        )
    };
    // What is no socket fails in the receive itself.
    got == 0 && domain == libc::AF_UNIX
}
