//! Descriptors that a service manager handed over at exec: the protocol of
//! sd_listen_fds(3).
//!
//! `LISTEN_FDS` says how many there are, from number 3 on; `LISTEN_PID` whom
//! they are for; `LISTEN_FDNAMES` what they are called.

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process;

use crate::sync::atomic::{AtomicBool, Ordering};

/// SD_LISTEN_FDS_START of sd-daemon.h.
const FIRST: RawFd = 3;

/// As many as a process can have: fs.nr_open in proc_sys_fs(5), by default.
const MOST: u32 = 1 << 20;

/// What sd_listen_fds_with_names(3) calls what has no name.
const UNNAMED: &str = "unknown";

/// Takes the descriptors that were handed over to this process, with their
/// names, and makes each close-on-exec. The first call takes them all: later
/// ones get none, as does a process that was given none, or not directly.
///
/// The environment is left as it is; children do not take the descriptors for
/// theirs, because of `LISTEN_PID`.
///
/// It has to be called before anyone else takes descriptors of these numbers
/// over, or closes them: that they belong to nobody yet is the promise of who
/// set the variables.
///
/// # Errors
///
/// If a variable says what it must not, or a descriptor is not open; none is
/// taken then.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let announced = announced(|name| env::var_os(name), process::id())?;
    // Relaxed: the flag alone decides, and publishes nothing.
    if announced.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    for (fd, _) in &announced {
        // SAFETY: neither call takes a pointer.
        let set = unsafe {
            match libc::fcntl(*fd, libc::F_GETFD) {
                -1 => -1,
                flags => libc::fcntl(*fd, libc::F_SETFD, flags | libc::FD_CLOEXEC),
            }
        };
        if set < 0 {
            let e = io::Error::last_os_error();
            let message = format!("descriptor {fd}, which LISTEN_FDS announces: {e}");
            return Err(io::Error::new(e.kind(), message));
        }
    }
    let adopt = |(fd, name)| {
        // SAFETY: it is open, as was just seen; whoever started this process
        // announced that it is for whoever asks first, and that was here, once.
        (name, unsafe { OwnedFd::from_raw_fd(fd) })
    };
    Ok(announced.into_iter().map(adopt).collect())
}

/// What the variables say.
fn announced(
    variable: impl Fn(&str) -> Option<OsString>,
    process: u32,
) -> io::Result<Vec<(RawFd, String)>> {
    let number = |name: &str| -> io::Result<Option<u32>> {
        let Some(value) = variable(name) else {
            return Ok(None);
        };
        let parsed = value.to_str().and_then(|value| value.parse().ok());
        parsed.map(Some).ok_or_else(|| {
            let value = value.to_string_lossy();
            invalid(format!("{name} is `{value}`, which is no number"))
        })
    };
    if number("LISTEN_PID")? != Some(process) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS")?.unwrap_or(0);
    if count > MOST {
        let message = format!("LISTEN_FDS is {count}, which is too many");
        return Err(invalid(message));
    }
    let end = FIRST + count as RawFd;
    let names = match variable("LISTEN_FDNAMES") {
        None => vec![UNNAMED.to_owned(); count as usize],
        Some(names) => {
            let names = names.to_string_lossy();
            names.split(':').map(str::to_owned).collect()
        }
    };
    if count > 0 && names.len() != count as usize {
        let named = names.len();
        let message = format!("LISTEN_FDS is {count}, but LISTEN_FDNAMES names {named}");
        return Err(invalid(message));
    }
    Ok((FIRST..end).zip(names).collect())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> io::Result<Vec<(RawFd, String)>> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        };
        announced(variable, 42)
    }

    #[test]
    fn they_are_for_this_process_or_for_nobody_here() {
        assert_eq!(of(&[]).unwrap(), []);
        assert_eq!(of(&[("LISTEN_FDS", "2")]).unwrap(), []);
        let others = [("LISTEN_PID", "7"), ("LISTEN_FDS", "2")];
        assert_eq!(of(&others).unwrap(), []);
        assert_eq!(of(&[("LISTEN_PID", "42")]).unwrap(), []);
        let none = [
            ("LISTEN_PID", "42"),
            ("LISTEN_FDS", "0"),
            ("LISTEN_FDNAMES", ""),
        ];
        assert_eq!(of(&none).unwrap(), []);
    }

    #[test]
    fn names_come_in_order() {
        let ours = [("LISTEN_PID", "42"), ("LISTEN_FDS", "2")];
        let unnamed = [(3, UNNAMED.to_owned()), (4, UNNAMED.to_owned())];
        assert_eq!(of(&ours).unwrap(), unnamed);
        let named = [ours[0], ours[1], ("LISTEN_FDNAMES", "web:")];
        let expected = [(3, "web".to_owned()), (4, String::new())];
        assert_eq!(of(&named).unwrap(), expected);
    }

    #[test]
    fn nonsense_is_an_error_that_names_it() {
        for (name, value) in [
            ("LISTEN_PID", "me"),
            ("LISTEN_FDS", "-1"),
            ("LISTEN_FDS", "2000000000"),
            ("LISTEN_FDS", "4000000000"),
            ("LISTEN_FDNAMES", "one"),
        ] {
            let good = [("LISTEN_PID", "42"), ("LISTEN_FDS", "2")];
            let error = of(&[&[(name, value)][..], &good].concat()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
