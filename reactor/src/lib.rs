//! The epoll driver of isochrome: it tells of edges.
//!
//! A [`Reactor`] belongs to one worker. It works by readiness
//! ([`Driver::by_readiness`]): the runtime tries the system calls of an
//! operation by itself, on the thread that asks, and subscribes here when it
//! has to wait. The kernel never keeps a pointer of ours: memory is lent for
//! the length of one system call.
//!
//! | file | concept |
//! |---|---|
//! | `driver` | [`Reactor`]: the contract of `isochrome_runtime::driver`, kept |
//! | `registration` | a descriptor in the epoll set, and who is told of its edges |
//! | `table` | names made of an index and a generation |
//! | `epoll` | the system calls |
//!
//! # Rules
//!
//! 1. **Added once**, for both directions, edge-triggered: no operation costs
//!    an epoll_ctl(2). The addition itself reports what is ready at that
//!    moment; who subscribes later to what is there is told of an edge at
//!    once, since that moment has passed.
//! 2. **Named by index and generation.** What comes out of epoll_wait(2) may
//!    be about a descriptor that is gone, and whose number has a new owner: a
//!    name that is not in the table is ignored. Nothing is ever taken out of
//!    the set by number, for the same reason; the kernel does that at close.
//! 3. **Nothing re-enters.** Edges run wakers, which by rule 5 of the contract
//!    do not call the driver.
//!
//! [`Driver::by_readiness`]: isochrome_runtime::driver::Driver::by_readiness

mod driver;
mod epoll;
mod registration;
mod table;
#[cfg(test)]
mod tests;

pub use driver::Reactor;
