//! What can be set on a UDP socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use libc::c_int;
use socket2::{Domain, Socket};

use super::UdpSocket;
use crate::sys;

/// Each is an option of the system's: the setter fails as setsockopt(2) does,
/// the getter as getsockopt(2) does.
impl UdpSocket {
    // -- what is told of a datagram (`Arrival`) ----------------------------

    /// Whether it is told which address and interface a datagram came to:
    /// [`Arrival::to`](crate::Arrival::to). IP_PKTINFO in ip(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_packet_info(&self, on: bool) -> io::Result<()> {
        self.on_both(
            (libc::IPPROTO_IP, libc::IP_PKTINFO),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            on,
        )
    }

    /// Whether the type of service, and ECN with it, is told:
    /// [`Arrival::tos`](crate::Arrival::tos). IP_RECVTOS, IPV6_RECVTCLASS.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_recv_tos(&self, on: bool) -> io::Result<()> {
        self.on_both(
            (libc::IPPROTO_IP, libc::IP_RECVTOS),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
            on,
        )
    }

    /// Whether the time to live, or hop limit, is told:
    /// [`Arrival::ttl`](crate::Arrival::ttl). IP_RECVTTL, IPV6_RECVHOPLIMIT.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_recv_ttl(&self, on: bool) -> io::Result<()> {
        self.on_both(
            (libc::IPPROTO_IP, libc::IP_RECVTTL),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
            on,
        )
    }

    /// Whether the time at which the kernel received a datagram is told:
    /// [`Arrival::time`](crate::Arrival::time). SO_TIMESTAMPNS in socket(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_timestamps(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on)
    }

    /// Whether it is told how many datagrams found no room:
    /// [`Arrival::dropped`](crate::Arrival::dropped). SO_RXQ_OVFL in socket(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_drop_count(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, on)
    }

    /// Whether the kernel may hand over several datagrams of one sender and
    /// size as one: [`Arrival::segment`](crate::Arrival::segment). Buffers
    /// should then have room for 64 KiB. UDP_GRO in udp(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_gro(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_UDP, libc::UDP_GRO, on)
    }

    // -- how datagrams are sent --------------------------------------------

    /// Whether it may send to broadcast addresses: SO_BROADCAST in socket(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.socket().set_broadcast(on)
    }

    /// See [`set_broadcast`](UdpSocket::set_broadcast).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.socket().broadcast()
    }

    /// The time to live, or hop limit, of datagrams that are not multicast:
    /// IP_TTL, IPV6_UNICAST_HOPS.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.by_family(
            |socket| socket.set_ttl_v4(ttl),
            |socket| socket.set_unicast_hops_v6(ttl),
        )
    }

    /// See [`set_ttl`](UdpSocket::set_ttl).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn ttl(&self) -> io::Result<u32> {
        self.by_family(Socket::ttl_v4, Socket::unicast_hops_v6)
    }

    /// The type of service, or traffic class: IP_TOS, IPV6_TCLASS.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_tos(&self, tos: u32) -> io::Result<()> {
        self.by_family(
            |socket| socket.set_tos_v4(tos),
            |socket| socket.set_tclass_v6(tos),
        )
    }

    /// See [`set_tos`](UdpSocket::set_tos).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn tos(&self) -> io::Result<u32> {
        self.by_family(Socket::tos_v4, Socket::tclass_v6)
    }

    // -- multicast ---------------------------------------------------------

    /// Joins a group, on the interface with this address, or on one of the
    /// system's choice if it is unspecified: IP_ADD_MEMBERSHIP in ip(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers: no such interface, or not a group.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.socket().join_multicast_v4(&group, &interface)
    }

    /// Leaves a group again.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers: it was not joined there.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.socket().leave_multicast_v4(&group, &interface)
    }

    /// Joins a group, on the interface with this number, or on one of the
    /// system's choice if it is 0: IPV6_ADD_MEMBERSHIP in ipv6(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers: no such interface, or not a group.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.socket().join_multicast_v6(group, interface)
    }

    /// Leaves a group again.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers: it was not joined there.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.socket().leave_multicast_v6(group, interface)
    }

    /// The interface, by its address, that multicasts leave by: IP_MULTICAST_IF
    /// in ip(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers: no such interface.
    pub fn set_multicast_if_v4(&self, interface: Ipv4Addr) -> io::Result<()> {
        self.socket().set_multicast_if_v4(&interface)
    }

    /// The interface, by its number, that multicasts leave by:
    /// IPV6_MULTICAST_IF in ipv6(7).
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers: no such interface.
    pub fn set_multicast_if_v6(&self, interface: u32) -> io::Result<()> {
        self.socket().set_multicast_if_v6(interface)
    }

    /// Whether this host gets the multicasts that it sends: IP_MULTICAST_LOOP,
    /// IPV6_MULTICAST_LOOP.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_multicast_loop(&self, on: bool) -> io::Result<()> {
        self.by_family(
            |socket| socket.set_multicast_loop_v4(on),
            |socket| socket.set_multicast_loop_v6(on),
        )
    }

    /// See [`set_multicast_loop`](UdpSocket::set_multicast_loop).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn multicast_loop(&self) -> io::Result<bool> {
        self.by_family(Socket::multicast_loop_v4, Socket::multicast_loop_v6)
    }

    /// How far multicasts go, in hops: IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS. 1
    /// by default, this network.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_multicast_ttl(&self, ttl: u32) -> io::Result<()> {
        self.by_family(
            |socket| socket.set_multicast_ttl_v4(ttl),
            |socket| socket.set_multicast_hops_v6(ttl),
        )
    }

    /// See [`set_multicast_ttl`](UdpSocket::set_multicast_ttl).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn multicast_ttl(&self) -> io::Result<u32> {
        self.by_family(Socket::multicast_ttl_v4, Socket::multicast_hops_v6)
    }

    // -- buffers, errors ---------------------------------------------------

    /// How many bytes may wait to be received: SO_RCVBUF in socket(7). The
    /// kernel doubles it, for what it needs itself, and caps it.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_recv_buffer_size(&self, size: usize) -> io::Result<()> {
        self.socket().set_recv_buffer_size(size)
    }

    /// See [`set_recv_buffer_size`](UdpSocket::set_recv_buffer_size).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        self.socket().recv_buffer_size()
    }

    /// How many bytes may wait to be sent: SO_SNDBUF in socket(7). The kernel
    /// doubles it, for what it needs itself, and caps it.
    ///
    /// # Errors
    ///
    /// What setsockopt(2) answers.
    pub fn set_send_buffer_size(&self, size: usize) -> io::Result<()> {
        self.socket().set_send_buffer_size(size)
    }

    /// See [`set_send_buffer_size`](UdpSocket::set_send_buffer_size).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        self.socket().send_buffer_size()
    }

    /// Takes the error that an earlier datagram met, so that no call answers
    /// with it: SO_ERROR in socket(7).
    ///
    /// # Errors
    ///
    /// What getsockopt(2) answers.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket().take_error()
    }

    fn set(&self, level: c_int, name: c_int, on: bool) -> io::Result<()> {
        sys::set(self, level, name, c_int::from(on))
    }

    /// Sets an option that has a name for each version. A socket of IPv6 may
    /// speak both; one of IPv4 knows nothing of the other.
    fn on_both(&self, v4: (c_int, c_int), v6: (c_int, c_int), on: bool) -> io::Result<()> {
        if self.is_v6()? {
            self.set(v6.0, v6.1, on)?;
        }
        self.set(v4.0, v4.1, on)
    }

    fn by_family<T>(
        &self,
        v4: impl FnOnce(&Socket) -> io::Result<T>,
        v6: impl FnOnce(&Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        let socket = self.socket();
        match self.is_v6()? {
            true => v6(&socket),
            false => v4(&socket),
        }
    }

    fn is_v6(&self) -> io::Result<bool> {
        Ok(self.socket().domain()? == Domain::IPV6)
    }
}
