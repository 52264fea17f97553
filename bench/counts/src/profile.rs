//! Which functions the instructions of a round trip, or of a step of the
//! scheduler, are in.

use crate::args::Args;
use crate::catalogue::{self, Binaries};
use crate::counted::{SCALES, lengths, less, once};
use crate::process::Server;
use crate::system;
use crate::tools::{self, Places, Scratch};

const CONNECTIONS: usize = 64;

/// What is not worth a line, in instructions.
const LEAST: f64 = 1.0;

/// `what` is a server, or a runtime and a case: `isochrome-reactor/yield`.
pub fn profile(args: &Args, what: &str) -> Result<(), String> {
    let scratch = Scratch::new()?;
    let out = scratch.file("callgrind");
    let tool = tools::callgrind(&out);
    let mut binaries = Binaries::new(args.build);
    let (short, long, each, unit) = match what.split_once('/') {
        Some((runtime, case)) => {
            let entry = catalogue::schedulers()?;
            let entry = entry.iter().find(|entry| entry.name == runtime);
            let exe = binaries.get(entry.ok_or(format!("no runtime is called {runtime}"))?)?;
            let run = |scale| {
                let ops = once(&tool, &exe, case, scale)?;
                Ok::<_, String>((tools::places(&out)?, ops))
            };
            let (short, long) = (run(SCALES[0])?, run(SCALES[1])?);
            (short.0, long.0, long.1 - short.1, "operation")
        }
        None => {
            let entry = catalogue::servers()?;
            let entry = entry.iter().find(|entry| entry.name == what);
            let entry = entry.ok_or(format!("no server is called {what}"))?;
            let exe = binaries.get(entry)?;
            system::take_turns().map_err(|e| format!("cannot keep to one processor: {e}"))?;
            let run = |rounds| {
                let server = Server::start(&tool, &exe, entry, Some(CONNECTIONS))?;
                server.serve(CONNECTIONS, rounds)?;
                tools::places(&out)
            };
            let lengths = lengths(CONNECTIONS);
            let each = (CONNECTIONS * (lengths[1] - lengths[0])) as f64;
            (run(lengths[0])?, run(lengths[1])?, each, "round trip")
        }
    };
    print(what, &short, &long, each, unit);
    Ok(())
}

fn print(what: &str, short: &Places, long: &Places, each: f64, unit: &str) {
    let functions = less(&long.functions, &short.functions, each);
    let sum: f64 = functions.iter().map(|(_, cost)| cost).sum();
    println!("{what}: {sum:.1} instructions per {unit}\n\nby function");
    for (name, cost) in functions.iter().filter(|(_, cost)| *cost >= LEAST) {
        println!("{cost:>9.1}  {}", plain(name));
    }
    println!("\nby source file (inlined code where it was written)");
    let files = less(&long.files, &short.files, each);
    for (name, cost) in files.iter().filter(|(_, cost)| *cost >= LEAST) {
        println!("{cost:>9.1}  {name}");
    }
}

/// A name without the hash of the compiler.
fn plain(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((plain, hash)) if hash.len() == 16 => plain,
        _ => name,
    }
}
