//! What is done to paths.

use std::ffi::OsString;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use isochrome_runtime::Descriptor;
use isochrome_runtime::op::{FileOp, Port, Stat};

use super::metadata::Metadata;
use super::open::c_path;
use super::ports::count;

/// What is known about what a path leads to.
///
/// # Errors
///
/// What statx(2) answers; if the blocking pool is full; outside a runtime.
pub async fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    stat(path.as_ref(), true).await
}

/// As [`metadata`], of the link itself if there is one at the end of the path.
///
/// # Errors
///
/// As for `metadata`.
pub async fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    stat(path.as_ref(), false).await
}

async fn stat(path: &Path, follow: bool) -> io::Result<Metadata> {
    let path = Some(c_path(path)?);
    let port = Port::new(Descriptor::working_directory(&crate::runtime()?));
    let answer = Stat::new();
    let op = FileOp::Stat {
        path,
        follow,
        answer,
    };
    let (completion, op) = port.file(op).await;
    Metadata::answered(completion.map(count), op)
}

/// Calls std on the blocking pool.
async fn pooled<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    crate::runtime()?.spawn_blocking(f).await?
}

macro_rules! of_one_path {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// On the blocking pool; dropping the future does not stop it.
        ///
        /// # Errors
        ///
        /// What std's function of this name answers; if the pool is full;
        /// outside a runtime.
        pub async fn $name(path: impl AsRef<Path>) -> io::Result<()> {
            let path = path.as_ref().to_owned();
            pooled(move || std::fs::$name(path)).await
        }
    )*};
}

of_one_path! {
    /// Removes a file: unlink(2).
    remove_file;
    /// Makes a directory: mkdir(2).
    create_dir;
    /// Makes a directory, and those that it is in.
    create_dir_all;
    /// Removes an empty directory: rmdir(2).
    remove_dir;
    /// Removes a directory with all that is in it.
    remove_dir_all;
}

/// Gives a file another name, in place of what had it: rename(2).
///
/// On the blocking pool; dropping the future does not stop it.
///
/// # Errors
///
/// What rename(2) answers; if the pool is full; outside a runtime.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    pooled(move || std::fs::rename(from, to)).await
}

/// What is in a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    path: PathBuf,
    name: OsString,
    kind: FileType,
}

impl DirEntry {
    /// The path of the directory, and the name in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name in the directory.
    pub fn file_name(&self) -> &std::ffi::OsStr {
        &self.name
    }

    /// What it is; of a link, that it is one.
    pub fn file_type(&self) -> FileType {
        self.kind
    }
}

/// All that is in a directory, in no order: read whole, on the blocking pool.
/// What goes away meanwhile is left out.
///
/// # Errors
///
/// What opendir(3) and readdir(3) answer; if the pool is full; outside a
/// runtime.
pub async fn read_dir(path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
    let path = path.as_ref().to_owned();
    pooled(move || {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) => entries.push(DirEntry {
                    path: entry.path(),
                    name: entry.file_name(),
                    kind,
                }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(entries)
    })
    .await
}
