//! Several datagrams with one system call: recvmmsg(2) and sendmmsg(2).

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

/// What the kernel writes for one datagram, beside its bytes.
struct Place<const N: usize> {
    name: SockAddrStorage,
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
        let place = place.write(Place {
            name: SockAddrStorage::zeroed(),
            control: [0; N],
        });
        // SAFETY: a header of zeroes is an empty one.
        let header = header.write(unsafe { mem::zeroed() });
        header.msg_hdr.msg_name = (&raw mut place.name).cast();
        header.msg_hdr.msg_namelen = place.name.size_of();
        header.msg_hdr.msg_iov = ptr::from_mut(buf).cast();
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = place.control.as_mut_ptr().cast();
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
    let written = headers.iter().zip(&mut places).take(received);
    for (i, (header, place)) in written.enumerate() {
        // SAFETY: both were written above, for all that were asked for.
        let (header, place) = unsafe { (header.assume_init_ref(), place.assume_init_mut()) };
        let head = Head {
            size: header.msg_len as usize,
            flags: header.msg_hdr.msg_flags,
            control: header.msg_hdr.msg_controllen as usize,
        };
        let name = mem::replace(&mut place.name, SockAddrStorage::zeroed());
        // SAFETY: the kernel has written an address of this length.
        let from = unsafe { SockAddr::new(name, header.msg_hdr.msg_namelen) };
        let control = &place.control[..head.control];
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
    let mut places: [Option<Outgoing<'a, C>>; MOST] = [const { None }; MOST];
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
