//! Echo servers as they were written before event loops, each a page long.
//!
//! | variant | architecture | how many at a time |
//! |---|---|---|
//! | `sequential` | one after another | 1 |
//! | `fork` | a process per connection | as many as the system allows processes |
//! | `prefork` | a pool of processes that accept from one listener | `--workers`, 256 if not said |
//! | `thread` | a thread per connection | as many as the system allows threads |
//! | `pool` | a pool of threads behind a bounded queue | `--workers`, 256 if not said |
//! | `select` | one thread in a select(2) loop | FD_SETSIZE (1,024) less its own descriptors |
//!
//! Who is not among those served waits: in the backlog of the listener
//! (`sequential`, `prefork`), or in the queue (`pool`). Who does not fit
//! anywhere is closed at once.
//!
//! They speak the delimited protocol, and with `--protocol echo` a plain echo.
//! When the parent ends, however that is, the kernel kills its children.

mod processes;
mod select;
mod talk;
mod threads;

use server_common::{Args, Protocol, Spec, fail, listen, said};

/// The classic size of a pool: what Apache's prefork took if not told.
const POOL: usize = 256;

fn main() {
    let args = Args::parse(Spec {
        variants: &["sequential", "fork", "prefork", "thread", "pool", "select"],
        protocols: &[Protocol::Delimited, Protocol::Echo],
        parallel: true,
    });
    let pool = args.workers.unwrap_or(POOL);
    let listener = listen(args.addr);
    said(&listener);
    let end = match args.variant {
        "fork" => processes::fork_each(&listener, args.protocol),
        "prefork" => processes::prefork(&listener, args.protocol, pool),
        "thread" => threads::each(&listener, args.protocol),
        "pool" => threads::pool(&listener, args.protocol, pool),
        "select" => select::run(listener, args.protocol),
        _ => threads::sequential(&listener, args.protocol),
    };
    if let Err(e) = end {
        fail(args.variant, e);
    }
}
