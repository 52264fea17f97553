//! How a file is opened.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use isochrome_runtime::Descriptor;
use isochrome_runtime::op::{FileOp, Port, Yield};

use super::file::File;

/// How a file is opened: as std's `OpenOptions`, whose rules hold.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    mode: u32,
    custom: i32,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions::new()
    }
}

impl OpenOptions {
    /// Nothing is allowed yet.
    pub fn new() -> OpenOptions {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o666,
            custom: 0,
        }
    }

    /// To read it.
    pub fn read(&mut self, on: bool) -> &mut OpenOptions {
        self.read = on;
        self
    }

    /// To write it.
    pub fn write(&mut self, on: bool) -> &mut OpenOptions {
        self.write = on;
        self
    }

    /// To write it at its end only.
    pub fn append(&mut self, on: bool) -> &mut OpenOptions {
        self.append = on;
        self
    }

    /// To empty it.
    pub fn truncate(&mut self, on: bool) -> &mut OpenOptions {
        self.truncate = on;
        self
    }

    /// To make it if it is not there.
    pub fn create(&mut self, on: bool) -> &mut OpenOptions {
        self.create = on;
        self
    }

    /// To make it, and to fail if it is there.
    pub fn create_new(&mut self, on: bool) -> &mut OpenOptions {
        self.create_new = on;
        self
    }

    /// The permissions of a file that is made, before the umask: 0o666 if
    /// nothing is said.
    pub fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.mode = mode;
        self
    }

    /// Further flags of open(2), as `O_DIRECT` or `O_SYNC`. Those that say
    /// whether to read or write are ignored.
    pub fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.custom = flags;
        self
    }

    /// Opens the file, close-on-exec.
    ///
    /// Dropping the future gives it up; the file may have been made or emptied
    /// then, and a descriptor that comes too late is closed.
    ///
    /// Not for a FIFO, whose other end is waited for on the blocking pool, and
    /// not on a ring: see [`pipe::OpenOptions`](crate::pipe::OpenOptions).
    ///
    /// # Errors
    ///
    /// What open(2) answers; [`InvalidInput`](io::ErrorKind::InvalidInput) if
    /// the options contradict each other or the path has a zero in it; if the
    /// blocking pool is full; outside a runtime.
    pub async fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = c_path(path.as_ref())?;
        let flags = self.flags()?;
        let runtime = crate::runtime()?;
        let port = Port::new(Descriptor::working_directory(&runtime));
        let mode = self.mode;
        let (completion, _) = port.file(FileOp::Open { path, flags, mode }).await;
        match completion? {
            Yield::File(fd) => File::on(fd, flags, runtime),
            Yield::Done(_) | Yield::Buf(_) | Yield::Socket(_) => {
                unreachable!("opening a file yields a file")
            }
        }
    }

    fn flags(&self) -> io::Result<i32> {
        let invalid = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        let access = match (self.read, self.write, self.append) {
            (true, false, false) => libc::O_RDONLY,
            (false, true, false) => libc::O_WRONLY,
            (true, true, false) => libc::O_RDWR,
            (false, _, true) => libc::O_WRONLY | libc::O_APPEND,
            (true, _, true) => libc::O_RDWR | libc::O_APPEND,
            (false, false, false) => return invalid(),
        };
        let makes = self.truncate || self.create || self.create_new;
        if makes && !self.write && !self.append {
            return invalid();
        }
        if self.append && self.truncate && !self.create_new {
            return invalid();
        }
        let making = match (self.create, self.truncate, self.create_new) {
            (_, _, true) => libc::O_CREAT | libc::O_EXCL,
            (false, false, false) => 0,
            (true, false, false) => libc::O_CREAT,
            (false, true, false) => libc::O_TRUNC,
            (true, true, false) => libc::O_CREAT | libc::O_TRUNC,
        };
        Ok(access | making | (self.custom & !libc::O_ACCMODE))
    }
}

/// As the kernel takes it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        let message = format!("the path {path:?} has a zero byte in it");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}
