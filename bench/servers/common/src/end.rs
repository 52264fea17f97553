//! The end that a server makes by itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many connections may close before the server exits, if it is to.
pub fn exit_after() -> Option<u64> {
    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    *LIMIT.get_or_init(|| std::env::var("BENCH_EXIT_AFTER").ok()?.parse().ok())
}

/// To be called once for each connection that has ended.
pub fn closed() {
    static CLOSED: AtomicU64 = AtomicU64::new(0);
    let now = CLOSED.fetch_add(1, Ordering::Relaxed) + 1;
    if exit_after().is_some_and(|limit| now >= limit) {
        std::process::exit(0);
    }
}
