//! An open file.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use isochrome_runtime::buf::{IoBuf, IoBufMut, Lent, LentMut, LentSlices, LentSlicesMut};
use isochrome_runtime::op::{FileOp, Inline, Port, Stat, call};
use isochrome_runtime::{Descriptor, DescriptorRef, Handle};

use super::metadata::Metadata;
use super::open::OpenOptions;
use super::ports::Ports;

/// An open file.
///
/// Operations at offsets take `&self`, and any number of them may be under way
/// at once, in any tasks. Their order is the kernel's: who needs one awaits the
/// first. [`read`](File::read), [`write`](File::write) and
/// [`seek`](File::seek) share a position, which is this value's own and not
/// the descriptor's.
///
/// Buffers are handed over and come back with the result, also with an error.
/// Dropping a future gives the operation up: a read drops its buffer when the
/// kernel is done with it, a write may have been done or not, in any part.
///
/// Dropping the file closes it when the last operation has ended; what close(2)
/// says then is lost: use [`close`](File::close) where it matters. Closing may
/// wait for a disk, or for a network.
pub struct File {
    ports: Ports,
    runtime: Handle,
    reads: Way,
    writes: Way,
    append: bool,
    position: u64,
}

/// What is known of whether a transfer can be tried at once.
struct Way(AtomicU8);

impl Way {
    fn new(way: Inline) -> Way {
        Way(AtomicU8::new(way.to_byte()))
    }

    // Relaxed: advice.
    fn get(&self) -> Inline {
        Inline::from_byte(self.0.load(Ordering::Relaxed))
    }

    fn learn(&self, way: Inline) {
        if self.get() != way {
            self.0.store(way.to_byte(), Ordering::Relaxed);
        }
    }
}

impl File {
    /// Opens a file to read it. See [`OpenOptions::open`].
    ///
    /// # Errors
    ///
    /// What open(2) answers: it is not there, or not to be read; outside a
    /// runtime.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path).await
    }

    /// Makes a file to write it, or empties it if it is there. See
    /// [`OpenOptions::open`].
    ///
    /// # Errors
    ///
    /// What open(2) answers; outside a runtime.
    pub async fn create(path: impl AsRef<Path>) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        options.open(path).await
    }

    /// Takes a std file over. Its position is not: see
    /// [`seek`](File::seek).
    ///
    /// The description is made blocking, as files are.
    ///
    /// # Errors
    ///
    /// If its mode cannot be set, or outside a runtime.
    pub fn from_std(file: std::fs::File) -> io::Result<File> {
        let flags = call::flags(file.as_fd())?;
        File::on(file.into(), flags, crate::runtime()?)
    }

    /// `flags`: as in open(2).
    pub(super) fn on(fd: OwnedFd, flags: i32, runtime: Handle) -> io::Result<File> {
        // Past the page cache nothing is there at once: RWF_NOWAIT would wait
        // for the disk.
        let way = match flags & libc::O_DIRECT {
            0 => Inline::Nowait,
            _ => Inline::Never,
        };
        Ok(File {
            ports: Ports::new(Descriptor::blocking(fd, &runtime)?),
            runtime,
            reads: Way::new(way),
            writes: Way::new(way),
            append: flags & libc::O_APPEND != 0,
            position: 0,
        })
    }

    // -- at an offset -----------------------------------------------------

    /// Reads into the bytes of `buf` what is at `offset`, and hands the buffer
    /// back with their number: 0 at the end of the file, and fewer than there
    /// is room for also before it. (Of a `Vec<u8>` the bytes are its current
    /// length, not its capacity.)
    ///
    /// # Errors
    ///
    /// What pread(2) answers: for O_DIRECT, EINVAL if the buffer, its length
    /// or the offset is not aligned. If the blocking pool is full.
    pub async fn read_at<B: IoBufMut>(&self, buf: B, offset: u64) -> (io::Result<usize>, B) {
        let (result, into) = self.read_lent(LentMut::new(buf), offset).await;
        (result, into.into_inner())
    }

    /// Reads until `buf` is full.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](File::read_at), and
    /// [`UnexpectedEof`](ErrorKind::UnexpectedEof) if the file ends before; how
    /// much was read is not known then.
    pub async fn read_exact_at<B: IoBufMut>(&self, buf: B, offset: u64) -> (io::Result<()>, B) {
        let mut into = LentMut::new(buf);
        let mut at = offset;
        while !into.is_empty() {
            let (result, back) = self.read_lent(into, at).await;
            into = back;
            match result {
                Ok(0) => return (Err(ErrorKind::UnexpectedEof.into()), into.into_inner()),
                Ok(n) => {
                    into.skip(n);
                    at = at.saturating_add(n as u64);
                }
                Err(e) => return (Err(e), into.into_inner()),
            }
        }
        (Ok(()), into.into_inner())
    }

    pub(super) async fn read_lent(&self, into: LentMut, at: u64) -> (io::Result<usize>, LentMut) {
        let inline = self.reads.get();
        let (result, op) = self.ports.count(FileOp::Read { into, at, inline }).await;
        let FileOp::Read { into, inline, .. } = op else {
            unreachable!("a port gives back the operation it was given")
        };
        self.reads.learn(inline);
        (result, into)
    }

    /// Reads into several buffers, one after another. Of very many, the first
    /// 1,024 are used.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](File::read_at).
    pub async fn read_vectored_at<B: IoBufMut>(
        &self,
        bufs: Vec<B>,
        offset: u64,
    ) -> (io::Result<usize>, Vec<B>) {
        let op = FileOp::ReadVectored {
            into: LentSlicesMut::new(bufs),
            at: offset,
            inline: self.reads.get(),
        };
        let (result, op) = self.ports.count(op).await;
        let FileOp::ReadVectored { into, inline, .. } = op else {
            unreachable!("a port gives back the operation it was given")
        };
        self.reads.learn(inline);
        (result, into.into_inner())
    }

    /// Writes bytes of `buf` at `offset`, or at the end if the file was opened
    /// to append, and hands the buffer back with their number, which may be
    /// less than all.
    ///
    /// # Errors
    ///
    /// What pwrite(2) answers: no space, mostly. If the blocking pool is full:
    /// nothing was written then.
    pub async fn write_at<B: IoBuf>(&self, buf: B, offset: u64) -> (io::Result<usize>, B) {
        let (result, data) = self.write_lent(Lent::new(buf), offset).await;
        (result, data.into_inner())
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](File::write_at); how much was written is not known
    /// then. [`WriteZero`](ErrorKind::WriteZero) if nothing more can be.
    pub async fn write_all_at<B: IoBuf>(&self, buf: B, offset: u64) -> (io::Result<()>, B) {
        let mut data = Lent::new(buf);
        let mut at = offset;
        while !data.is_empty() {
            let (result, back) = self.write_lent(data, at).await;
            data = back;
            match result {
                Ok(0) => return (Err(ErrorKind::WriteZero.into()), data.into_inner()),
                Ok(n) => {
                    data.skip(n);
                    at = at.saturating_add(n as u64);
                }
                Err(e) => return (Err(e), data.into_inner()),
            }
        }
        (Ok(()), data.into_inner())
    }

    async fn write_lent(&self, data: Lent, at: u64) -> (io::Result<usize>, Lent) {
        let inline = self.writes.get();
        let (result, op) = self.ports.count(FileOp::Write { data, at, inline }).await;
        let FileOp::Write { data, inline, .. } = op else {
            unreachable!("a port gives back the operation it was given")
        };
        self.writes.learn(inline);
        (result, data)
    }

    /// Writes several buffers, one after another. Of very many, the first
    /// 1,024 are used.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](File::write_at).
    pub async fn write_vectored_at<B: IoBuf>(
        &self,
        bufs: Vec<B>,
        offset: u64,
    ) -> (io::Result<usize>, Vec<B>) {
        let op = FileOp::WriteVectored {
            data: LentSlices::new(bufs),
            at: offset,
            inline: self.writes.get(),
        };
        let (result, op) = self.ports.count(op).await;
        let FileOp::WriteVectored { data, inline, .. } = op else {
            unreachable!("a port gives back the operation it was given")
        };
        self.writes.learn(inline);
        (result, data.into_inner())
    }

    // -- at the position --------------------------------------------------

    /// As [`read_at`](File::read_at), at the position, which it moves.
    /// Dropping the future leaves the position where it was.
    ///
    /// # Errors
    ///
    /// As for `read_at`.
    pub async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
        let (result, buf) = self.read_at(buf, self.position).await;
        if let Ok(n) = result {
            self.position += n as u64;
        }
        (result, buf)
    }

    /// As [`write_at`](File::write_at), at the position, which it moves; at
    /// the end, without regard to the position, if the file was opened to
    /// append. Dropping the future leaves the position where it was.
    ///
    /// # Errors
    ///
    /// As for `write_at`.
    pub async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
        let (result, buf) = self.write_at(buf, self.position).await;
        match result {
            Ok(n) if !self.append => self.position += n as u64,
            _ => {}
        }
        (result, buf)
    }

    /// Moves the position, and says where it is then, from the beginning. It
    /// may be beyond the end. The descriptor's own position, which
    /// [`into_std`](File::into_std) would show, is not used.
    ///
    /// # Errors
    ///
    /// If it would be negative ([`InvalidInput`](ErrorKind::InvalidInput)), or
    /// if the length cannot be had.
    pub async fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position, by),
            SeekFrom::End(by) => (self.metadata().await?.len(), by),
        };
        let position = base.checked_add_signed(by).ok_or_else(|| {
            let message = "a position before the beginning of the file";
            io::Error::new(ErrorKind::InvalidInput, message)
        })?;
        self.position = position;
        Ok(position)
    }

    // -- the rest ---------------------------------------------------------

    /// Brings what was written, and what is known about it, to the disk:
    /// fsync(2). What is still under way is not part of it.
    ///
    /// # Errors
    ///
    /// What fsync(2) answers: what was written before may be lost then.
    pub async fn sync_all(&self) -> io::Result<()> {
        let op = FileOp::Sync { data_only: false };
        self.ports.count(op).await.0.map(drop)
    }

    /// As [`sync_all`](File::sync_all), without what is not needed to read the
    /// data back, as times: fdatasync(2).
    ///
    /// # Errors
    ///
    /// As for `sync_all`.
    pub async fn sync_data(&self) -> io::Result<()> {
        let op = FileOp::Sync { data_only: true };
        self.ports.count(op).await.0.map(drop)
    }

    /// What is known about the file: statx(2).
    ///
    /// # Errors
    ///
    /// What statx(2) answers.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        let op = FileOp::Stat {
            path: None,
            follow: true,
            answer: Stat::new(),
        };
        let (result, op) = self.ports.count(op).await;
        Metadata::answered(result, op)
    }

    /// Makes the file this long: cuts it off, or adds zeros. On the blocking
    /// pool: ftruncate(2). Dropping the future does not stop it.
    ///
    /// # Errors
    ///
    /// What ftruncate(2) answers; if the pool is full.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_std(move |file| file.set_len(len)).await
    }

    /// Sets the permissions. On the blocking pool: fchmod(2). Dropping the future
    /// does not stop it.
    ///
    /// # Errors
    ///
    /// What fchmod(2) answers; if the pool is full.
    pub async fn set_permissions(&self, permissions: std::fs::Permissions) -> io::Result<()> {
        self.with_std(move |file| file.set_permissions(permissions))
            .await
    }

    async fn with_std<T: Send + 'static>(
        &self,
        f: impl FnOnce(std::fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        // A duplicate, so that this one can be closed in the meantime.
        let file = std::fs::File::from(self.as_fd().try_clone_to_owned()?);
        self.runtime.spawn_blocking(move || f(file)).await?
    }

    /// Closes the file, and says how that went, after the last operation that
    /// was given up on it has ended.
    ///
    /// Dropping the future closes it too, and hides what that said.
    ///
    /// # Errors
    ///
    /// What close(2) answers: some file systems report here that an earlier
    /// write failed. The file is closed nevertheless.
    pub async fn close(self) -> io::Result<()> {
        let runtime = self.runtime.clone();
        let fd = self.reclaim().await;
        let port = Port::new(Descriptor::working_directory(&runtime));
        let (completion, _) = port.file(FileOp::Close(Some(fd))).await;
        completion.map(drop)
    }

    /// Gives the descriptor away as std's, when the last operation that was
    /// given up on it has ended. Its position is where it was when the
    /// descriptor was taken over.
    ///
    /// Dropping the future closes the file.
    pub fn into_std(self) -> impl Future<Output = std::fs::File> + Send {
        let fd = self.reclaim();
        async { fd.await.into() }
    }

    pub(crate) fn descriptor(&self) -> &DescriptorRef {
        &self.ports.descriptor
    }

    fn reclaim(self) -> impl Future<Output = OwnedFd> + Send {
        let Ports { descriptor, idle } = self.ports;
        drop(idle);
        let fd = descriptor.reclaim();
        async { fd.await.expect("nobody else reclaims it") }
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ports.descriptor.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.ports.descriptor.as_raw_fd()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("fd", &self.as_raw_fd())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
