//! What is done.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use isochrome_runtime::buf::{IoBuf, IoBufMut, Lent, LentMut};
use isochrome_runtime::op::{FileOp, Inline, Stat};

/// Bytes of each file.
pub(crate) const SIZE: u64 = 128 << 20;
const PAGE: usize = 4096;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Operations of a round.
    pub(crate) count: usize,
    pub(crate) place: Place,
    pub(crate) what: What,
    pub(crate) prepare: Option<fn(&Files)>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Disk,
    Direct,
    Memory,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum What {
    Read,
    Write,
    Sync,
    Stat,
    OpenAndClose,
}

pub(crate) const CASES: [Case; 9] = [
    case("cached read", 4000, Place::Disk, What::Read, None),
    case(
        "cold read",
        300,
        Place::Disk,
        What::Read,
        Some(Files::chill),
    ),
    case("O_DIRECT read", 300, Place::Direct, What::Read, None),
    case("buffered write", 2000, Place::Disk, What::Write, None),
    case("tmpfs read", 4000, Place::Memory, What::Read, None),
    case("tmpfs write", 4000, Place::Memory, What::Write, None),
    case(
        "fdatasync, nothing to do",
        500,
        Place::Disk,
        What::Sync,
        Some(Files::settle),
    ),
    case("statx", 2000, Place::Disk, What::Stat, None),
    case(
        "open and close",
        1000,
        Place::Disk,
        What::OpenAndClose,
        None,
    ),
];

const fn case(
    name: &'static str,
    count: usize,
    place: Place,
    what: What,
    prepare: Option<fn(&Files)>,
) -> Case {
    Case {
        name,
        count,
        place,
        what,
        prepare,
    }
}

pub(crate) struct Files {
    paths: Vec<PathBuf>,
    disk: File,
    direct: File,
    memory: File,
}

impl Files {
    pub(crate) fn make(disk: &Path, memory: &Path) -> Result<Files> {
        let name = format!("isochrome-files-bench-{}", std::process::id());
        let paths = vec![disk.join(&name), memory.join(&name)];
        for path in &paths {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            for at in (0..SIZE).step_by(1 << 20) {
                file.write_all_at(&vec![at as u8; 1 << 20], at)?;
            }
            file.sync_all()?;
        }
        let open = |path: &PathBuf, flags| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .custom_flags(flags)
                .open(path)
        };
        Ok(Files {
            disk: open(&paths[0], 0)?,
            direct: open(&paths[0], libc::O_DIRECT)?,
            memory: open(&paths[1], 0)?,
            paths,
        })
    }

    pub(crate) fn file(&self, place: Place) -> &File {
        match place {
            Place::Disk => &self.disk,
            Place::Direct => &self.direct,
            Place::Memory => &self.memory,
        }
    }

    /// A path on the disk.
    pub(crate) fn path(&self) -> &Path {
        &self.paths[0]
    }

    /// Nothing of it is in the page cache.
    fn chill(&self) {
        self.settle();
        let advice = [libc::POSIX_FADV_DONTNEED, libc::POSIX_FADV_RANDOM];
        for advice in advice {
            // SAFETY: no pointers are passed.
            unsafe { libc::posix_fadvise(self.disk.as_raw_fd(), 0, 0, advice) };
        }
    }

    fn settle(&self) {
        self.disk.sync_all().expect("the disk");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

/// A page, aligned as O_DIRECT wants it.
#[repr(align(4096))]
struct Aligned([u8; PAGE]);

pub(crate) struct Page(Box<Aligned>);

impl Page {
    pub(crate) fn new() -> Page {
        Page(Box::new(Aligned([7; PAGE])))
    }
}

// SAFETY: the bytes are in the box.
unsafe impl IoBuf for Page {
    fn bytes(&self) -> &[u8] {
        &self.0.0
    }
}

// SAFETY: likewise.
unsafe impl IoBufMut for Page {
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.0
    }
}

/// Offsets here and there: xorshift64*.
pub(crate) struct Offsets(pub(crate) u64);

impl Offsets {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let n = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        n % (SIZE / PAGE as u64) * PAGE as u64
    }
}

/// The operation, to be carried out as `inline` says or by a driver.
pub(crate) fn operation(what: What, page: Page, at: u64, inline: Inline, path: &Path) -> FileOp {
    match what {
        What::Read => FileOp::Read {
            into: LentMut::new(page),
            at,
            inline,
        },
        What::Write => FileOp::Write {
            data: Lent::new(page),
            at,
            inline,
        },
        What::Sync => FileOp::Sync { data_only: true },
        What::Stat => FileOp::Stat {
            path: None,
            follow: true,
            answer: Stat::new(),
        },
        What::OpenAndClose => FileOp::Open {
            path: CString::new(path.as_os_str().as_bytes()).expect("no zero in it"),
            flags: libc::O_RDONLY,
            mode: 0,
        },
    }
}

/// The same by std, on this thread.
pub(crate) fn by_std(what: What, file: &File, page: &mut Page, at: u64, path: &Path) {
    let done = match what {
        What::Read => file.read_exact_at(page.bytes_mut(), at),
        What::Write => file.write_all_at(page.bytes(), at),
        What::Sync => file.sync_data(),
        What::Stat => file.metadata().map(drop),
        What::OpenAndClose => File::open(path).map(drop),
    };
    done.expect("the operation");
}
