//! The end that a server makes: when it is told to, or by itself.

use std::io;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// What is counted of connections. Once each, so that it costs a round trip
/// nothing.
#[derive(Debug)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
}

static OWN: Counts = Counts {
    accepted: AtomicU64::new(0),
    refused: AtomicU64::new(0),
    closed: AtomicU64::new(0),
};

/// Where counts are that processes share; null as long as they do not.
static SHARED: AtomicPtr<Counts> = AtomicPtr::new(null_mut());

fn counts() -> &'static Counts {
    let shared = SHARED.load(Ordering::Relaxed);
    // SAFETY: it is null or the mapping of `share_counts`, which stays.
    unsafe { shared.as_ref() }.unwrap_or(&OWN)
}

/// How many connections may close before the server exits, if it is to.
pub fn exit_after() -> Option<u64> {
    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    *LIMIT.get_or_init(|| std::env::var("BENCH_EXIT_AFTER").ok()?.parse().ok())
}

/// To be called once for each connection that was accepted.
pub fn accepted() {
    counts().accepted.fetch_add(1, Ordering::Relaxed);
}

/// To be called once for each connection that has ended.
pub fn closed() {
    let now = counts().closed.fetch_add(1, Ordering::Relaxed) + 1;
    if exit_after().is_some_and(|limit| now >= limit) {
        std::process::exit(0);
    }
}

/// To be called instead for one that was accepted and closed without being
/// served.
pub fn refused() {
    counts().refused.fetch_add(1, Ordering::Relaxed);
    closed();
}

/// From now on this process and those that it forks count together.
pub fn share_counts() -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, which nobody else knows; it is never unmapped.
    let at = unsafe { libc::mmap(null_mut(), size_of::<Counts>(), protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // It is zeroed, which is a valid `Counts`, and page-aligned.
    SHARED.store(at.cast(), Ordering::Relaxed);
    Ok(())
}

/// On SIGTERM the server says what it counted, and exits.
pub(crate) fn when_told() {
    // SAFETY: an all-zero `sigaction` is a valid one; the handler does only
    // what a handler may.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = told as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGTERM, &action, null_mut());
    }
}

extern "C" fn told(_: i32) {
    let counts = counts();
    let mut line = Line::new();
    line.text(b"accepted ");
    line.number(counts.accepted.load(Ordering::Relaxed));
    line.text(b" refused ");
    line.number(counts.refused.load(Ordering::Relaxed));
    line.text(b"\n");
    // SAFETY: the pointer is to that many bytes. Unlike exit, a handler may
    // call `_exit`, which does not return.
    unsafe {
        libc::write(1, line.bytes.as_ptr().cast(), line.len);
        libc::_exit(0);
    }
}

/// Text without an allocator: a handler may interrupt one.
struct Line {
    bytes: [u8; 64],
    len: usize,
}

impl Line {
    fn new() -> Line {
        Line {
            bytes: [0; 64],
            len: 0,
        }
    }

    fn text(&mut self, text: &[u8]) {
        for byte in text {
            self.bytes[self.len] = *byte;
            self.len += 1;
        }
    }

    fn number(&mut self, mut n: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.text(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_line_fits() {
        let mut line = Line::new();
        line.text(b"accepted ");
        line.number(u64::MAX);
        line.text(b" refused ");
        line.number(0);
        line.text(b"\n");
        let said = format!("accepted {} refused 0\n", u64::MAX);
        assert_eq!(&line.bytes[..line.len], said.as_bytes());
        line.len = 0;
        line.text(b"accepted  refused \n");
        line.number(u64::MAX);
        line.number(u64::MAX);
        assert!(line.len <= line.bytes.len());
    }
}
