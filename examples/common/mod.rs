//! What the examples share. (`server`, here too, is a module of the servers
//! only.)

pub(crate) mod cli;
pub(crate) mod limits;
