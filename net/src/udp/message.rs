//! Datagrams with what travels beside their bytes, and several at once.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use libc::c_int;
use socket2::{MsgHdr, SockAddr, SockRef};

use super::{UdpSocket, inet};
use crate::control::{Control, Parts, number, space};
use crate::datagram::{RECV, Received, SEND};
use crate::sys;

/// Room for all that [`Arrival`] tells, and half as much again for what an
/// option of the user's own may bring.
const RECV_CONTROL: usize = 256;

/// Room for all that [`Transmit`] asks for.
const SEND_CONTROL: usize = space(12) + space(20) + 4 * space(4) + space(2);

/// A datagram to be sent, with what it is to be sent with. What is not said is
/// as the socket is set.
///
/// ```
/// # use isochrome_net::Transmit;
/// # use std::io::IoSlice;
/// # let to = "127.0.0.1:9".parse().unwrap();
/// let bufs = [IoSlice::new(b"head"), IoSlice::new(b"body")];
/// let transmit = Transmit {
///     tos: Some(0b10),
///     ..Transmit::new(&bufs, Some(to))
/// };
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// The bytes, one slice after another.
    pub bufs: &'a [IoSlice<'a>],
    /// Where it goes; `None`: to the peer of a connected socket.
    pub to: Option<SocketAddr>,
    /// The address of this host that it comes from, of those that the socket
    /// is bound to: IP_PKTINFO in ip(7).
    pub from: Option<IpAddr>,
    /// The number of the interface that it leaves by.
    pub interface: Option<u32>,
    /// The bytes are datagrams of this size, the last perhaps shorter, which
    /// the kernel or the device sends one by one: UDP_SEGMENT in udp(7). Up
    /// to 64 (128 since Linux 6.9) and 64 KiB.
    pub segment: Option<u16>,
    /// The type of service, or traffic class: IP_TOS, IPV6_TCLASS. Its low two
    /// bits are for explicit congestion notification, see RFC 3168.
    pub tos: Option<u8>,
    /// Time to live, or hop limit: IP_TTL, IPV6_HOPLIMIT.
    pub ttl: Option<u8>,
}

impl<'a> Transmit<'a> {
    /// These bytes, to `to` or to the peer of a connected socket.
    pub fn new(bufs: &'a [IoSlice<'a>], to: Option<SocketAddr>) -> Transmit<'a> {
        Transmit {
            bufs,
            to,
            from: None,
            interface: None,
            segment: None,
            tos: None,
            ttl: None,
        }
    }

    fn outgoing(&self) -> sys::Outgoing<'a, Control<SEND_CONTROL>> {
        sys::Outgoing {
            bufs: self.bufs,
            to: self.to.map(Into::into),
            control: self.control(),
        }
    }

    /// What is of IPv4 and what is of IPv6: either passes over what is the
    /// other's. (A socket of IPv6 speaks both.)
    fn control(&self) -> Control<SEND_CONTROL> {
        let mut control = Control::new();
        let interface = self.interface.unwrap_or(0);
        let any = self.from.is_none() && self.interface.is_some();
        let v4 = match self.from {
            Some(IpAddr::V4(v4)) => Some(v4),
            Some(IpAddr::V6(v6)) => v6.to_ipv4_mapped(),
            None => any.then_some(Ipv4Addr::UNSPECIFIED),
        };
        if let Some(from) = v4 {
            // struct in_pktinfo: the interface, the source, the destination.
            let mut info = [0; 12];
            info[..4].copy_from_slice(&interface.to_ne_bytes());
            info[4..8].copy_from_slice(&from.octets());
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        let v6 = match self.from {
            Some(IpAddr::V6(v6)) if v4.is_none() => Some(v6),
            Some(_) => None,
            None => any.then_some(Ipv6Addr::UNSPECIFIED),
        };
        if let Some(from) = v6 {
            // struct in6_pktinfo: the source, the interface.
            let mut info = [0; 20];
            info[..16].copy_from_slice(&from.octets());
            info[16..].copy_from_slice(&interface.to_ne_bytes());
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        if let Some(tos) = self.tos {
            let tos = c_int::from(tos).to_ne_bytes();
            control.push(libc::IPPROTO_IP, libc::IP_TOS, &tos);
            control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos);
        }
        if let Some(ttl) = self.ttl {
            let ttl = c_int::from(ttl).to_ne_bytes();
            control.push(libc::IPPROTO_IP, libc::IP_TTL, &ttl);
            control.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &ttl);
        }
        if let Some(size) = self.segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
        control
    }
}

/// The bits of the type of service that are ECN's.
const ECN: u8 = 0b11;

/// What is told of a datagram that came. What an option has to be set for is
/// `None` without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// How much of it was received.
    pub received: Received,
    /// Where it came from.
    pub from: SocketAddr,
    /// The address that it was sent to
    /// ([`set_packet_info`](UdpSocket::set_packet_info)).
    pub to: Option<IpAddr>,
    /// The number of the interface that it came by (likewise).
    pub interface: Option<u32>,
    /// The bytes are several datagrams of this size, the last perhaps shorter
    /// ([`set_gro`](UdpSocket::set_gro)). `None`: they are one.
    pub segment: Option<u16>,
    /// The type of service, or traffic class
    /// ([`set_recv_tos`](UdpSocket::set_recv_tos)).
    pub tos: Option<u8>,
    /// Time to live, or hop limit
    /// ([`set_recv_ttl`](UdpSocket::set_recv_ttl)).
    pub ttl: Option<u8>,
    /// When the kernel received it
    /// ([`set_timestamps`](UdpSocket::set_timestamps)).
    pub time: Option<SystemTime>,
    /// How many datagrams the socket has dropped since it was made, for want
    /// of room in its buffer
    /// ([`set_drop_count`](UdpSocket::set_drop_count)).
    pub dropped: Option<u32>,
}

impl Arrival {
    /// What an array for [`UdpSocket::recv_batch`] is filled with.
    pub const NONE: Arrival = Arrival {
        received: Received { len: 0, size: 0 },
        from: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        to: None,
        interface: None,
        segment: None,
        tos: None,
        ttl: None,
        time: None,
        dropped: None,
    };

    /// Explicit congestion notification, the low two bits of
    /// [`tos`](Arrival::tos): RFC 3168.
    pub fn ecn(&self) -> Option<u8> {
        self.tos.map(|tos| tos & ECN)
    }

    fn of(received: Received, from: SocketAddr, control: &[u8]) -> Arrival {
        let mut arrival = Arrival {
            received,
            from,
            ..Arrival::NONE
        };
        for (level, kind, data) in Parts::of(control) {
            arrival.tell(level, kind, data);
        }
        arrival
    }

    fn tell(&mut self, level: c_int, kind: c_int, data: &[u8]) -> Option<()> {
        let byte = || number(data).map(|number| number as u8);
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let (interface, rest) = data.split_first_chunk()?;
                // Behind the local address that answers, the one it was sent to.
                let (_, to) = rest.split_first_chunk::<4>()?;
                self.interface = Some(u32::from_ne_bytes(*interface));
                self.to = Some(IpAddr::from(*to.first_chunk::<4>()?));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let (to, interface) = data.split_first_chunk::<16>()?;
                self.interface = Some(u32::from_ne_bytes(*interface.first_chunk()?));
                self.to = Some(IpAddr::from(*to));
            }
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.tos = byte();
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                self.ttl = byte();
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment = number(data).and_then(|size| size.try_into().ok());
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => self.time = time(data),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                self.dropped = number(data).map(|count| count as u32);
            }
            _ => {}
        }
        Some(())
    }
}

/// struct timespec, of two words.
fn time(data: &[u8]) -> Option<SystemTime> {
    const WORD: usize = size_of::<libc::c_long>();
    let word = |bytes: &[u8]| Some(libc::c_long::from_ne_bytes(*bytes.first_chunk::<WORD>()?));
    let (seconds, nanos) = data.split_at_checked(WORD)?;
    let seconds = u64::try_from(word(seconds)?).ok()?;
    let nanos = u32::try_from(word(nanos)?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

impl UdpSocket {
    /// Receives a datagram into several slices, one filled after another, and
    /// tells what came with it.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) answers; see the [type](UdpSocket).
    pub async fn recv_msg(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Arrival> {
        self.ports.reading(|fd| recv_msg(fd, bufs)).await
    }

    /// [`recv_msg`](UdpSocket::recv_msg) on the spot.
    ///
    /// # Errors
    ///
    /// As for `recv_msg`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing
    /// is there.
    pub fn try_recv_msg(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Arrival> {
        recv_msg(self.as_fd(), bufs)
    }

    /// The poll form of [`recv_msg`](UdpSocket::recv_msg), for a single
    /// receiver: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `recv_msg`.
    pub fn poll_recv_msg(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<Arrival>> {
        self.ports.poll_read(cx, |fd| recv_msg(fd, bufs))
    }

    /// Receives as many datagrams as there are, and waits for one if there is
    /// none: one into each of `bufs`, and what is told of it into `arrivals`.
    /// Up to 32 in one system call, which the shorter of the two slices bounds
    /// too. Returns how many; 0 only if a slice is empty.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// What recvmmsg(2) answers, if the first datagram brings it; see the
    /// [type](UdpSocket).
    pub async fn recv_batch(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        arrivals: &mut [Arrival],
    ) -> io::Result<usize> {
        let call = |fd: BorrowedFd<'_>| recv_batch(fd, bufs, arrivals);
        self.ports.reading(call).await
    }

    /// [`recv_batch`](UdpSocket::recv_batch) on the spot.
    ///
    /// # Errors
    ///
    /// As for `recv_batch`; [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing
    /// is there.
    pub fn try_recv_batch(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        arrivals: &mut [Arrival],
    ) -> io::Result<usize> {
        recv_batch(self.as_fd(), bufs, arrivals)
    }

    /// The poll form of [`recv_batch`](UdpSocket::recv_batch), for a single
    /// receiver: only the last waker is kept.
    ///
    /// # Errors
    ///
    /// As for `recv_batch`.
    pub fn poll_recv_batch(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        arrivals: &mut [Arrival],
    ) -> Poll<io::Result<usize>> {
        let call = |fd: BorrowedFd<'_>| recv_batch(fd, bufs, arrivals);
        self.ports.poll_read(cx, call)
    }

    /// Sends a datagram with what it is to be sent with, and says how long it
    /// was: of [segments](Transmit::segment), all together.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// As for [`send_to`](UdpSocket::send_to). EINVAL for more segments, and
    /// EMSGSIZE or EINVAL for longer ones, than the system or the route takes;
    /// EINVAL or ENETUNREACH for a source that is not of this host.
    pub async fn send_msg(&self, transmit: &Transmit<'_>) -> io::Result<usize> {
        self.ports.writing(|fd| send_msg(fd, transmit)).await
    }

    /// [`send_msg`](UdpSocket::send_msg) on the spot.
    ///
    /// # Errors
    ///
    /// As for `send_msg`; [`WouldBlock`](io::ErrorKind::WouldBlock) if there is
    /// no room.
    pub fn try_send_msg(&self, transmit: &Transmit<'_>) -> io::Result<usize> {
        send_msg(self.as_fd(), transmit)
    }

    /// The poll form of [`send_msg`](UdpSocket::send_msg), for a single sender:
    /// only the last waker is kept. What is pending has sent nothing.
    ///
    /// # Errors
    ///
    /// As for `send_msg`.
    pub fn poll_send_msg(
        &self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
    ) -> Poll<io::Result<usize>> {
        self.ports.poll_write(cx, |fd| send_msg(fd, transmit))
    }

    /// Sends as many of the datagrams as there is room for, in their order, and
    /// waits if there is none. Up to 32 in one system call. Returns how many
    /// were sent: the others are still to be sent. 0 only if there are none.
    ///
    /// Dropping the future before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// As for [`send_msg`](UdpSocket::send_msg), if the first datagram meets
    /// it. (One that a later datagram meets is met again by the next call.)
    pub async fn send_batch(&self, transmits: &[Transmit<'_>]) -> io::Result<usize> {
        self.ports.writing(|fd| send_batch(fd, transmits)).await
    }

    /// [`send_batch`](UdpSocket::send_batch) on the spot.
    ///
    /// # Errors
    ///
    /// As for `send_batch`; [`WouldBlock`](io::ErrorKind::WouldBlock) if there
    /// is no room for the first.
    pub fn try_send_batch(&self, transmits: &[Transmit<'_>]) -> io::Result<usize> {
        send_batch(self.as_fd(), transmits)
    }

    /// The poll form of [`send_batch`](UdpSocket::send_batch), for a single
    /// sender: only the last waker is kept. What is pending has sent nothing.
    ///
    /// # Errors
    ///
    /// As for `send_batch`.
    pub fn poll_send_batch(
        &self,
        cx: &mut Context<'_>,
        transmits: &[Transmit<'_>],
    ) -> Poll<io::Result<usize>> {
        self.ports.poll_write(cx, |fd| send_batch(fd, transmits))
    }
}

fn recv_msg(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Arrival> {
    let mut control = [0; RECV_CONTROL];
    let room = bufs.iter().map(|buf| buf.len()).sum();
    let (head, from) = sys::recv_msg(fd, bufs, &mut control, RECV)?;
    let received = Received::of(head.size, room);
    Ok(Arrival::of(
        received,
        inet(&from)?,
        &control[..head.control],
    ))
}

fn recv_batch(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    arrivals: &mut [Arrival],
) -> io::Result<usize> {
    let count = bufs.len().min(arrivals.len()).min(sys::MOST);
    if count == 0 {
        return Ok(0);
    }
    let mut rooms = [0; sys::MOST];
    for (room, buf) in rooms.iter_mut().zip(&*bufs) {
        *room = buf.len();
    }
    sys::recv_batch::<RECV_CONTROL>(fd, &mut bufs[..count], RECV, |i, got| {
        let received = Received::of(got.head.size, rooms[i]);
        // The kernel gives an IP socket's datagram an IP address.
        let from = got.from.as_socket().unwrap_or(Arrival::NONE.from);
        arrivals[i] = Arrival::of(received, from, got.control);
    })
}

fn send_msg(fd: BorrowedFd<'_>, transmit: &Transmit<'_>) -> io::Result<usize> {
    let control = transmit.control();
    let header = MsgHdr::new()
        .with_buffers(transmit.bufs)
        .with_control(control.as_ref());
    let socket = SockRef::from(&fd);
    match transmit.to.map(SockAddr::from) {
        Some(to) => socket.sendmsg(&header.with_addr(&to), SEND),
        None => socket.sendmsg(&header, SEND),
    }
}

fn send_batch(fd: BorrowedFd<'_>, transmits: &[Transmit<'_>]) -> io::Result<usize> {
    if transmits.is_empty() {
        return Ok(0);
    }
    sys::send_batch(fd, SEND, transmits.iter().map(Transmit::outgoing))
}
