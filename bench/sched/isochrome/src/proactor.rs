//! `isochrome-proactor`.

#![forbid(unsafe_code)]

fn main() {
    sched_isochrome::main::<sched_isochrome::Serial>(
        "isochrome-proactor",
        isochrome::DriverChoice::Proactor,
    )
}
