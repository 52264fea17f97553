//! What can be set on a UDP socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use libc::c_int;
use socket2::SockRef;

use super::UdpSocket;
use crate::options::{buffer_options, device_options, is_v6, option, socket_options};
use crate::sys;

socket_options!(UdpSocket);
buffer_options!(UdpSocket);
device_options!(UdpSocket);

impl UdpSocket {
    // -- what is told of a datagram (`Arrival`) ----------------------------

    option!(
        /// Whether it is told which address and interface a datagram came to:
        /// [`Arrival::to`](crate::Arrival::to). IP_PKTINFO in ip(7).
        set_packet_info, packet_info: bool,
        |s, on| on_both(&s, PACKET_INFO, on),
        |s| of_version(&s, PACKET_INFO)
    );
    option!(
        /// Whether the type of service, and ECN with it, is told:
        /// [`Arrival::tos`](crate::Arrival::tos). IP_RECVTOS, IPV6_RECVTCLASS.
        set_recv_tos, recv_tos: bool,
        |s, on| on_both(&s, RECV_TOS, on),
        |s| of_version(&s, RECV_TOS)
    );
    option!(
        /// Whether the time to live, or hop limit, is told:
        /// [`Arrival::ttl`](crate::Arrival::ttl). IP_RECVTTL,
        /// IPV6_RECVHOPLIMIT.
        set_recv_ttl, recv_ttl: bool,
        |s, on| on_both(&s, RECV_TTL, on),
        |s| of_version(&s, RECV_TTL)
    );
    option!(
        /// Whether the time at which the kernel received a datagram is told:
        /// [`Arrival::time`](crate::Arrival::time). SO_TIMESTAMPNS in
        /// socket(7).
        set_timestamps, timestamps: bool,
        |s, on| set(&s, (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS), on),
        |s| get(&s, (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS))
    );
    option!(
        /// Whether it is told how many datagrams found no room:
        /// [`Arrival::dropped`](crate::Arrival::dropped). SO_RXQ_OVFL in
        /// socket(7).
        set_drop_count, drop_count: bool,
        |s, on| set(&s, (libc::SOL_SOCKET, libc::SO_RXQ_OVFL), on),
        |s| get(&s, (libc::SOL_SOCKET, libc::SO_RXQ_OVFL))
    );
    option!(
        /// Whether the kernel may hand over several datagrams of one sender and
        /// size as one: [`Arrival::segment`](crate::Arrival::segment). Buffers
        /// should then have room for 64 KiB. UDP_GRO in udp(7).
        set_gro, gro: bool,
        |s, on| set(&s, (libc::SOL_UDP, libc::UDP_GRO), on),
        |s| get(&s, (libc::SOL_UDP, libc::UDP_GRO))
    );

    // -- broadcast and multicast -------------------------------------------

    option!(
        /// Whether it may send to broadcast addresses: SO_BROADCAST in
        /// socket(7).
        set_broadcast, broadcast: bool,
        |s, on| s.set_broadcast(on),
        |s| s.broadcast()
    );
    option!(
        /// Whether this host gets the multicasts that it sends:
        /// IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP.
        set_multicast_loop, multicast_loop: bool,
        |s, on| if is_v6(&s)? { s.set_multicast_loop_v6(on) } else { s.set_multicast_loop_v4(on) },
        |s| if is_v6(&s)? { s.multicast_loop_v6() } else { s.multicast_loop_v4() }
    );
    option!(
        /// How far multicasts go, in hops: IP_MULTICAST_TTL,
        /// IPV6_MULTICAST_HOPS. 1 by default, this network.
        set_multicast_ttl, multicast_ttl: u32,
        |s, ttl| if is_v6(&s)? { s.set_multicast_hops_v6(ttl) } else { s.set_multicast_ttl_v4(ttl) },
        |s| if is_v6(&s)? { s.multicast_hops_v6() } else { s.multicast_ttl_v4() }
    );
    option!(
        /// The interface, by its address, that multicasts leave by:
        /// IP_MULTICAST_IF in ip(7). Unspecified: of the system's choice.
        set_multicast_if_v4, multicast_if_v4: Ipv4Addr,
        |s, interface| s.set_multicast_if_v4(&interface),
        |s| s.multicast_if_v4()
    );
    option!(
        /// The interface, by its number, that multicasts leave by:
        /// IPV6_MULTICAST_IF in ipv6(7). 0: of the system's choice.
        set_multicast_if_v6, multicast_if_v6: u32,
        |s, interface| s.set_multicast_if_v6(interface),
        |s| s.multicast_if_v6()
    );

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
}

/// A level, and an option of it.
type Name = (c_int, c_int);

/// What is named for each version.
struct Names {
    v4: Name,
    v6: Name,
}

const PACKET_INFO: Names = Names {
    v4: (libc::IPPROTO_IP, libc::IP_PKTINFO),
    v6: (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
};

const RECV_TOS: Names = Names {
    v4: (libc::IPPROTO_IP, libc::IP_RECVTOS),
    v6: (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
};

const RECV_TTL: Names = Names {
    v4: (libc::IPPROTO_IP, libc::IP_RECVTTL),
    v6: (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
};

/// Sets an option that has a name for each version. A socket of IPv6 may speak
/// both; one of IPv4 knows nothing of the other.
fn on_both(socket: &SockRef<'_>, names: Names, on: bool) -> io::Result<()> {
    if is_v6(socket)? {
        set(socket, names.v6, on)?;
    }
    set(socket, names.v4, on)
}

/// What the option is by the name of the socket's own version.
fn of_version(socket: &SockRef<'_>, names: Names) -> io::Result<bool> {
    match is_v6(socket)? {
        true => get(socket, names.v6),
        false => get(socket, names.v4),
    }
}

fn set(socket: &SockRef<'_>, (level, name): Name, on: bool) -> io::Result<()> {
    sys::set(&**socket, level, name, on.into())
}

fn get(socket: &SockRef<'_>, (level, name): Name) -> io::Result<bool> {
    let on: c_int = sys::get(&**socket, level, name)?;
    Ok(on != 0)
}
