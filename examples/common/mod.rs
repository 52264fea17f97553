//! What the echo server and the echo client share.

pub(crate) mod cli;
pub(crate) mod limits;
