//! Several datagrams with one system call: recvmmsg(2) and sendmmsg(2).

use std::array;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::c_int;
use socket2::{SockAddr, SockAddrStorage};

use super::message::Head;

/// As many go into one call. From thin air: the price of a system call is
/// small beside that of so many datagrams, and their headers lie on the stack.
pub(crate) const MOST: usize = 32;

/// What the kernel writes for one datagram, beside its bytes. It is never
/// initialised as a whole: for all of a batch that is more than a call costs.
struct Place<const N: usize> {
    name: SockAddrStorage,
    /// Of zeroes in the beginning: the kernel writes no padding.
    control: [u8; N],
}

/// One datagram of a batch.
#[derive(Debug)]
pub(crate) struct Got<'a> {
    pub(crate) head: Head,
    pub(crate) from: SockAddr,
    pub(crate) control: &'a [u8],
}

/// Receives up to [`MOST`] datagrams, one into each buffer, with `N` bytes of
/// control messages each, and shows them in their order. Returns how many.
#[allow(clippy::unnecessary_cast, reason = "the C libraries differ")]
pub(crate) fn recv_batch<const N: usize>(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    flags: c_int,
    mut each: impl FnMut(usize, Got<'_>),
) -> io::Result<usize> {
    let count = bufs.len().min(MOST);
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MOST];
    let mut places = [const { MaybeUninit::<Place<N>>::uninit() }; MOST];
    for ((header, place), buf) in headers.iter_mut().zip(&mut places).zip(&mut bufs[..count]) {
        let place = place.as_mut_ptr();
        // SAFETY: the place is there, and zeroes are a control buffer.
        let (name, control) = unsafe {
            (&raw mut (*place).control).write_bytes(0, 1);
            (&raw mut (*place).name, &raw mut (*place).control)
        };
        // SAFETY: a header of zeroes is an empty one.
        let header = header.write(unsafe { mem::zeroed() });
        header.msg_hdr.msg_name = name.cast();
        header.msg_hdr.msg_namelen = size_of::<SockAddrStorage>() as libc::socklen_t;
        header.msg_hdr.msg_iov = ptr::from_mut(buf).cast();
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = control.cast();
        header.msg_hdr.msg_controllen = N as _;
    }
    let vector = headers.as_mut_ptr().cast();
    // SAFETY: `count` headers were written above. What they point to (an
    // `IoSliceMut` is an iovec by contract) outlives the call, and is looked at
    // by nobody else meanwhile.
    let result = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            vector,
            count as libc::c_uint,
            flags as _,
            ptr::null_mut(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let received = result as usize;
    let written = headers.iter().zip(&places).take(received);
    for (i, (header, place)) in written.enumerate() {
        // SAFETY: written above, for all that were asked for.
        let header = unsafe { header.assume_init_ref() };
        let head = Head {
            size: header.msg_len as usize,
            flags: header.msg_hdr.msg_flags,
            control: header.msg_hdr.msg_controllen as usize,
        };
        let place = place.as_ptr();
        // SAFETY: the kernel has written a name of this length, which no name
        // exceeds; and the control buffer was initialised above.
        let (from, control) = unsafe {
            let name = (&raw const (*place).name).cast();
            (address(name, header.msg_hdr.msg_namelen), &(*place).control)
        };
        let control = &control[..head.control];
        each(
            i,
            Got {
                head,
                from,
                control,
            },
        );
    }
    Ok(received)
}

/// The address in the first `len` bytes at `name`.
///
/// # Safety
///
/// They are initialised, and an address that the kernel has written.
unsafe fn address(name: *const u8, len: libc::socklen_t) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    let len = len.min(storage.size_of());
    let to = (&raw mut storage).cast();
    // SAFETY: handed on from the caller; the storage is as long at least.
    unsafe {
        ptr::copy_nonoverlapping(name, to, len as usize);
        SockAddr::new(storage, len)
    }
}

/// One datagram to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing<'a, C> {
    pub(crate) bufs: &'a [IoSlice<'a>],
    pub(crate) to: Option<SockAddr>,
    pub(crate) control: C,
}

/// Sends up to [`MOST`] datagrams, in their order, and says how many.
pub(crate) fn send_batch<'a, C: AsRef<[u8]>>(
    fd: BorrowedFd<'_>,
    flags: c_int,
    mut datagrams: impl Iterator<Item = Outgoing<'a, C>>,
) -> io::Result<usize> {
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MOST];
    // (A constant array would be copied whole.)
    let mut places: [Option<Outgoing<'a, C>>; MOST] = array::from_fn(|_| None);
    let mut count = 0;
    for (header, place) in headers.iter_mut().zip(&mut places) {
        let Some(datagram) = datagrams.next() else {
            break;
        };
        let datagram = place.insert(datagram);
        // SAFETY: a header of zeroes is an empty one.
        let header = header.write(unsafe { mem::zeroed() });
        if let Some(to) = &datagram.to {
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
        }
        let control = datagram.control.as_ref();
        header.msg_hdr.msg_iov = datagram.bufs.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_iovlen = datagram.bufs.len() as _;
        header.msg_hdr.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_controllen = control.len() as _;
        count += 1;
    }
    let vector = headers.as_mut_ptr().cast();
    // SAFETY: `count` headers were written above. What they point to lies in
    // `places` or is borrowed for 'a, is not moved, and is only read (an
    // `IoSlice` is an iovec by contract).
    let result =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), vector, count as libc::c_uint, flags as _) };
    match result {
        0.. => Ok(result as usize),
        _ => Err(io::Error::last_os_error()),
    }
}
