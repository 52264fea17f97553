//! Counts that noise cannot touch: user-space instructions a round trip and a
//! scheduler step, system calls and allocations a round trip, user bytes an
//! idle connection and an idle task.
//!
//! ```text
//! cargo run --release -p counts -- --json
//! cargo run --release -p counts -- --only instructions --peer iso
//! cargo run --release -p counts -- --profile iso-reactor
//! cargo run --release -p counts -- --profile isochrome-reactor/yield
//! ```
//!
//! Whatever is counted over the life of a process (by callgrind, dhat or
//! strace) is counted twice, over runs of different length, and the difference
//! is divided by what the longer run did more: start and end fall out.
//!
//! | module | |
//! |---|---|
//! | `args` | the command line |
//! | `catalogue` | what there is to measure, built |
//! | `client` | drives exactly so many round trips |
//! | `process` | a server under a tool, from its start to its end |
//! | `tools` | what callgrind, dhat and strace say |
//! | `counted` | the counts |
//! | `profile` | which functions the instructions are in |
//! | `report` | the lines and the table |
//! | `system` | limits, affinity and policy of this process |

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod args;
mod catalogue;
mod client;
mod counted;
mod process;
mod profile;
mod report;
mod system;
mod tools;

use std::process::ExitCode;

use args::Args;
use report::Report;

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(e) => {
            eprintln!("counts: {e}\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    let done = match &args.profile {
        Some(what) => profile::profile(&args, what),
        None => {
            let mut report = Report::new(args.json);
            let done = counted::all(&args, &mut report);
            report.table();
            done
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("counts: {e}");
            ExitCode::FAILURE
        }
    }
}
