//! Files.
//!
//! A [`File`] reads and writes at offsets, with buffers that are handed over
//! and handed back: what is with the kernel belongs to nobody else. A read of
//! what is in the page cache, and all of a file in memory (tmpfs), is done at
//! once, on the thread that asks. What may wait for a disk goes to the ring on
//! the proactor, and to the blocking pool on the reactor. A full pool is an
//! error that says so, and the buffers come back with it.
//!
//! The functions of this module that are not about the contents of a file
//! ([`rename`], [`read_dir`] and so on) are what std has, called on the
//! blocking pool. Dropping one of their futures does not stop what has begun.

mod file;
mod metadata;
mod open;
mod paths;
mod ports;
mod whole;

pub use file::File;
pub use metadata::Metadata;
pub use open::OpenOptions;
pub(crate) use open::c_path;
pub use paths::{
    DirEntry, canonicalize, copy, create_dir, create_dir_all, exists, hard_link, metadata,
    read_dir, read_link, remove_dir, remove_dir_all, remove_file, rename, set_permissions, symlink,
    symlink_metadata,
};
pub(crate) use ports::count;
pub use whole::{read, read_to_string, write};
