//! Files as a whole.

use std::io;
use std::path::Path;

use isochrome_runtime::buf::{IoBuf, LentMut};

use super::file::File;

/// Room for what does not know its length, as files in /proc do not.
const UNKNOWN: u64 = 8 << 10;

/// All bytes of a file.
///
/// # Errors
///
/// As of [`File::open`] and [`File::read_at`], and
/// [`OutOfMemory`](io::ErrorKind::OutOfMemory) if there is no room for them.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = File::open(path).await?;
    let len = file.metadata().await?.len();
    // One more, so that the end is seen without growing.
    let room = if len == 0 {
        UNKNOWN
    } else {
        len.saturating_add(1)
    };
    let mut data = zeroes(room)?;
    let mut filled = 0;
    loop {
        if filled == data.len() {
            data.try_reserve(filled).map_err(|_| no_room())?;
            data.resize(2 * filled, 0);
        }
        let mut into = LentMut::new(data);
        into.skip(filled);
        let (result, into) = file.read_lent(into, filled as u64).await;
        data = into.into_inner();
        match result? {
            0 => break,
            n => filled += n,
        }
    }
    data.truncate(filled);
    Ok(data)
}

/// Memory as the system gives it. That there is as much is asked beforehand:
/// a length may be anything, of files with holes, and the process must not end
/// for it.
fn zeroes(len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| no_room())?;
    let mut trial = Vec::<u8>::new();
    trial.try_reserve_exact(len).map_err(|_| no_room())?;
    // The compiler may leave out an allocation that nobody sees.
    drop(std::hint::black_box(trial));
    Ok(vec![0; len])
}

fn no_room() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

/// As [`read`], of text.
///
/// # Errors
///
/// As for `read`, and [`InvalidData`](io::ErrorKind::InvalidData) if it is not
/// UTF-8.
pub async fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read(path).await?;
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Makes a file of these bytes, or replaces what was in it. It is not synced.
///
/// Dropping the future may leave a part of it.
///
/// # Errors
///
/// As of [`File::create`] and [`File::write_all_at`].
pub async fn write(path: impl AsRef<Path>, bytes: impl IoBuf) -> io::Result<()> {
    let file = File::create(path).await?;
    file.write_all_at(bytes, 0).await.0?;
    file.close().await
}
