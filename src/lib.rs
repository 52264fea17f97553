//! Isochrome is an embeddable async runtime for Linux: *serial where you say
//! so, parallel everywhere else*.
//!
//! * **Colors** serialise: tasks of one [`Color`] run one after another, tasks
//!   of different colors run in parallel, on any worker. State that is reached
//!   under one color only needs no lock; sockets and futures stay `Send`.
//! * **Two drivers**: an io_uring proactor and an epoll reactor. The better
//!   one that works here is taken, and the same code runs on both.
//! * **Sound to the last completion**: memory that the kernel may write to is
//!   freed only after the kernel is done with it, also at shutdown.
//!
//! ```no_run
//! use isochrome::net::{TcpListener, TcpStream};
//! use isochrome::{Runtime, spawn_apart};
//!
//! fn main() -> std::io::Result<()> {
//!     Runtime::new()?.block_on(async {
//!         let listener = TcpListener::bind("127.0.0.1:7777").await?;
//!         loop {
//!             let (stream, _) = listener.accept().await?;
//!             drop(spawn_apart(echo(stream)));
//!         }
//!     })
//! }
//!
//! async fn echo(stream: TcpStream) -> std::io::Result<()> {
//!     loop {
//!         let data = stream.recv().await?; // a lease: idle connections own no buffer
//!         if data.is_empty() {
//!             return stream.flush().await;
//!         }
//!         stream.feed(data).await?; // sent from where it was received
//!     }
//! }
//! ```
//!
//! Start with [`Runtime::new`], [`spawn`], and [`Color`]; the promise of a
//! color, and what an await does to it, stands there. The [`guide`] shows how
//! to do what programs do every day (Ctrl-C, lines, child processes, tests, the
//! first of several), what is called how if you know tokio or smol, and which
//! features there are.
//!
//! To bring a driver of your own, depend on
//! [`isochrome_runtime`](https://docs.rs/isochrome-runtime).

#![forbid(unsafe_code)]

mod builder;
#[cfg(any(doc, doctest))]
pub mod guide;
#[cfg(feature = "hyper")]
pub mod hyper;

pub use builder::{Builder, DriverChoice, Runtime};
pub use isochrome_runtime::{
    AbortHandle, Background, CellError, CellGuard, Color, ColorCell, ColorStats, Handle, Hold,
    HoldError, JoinError, JoinHandle, Placement, Report, Stats, Waits, WorkerStats, spawn,
    spawn_apart, spawn_blocking, spawn_local, yield_now,
};

/// Sockets of all kinds, pipes and names, and what a server does with its
/// connections: [`serve`](net::serve).
pub mod net {
    pub use isochrome_net::*;
}

pub use isochrome_net::{fs, process};
pub use isochrome_runtime::time;
