//! The number of descriptors that the process may have.

/// Raises the soft limit to the hard one: the soft limit is commonly 1,024,
/// for the sake of programs that use select(2), and this one does not.
///
/// A refusal is not an error: the program then runs with what it has, and an
/// accept loop backs off when that is used up.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls take a pointer to this local, which is an `rlimit`.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
