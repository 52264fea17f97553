//! Files as a whole.

use std::io;
use std::path::Path;

use isochrome_runtime::buf::{IoBuf, LentMut};

use super::file::File;

/// Room for what does not know its length, as files in /proc do not.
const UNKNOWN: usize = 8 << 10;

/// All bytes of a file.
///
/// # Errors
///
/// As of [`File::open`] and [`File::read_at`].
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = File::open(path).await?;
    let len = usize::try_from(file.metadata().await?.len()).unwrap_or(0);
    // One more, so that the end is seen without growing.
    let mut data = vec![0; if len == 0 { UNKNOWN } else { len + 1 }];
    let mut filled = 0;
    loop {
        if filled == data.len() {
            data.resize(data.len() * 2, 0);
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
