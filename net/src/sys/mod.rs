//! System calls for which the crates below have no safe face: the only
//! `unsafe` of this crate. None of them blocks if it is told MSG_DONTWAIT.

mod batch;
mod message;
mod option;
mod process;

pub(crate) use batch::{MOST, Outgoing, recv_batch, send_batch};
pub(crate) use message::{Beside, MOST_FDS, recv, recv_from, recv_local, recv_msg};
pub(crate) use option::{get, peer_pidfd, set};
pub(crate) use process::pidfd_open;
