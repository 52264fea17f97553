//! Whether the kernel does with sends what [`prompt`](crate::prompt) leans on,
//! found out by sending.
//!
//! Linux before 6.1 forgets how much of a send it has sent that then finds no
//! room; and one that took a short send for a success would lose the rest
//! without a word. (That it is a failure with MSG_WAITALL is by design, since
//! 5.12.)

use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use io_uring::types::Fd;
use isochrome_runtime::buf::Lent;

use crate::prompt::prompt_entry;
use crate::ring::{Entered, Ring};
use crate::table::Key;

/// More than a local socket commonly has room for.
const LARGE: usize = 256 * 1024;

/// So many have no room anywhere.
const TRIES: usize = 64;

/// Asked once in a process, with a ring that has done nothing yet.
pub(crate) fn prompt_sends_work(ring: &mut Ring) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if let Some(answer) = ANSWER.get() {
        return *answer;
    }
    match trial(ring) {
        Ok(answer) => *ANSWER.get_or_init(|| answer),
        // Without descriptors or memory, or where nothing may be entered.
        Err(_) => false,
    }
}

fn trial(ring: &mut Ring) -> io::Result<bool> {
    let data = [vec![0; LARGE], vec![0; 3]].map(Lent::new);
    let answer = trial_of(ring, &data);
    if !matches!(answer, Ok(true)) {
        // Who knows what a kernel still does with it that does something else.
        std::mem::forget(data);
    }
    answer
}

fn trial_of(ring: &mut Ring, [large, small]: &[Lent; 2]) -> io::Result<bool> {
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    let mut sent = 0;
    for _ in 0..TRIES {
        match send(ring, &ours, large)? {
            None => sent += LARGE,
            Some(n) => {
                let short = (1..LARGE as i32).contains(&n);
                sent += n.max(0) as usize;
                let full = send(ring, &ours, small)? == Some(-libc::EAGAIN);
                let told = all(&theirs)? == sent;
                let silent = send(ring, &ours, small)?.is_none() && all(&theirs)? == small.len();
                return Ok(short && full && told && silent);
            }
        }
    }
    Ok(false)
}

/// What a send completes with, if it does.
fn send(ring: &mut Ring, to: &UnixStream, data: &Lent) -> io::Result<Option<i32>> {
    let entry = prompt_entry(Fd(to.as_raw_fd()), data, Key::prompt(0));
    // SAFETY: `trial` frees the data only if the kernel has read all of it.
    if !unsafe { ring.push(&entry) } {
        return Err(ErrorKind::Other.into());
    }
    if ring.submit()? == Entered::Busy {
        return Err(ErrorKind::WouldBlock.into());
    }
    let mut answers = [MaybeUninit::uninit()];
    Ok(ring.pop(&mut answers).first().map(|answer| answer.result()))
}

/// How much there is to read.
fn all(mut from: &UnixStream) -> io::Result<usize> {
    let (mut buf, mut len) = ([0; 16 * 1024], 0);
    loop {
        match from.read(&mut buf) {
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(len),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::{Config, LEVELS};

    #[test]
    fn they_work_here() {
        for level in LEVELS {
            let config = Config {
                level,
                ..Config::default()
            };
            assert!(
                trial(&mut Ring::new(&config).unwrap()).unwrap(),
                "{level:?}"
            );
        }
    }
}
