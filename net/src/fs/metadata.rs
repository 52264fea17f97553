//! What is known about a file.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isochrome_runtime::op::FileOp;

/// What is known about a file: statx(2).
#[derive(Clone, Copy)]
pub struct Metadata(libc::statx);

impl Metadata {
    pub(super) fn answered(result: io::Result<usize>, op: FileOp) -> io::Result<Metadata> {
        result?;
        let FileOp::Stat { answer, .. } = op else {
            unreachable!("a port gives back the operation it was given")
        };
        Ok(Metadata(*answer.get()))
    }

    fn is(&self, kind: libc::mode_t) -> bool {
        libc::mode_t::from(self.0.stx_mode) & libc::S_IFMT == kind
    }

    /// How many bytes it has.
    #[allow(clippy::len_without_is_empty, reason = "as std's")]
    pub fn len(&self) -> u64 {
        self.0.stx_size
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.is(libc::S_IFREG)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.is(libc::S_IFDIR)
    }

    /// Whether it is a symbolic link, which only
    /// [`symlink_metadata`](super::symlink_metadata) shows.
    pub fn is_symlink(&self) -> bool {
        self.is(libc::S_IFLNK)
    }

    /// Its kind and its permissions, as in stat(2).
    pub fn mode(&self) -> u32 {
        self.0.stx_mode.into()
    }

    /// The number of its owner.
    pub fn uid(&self) -> u32 {
        self.0.stx_uid
    }

    /// The number of its group.
    pub fn gid(&self) -> u32 {
        self.0.stx_gid
    }

    /// Its number in the file system.
    pub fn ino(&self) -> u64 {
        self.0.stx_ino
    }

    /// How many names it has.
    pub fn nlink(&self) -> u64 {
        self.0.stx_nlink.into()
    }

    /// How many bytes it takes on the disk.
    pub fn allocated(&self) -> u64 {
        self.0.stx_blocks.saturating_mul(512)
    }

    /// The device that it is on: major and minor number.
    pub fn dev(&self) -> (u32, u32) {
        (self.0.stx_dev_major, self.0.stx_dev_minor)
    }

    /// When its contents were last changed.
    pub fn modified(&self) -> SystemTime {
        time(&self.0.stx_mtime)
    }

    /// When it was last read, as far as the file system keeps that.
    pub fn accessed(&self) -> SystemTime {
        time(&self.0.stx_atime)
    }

    /// When it was made, if the file system knows.
    pub fn created(&self) -> Option<SystemTime> {
        let known = self.0.stx_mask & libc::STATX_BTIME != 0;
        known.then(|| time(&self.0.stx_btime))
    }
}

fn time(stamp: &libc::statx_timestamp) -> SystemTime {
    let whole = Duration::from_secs(stamp.tv_sec.unsigned_abs());
    let rest = Duration::from_nanos(stamp.tv_nsec.into());
    match stamp.tv_sec {
        0.. => UNIX_EPOCH + whole + rest,
        _ => UNIX_EPOCH - whole + rest,
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("mode", &format_args!("{:o}", self.mode()))
            .field("len", &self.len())
            .field("modified", &self.modified())
            .finish_non_exhaustive()
    }
}
