//! The epoll driver of isochrome: operations by trying, waiting, and trying
//! again.
//!
//! A [`Reactor`] belongs to one worker and carries its operations out. An
//! operation is first tried with its system call; what the kernel answers
//! with EAGAIN waits until epoll(7) tells of the descriptor, and is tried
//! again then. The kernel never keeps a pointer of ours: memory is lent for
//! the length of one system call.
//!
//! | file | concept |
//! |---|---|
//! | `driver` | [`Reactor`]: the contract of `isochrome_runtime::driver`, kept |
//! | `registration` | a descriptor in the epoll set, and who waits for it |
//! | `readiness` | what is known of one direction: a pure state |
//! | `table` | names made of an index and a generation |
//! | `attempt` | one try of an operation: one system call |
//! | `epoll`, `sys` | the system calls |
//!
//! # Rules
//!
//! 1. **Try first.** A descriptor is added to the epoll set when one of its
//!    operations has to wait for the first time, and never before: a system
//!    call that would have succeeded tells more than a registration. Nothing
//!    is missed in between, because the addition itself reports what is ready
//!    at that moment.
//! 2. **Added once**, for both directions, edge-triggered. Each edge is
//!    remembered in the direction's readiness until the kernel proves it
//!    used up (`readiness`), since it is not told twice.
//! 3. **Named by index and generation.** What comes out of epoll_wait(2) may
//!    be about a descriptor that is gone, and whose number has a new owner: a
//!    name that is not in the table is ignored. Nothing is ever taken out of
//!    the set by number, for the same reason; the kernel does that at close.
//! 4. **First come, first served** in each direction: who submits while
//!    others wait goes to the end. (A connect is begun at once and a poll
//!    takes nothing, so these two are not held up.)
//! 5. **Waiting owns no buffer.** One is taken from the pool for an attempt
//!    to receive, and leaves it only with data inside.
//! 6. **A turn is bounded.** A direction with attempts left over after its
//!    share is put on the `busy` list, which keeps the next park from
//!    sleeping: its edge was consumed, so that nobody else would remember it.
//! 7. **Nothing re-enters.** Completions run wakers, which by rule 5 of the
//!    contract do not call the driver; even so an operation is finished only
//!    after it was taken out of every list.

mod attempt;
mod driver;
mod epoll;
mod readiness;
mod registration;
mod sys;
mod table;
#[cfg(test)]
mod tests;

pub use driver::Reactor;
