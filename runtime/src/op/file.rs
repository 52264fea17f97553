//! Operations on files: what may wait for a disk, and no readiness tells when.
//!
//! A ring carries them out, or a thread of the blocking pool that holds the
//! [`InFlight`] as a driver would: what is in flight owns its memory either
//! way, and what is given up is retired by its end. Before either, a transfer
//! may be tried on the asking side's own thread, if it is said to wait for
//! nothing there ([`Inline`]).
//!
//! That it is always the ring, where there is one, is measured, see
//! `docs/performance.md`: also what the kernel hands to a thread of its own
//! (buffered writes, fsync, statx) costs no more there than on the pool.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use super::file_sys as sys;
use super::slot::InFlight;
use super::{Completion, Op, Yield, leave};
use crate::buf::{Lent, LentMut, LentSlices, LentSlicesMut};
use crate::descriptor::DescriptorRef;

/// An operation on a file. Offsets are in bytes from the beginning; transfers
/// may be shorter than asked for.
///
/// | operation | result | cancelling it may lose |
/// |---|---|---|
/// | `Read`, `ReadVectored` | [`Yield::Done`]`(bytes)` | nothing but what was read: the file is as it was |
/// | `Write`, `WriteVectored` | [`Yield::Done`]`(bytes)` | knowledge: any part may have been written |
/// | `Sync` | [`Yield::Done`]`(0)` | knowledge, an error included |
/// | `Open` | [`Yield::File`] | knowledge: the file may have been made or emptied; what comes too late is closed |
/// | `Stat` | [`Yield::Done`]`(0)`, and the answer in the operation | nothing |
/// | `Close` | [`Yield::Done`]`(0)` | what close(2) says: it is closed in any case |
/// | `Splice` | [`Yield::Done`]`(bytes)` | what was taken out of a pipe or a socket and not put into the other |
///
/// A ring is asked to cancel; a thread of the pool that has begun goes on, and
/// what has not begun is not done.
#[derive(Debug)]
pub enum FileOp {
    /// Read into one buffer: pread(2).
    Read {
        /// Where to.
        into: LentMut,
        /// The offset.
        at: u64,
        /// Whether to try it at once.
        inline: Inline,
    },
    /// Read into several buffers: preadv(2).
    ReadVectored {
        /// Where to.
        into: LentSlicesMut,
        /// The offset.
        at: u64,
        /// Whether to try it at once.
        inline: Inline,
    },
    /// Write one buffer: pwrite(2).
    Write {
        /// What.
        data: Lent,
        /// The offset; of no meaning for a file opened to append.
        at: u64,
        /// Whether to try it at once.
        inline: Inline,
    },
    /// Write several buffers: pwritev(2).
    WriteVectored {
        /// What.
        data: LentSlices,
        /// The offset; of no meaning for a file opened to append.
        at: u64,
        /// Whether to try it at once.
        inline: Inline,
    },
    /// Bring what was written to the disk: fsync(2), or fdatasync(2).
    Sync {
        /// Without what reading it back does not need.
        data_only: bool,
    },
    /// Open a file: openat(2). Close-on-exec.
    Open {
        /// Relative to the working directory.
        path: CString,
        /// As in open(2).
        flags: i32,
        /// Permissions of a file that is made.
        mode: u32,
    },
    /// Ask about the descriptor or, if there is a path, about what it leads
    /// to: statx(2).
    Stat {
        /// Relative to the working directory.
        path: Option<CString>,
        /// Whether to follow a link at its end.
        follow: bool,
        /// The answer.
        answer: Box<Stat>,
    },
    /// Close a descriptor, and hear what that says: close(2). Taken out by who
    /// did it; what is still here is closed on drop.
    Close(Option<OwnedFd>),
    /// Move bytes to or from a pipe without a copy: splice(2).
    Splice {
        /// Where from; where to is the descriptor of the port.
        from: DescriptorRef,
        /// The offset there, unless it is a pipe or a socket.
        at: Option<u64>,
        /// How many bytes at most.
        len: u32,
        /// The other end of the pipe, if it is the asker's too: a splice that
        /// waits for the other side has the pipe locked meanwhile, and closing
        /// the end would wait for that.
        keep: Option<DescriptorRef>,
    },
}

/// Whether a transfer is tried at once, on the asking side's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    /// No: it would wait for a disk.
    Never,
    /// If the file system says that it would not wait: RWF_NOWAIT in
    /// preadv2(2). Becomes something else in the operation that comes back if
    /// the file system cannot say so.
    Nowait,
    /// Always: the file is in memory.
    Always,
}

impl Inline {
    /// For a byte of an atomic.
    pub fn from_byte(byte: u8) -> Inline {
        match byte {
            0 => Inline::Nowait,
            1 => Inline::Always,
            _ => Inline::Never,
        }
    }

    /// The other way.
    pub fn to_byte(self) -> u8 {
        match self {
            Inline::Nowait => 0,
            Inline::Always => 1,
            Inline::Never => 2,
        }
    }
}

/// What statx(2) said.
pub struct Stat(libc::statx);

impl Stat {
    /// Room for an answer.
    pub fn new() -> Box<Stat> {
        // SAFETY: plain numbers, of which any will do.
        Box::new(Stat(unsafe { std::mem::zeroed() }))
    }

    /// The answer, after an operation that succeeded.
    pub fn get(&self) -> &libc::statx {
        &self.0
    }

    /// Where the kernel writes it.
    pub fn as_mut_ptr(&mut self) -> *mut libc::statx {
        &raw mut self.0
    }
}

impl fmt::Debug for Stat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stat")
            .field("mode", &self.0.stx_mode)
            .field("size", &self.0.stx_size)
            .finish_non_exhaustive()
    }
}

impl FileOp {
    /// Tries a transfer at once, or says that it has no meaning. `None`: it
    /// would wait.
    pub(super) fn try_inline(&mut self, fd: RawFd) -> Option<io::Result<usize>> {
        let (at, inline) = match self {
            FileOp::Read { inline, at, .. }
            | FileOp::ReadVectored { inline, at, .. }
            | FileOp::Write { inline, at, .. }
            | FileOp::WriteVectored { inline, at, .. } => (*at, *inline),
            FileOp::Splice { at: Some(at), .. } => (*at, Inline::Never),
            _ => return None,
        };
        if at > i64::MAX as u64 {
            // -1 would be "where the file stands".
            return Some(Err(io::Error::from_raw_os_error(libc::EINVAL)));
        }
        let flags = match inline {
            Inline::Never => return None,
            Inline::Nowait => libc::RWF_NOWAIT,
            Inline::Always => 0,
        };
        // SAFETY: what it points to is the operation's, which is borrowed
        // until it returns.
        let error = match unsafe { self.call().transfer(fd, flags) } {
            Err(e) if inline == Inline::Nowait => e,
            result => return Some(result),
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => None,
            // The file system cannot say; EINVAL, from some of them, may mean
            // something else too, which the attempt without the flag tells.
            Some(libc::EOPNOTSUPP | libc::EINVAL) => {
                self.set_inline(match sys::is_in_memory(fd) {
                    true => Inline::Always,
                    false => Inline::Never,
                });
                self.try_inline(fd)
            }
            _ => Some(Err(error)),
        }
    }

    /// As [`Op::leave_memory`].
    pub(super) fn leave_memory(&mut self) -> bool {
        match self {
            FileOp::Sync { .. } => {}
            FileOp::Open { path, .. } => leave(path),
            FileOp::Stat { path, answer, .. } => {
                leave(path);
                std::mem::forget(std::mem::replace(answer, Stat::new()));
            }
            // It may be closed yet, so it must not be closed by us.
            FileOp::Close(fd) => std::mem::forget(fd.take()),
            FileOp::Splice { from, keep, .. } => {
                leave(from);
                leave(keep);
            }
            FileOp::Read { .. }
            | FileOp::ReadVectored { .. }
            | FileOp::Write { .. }
            | FileOp::WriteVectored { .. } => return false,
        }
        true
    }

    fn set_inline(&mut self, known: Inline) {
        if let FileOp::Read { inline, .. }
        | FileOp::ReadVectored { inline, .. }
        | FileOp::Write { inline, .. }
        | FileOp::WriteVectored { inline, .. } = self
        {
            *inline = known;
        }
    }

    fn call(&mut self) -> Call {
        match self {
            FileOp::Read { into, at, .. } => Call::Transfer {
                slices: Slices::one(into.as_mut_ptr(), into.len()),
                at: *at,
                write: false,
            },
            FileOp::Write { data, at, .. } => Call::Transfer {
                slices: Slices::one(data.as_ptr().cast_mut(), data.len()),
                at: *at,
                write: true,
            },
            FileOp::ReadVectored { into, at, .. } => Call::Transfer {
                slices: Slices::Many(into.as_ptr(), into.len()),
                at: *at,
                write: false,
            },
            FileOp::WriteVectored { data, at, .. } => Call::Transfer {
                slices: Slices::Many(data.as_ptr(), data.len()),
                at: *at,
                write: true,
            },
            FileOp::Sync { data_only } => Call::Sync {
                data_only: *data_only,
            },
            FileOp::Open { path, flags, mode } => Call::Open {
                path: path.as_ptr(),
                flags: *flags,
                mode: *mode,
            },
            FileOp::Stat {
                path,
                follow,
                answer,
            } => Call::Stat {
                path: path.as_ref().map(|path| path.as_ptr()),
                follow: *follow,
                answer: answer.as_mut_ptr(),
            },
            FileOp::Close(fd) => Call::Close(fd.as_ref().map(|fd| fd.as_raw_fd())),
            FileOp::Splice { from, at, len, .. } => Call::Splice {
                from: from.as_raw_fd(),
                at: *at,
                len: *len as usize,
            },
        }
    }
}

/// One system call, with pointers into the operation that it was made of.
#[derive(Clone, Copy)]
enum Call {
    Transfer {
        slices: Slices,
        at: u64,
        write: bool,
    },
    Sync {
        data_only: bool,
    },
    Open {
        path: *const libc::c_char,
        flags: i32,
        mode: u32,
    },
    Stat {
        path: Option<*const libc::c_char>,
        follow: bool,
        answer: *mut libc::statx,
    },
    Close(Option<RawFd>),
    Splice {
        from: RawFd,
        at: Option<u64>,
        len: usize,
    },
}

#[derive(Clone, Copy)]
enum Slices {
    One(libc::iovec),
    Many(*const libc::iovec, usize),
}

impl Slices {
    fn one(ptr: *mut u8, len: usize) -> Slices {
        Slices::One(libc::iovec {
            iov_base: ptr.cast(),
            iov_len: len,
        })
    }
}

impl Call {
    /// # Safety
    ///
    /// The operation that it was made of lives until this returns, and nobody
    /// else touches its memory.
    unsafe fn transfer(self, fd: RawFd, flags: i32) -> io::Result<usize> {
        let Call::Transfer { slices, at, write } = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (ptr, count) = match &slices {
            Slices::One(one) => (&raw const *one, 1),
            Slices::Many(ptr, count) => (*ptr, *count),
        };
        // SAFETY: handed on from the caller.
        unsafe {
            match write {
                false => sys::preadv2(fd, ptr, count, at, flags),
                true => sys::pwritev2(fd, ptr, count, at, flags),
            }
        }
    }

    /// # Safety
    ///
    /// As for [`transfer`](Call::transfer).
    unsafe fn make(self, fd: RawFd) -> Completion {
        // SAFETY: handed on from the caller, in each.
        unsafe {
            match self {
                Call::Transfer { .. } => self.transfer(fd, 0).map(Yield::Done),
                Call::Sync { data_only } => sys::sync(fd, data_only).map(Yield::Done),
                Call::Open { path, flags, mode } => {
                    sys::open(fd, path, flags, mode).map(Yield::File)
                }
                Call::Stat {
                    path,
                    follow,
                    answer,
                } => sys::stat(fd, path, follow, answer).map(Yield::Done),
                Call::Close(fd) => fd.map_or(Ok(0), |fd| sys::close(fd)).map(Yield::Done),
                Call::Splice { from, at, len } => {
                    sys::splice(from, at, fd, len, 0).map(Yield::Done)
                }
            }
        }
    }
}

/// Carries an operation out on this thread, however long it takes.
pub(crate) fn carry_out(op: InFlight) {
    if op.is_abandoned() {
        // Dropped, and so finished with ECANCELED.
        return;
    }
    let call = op.with_op(|op| match op {
        Op::File(file) => Some(file.call()),
        _ => None,
    });
    let Some(call) = call else {
        return op.finish(Err(io::ErrorKind::Unsupported.into()));
    };
    // SAFETY: the operation, and what it points to, stays where it is and is
    // nobody else's until it is finished.
    let result = unsafe { call.make(op.fd()) };
    if matches!(call, Call::Close(_)) {
        op.with_op(closed);
    }
    op.finish(result);
}

/// A close was carried out, whatever it answered: the number is not ours any
/// more.
pub fn closed(op: &mut Op) {
    if let Op::File(FileOp::Close(fd)) = op {
        let _ = fd.take().map(IntoRawFd::into_raw_fd);
    }
}
