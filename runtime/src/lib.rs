//! The executor of isochrome: tasks, colors, workers, time, a blocking pool,
//! and the contract for what carries I/O out.
//!
//! Most users want the crate `isochrome`, which adds drivers and sockets. This
//! crate is for those who bring a [`Driver`](driver::Driver) of their own.
//!
//! | module | concept |
//! |---|---|
//! | `task` | one spawned future: its memory, its state word, its handle |
//! | `color` | a queue of ready tasks that run one at a time |
//! | `worker` | a thread that runs ready colors, steals, and sleeps in a driver |
//! | [`driver`] | the contract: operations in, completions out |
//! | [`op`] | operations, and the slots that own what the kernel may touch |
//! | [`buf`] | owned buffers and leases |
//! | [`time`] | sleep, timeout, and the wheel |
//! | [`fast_open`] | options of TCP Fast Open |
//! | [`inherited`] | descriptors that a service manager handed over |
//! | `blocking` | threads for what blocks |
//! | `stats`, `report` | what it says of itself, asked and unasked |
//! | `runtime` | the pieces put together: `Builder`, `Runtime`, `Handle` |

#[cfg(not(target_os = "linux"))]
compile_error!("isochrome runs on Linux only: its drivers are epoll and io_uring");

// What has loom models is compiled for them; the rest needs a kernel.
mod color;
#[cfg(not(all(test, loom)))]
mod contain;
#[cfg(not(all(test, loom)))]
mod counter;
mod lock;
mod once_box;
mod sync;
mod task;
mod worker;

#[cfg(not(all(test, loom)))]
mod blocking;
#[cfg(not(all(test, loom)))]
mod budget;
pub mod buf;
#[cfg(not(all(test, loom)))]
mod descriptor;
#[cfg(all(test, loom))]
mod descriptor {
    mod counts;
}
#[cfg(not(all(test, loom)))]
pub mod driver;
#[cfg(not(all(test, loom)))]
pub mod eventfd;
#[cfg(not(all(test, loom)))]
pub mod fast_open;
#[cfg(not(all(test, loom)))]
pub mod inherited;
#[cfg(not(all(test, loom)))]
pub mod op;
#[cfg(all(test, loom))]
mod op {
    #[allow(dead_code, reason = "not all of it is modelled")]
    mod lifecycle;
    mod model;
    mod model_feed;
    mod model_follow;
    mod model_readiness;
    #[allow(dead_code, reason = "not all of it is modelled")]
    mod readiness;
    #[allow(dead_code, reason = "not all of it is modelled")]
    mod registrar;
}
#[cfg(not(all(test, loom)))]
mod report;
#[cfg(not(all(test, loom)))]
mod runtime;
#[cfg(not(all(test, loom)))]
mod stats;
#[cfg(not(all(test, loom)))]
pub mod time;

#[cfg(not(all(test, loom)))]
pub use {
    color::{CellError, CellGuard, Color, ColorCell, Hold, HoldError},
    descriptor::{Descriptor, DescriptorRef, WeakDescriptor},
    report::Report,
    runtime::{
        Background, Builder, Handle, Placement, Runtime, spawn, spawn_apart, spawn_blocking,
        spawn_local, yield_now,
    },
    stats::{ColorStats, Stats, Waits, WorkerStats},
    task::{AbortHandle, JoinError, JoinHandle},
};
