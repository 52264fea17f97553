//! Every call of the network surface, with its errors, against what std's
//! blocking call answers to the same input, or the system call where std has
//! none: on both drivers, and on 1, 2 and 4 workers.
//!
//! Where a call is held against std, or otherwise tested if std has nothing
//! like it, stands in the table of [`covered`], which fails when a public call
//! is in no row, or a row's test does not make the call.
//!
//! # Where the answers differ, by choice
//!
//! * An empty read or write is no operation: it is `Ok(0)` also where std asks
//!   the kernel, which waits until there is something to read, or tells of a
//!   broken pipe (`tcp::empty_buffers_ask_nobody`).
//! * An error that a socket tells once is told to whoever asks first, which on
//!   the proactor may be a receive that has been begun.
//! * Errors of names, of paths in use and of several addresses say more than
//!   the number: their kind is that of std, and the number is gone.
//! * How much of a datagram was received says also how long it was.
//! * Opening the writing end of a FIFO never waits: without a reader it is an
//!   error that says so.

#[path = "../common/mod.rs"]
mod common;

mod covered;
mod pipes;
mod polls;
mod readiness;
mod tcp;
mod udp;
mod unix;
