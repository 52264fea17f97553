//! `isochrome-reactor`.

#![forbid(unsafe_code)]

fn main() {
    sched_isochrome::main::<sched_isochrome::Serial>(
        "isochrome-reactor",
        isochrome::DriverChoice::Reactor,
    )
}
