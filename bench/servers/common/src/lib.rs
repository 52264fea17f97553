//! What the servers of the yardstick share, so that they differ in nothing but
//! the runtime: the command line, the listening socket, the socket options,
//! the buffer size, and the end. Nothing here runs between a receive and its
//! answer.
//!
//! # The contract of a server
//!
//! `BIN --addr IP:PORT [--variant V] [--workers N] [--protocol echo|delimited]`
//!
//! 1. The first line on stdout is `listening on IP:PORT`, flushed.
//! 2. It runs until it is killed by its process id. On SIGTERM it writes
//!    `accepted N refused M` and exits 0: connections that it accepted, and
//!    those of them that it closed unserved, because it had no room.
//! 3. With `BENCH_EXIT_AFTER=N` in the environment it exits 0 by itself after
//!    N connections have closed, so that a tool that reports at the exit
//!    (callgrind) can watch it.
//! 4. SO_REUSEADDR, a backlog of [`BACKLOG`], TCP_NODELAY on each connection,
//!    buffers of [`BUFFER`] bytes.
//! 5. A connection that fails takes nobody with it. Nothing is logged per
//!    connection.
//! 6. Bad flags: usage on stderr, exit 2. No socket: one line, exit 1.

#![deny(unsafe_op_in_unsafe_fn)]

mod args;
mod delimited;
mod end;
mod socket;

pub use args::{Args, Protocol, Spec};
pub use delimited::Delimited;
pub use end::{accepted, closed, exit_after, refused, share_counts};
pub use socket::{BACKLOG, listen, listen_each, raise_descriptor_limit, said};

/// The size of the receive buffer of each connection. One size for all, since
/// it decides the cost of a stream more than any runtime does; never smaller
/// than what the example of a peer's own documentation takes.
pub const BUFFER: usize = 16 * 1024;

/// After an accept that failed. Out of descriptors, mostly: asking again at
/// once would keep the processor busy and change nothing.
pub const AFTER_AN_ERROR: std::time::Duration = std::time::Duration::from_millis(10);

/// Ends the process with one line on stderr.
pub fn fail(what: &str, why: impl std::fmt::Display) -> ! {
    eprintln!("{what}: {why}");
    std::process::exit(1);
}
