//! What many slots never need: kept out of them, so that an idle socket is
//! small. A slot makes it when it first needs it, and keeps it: what a socket
//! did once it is likely to do again, and then allocates nothing.

use std::collections::VecDeque;
use std::task::Waker;

use super::{Completion, Op};

#[derive(Default)]
pub(super) struct Flight {
    /// An operation with something to own: the others are told by their names.
    pub(super) op: Option<Op>,
    /// Completions not taken yet, after the first.
    pub(super) rest: VecDeque<Completion>,
    /// Who awaits the operation in flight, if that is one `Run`.
    pub(super) owner: Option<Waker>,
}
