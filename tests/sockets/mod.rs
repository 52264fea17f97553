//! Random programs of socket operations, cancels and drops, run on std, on the
//! reactor and on the proactor: byte streams, ends and errors agree.
//!
//! Shared by `tests/differential.rs` and the fuzz target `sockets`.
//!
//! # What has to agree
//!
//! Each run is held against an [oracle], which knows at every moment what may
//! be received and whether something has to be: bytes in their order, none
//! lost, doubled or made up; an end exactly when the other end ended it and
//! after all bytes; nothing as long as nothing was sent. Sends answer what they
//! must: all bytes, EPIPE after an end of one's own, and no signal. What has to
//! end is waited for by its waker, so that a lost wake is a hang. The run on
//! std shows that the oracle is right about the kernel.
//!
//! How much was received in each direction is then compared between the runs,
//! unless the program leaves it open.
//!
//! # What may differ, and why
//!
//! * What a single receive or send moves: it depends on the moment.
//! * How much of a send that was given up was sent: any prefix. A borrowed
//!   write that was given up, and anything that was never polled, has sent
//!   nothing. What is sent after it comes after it; but borrowed writes, which
//!   do not stand in the line of the others, may come before.
//! * Whether the peer of an end that is dropped with bytes unread sees an end
//!   or a reset, and on TCP how many bytes before it: what the proactor has
//!   received ahead is not unread to the kernel. Whether TCP answers EPIPE or
//!   ECONNRESET depends on the order of a FIN and a reset. The proactor closes
//!   an end when what it has in flight has ended, so that a send to an end that
//!   was just dropped may still be taken, and be answered by a reset.
//! * The kernel tells of a reset once, to whoever asks next. On the proactor
//!   that may be a receive that waits in the kernel.
//! * A send that waits for room on a local socket ends by a shutdown at the
//!   latest when the peer reads or closes; a blocking one of std ends at once.
//!   poll(2) does not tell of it before.
//! * On TCP an end that was shut down in both directions tells of no room any
//!   more. If it is dropped when it had none and nothing is unread, neither an
//!   end nor a reset follows, and what is sent to it stays with the kernel for
//!   a minute or two: so does a send that waits for room, or for its buffer.
//! * An empty send is no operation to the runtime; std asks the kernel.

mod ends;
mod oracle;
mod program;
mod run;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use isochrome::time::timeout;
use isochrome::{Runtime, yield_now};

use ends::{of_std, ours};
pub(crate) use program::Program;
use run::{Rest, run};

/// Far more than a program takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much was received in each direction, where that is the program's choice.
pub(crate) type Agreed = [Option<usize>; 2];

/// Runs it on std's sockets.
///
/// # Errors
///
/// If there are no sockets to be had.
pub(crate) fn on_std(program: &Program) -> io::Result<Agreed> {
    let ends = of_std(program.transport, program.small)?;
    let rest: Rest = || {
        let mut rested = false;
        Box::pin(std::future::poll_fn(move |_| {
            match std::mem::replace(&mut rested, true) {
                false => Poll::Pending,
                true => Poll::Ready(()),
            }
        }))
    };
    let step = Cell::new(0);
    let mut running = pin!(run(program, "std", ends, rest, &step));
    let mut cx = Context::from_waker(Waker::noop());
    let begun = Instant::now();
    loop {
        if let Poll::Ready(agreed) = running.as_mut().poll(&mut cx) {
            return Ok(agreed);
        }
        let late = begun.elapsed() > PATIENCE;
        assert!(!late, "std: hangs in step {}", step.get());
        thread::yield_now();
    }
}

/// Runs it on the runtime's sockets.
///
/// # Errors
///
/// If there are no sockets to be had.
pub(crate) fn on(runtime: &Runtime, program: &Program) -> io::Result<Agreed> {
    let name = runtime.driver();
    runtime.block_on(async {
        let ends = ours(program.transport, program.small, program.taken_over).await?;
        let rest: Rest = || Box::pin(yield_now()) as Pin<Box<dyn Future<Output = ()>>>;
        let step = Cell::new(0);
        let running = run(program, name, ends, rest, &step);
        match timeout(PATIENCE, running).await {
            Ok(agreed) => Ok(agreed),
            Err(_) => panic!("{name}: hangs in step {}", step.get()),
        }
    })
}
