//! System calls on files. They may block.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::sys::retry;

/// preadv2(2).
///
/// # Safety
///
/// `count` slices are described at `slices`, they can be written, and nobody
/// else touches them now.
pub(super) unsafe fn preadv2(
    fd: RawFd,
    slices: *const libc::iovec,
    count: usize,
    at: u64,
    flags: i32,
) -> io::Result<usize> {
    let (count, at) = (count as i32, offset(at)?);
    // SAFETY: handed on from the caller.
    retry(|| unsafe { libc::preadv2(fd, slices, count, at, flags) })
}

/// pwritev2(2).
///
/// # Safety
///
/// `count` slices are described at `slices`, they can be read, and nobody
/// writes them now.
pub(super) unsafe fn pwritev2(
    fd: RawFd,
    slices: *const libc::iovec,
    count: usize,
    at: u64,
    flags: i32,
) -> io::Result<usize> {
    let (count, at) = (count as i32, offset(at)?);
    // SAFETY: handed on from the caller.
    retry(|| unsafe { libc::pwritev2(fd, slices, count, at, flags) })
}

/// As the kernel takes it, which would take -1 for "where the file stands".
fn offset(at: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// fsync(2), or fdatasync(2).
pub(super) fn sync(fd: RawFd, data_only: bool) -> io::Result<usize> {
    // SAFETY: no pointers are passed.
    retry(|| unsafe {
        match data_only {
            true => libc::fdatasync(fd) as isize,
            false => libc::fsync(fd) as isize,
        }
    })
}

/// openat(2), close-on-exec.
///
/// # Safety
///
/// `path` ends with a zero, and nobody writes it now.
pub(super) unsafe fn open(
    at: RawFd,
    path: *const libc::c_char,
    flags: i32,
    mode: u32,
) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: handed on from the caller.
    let fd = retry(|| unsafe { libc::openat(at, path, flags, mode) as isize })?;
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// What is asked of statx(2): what stat(2) tells, and when it was made.
pub const STAT_MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

/// The flags of statx(2): of the descriptor if there is no path.
pub fn stat_flags(path: bool, follow: bool) -> i32 {
    match (path, follow) {
        (false, _) => libc::AT_EMPTY_PATH,
        (true, true) => 0,
        (true, false) => libc::AT_SYMLINK_NOFOLLOW,
    }
}

/// statx(2).
///
/// # Safety
///
/// The path ends with a zero; `answer` can be written, and nobody else touches
/// either now.
pub(super) unsafe fn stat(
    fd: RawFd,
    path: Option<*const libc::c_char>,
    follow: bool,
    answer: *mut libc::statx,
) -> io::Result<usize> {
    let flags = stat_flags(path.is_some(), follow);
    let path = path.unwrap_or(c"".as_ptr());
    // SAFETY: handed on from the caller.
    retry(|| unsafe { libc::statx(fd, path, flags, STAT_MASK, answer) as isize })
}

/// close(2). Not done again when a signal interrupts it: the number is free
/// then.
///
/// # Safety
///
/// The caller owns it, and gives it up.
pub(super) unsafe fn close(fd: RawFd) -> io::Result<usize> {
    // SAFETY: handed on from the caller.
    if unsafe { libc::close(fd) } == 0 {
        return Ok(0);
    }
    Err(io::Error::last_os_error())
}

/// splice(2).
pub(super) fn splice(
    from: RawFd,
    at: Option<u64>,
    to: RawFd,
    len: usize,
    flags: u32,
) -> io::Result<usize> {
    let mut at = at.map(offset).transpose()?;
    let at = at.as_mut().map_or(ptr::null_mut(), |at| &raw mut *at);
    // SAFETY: the offset is read and written during the call.
    retry(|| unsafe { libc::splice(from, at, to, ptr::null_mut(), len, flags) })
}

/// Whether the file lives in memory: on tmpfs or ramfs.
pub(super) fn is_in_memory(fd: RawFd) -> bool {
    /// `RAMFS_MAGIC` of `linux/magic.h`.
    const RAMFS: libc::__fsword_t = 0x8584_58f6;
    // SAFETY: plain numbers, of which any will do.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: it is written during the call.
    let known = unsafe { libc::fstatfs(fd, &mut about) } == 0;
    known && (about.f_type == libc::TMPFS_MAGIC || about.f_type == RAMFS)
}
