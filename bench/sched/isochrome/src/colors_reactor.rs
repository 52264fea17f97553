//! `isochrome-colors-reactor`.

#![forbid(unsafe_code)]

fn main() {
    sched_isochrome::main::<sched_isochrome::Colors>(
        "isochrome-colors-reactor",
        isochrome::DriverChoice::Reactor,
    )
}
