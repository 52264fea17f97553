//! Names of local sockets.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::SockAddr;

/// What can be turned into the name of a local socket: a path, or, with a NUL
/// in front, an abstract name (`"\0name"`, see unix(7)): one without a file,
/// which is gone with its socket. A [`SocketAddr`] of std's is one as well.
pub trait ToUnixAddr: sealed::Sealed {}

mod sealed {
    pub trait Sealed {
        /// The bytes of `sun_path`.
        #[doc(hidden)]
        fn sun_path(&self) -> &[u8];

        /// In front of them, for abstract names of std's.
        #[doc(hidden)]
        fn is_abstract(&self) -> bool {
            false
        }
    }
}

macro_rules! path {
    ($($t:ty),*) => {$(
        impl sealed::Sealed for $t {
            fn sun_path(&self) -> &[u8] {
                let path: &OsStr = self.as_ref();
                path.as_bytes()
            }
        }
        impl ToUnixAddr for $t {}
    )*};
}

path!(str, String, Path, PathBuf, OsStr, OsString);

impl sealed::Sealed for SocketAddr {
    fn sun_path(&self) -> &[u8] {
        let path = self.as_pathname().map(|path| path.as_os_str().as_bytes());
        path.or(self.as_abstract_name()).unwrap_or_default()
    }

    fn is_abstract(&self) -> bool {
        self.as_abstract_name().is_some()
    }
}

impl ToUnixAddr for SocketAddr {}

impl<T: ToUnixAddr + ?Sized> sealed::Sealed for &T {
    fn sun_path(&self) -> &[u8] {
        (**self).sun_path()
    }

    fn is_abstract(&self) -> bool {
        (**self).is_abstract()
    }
}

impl<T: ToUnixAddr + ?Sized> ToUnixAddr for &T {}

/// A name as the kernel takes it.
pub(super) struct Name {
    bytes: Vec<u8>,
    pub(super) addr: SockAddr,
}

impl Name {
    /// # Errors
    ///
    /// If it is too long, or has a NUL inside of a path.
    pub(super) fn of(name: impl ToUnixAddr) -> io::Result<Name> {
        let mut bytes = name.sun_path().to_vec();
        if name.is_abstract() {
            bytes.insert(0, 0);
        }
        let invalid = |what: &str| {
            let name = String::from_utf8_lossy(&bytes);
            let message = format!("{name:?} is no name for a socket: {what}");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        };
        let of_file = bytes.first().is_some_and(|first| *first != 0);
        if of_file && bytes.contains(&0) {
            return Err(invalid("a path has no NUL inside"));
        }
        let addr = SockAddr::unix(OsStr::from_bytes(&bytes))
            .map_err(|_| invalid("it has more than 107 bytes"))?;
        Ok(Name { bytes, addr })
    }

    /// The file of the name, if it has one.
    pub(super) fn file(&self) -> Option<&Path> {
        let of_file = self.bytes.first().is_some_and(|first| *first != 0);
        of_file.then(|| Path::new(OsStr::from_bytes(&self.bytes)))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.bytes).fmt(f)
    }
}

/// The address that the kernel told, in std's form.
///
/// A path may have 108 bytes, which std has no form for: it is told as unnamed.
/// An error would let any peer with such a name end a server, or take messages
/// from it.
pub(super) fn local(addr: &SockAddr) -> io::Result<SocketAddr> {
    let name = match (addr.as_pathname(), addr.as_abstract_namespace()) {
        (Some(path), _) => SocketAddr::from_pathname(path).ok(),
        (None, Some(name)) => SocketAddr::from_abstract_name(name).ok(),
        (None, None) => None,
    };
    // Not told at all is the same to std.
    name.map_or_else(|| SocketAddr::from_pathname(""), Ok)
}
