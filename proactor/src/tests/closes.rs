//! What a close says, and whose its number is afterwards, on a kernel that says
//! what it is told to say.

use std::fs::File;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::pin;
use std::task::{Context, Waker};

use isochrome_runtime::op::FileOp;

use super::zero_copy::{bed, says};
use super::*;

/// Results beyond what a system call answers, of `linux/errno.h`.
const ERESTARTSYS: i32 = 512;

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// Closes the number, as the kernel does, and gives it to somebody else.
fn reuse(fd: RawFd) {
    // SAFETY: the test says that the kernel has closed it.
    assert_eq!(unsafe { libc::dup2(null().as_raw_fd(), fd) }, fd);
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: no pointer is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Closes a descriptor on a kernel that does so, and answers `result`.
fn close(result: i32, given_up: bool) -> Option<io::Result<Yield>> {
    let (runtime, script) = bed();
    let port = Port::new(Descriptor::working_directory(runtime.handle()));
    let fd = null();
    let number = fd.as_raw_fd();
    let told = runtime.block_on(async {
        let mut closing = pin!(port.file(FileOp::Close(Some(fd))));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(closing.as_mut().poll(&mut cx).is_pending());
        reuse(number);
        if given_up {
            closing.set(port.file(FileOp::Close(None)));
        }
        says(&script, result, 0).await;
        if given_up {
            return None;
        }
        Some(closing.await.0)
    });
    drop(port);
    assert_eq!(runtime.shutdown(), 0);
    assert!(is_open(number), "it was closed once more: after {result}");
    // SAFETY: it is ours, by `reuse`.
    unsafe { libc::close(number) };
    told
}

#[test]
fn a_number_that_was_closed_is_not_closed_again() {
    assert!(matches!(close(0, false), Some(Ok(Yield::Done(0)))));
    let answers = [
        (-libc::EIO, libc::EIO),
        (-libc::EINTR, libc::EINTR),
        // As close(2) has it, which is not to be restarted.
        (-ERESTARTSYS, libc::EINTR),
        // Nobody cancelled it: so a file system says this, of what it does when
        // the number is free.
        (-libc::ECANCELED, libc::ECANCELED),
    ];
    for (result, error) in answers {
        let told = close(result, false).expect("it was awaited");
        assert_eq!(told.unwrap_err().raw_os_error(), Some(error));
        assert!(close(result, true).is_none());
    }
}
