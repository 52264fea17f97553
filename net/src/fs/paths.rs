//! What is done to paths.

use std::ffi::OsString;
use std::fs::{self, FileType, Permissions};
use std::io;
use std::os::unix::fs as unix;
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

macro_rules! of_paths {
    ($($(#[$doc:meta])* $of:ident::$name:ident($($path:ident),+) -> $answer:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// On the blocking pool; dropping the future does not stop it.
        ///
        /// # Errors
        ///
        /// What std's function of this name answers; if the pool is full;
        /// outside a runtime.
        pub async fn $name($($path: impl AsRef<Path>),+) -> io::Result<$answer> {
            $(let $path = $path.as_ref().to_owned();)+
            pooled(move || $of::$name($($path),+)).await
        }
    )*};
}

of_paths! {
    /// Removes a file: unlink(2).
    fs::remove_file(path) -> ();
    /// Makes a directory: mkdir(2).
    fs::create_dir(path) -> ();
    /// Makes a directory, and those that it is in.
    fs::create_dir_all(path) -> ();
    /// Removes an empty directory: rmdir(2).
    fs::remove_dir(path) -> ();
    /// Removes a directory with all that is in it.
    fs::remove_dir_all(path) -> ();
    /// Gives a file another name, in place of what had it: rename(2).
    fs::rename(from, to) -> ();
    /// Copies a file with its permissions, in place of what was there, and says
    /// how many bytes that was.
    fs::copy(from, to) -> u64;
    /// Gives a file one more name: link(2).
    fs::hard_link(original, link) -> ();
    /// Makes a symbolic link to `original`, whatever there is: symlink(2).
    unix::symlink(original, link) -> ();
    /// Where a symbolic link leads to: readlink(2).
    fs::read_link(path) -> PathBuf;
    /// The path from the root, without links: realpath(3).
    fs::canonicalize(path) -> PathBuf;
    /// Whether the path leads to anything. That may have changed by the time it
    /// is known.
    fs::exists(path) -> bool;
}

/// Changes the permissions of what a path leads to: chmod(2).
///
/// On the blocking pool; dropping the future does not stop it.
///
/// # Errors
///
/// What chmod(2) answers; if the pool is full; outside a runtime.
pub async fn set_permissions(path: impl AsRef<Path>, permissions: Permissions) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    pooled(move || fs::set_permissions(path, permissions)).await
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
        for entry in fs::read_dir(path)? {
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
