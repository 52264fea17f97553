//! Pipes: anonymous ones, FIFOs in the file system, and the ends of a child
//! process's standard streams.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use isochrome_net::pipe;
//! use std::process::{Command, Stdio};
//!
//! let mut child = Command::new("wc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//! let to = pipe::Sender::from_fd(child.stdin.take().unwrap())?;
//! let from = pipe::Receiver::from_fd(child.stdout.take().unwrap())?;
//! to.write_all(b"some words").await?;
//! drop(to); // the child sees the end
//! let mut answer = [0; 100];
//! let n = from.read(&mut answer).await?;
//! # Ok(()) }
//! ```
//!
//! # Modes
//!
//! No flag makes a single read(2) or write(2) of a pipe return at once, so an
//! end that is here is in non-blocking mode (O_NONBLOCK), on every driver. The
//! two ends of a pipe have modes of their own: the end that a child has is not
//! touched. But whoever shares *this* end, by a duplicate or by inheritance,
//! shares the mode, and a program that does not expect it sees EAGAIN. So take
//! over what nobody else uses, and give an end away, to a child or to another
//! thread, by `into_blocking_fd`.

mod ends;
mod open;

pub use ends::{Receiver, Sender, anonymous};
pub use open::{OpenOptions, create_fifo};
