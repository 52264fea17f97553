//! Limits, affinity and policy of this process, which its children inherit.

use std::io;
use std::mem;

/// Puts this thread, and the processes that it starts from now on, on one
/// processor, under a policy whose wakeups preempt nobody.
///
/// So a server does not run before the client waits for it, and finds the
/// messages of all connections ready: the size of its batches, on which the
/// cost of a round trip depends, is the same in every run.
pub fn take_turns() -> io::Result<()> {
    // SAFETY: a `cpu_set_t` is plain bits, of which all may be zero.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the call writes into `set`, which has the size it is told.
    check(unsafe { libc::sched_getaffinity(0, size, &mut set) })?;
    // SAFETY: the index is below the number of bits of the set.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    let last = (0..libc::CPU_SETSIZE as usize).rfind(allowed);
    let last = last.expect("a thread may run somewhere");
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::CPU_SET(last, &mut one) };
    // SAFETY: the call reads `one`, which has the size it is told.
    check(unsafe { libc::sched_setaffinity(0, size, &one) })?;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads `parameters`.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) })
}

/// Lets this process and its children have as many descriptors as they are
/// allowed to.
pub fn many_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes into `limit`.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads `limit`.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

fn check(answer: libc::c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
