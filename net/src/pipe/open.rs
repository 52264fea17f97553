//! FIFOs: pipes with a name in the file system.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use isochrome_runtime::op::{FileOp, Port, Yield, call};
use isochrome_runtime::{Descriptor, Handle};

use super::ends::{Receiver, Sender};
use crate::fs::c_path;

/// Makes a FIFO, with these permissions before the umask: mkfifo(3), on the
/// blocking pool. Dropping the future does not stop it.
///
/// # Errors
///
/// What mkfifo(3) answers: it is there, mostly; if the pool is full; outside a
/// runtime.
pub async fn create_fifo(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    let path = c_path(path.as_ref())?;
    let made = crate::runtime()?.spawn_blocking(move || call::mkfifo(&path, mode));
    made.await?
}

/// How a FIFO is opened. Opening never waits for the other end.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    read_write: bool,
}

impl OpenOptions {
    /// For one end.
    pub fn new() -> OpenOptions {
        OpenOptions::default()
    }

    /// Whether to open it for both reading and writing, whichever of the two
    /// this end is for. So there always is a reader and a writer: a sender can
    /// be opened before there is a receiver, and a receiver does not see an
    /// end when the last sender goes. Linux allows it, POSIX does not say.
    pub fn read_write(&mut self, on: bool) -> &mut OpenOptions {
        self.read_write = on;
        self
    }

    /// Opens the reading end. There need not be a sender yet.
    ///
    /// Dropping the future gives it up: what is opened too late is closed.
    ///
    /// # Errors
    ///
    /// What open(2) answers; [`InvalidInput`](ErrorKind::InvalidInput) if it
    /// is no FIFO; if the blocking pool is full; outside a runtime.
    pub async fn open_receiver(&self, path: impl AsRef<Path>) -> io::Result<Receiver> {
        let runtime = crate::runtime()?;
        let fd = self.open(path.as_ref(), libc::O_RDONLY, &runtime).await?;
        Receiver::on(fd, &runtime)
    }

    /// Opens the writing end.
    ///
    /// Dropping the future gives it up, likewise.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](ErrorKind::NotConnected) if nobody has it open for
    /// reading (ENXIO); else as for
    /// [`open_receiver`](OpenOptions::open_receiver).
    pub async fn open_sender(&self, path: impl AsRef<Path>) -> io::Result<Sender> {
        let (path, runtime) = (path.as_ref(), crate::runtime()?);
        match self.open(path, libc::O_WRONLY, &runtime).await {
            Ok(fd) => Sender::on(fd, &runtime),
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {
                let message = format!(
                    "no reader: nobody has the FIFO {path:?} open for reading (ENXIO); \
                     try again later, or open it with `read_write`"
                );
                Err(io::Error::new(ErrorKind::NotConnected, message))
            }
            Err(e) => Err(e),
        }
    }

    async fn open(&self, path: &Path, access: i32, runtime: &Handle) -> io::Result<OwnedFd> {
        let access = match self.read_write {
            true => libc::O_RDWR,
            false => access,
        };
        let port = Port::new(Descriptor::working_directory(runtime));
        let op = FileOp::Open {
            path: c_path(path)?,
            flags: access | libc::O_NONBLOCK,
            mode: 0,
        };
        let Yield::File(fd) = port.file(op).await.0? else {
            unreachable!("opening a file yields a file")
        };
        let file = std::fs::File::from(fd);
        if !file.metadata()?.file_type().is_fifo() {
            let message = format!("{path:?} is no FIFO");
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(file.into())
    }
}
