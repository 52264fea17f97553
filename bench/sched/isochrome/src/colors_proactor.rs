//! `isochrome-colors-proactor`.

#![forbid(unsafe_code)]

fn main() {
    sched_isochrome::main::<sched_isochrome::Colors>(
        "isochrome-colors-proactor",
        isochrome::DriverChoice::Proactor,
    )
}
