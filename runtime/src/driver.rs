//! The contract between the runtime and what carries its I/O out.
//!
//! Operations go in ([`Driver::submit`]), completions come out
//! ([`InFlight::deliver`], [`InFlight::finish`]). An io_uring driver hands them
//! to the kernel. A driver that works by readiness is handed one operation
//! only, `Edges`, and tells of them by [`InFlight::edge`]; the runtime tries
//! the system calls by itself, on the thread that asks, where the data is
//! wanted. A driver of your own is an `unsafe impl Driver` given to
//! [`Builder::build_with`](crate::Builder::build_with).
//!
//! # Rules
//!
//! 1. A driver belongs to one worker: it is made on the worker's thread, and
//!    every method but [`Unpark::unpark`] is called there.
//! 2. Every operation that [`Driver::submit`] took gets its completions: any
//!    number by [`InFlight::deliver`] (subscriptions only) and exactly one by
//!    [`InFlight::finish`], cancelled or not. Until then the driver keeps the
//!    [`InFlight`], and with it everything that the kernel may touch.
//! 3. [`Driver::cancel`] is a request: the operation still finishes, perhaps
//!    with success. A cancel is never lost, however full a queue is.
//! 4. [`Driver::park`] with `None` sleeps until a completion is delivered or
//!    [`Unpark::unpark`] was called, before or during the sleep. An unpark is
//!    never lost; a park that returns early does no harm.
//! 5. A completion may run any waker, and a waker may run any code, but
//!    nothing that a waker does calls back into this driver: such calls wait
//!    in the worker's command queue until `park` has returned.
//! 6. A system call that says no ends the operation with that error. A driver
//!    does not panic because the kernel said no.
//! 7. What an operation lends stays in it: a driver looks at it, keeps its place
//!    in it, and moves nothing out. The bytes of a [`Lent`](crate::buf::Lent)
//!    may be whose future asks, who has them back at the end and frees them.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::op::InFlight;

/// What carries out the operations of one worker. See the [module](self) for
/// the rules.
///
/// ```compile_fail,E0200
/// # use std::{io, sync::Arc, time::Duration};
/// # use isochrome_runtime::driver::{Driver, Unpark};
/// # use isochrome_runtime::op::InFlight;
/// struct Mine(Arc<dyn Unpark>);
///
/// impl Driver for Mine {
///     // ...
/// #   fn name(&self) -> &'static str { "mine" }
/// #   fn by_readiness(&self) -> bool { false }
/// #   fn submit(&mut self, op: InFlight) -> Result<(), InFlight> { Err(op) }
/// #   fn cancel(&mut self, _: u64) {}
/// #   fn park(&mut self, _: Option<Duration>) -> io::Result<()> { Ok(()) }
/// #   fn unparker(&self) -> Arc<dyn Unpark> { self.0.clone() }
/// #   fn shutdown(&mut self, _: Duration) -> usize { 0 }
/// }
/// ```
///
/// # Safety
///
/// Of what [`InFlight::with_op`] and [`InFlight::begin`] show, nothing that is
/// lent is moved out of the operation (rule 7). A descriptor that
/// [`as_fd`](Driver::as_fd) gave stays open as long as the driver is there.
pub unsafe trait Driver {
    /// A short name, as logs and `Runtime::driver` show it.
    fn name(&self) -> &'static str;

    /// Whether it works by readiness: it is given no operation but
    /// [`Op::Edges`](crate::op::Op::Edges), and sockets are non-blocking. Else
    /// it is given all of them, and sockets are blocking (a ring answers EAGAIN
    /// at once for one that is not). The same for all workers.
    fn by_readiness(&self) -> bool;

    /// Starts an operation.
    ///
    /// # Errors
    ///
    /// Gives the operation back if it has to wait, and only the worker that
    /// its descriptor is registered with ([`Descriptor::home`](crate::Descriptor::home)) can do that.
    /// Never fails on that worker.
    fn submit(&mut self, op: InFlight) -> Result<(), InFlight>;

    /// Starts a send that nobody waits for, as [`submit`](Driver::submit) does,
    /// which is the default. Its end may be told late, at the end of the next
    /// sleep, until [`hurry`](Driver::hurry) is called.
    ///
    /// # Errors
    ///
    /// As for `submit`.
    fn feed(&mut self, op: InFlight) -> Result<(), InFlight> {
        self.submit(op)
    }

    /// Somebody waits for the end of what was [fed](Driver::feed), which is to be
    /// told without a sleep before, if it is not waited for in the kernel. Does
    /// nothing by default.
    fn hurry(&mut self) {}

    /// Asks for the end of the operation that was given `key` by
    /// [`InFlight::set_key`]. It is still in flight when this is called.
    fn cancel(&mut self, key: u64);

    /// Gets ready to tell of the edges of a descriptor that another worker's
    /// driver tells of, and will be asked to hand over: what it will be called
    /// here, by the same rules as for [`Descriptor::set_token`](crate::Descriptor::set_token). If nothing
    /// comes of it, [`release`](Driver::release) is called with that. `None`,
    /// the default: it cannot. Only asked where drivers work by readiness.
    fn adopt(&mut self, descriptor: &Descriptor) -> Option<u64> {
        let _ = descriptor;
        None
    }

    /// Ends the subscription that was given `key`, which is still in flight,
    /// so that it can begin anew with another worker's driver: by
    /// [`InFlight::pause`] when all that it brought is told. By readiness the
    /// descriptor itself moves ([`Descriptor::moves_to`](crate::Descriptor::moves_to)), with everything that
    /// is subscribed to it. `false`, the default: it stays here.
    fn hand_over(&mut self, key: u64, to: Successor) -> bool {
        let _ = (key, to);
        false
    }

    /// Submits what is waiting and delivers what is complete. If nothing is,
    /// sleeps for at most `wait` (`None`: without limit; zero: not at all).
    ///
    /// # Errors
    ///
    /// When waiting itself is impossible; the runtime cannot go on then and
    /// panics with the error.
    fn park(&mut self, wait: Option<Duration>) -> io::Result<()>;

    /// A descriptor that is readable, as poll(2) sees it, when the next
    /// [`park`](Driver::park) has something to deliver or was unparked: for a
    /// host loop that drives the runtime, from the first park after this was
    /// asked for. `None`, the default: there is none.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether the next [`park`](Driver::park) has something to do that
    /// [`as_fd`](Driver::as_fd) does not tell. `false` by default.
    fn is_due(&self) -> bool {
        false
    }

    /// Something that ends [`park`](Driver::park) from any thread.
    fn unparker(&self) -> Arc<dyn Unpark>;

    /// Counts completions of nothing that the driver knows, which it ignored:
    /// asked once, and shown in
    /// [`WorkerStats::unknown_completions`](crate::WorkerStats::unknown_completions).
    /// `None`, the default: there can be none.
    fn unknown_completions(&self) -> Option<Arc<AtomicU64>> {
        None
    }

    /// The descriptor that was given `token` by [`Descriptor::set_token`](crate::Descriptor::set_token) is
    /// about to be closed, or has been; no operation of it is in flight.
    fn forget(&mut self, token: u64) {
        let _ = token;
    }

    /// As [`forget`](Driver::forget), of a descriptor whose open file stays: it
    /// is somebody else's from now on, or has other descriptors. What is to end
    /// with it has to be ended.
    fn release(&mut self, token: u64, fd: BorrowedFd<'_>) {
        let _ = fd;
        self.forget(token);
    }

    /// Ends every operation: cancels all, waits for the completions for at
    /// most `grace`, and leaks what the kernel still holds
    /// ([`InFlight::leak`]). Returns how many were leaked. Nothing is
    /// submitted afterwards.
    fn shutdown(&mut self, grace: Duration) -> usize;
}

/// Who a subscription is handed over to.
#[derive(Clone, Copy, Debug)]
pub struct Successor {
    /// The worker.
    pub worker: usize,
    /// What its driver has [adopted](Driver::adopt) the descriptor as, where
    /// drivers work by readiness.
    pub token: Option<u64>,
}

/// Ends the sleep of a worker from any thread.
pub trait Unpark: Send + Sync {
    /// Makes the current or the next [`Driver::park`] return. Never blocks.
    fn unpark(&self);
}

impl fmt::Debug for dyn Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for dyn Unpark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpark")
    }
}
