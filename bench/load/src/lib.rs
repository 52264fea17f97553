//! A single-threaded load generator for echo servers, and the server's bill.
//!
//! | module | what it holds |
//! |---|---|
//! | [`options`] | what is asked: connections, size, loop, protocol |
//! | `engine` | epoll, the connections, the schedule of sends |
//! | `pattern` | the bytes sent and expected: an endless stream per connection |
//! | [`proc`] | what the kernel knows of the server: CPU, switches, memory |
//! | [`report`] | what comes out, as JSON |
//!
//! # The measured window
//! 1. All connections are made and (if the protocol has a greeting) greeted.
//! 2. Warm-up: load as in the window, not counted.
//! 3. The client stops sending and waits for what is in flight. When nothing
//!    is, it samples the server (CPU clock, switches, memory).
//! 4. Window: load until its end; then the client stops sending, waits for what
//!    is in flight, and samples again.
//!
//! So every round trip counted lies whole between the two samples, and no other
//! does: CPU per round trip is a quotient of two exact figures. What a server
//! never answers is bounded (see `engine::DRAIN_STALL`) and counted.
//!
//! # Latency
//! From the *intended* time of sending. At a fixed rate that is the schedule's
//! time, however late the send was (no coordinated omission). In a closed loop
//! it is the time the previous reply was complete. A message still unanswered
//! at the end enters the histogram with its age, a lower bound: clients that a
//! server starves must not vanish from its p99.
#![forbid(unsafe_code)]

mod engine;
pub mod options;
mod pattern;
pub mod proc;
pub mod report;

pub use engine::run;
pub use options::{Options, Protocol};
pub use report::Report;
