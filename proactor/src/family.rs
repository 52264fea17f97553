//! Whose multishot receives can be trusted.
//!
//! A multishot receive stops when the socket says that it is empty, and waits
//! for the next wake. Linux 6.17 taught AF_UNIX to say so, but an end of file
//! that was there with the last data is not counted in: the wake that told of
//! it is used up, and the end is never reported. (It takes data and a close
//! between two enters, the ordinary case under DEFER_TASKRUN. TCP counts a FIN
//! as one byte for this very reason.) One-shot receives look for themselves
//! each time, and that is what these sockets get.

use std::os::fd::RawFd;

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
