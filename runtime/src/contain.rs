//! Foreign code whose panic goes no further.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs it. The message of a panic was printed by the panic hook; who calls goes
/// on as if nothing had been.
pub(crate) fn contain(foreign: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(foreign)) {
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        // Someone means it; this one is leaked.
        dropped.unwrap_or_else(mem::forget);
    }
}
