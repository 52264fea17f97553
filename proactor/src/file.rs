//! Operations on files: their entries, and what their completions mean.
//!
//! A close frees the number before it does what may fail, so that the number is
//! nobody's to close after any answer but one: that it was cancelled before it
//! began. A file system may answer ECANCELED too, of what it does afterwards. So
//! closes are not cancelled one by one; only the end of the driver does it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use isochrome_runtime::op::{self, Completion, FileOp, InFlight, STAT_MASK, Yield};

/// More than this is not transferred at once: the kernel's own `MAX_RW_COUNT`.
const MOST: usize = 0x7fff_f000;

/// What a completion of it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    Open,
    Close,
}

impl Kind {
    pub(crate) fn of(op: &FileOp) -> Kind {
        match op {
            FileOp::Open { .. } => Kind::Open,
            FileOp::Close(_) => Kind::Close,
            _ => Kind::Count,
        }
    }
}

/// The entry that starts it. What it points to belongs to the operation, which
/// does not move it.
pub(crate) fn entry(fd: Fd, op: &mut FileOp) -> squeue::Entry {
    match op {
        FileOp::Read { into, at, .. } => {
            let len = into.len().min(MOST) as u32;
            opcode::Read::new(fd, into.as_mut_ptr(), len)
                .offset(*at)
                .build()
        }
        FileOp::Write { data, at, .. } => {
            let len = data.len().min(MOST) as u32;
            opcode::Write::new(fd, data.as_ptr(), len)
                .offset(*at)
                .build()
        }
        FileOp::ReadVectored { into, at, .. } => {
            opcode::Readv::new(fd, into.as_ptr(), into.len() as u32)
                .offset(*at)
                .build()
        }
        FileOp::WriteVectored { data, at, .. } => {
            opcode::Writev::new(fd, data.as_ptr(), data.len() as u32)
                .offset(*at)
                .build()
        }
        FileOp::Sync { data_only } => {
            let flags = match data_only {
                true => FsyncFlags::DATASYNC,
                false => FsyncFlags::empty(),
            };
            opcode::Fsync::new(fd).flags(flags).build()
        }
        FileOp::Open { path, flags, mode } => opcode::OpenAt::new(fd, path.as_ptr())
            .flags(*flags | libc::O_CLOEXEC)
            .mode(*mode)
            .build(),
        FileOp::Stat {
            path,
            follow,
            answer,
        } => {
            let flags = op::stat_flags(path.is_some(), *follow);
            let path = path.as_ref().map_or(c"".as_ptr(), |path| path.as_ptr());
            opcode::Statx::new(fd, path, answer.as_mut_ptr().cast())
                .flags(flags)
                .mask(STAT_MASK)
                .build()
        }
        FileOp::Close(fd) => {
            let fd = fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            opcode::Close::new(Fd(fd)).build()
        }
        FileOp::Splice { from, at, len, .. } => {
            let at = at.map_or(-1, |at| at as i64);
            opcode::Splice::new(Fd(from.as_raw_fd()), at, fd, -1, *len).build()
        }
    }
}

/// What the asker gets, and adopts. `ends`: the driver cancels everything.
pub(crate) fn yielded(
    kind: Kind,
    op: &InFlight,
    result: Result<usize, i32>,
    ends: bool,
) -> Completion {
    match (kind, result) {
        (Kind::Count, Ok(n)) => Ok(Yield::Done(n)),
        (Kind::Open, Ok(fd)) => {
            // SAFETY: the kernel has just opened it for this operation, and
            // told nobody else.
            Ok(Yield::File(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
        }
        (Kind::Close, result) => {
            if !(ends && result == Err(libc::ECANCELED)) {
                op.with_op(op::closed);
            }
            result
                .map(Yield::Done)
                .map_err(io::Error::from_raw_os_error)
        }
        (_, Err(errno)) => Err(io::Error::from_raw_os_error(errno)),
    }
}
