//! Places for local sockets, and descriptors to pass.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A directory for the files of sockets, removed in the end.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Place {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("isochrome-{}-{n}", process::id()));
        fs::create_dir(&path).expect("a directory");
        Place(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An abstract name that nobody else has.
pub(crate) fn abstract_name() -> String {
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("\0isochrome-{}-{n}", process::id())
}

/// The file of a socket that is not open any more.
pub(crate) fn stale(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).expect("binds"));
}

/// A socket whose path is as long as the kernel takes it: 108 bytes, without a
/// zero behind them.
pub(crate) fn longest_named(kind: libc::c_int, place: &Place) -> OwnedFd {
    let rest = 108 - place.path("").as_os_str().len();
    let path = place.path(&"x".repeat(rest));
    // SAFETY: zeroes are an address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: no pointer is passed, and the new descriptor is owned by nobody
    // else.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: the address is borrowed for the call, and its size is said.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    socket
}

/// A descriptor to be passed, and where it is seen that it arrived, and that it
/// is closed everywhere.
pub(crate) fn probe() -> (UnixStream, OwnedFd) {
    let (here, there) = UnixStream::pair().expect("a pair");
    here.set_nonblocking(true).expect("a mode");
    (here, there.into())
}

/// The other end of the probe is open nowhere.
pub(crate) fn is_closed(mut probe: &UnixStream) -> bool {
    matches!(probe.read(&mut [0]), Ok(0))
}
