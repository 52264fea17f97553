//! Whether a proactor works here, found out by running one.
//!
//! A ring that can be built is no proof: seccomp may refuse to enter it, and
//! what an operation does is older or newer than its number. So the very ring
//! of the driver is built, and a multishot receive has to come through with
//! its data, as a worker would have it.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use io_uring::{Probe, cqueue, opcode, squeue};
use isochrome_runtime::buf::Pool;

use crate::buffers::Buffers;
use crate::faults::Ring;
use crate::operation::recv_entry;
use crate::setup::{Config, SetupError, Step};

/// All that the driver asks for.
const OPERATIONS: [u8; 7] = [
    opcode::Nop::CODE,
    opcode::AcceptMulti::CODE,
    opcode::Connect::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
];

/// A completion that takes longer is not coming.
const PATIENCE: Duration = Duration::from_secs(1);

const NOP: u64 = 1;
const RECEIVE: u64 = 2;

/// Finds out whether io_uring works for this process, in well under a
/// millisecond. Worth calling once, before the workers start.
///
/// # Errors
///
/// The step that failed, the kernel's errno, and what to do about it.
pub fn probe() -> Result<(), SetupError> {
    let config = Config::default();
    let mut ring = Ring::new(&config)?;
    let at = |step| move |error| SetupError::new(step, error);
    operations(&ring).map_err(at(Step::Operations))?;
    enter(&mut ring).map_err(at(Step::Enter))?;

    // Before the buffers: they are leaked if the receive fails half way, and
    // want of a descriptor is no reason for that.
    let sockets = UnixStream::pair().map_err(at(Step::Receive))?;
    let pool = Pool::new(config.buffers, config.buffer_size);
    let mut buffers = Buffers::register(&ring, pool).map_err(at(Step::Buffers))?;
    receive(&mut ring, &mut buffers, sockets).map_err(at(Step::Receive))?;
    buffers.unregister(&ring);
    Ok(())
}

fn operations(ring: &Ring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    match OPERATIONS.iter().find(|code| !probe.is_supported(**code)) {
        None => Ok(()),
        Some(code) => Err(unexpected(format!("operation {code} is not supported"))),
    }
}

fn enter(ring: &mut Ring) -> io::Result<()> {
    let entry = opcode::Nop::new().build().user_data(NOP);
    match start(ring, &entry).and_then(|()| next(ring, NOP))?.result() {
        0 => Ok(()),
        answer => Err(refused("a no-op", answer)),
    }
}

/// Receives twice with one entry, and then the end of the stream, which ends
/// the entry too: nothing is in flight afterwards.
fn receive(
    ring: &mut Ring,
    buffers: &mut Buffers,
    (mut ours, theirs): (UnixStream, UnixStream),
) -> io::Result<()> {
    let entry = recv_entry(Fd(theirs.as_raw_fd()), true, false).user_data(RECEIVE);
    start(ring, &entry)?;
    for message in [&b"one"[..], b"two"] {
        ours.write_all(message)?;
        let answer = next(ring, RECEIVE)?;
        let claimed = buffers.claim(answer.flags());
        let (Ok(len), Some(claimed)) = (usize::try_from(answer.result()), claimed) else {
            return Err(refused("the receive", answer.result()));
        };
        let lease = buffers.lease(claimed, len);
        if *lease != *message || !cqueue::more(answer.flags()) {
            return Err(unexpected(format!("the receive answered {answer:?}")));
        }
    }
    drop(ours);
    let end = next(ring, RECEIVE)?;
    if end.result() != 0 || cqueue::more(end.flags()) {
        return Err(unexpected(format!("the receive ended with {end:?}")));
    }
    Ok(())
}

fn start(ring: &mut Ring, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: the entries of a probe point to nothing; the receive takes its
    // memory from `Buffers`, which looks after itself.
    if unsafe { ring.push(entry) } {
        Ok(())
    } else {
        Err(unexpected("the queue of a new ring is full".to_owned()))
    }
}

/// Waits for the next completion, which must be of `user_data`.
fn next(ring: &mut Ring, user_data: u64) -> io::Result<cqueue::Entry> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = ring.submit_and_sleep(Some(left), Duration::ZERO)?;
        match ring.pop(&mut [MaybeUninit::uninit()]).first() {
            Some(entry) if entry.user_data() == user_data => return Ok(entry.clone()),
            Some(entry) => return Err(unexpected(format!("a stranger completed: {entry:?}"))),
            None if left.is_zero() => {
                return Err(unexpected("no completion within a second".to_owned()));
            }
            None => {}
        }
    }
}

/// An error that has no errno: the kernel did something else than asked.
fn unexpected(what: String) -> io::Error {
    io::Error::other(what)
}

fn refused(what: &str, answer: i32) -> io::Error {
    if answer < 0 {
        io::Error::from_raw_os_error(-answer)
    } else {
        unexpected(format!("{what} answered {answer}"))
    }
}
