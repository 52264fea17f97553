//! A random program of socket operations, cancels and drops on std, on the
//! reactor and on the proactor. What has to agree stands in `tests/sockets`.
//!
//! ```text
//! cargo +nightly fuzz run sockets -- -max_total_time=600 -max_len=150 -timeout=60
//! ```

#![no_main]

use isochrome::{Builder, DriverChoice, Runtime};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/sockets/mod.rs"]
mod sockets;

use sockets::Program;

fn build(driver: DriverChoice) -> Runtime {
    let runtime = Builder::new().driver(driver).workers(1).build();
    runtime.expect("both drivers run here")
}

thread_local! {
    static REACTOR: Runtime = build(DriverChoice::Reactor);
    static PROACTOR: Runtime = build(DriverChoice::Proactor);
}

fn on_a_broken_pipe(what: libc::sighandler_t) {
    // SAFETY: the signal is ignored or ends the process: no code runs in it.
    unsafe { libc::signal(libc::SIGPIPE, what) };
}

fuzz_target!(|data: &[u8]| {
    let program = Program::decode(data);
    // Vectored writes of std raise it.
    on_a_broken_pipe(libc::SIG_IGN);
    let std = sockets::on_std(&program).expect("sockets");
    // The runtime never does.
    on_a_broken_pipe(libc::SIG_DFL);
    for runtime in [&REACTOR, &PROACTOR] {
        let ours = runtime.with(|runtime| sockets::on(runtime, &program));
        assert_eq!(ours.expect("sockets"), std);
    }
});
