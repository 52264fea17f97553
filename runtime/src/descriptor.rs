//! Descriptors whose close waits for the last operation.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::{self, MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::once_box::OnceBox;
use crate::op::{Aside, Registrar, Token, Within};
use crate::runtime::Handle;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU8;

mod counted;
mod counts;

pub use counted::{DescriptorRef, WeakDescriptor};

/// A file descriptor of a runtime.
///
/// It is shared by the socket and every operation on it, so that its number
/// is not reused while an operation that names it is queued or in flight: the
/// descriptor is closed when the last of them is gone.
pub struct Descriptor {
    /// Owned, unless it is `AT_FDCWD`, the only negative one.
    fd: RawFd,
    /// The worker whose driver it is registered with.
    home: Registrar,
    /// `BY_READINESS`, here too, so that it is at hand for every attempt; `TCP`.
    kind: u8,
    /// How many of `within` are claimed.
    claimed: AtomicU8,
    /// What that driver calls it.
    token: Token,
    runtime: Handle,
    few: OnceBox<Few>,
    /// The operations of its first two ports.
    within: Within,
}

const BY_READINESS: u8 = 1;
const TCP: u8 = 2;

/// What few descriptors have.
#[derive(Default)]
struct Few {
    /// Who gets the descriptor in the end, and it leaves its driver before.
    heir: OnceLock<Arc<Heir>>,
    /// The operations of two more ports.
    aside: OnceLock<Aside>,
}

/// Waits for a descriptor that is still in use.
type Heir = Mutex<Inheritance>;

#[derive(Default)]
struct Inheritance {
    /// Somebody reclaims the descriptor, or did.
    claimed: bool,
    fd: Option<OwnedFd>,
    waker: Option<Waker>,
}

#[allow(
    clippy::new_ret_no_self,
    reason = "a descriptor lies in a block of its own"
)]
impl Descriptor {
    /// Takes `fd` over for operations on `runtime`, and makes it blocking or
    /// non-blocking as the runtime's driver needs it.
    ///
    /// # Errors
    ///
    /// What fcntl(2) answers.
    pub fn new(fd: OwnedFd, runtime: &Handle) -> io::Result<DescriptorRef> {
        set_nonblocking(fd.as_fd(), runtime.by_readiness())?;
        let tcp = option(fd.as_raw_fd(), libc::SO_PROTOCOL).is_ok_and(|p| p == libc::IPPROTO_TCP);
        Ok(Descriptor::make(fd.into_raw_fd(), tcp, runtime))
    }

    /// Takes `fd` over for operations that wait in the kernel
    /// ([`Op::File`](crate::op::Op::File)), and makes it blocking.
    ///
    /// # Errors
    ///
    /// What fcntl(2) answers.
    pub fn blocking(fd: OwnedFd, runtime: &Handle) -> io::Result<DescriptorRef> {
        set_nonblocking(fd.as_fd(), false)?;
        Ok(Descriptor::make(fd.into_raw_fd(), false, runtime))
    }

    /// Takes `fd` over for system calls that are tried and wait for readiness
    /// ([`Waiter::poll_io`](crate::op::Waiter::poll_io)), and makes it
    /// non-blocking whatever the driver is: for what no flag makes so for one
    /// call, as pipes.
    ///
    /// # Errors
    ///
    /// What fcntl(2) answers.
    pub fn nonblocking(fd: OwnedFd, runtime: &Handle) -> io::Result<DescriptorRef> {
        set_nonblocking(fd.as_fd(), true)?;
        Ok(Descriptor::make(fd.into_raw_fd(), false, runtime))
    }

    /// Stands for the working directory, from which paths lead on, in
    /// operations that have no descriptor yet.
    pub fn working_directory(runtime: &Handle) -> DescriptorRef {
        Descriptor::make(libc::AT_FDCWD, false, runtime)
    }

    /// Takes a TCP socket over as it is: the caller made it blocking or
    /// non-blocking as [`Handle::by_readiness`] says.
    pub fn tcp(fd: OwnedFd, runtime: &Handle) -> DescriptorRef {
        Descriptor::make(fd.into_raw_fd(), true, runtime)
    }

    /// As [`tcp`](Descriptor::tcp), for a local socket.
    pub fn local(fd: OwnedFd, runtime: &Handle) -> DescriptorRef {
        Descriptor::make(fd.into_raw_fd(), false, runtime)
    }

    /// `fd` is owned, and given up, or `AT_FDCWD`.
    fn make(fd: RawFd, tcp: bool, runtime: &Handle) -> DescriptorRef {
        DescriptorRef::new(Descriptor {
            fd,
            home: Registrar::new(),
            kind: if tcp { TCP } else { 0 }
                | if runtime.by_readiness() {
                    BY_READINESS
                } else {
                    0
                },
            claimed: AtomicU8::new(0),
            token: Token::new(),
            runtime: runtime.clone(),
            few: OnceBox::new(),
            within: Within::unclaimed(),
        })
    }

    /// Another descriptor of the same open file, which is close-on-exec: dup(2).
    /// It is of the same runtime, in the same mode, and has operations and a
    /// registration of its own.
    ///
    /// From now on, both leave their driver before they are closed
    /// ([`Driver::release`](crate::driver::Driver::release)): an epoll set
    /// forgets a file with its last descriptor only, and would go on to tell of
    /// one that is gone. So one that is dropped on another thread, or outside of
    /// `block_on`, is closed when the worker gets to it.
    ///
    /// # Errors
    ///
    /// What fcntl(2) answers: no descriptor is left.
    pub fn duplicate(&self) -> io::Result<DescriptorRef> {
        let fd = self.as_fd().try_clone_to_owned()?;
        let twin = Descriptor::make(fd.into_raw_fd(), self.is_tcp(), &self.runtime);
        // Whoever inherits is told of after the driver; nobody has to.
        self.heir();
        twin.heir();
        Ok(twin)
    }

    /// Whether the runtime's driver works by readiness.
    #[inline]
    pub fn by_readiness(&self) -> bool {
        self.kind & BY_READINESS != 0
    }

    /// Whether it is a TCP socket, on which a short transfer proves that there
    /// is no more of the same, and no kind of descriptor with its own rules.
    #[inline]
    pub fn is_tcp(&self) -> bool {
        self.kind & TCP != 0
    }

    /// How long a TCP socket has neither received nor sent data, to the
    /// kernel's tick: TCP_INFO in tcp(7).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers: it is no TCP socket, mostly.
    pub fn quiet_for(&self) -> io::Result<Duration> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let to = info.as_mut_ptr().cast();
        // SAFETY: `len` bytes are written to `info` at most.
        let answer =
            unsafe { libc::getsockopt(self.fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &mut len) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed at least, and made of integers.
        let info = unsafe { info.assume_init() };
        let quiet = info.tcpi_last_data_recv.min(info.tcpi_last_data_sent);
        Ok(Duration::from_millis(quiet.into()))
    }

    /// The runtime that its operations run on.
    #[inline]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Where the slots within are.
    pub(crate) const WITHIN: usize = offset_of!(Descriptor, within);

    /// The slots within.
    #[inline]
    pub(crate) fn within(&self) -> &Within {
        &self.within
    }

    pub(crate) fn claimed(&self) -> &AtomicU8 {
        &self.claimed
    }

    fn few(&self) -> &Few {
        self.few.get_or_make(Few::default)
    }

    /// Who gets the descriptor in the end: the kernel, if nobody reclaims it.
    fn heir(&self) -> &Arc<Heir> {
        self.few().heir.get_or_init(Arc::default)
    }

    /// The slots aside, if they were made.
    pub(crate) fn aside(&self) -> Option<&Aside> {
        self.few.get()?.aside.get()
    }

    /// The slots aside.
    pub(crate) fn aside_or_make(&self) -> &Aside {
        let make = || Aside::of(NonNull::from(self));
        self.few().aside.get_or_init(make)
    }

    /// The worker that it is registered with. The first to ask decides, until
    /// that worker's driver gives it away ([`moves_to`](Descriptor::moves_to)).
    pub fn home(&self, or: usize) -> usize {
        self.home.get_or(or)
    }

    /// What the driver of the home worker called it, if it is registered.
    pub fn token(&self) -> Option<u64> {
        self.token.get()
    }

    /// Called by the driver of the home worker when it registers the
    /// descriptor. [`Driver::forget`](crate::driver::Driver::forget) gets the
    /// token back.
    pub fn set_token(&self, token: u64) {
        self.token.set(token);
    }

    /// Called by the driver of the home worker when it gives the descriptor
    /// away, in [`Driver::hand_over`](crate::driver::Driver::hand_over): the
    /// home is another from now on, and `token` is what its driver calls it.
    pub fn moves_to(&self, worker: usize, token: u64) {
        self.home.moves_to(worker, &self.token, token);
    }

    pub(crate) fn begin_move(&self, from: usize) -> bool {
        self.home.begin_move(from)
    }

    pub(crate) fn stays(&self) {
        self.home.stays();
    }
}

impl DescriptorRef {
    /// The descriptor itself, when nobody else has it any more: the last
    /// operation on it has ended then. For one of several callers at most;
    /// `None` for the others, and for the working directory.
    ///
    /// Dropping the future closes it then.
    pub fn reclaim(self) -> impl Future<Output = Option<OwnedFd>> + Send {
        let heir = self.heir().clone();
        let mut inheritance = heir.lock().unwrap_or_else(|e| e.into_inner());
        let first = !mem::replace(&mut inheritance.claimed, true) && self.fd >= 0;
        drop(inheritance);
        // Perhaps the last.
        drop(self);
        poll_fn(move |cx| {
            if !first {
                return Poll::Ready(None);
            }
            // Before the lock: to clone a foreign one may run any code.
            let waker = cx.waker().clone();
            let mut inheritance = heir.lock().unwrap_or_else(|e| e.into_inner());
            let fd = inheritance.fd.take();
            if fd.is_some() {
                return Poll::Ready(fd);
            }
            let old = inheritance.waker.replace(waker);
            drop(inheritance);
            drop(old);
            Poll::Pending
        })
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // Anything, if there is no token.
        let home = self.home.get_or(0);
        let few = self.few.take();
        let heir = few.and_then(|mut few| few.heir.take());
        // SAFETY: owned, by `make`, and not used afterwards.
        let fd = (self.fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(self.fd) });
        match (self.token(), fd.zip(heir)) {
            (None, None) => {}
            (Some(token), None) => self.runtime.forget(home, token),
            (None, Some((fd, heir))) => drop(Legacy { fd: Some(fd), heir }),
            (Some(token), Some((fd, heir))) => {
                let legacy = Legacy { fd: Some(fd), heir };
                self.runtime.release(home, token, legacy);
            }
        }
    }
}

/// A descriptor on its way to its heir, who has it when this is dropped.
pub(crate) struct Legacy {
    /// Taken by the drop only.
    fd: Option<OwnedFd>,
    heir: Arc<Heir>,
}

impl Legacy {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken by the drop only").as_fd()
    }
}

impl Drop for Legacy {
    fn drop(&mut self) {
        let mut inheritance = self.heir.lock().unwrap_or_else(|e| e.into_inner());
        inheritance.fd = self.fd.take();
        let waker = inheritance.waker.take();
        drop(inheritance);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as this value is, or the working directory.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AsRawFd for Descriptor {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

/// getsockopt(2) at the level of sockets, of a number.
pub(crate) fn option(fd: RawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let (to, level) = (&raw mut value, libc::SOL_SOCKET);
    // SAFETY: `len` bytes are written to `value` at most.
    if unsafe { libc::getsockopt(fd, level, name, to.cast(), &mut len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    // SAFETY: F_GETFL takes no pointer.
    let old = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if old < 0 {
        return Err(io::Error::last_os_error());
    }
    let new = if on {
        old | libc::O_NONBLOCK
    } else {
        old & !libc::O_NONBLOCK
    };
    // SAFETY: F_SETFL takes no pointer.
    if new != old && unsafe { libc::fcntl(fd, libc::F_SETFL, new) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
