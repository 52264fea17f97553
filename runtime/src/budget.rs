//! How much I/O one poll of a task may do.
//!
//! I/O that is always ready would otherwise keep its task running for ever:
//! after [`BUDGET`] completed operations in one poll the next one yields, and
//! the task becomes ready again when the driver has had its turn.

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use crate::worker::Worker;

/// tokio's figure, and small against the cost of that many system calls.
const BUDGET: i16 = 128;

/// So many operations of a poll are refused before it has a budget again: one
/// executor within another, in a task, polls on and on.
const REFUSALS: i16 = 128;

thread_local! {
    /// Below zero: so many were refused.
    static LEFT: Cell<i16> = const { Cell::new(BUDGET) };
}

/// Called by the runtime before each poll of a task. Threads of other
/// executors run out once, and then yield after every [`BUDGET`] operations.
#[inline]
pub(crate) fn refill() {
    LEFT.set(BUDGET);
}

/// Pending, with a wake on its way, if the budget is spent.
#[inline]
pub(crate) fn poll_remaining(cx: &mut Context<'_>) -> Poll<()> {
    if LEFT.get() > 0 {
        return Poll::Ready(());
    }
    refuse(cx)
}

/// All that are asked in the rest of this poll are refused. If the first that
/// is refused brought a new budget, one that waits and one that goes on, side
/// by side in a task, would never yield.
#[cold]
fn refuse(cx: &mut Context<'_>) -> Poll<()> {
    let in_task = Worker::wake_after_driver(cx.waker());
    match LEFT.get() {
        left if in_task && left > -REFUSALS => LEFT.set(left - 1),
        _ => refill(),
    }
    Poll::Pending
}

/// Takes one operation off the budget.
#[inline]
pub(crate) fn spend() {
    if LEFT.get() > 0 {
        LEFT.set(LEFT.get() - 1);
    }
}

/// Takes one operation off the budget of this poll, for I/O that is done at
/// once and past a [`Port`](crate::op::Port). Pending, with a wake on its way,
/// if the budget is spent: I/O that is always ready has to yield at times.
pub fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    ready!(poll_remaining(cx));
    spend();
    Poll::Ready(())
}
