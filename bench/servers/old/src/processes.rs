//! A process for each connection, and a pool of them.

use std::io;
use std::net::TcpListener;
use std::process::exit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use server_common::{Protocol, closed, exit_after, refused, share_counts};

use crate::talk::talk;
use crate::threads::accept;

// -- a process for each ---------------------------------------------------

/// How many more children may end before the parent exits; 0 is without end.
static LEFT: AtomicU64 = AtomicU64::new(0);

pub fn fork_each(listener: &TcpListener, protocol: Protocol) -> io::Result<()> {
    LEFT.store(exit_after().unwrap_or(0), Ordering::Relaxed);
    let parent = std::process::id();
    // SAFETY: an all-zero `sigaction` is a valid one; the handler does only
    // what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = reap as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        if libc::sigaction(libc::SIGCHLD, &action, null_mut()) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    loop {
        let stream = accept(listener);
        // SAFETY: the process has but one thread.
        match unsafe { libc::fork() } {
            0 => {
                die_with(parent);
                let _ = talk(stream, protocol);
                exit(0);
            }
            // No process to be had: the connection is closed, and that counts
            // as an end.
            -1 => {
                drop(stream);
                refused();
                ended();
            }
            _ => drop(stream),
        }
    }
}

/// Reaps all children that have ended. Only async-signal-safe calls, and errno
/// as it was.
extern "C" fn reap(_: i32) {
    // SAFETY: errno is the thread's own; null asks for no status.
    unsafe {
        let errno = *libc::__errno_location();
        while libc::waitpid(-1, null_mut(), libc::WNOHANG) > 0 {
            ended();
        }
        *libc::__errno_location() = errno;
    }
}

fn ended() {
    let left = LEFT.load(Ordering::Relaxed);
    if left > 0 && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        // SAFETY: it does not return; unlike exit, a handler may call it.
        unsafe { libc::_exit(0) };
    }
}

// -- a pool ---------------------------------------------------------------

pub fn prefork(listener: &TcpListener, protocol: Protocol, children: usize) -> io::Result<()> {
    share_counts()?;
    let parent = std::process::id();
    let mut alive = 0;
    loop {
        while alive < children {
            // SAFETY: the process has but one thread.
            match unsafe { libc::fork() } {
                0 => {
                    die_with(parent);
                    serve(listener, protocol);
                }
                -1 if alive == 0 => return Err(io::Error::last_os_error()),
                // As many as there are to be had.
                -1 => break,
                _ => alive += 1,
            }
        }
        let mut status = 0;
        // SAFETY: the pointer is to a local int.
        if unsafe { libc::waitpid(-1, &mut status, 0) } > 0 {
            if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
                // It closed the last connection that there was to be.
                return Ok(());
            }
            alive -= 1;
        }
    }
}

fn serve(listener: &TcpListener, protocol: Protocol) -> ! {
    loop {
        let _ = talk(accept(listener), protocol);
        closed();
    }
}

// -- both -----------------------------------------------------------------

/// The kernel kills this process when its parent ends.
fn die_with(parent: u32) {
    // SAFETY: no pointers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // It may have ended before.
        if libc::getppid() as u32 != parent {
            libc::_exit(1);
        }
    }
}
