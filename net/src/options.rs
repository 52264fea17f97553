//! Options of sockets: one list, for all types that have them.
//!
//! Each is read from and written to the kernel when it is asked for; nothing
//! is kept here. (Options that are not here, such as TCP_CONGESTION, are set
//! by `socket2::SockRef::from(&socket)`.) A macro writes the methods, with `socket()` of the type.

use std::io;
use std::time::Duration;

use socket2::{Domain, SockRef, TcpKeepalive};

/// When a connection on which nothing happens is asked whether it is still
/// there, and when it is given up: tcp(7). The default is the kernel's: after
/// two hours, 9 times, 75 seconds apart. In whole seconds: the rest is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long nothing happens before the first probe: TCP_KEEPIDLE. At least
    /// a second.
    pub time: Duration,
    /// From one probe to the next: TCP_KEEPINTVL. At least a second.
    pub interval: Duration,
    /// How many probes go unanswered before the connection is given up:
    /// TCP_KEEPCNT.
    pub retries: u32,
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive {
            time: Duration::from_secs(7200),
            interval: Duration::from_secs(75),
            retries: 9,
        }
    }
}

pub(crate) fn set_keepalive(socket: &SockRef<'_>, how: Option<Keepalive>) -> io::Result<()> {
    if let Some(how) = how {
        let timing = TcpKeepalive::new()
            .with_time(how.time)
            .with_interval(how.interval)
            .with_retries(how.retries);
        socket.set_tcp_keepalive(&timing)?;
    }
    socket.set_keepalive(how.is_some())
}

pub(crate) fn keepalive(socket: &SockRef<'_>) -> io::Result<Option<Keepalive>> {
    if !socket.keepalive()? {
        return Ok(None);
    }
    Ok(Some(Keepalive {
        time: socket.tcp_keepalive_time()?,
        interval: socket.tcp_keepalive_interval()?,
        retries: socket.tcp_keepalive_retries()?,
    }))
}

pub(crate) fn is_v6(socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(socket.domain()? == Domain::IPV6)
}

pub(crate) fn set_ttl(socket: &SockRef<'_>, ttl: u32) -> io::Result<()> {
    match is_v6(socket)? {
        true => socket.set_unicast_hops_v6(ttl),
        false => socket.set_ttl_v4(ttl),
    }
}

pub(crate) fn ttl(socket: &SockRef<'_>) -> io::Result<u32> {
    match is_v6(socket)? {
        true => socket.unicast_hops_v6(),
        false => socket.ttl_v4(),
    }
}

pub(crate) fn set_tos(socket: &SockRef<'_>, tos: u32) -> io::Result<()> {
    match is_v6(socket)? {
        true => socket.set_tclass_v6(tos),
        false => socket.set_tos_v4(tos),
    }
}

pub(crate) fn tos(socket: &SockRef<'_>) -> io::Result<u32> {
    match is_v6(socket)? {
        true => socket.tclass_v6(),
        false => socket.tos_v4(),
    }
}

/// A setter and its getter: documentation, names, type, and how each is done.
macro_rules! option {
    ($(#[$doc:meta])* $set:ident, $get:ident: $t:ty,
     |$s:ident, $v:ident| $do:expr, |$g:ident| $ask:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// What setsockopt(2) answers.
        pub fn $set(&self, $v: $t) -> ::std::io::Result<()> {
            let $s = self.socket();
            $do
        }

        #[doc = concat!("See [`", stringify!($set), "`](Self::", stringify!($set), ").")]
        ///
        /// # Errors
        ///
        /// What getsockopt(2) answers.
        pub fn $get(&self) -> ::std::io::Result<$t> {
            let $g = self.socket();
            $ask
        }
    };
}

/// What sockets, connections and listeners have.
macro_rules! socket_options {
    ($type:ident) => {
        impl $type {
            crate::options::option!(
                /// How many routers a packet may pass: IP_TTL in ip(7), or the
                /// hop limit in ipv6(7).
                set_ttl, ttl: u32,
                |s, ttl| crate::options::set_ttl(&s, ttl),
                |s| crate::options::ttl(&s)
            );
            crate::options::option!(
                /// The type of service of what is sent: IP_TOS in ip(7), or the
                /// traffic class in ipv6(7).
                set_tos, tos: u32,
                |s, tos| crate::options::set_tos(&s, tos),
                |s| crate::options::tos(&s)
            );
            crate::options::option!(
                /// The mark of what is sent, for routing and filters: SO_MARK in
                /// socket(7). Setting it takes CAP_NET_ADMIN.
                set_mark, mark: u32,
                |s, mark| s.set_mark(mark),
                |s| s.mark()
            );
            crate::options::option!(
                /// The processor that received the last packet. Setting it says
                /// which listener of a group takes connections that arrive on
                /// that processor: SO_INCOMING_CPU in socket(7).
                set_incoming_cpu, incoming_cpu: usize,
                |s, cpu| s.set_cpu_affinity(cpu),
                |s| s.cpu_affinity()
            );
        }
        crate::options::take_error!($type);
    };
}

/// What every socket has.
macro_rules! take_error {
    ($type:ident) => {
        impl $type {
            /// The error that the kernel keeps for the socket, which is cleared:
            /// SO_ERROR in socket(7).
            ///
            /// # Errors
            ///
            /// What getsockopt(2) answers.
            pub fn take_error(&self) -> ::std::io::Result<Option<::std::io::Error>> {
                self.socket().take_error()
            }
        }
    };
}

/// What sockets and connections have.
macro_rules! stream_options {
    ($type:ident) => {
        impl $type {
            crate::options::option!(
                /// Whether small segments are sent at once: TCP_NODELAY in
                /// tcp(7).
                set_nodelay, nodelay: bool,
                |s, on| s.set_tcp_nodelay(on),
                |s| s.tcp_nodelay()
            );
            crate::options::option!(
                /// Whether acknowledgements are sent at once: TCP_QUICKACK in
                /// tcp(7). The kernel switches it off again by itself.
                set_quickack, quickack: bool,
                |s, on| s.set_tcp_quickack(on),
                |s| s.tcp_quickack()
            );
            crate::options::option!(
                /// What closing does with bytes not sent yet: SO_LINGER in
                /// socket(7), in whole seconds. Zero resets the connection.
                /// (With another time, the close of the last descriptor blocks
                /// the thread that makes it for so long.)
                set_linger, linger: Option<::std::time::Duration>,
                |s, linger| s.set_linger(linger),
                |s| s.linger()
            );
            crate::options::option!(
                /// Whether, and when, the kernel asks if the other end is still
                /// there: SO_KEEPALIVE in socket(7), and its times in tcp(7).
                set_keepalive, keepalive: Option<crate::options::Keepalive>,
                |s, how| crate::options::set_keepalive(&s, how),
                |s| crate::options::keepalive(&s)
            );
            crate::options::option!(
                /// How long sent data may stay unacknowledged before the
                /// connection is given up: TCP_USER_TIMEOUT in tcp(7), in
                /// milliseconds. `None`: as long as the kernel retries.
                set_user_timeout, user_timeout: Option<::std::time::Duration>,
                |s, limit| s.set_tcp_user_timeout(limit),
                |s| s.tcp_user_timeout()
            );
        }
        crate::options::buffer_options!($type);
    };
}

/// What sockets have that may be bound to an interface.
macro_rules! device_options {
    ($type:ident) => {
        impl $type {
            /// Keeps to one network interface, or to none in particular:
            /// SO_BINDTODEVICE in socket(7).
            ///
            /// # Errors
            ///
            /// What setsockopt(2) answers: no such interface, or not allowed.
            pub fn bind_device(&self, interface: Option<&str>) -> ::std::io::Result<()> {
                self.socket().bind_device(interface.map(str::as_bytes))
            }

            /// The interface of [`bind_device`](Self::bind_device).
            ///
            /// # Errors
            ///
            /// What getsockopt(2) answers.
            pub fn device(&self) -> ::std::io::Result<Option<String>> {
                let name = self.socket().device()?;
                Ok(name.map(|name| String::from_utf8_lossy(&name).into_owned()))
            }
        }
    };
}

/// What every socket has, with different limits.
macro_rules! buffer_options {
    ($type:ident) => {
        impl $type {
            crate::options::option!(
                /// The kernel's send buffer, in bytes: SO_SNDBUF in socket(7).
                /// It doubles what is set, for what it needs itself, and caps
                /// it.
                set_send_buffer_size, send_buffer_size: usize,
                |s, size| s.set_send_buffer_size(size),
                |s| s.send_buffer_size()
            );
            crate::options::option!(
                /// The kernel's receive buffer, in bytes: SO_RCVBUF in
                /// socket(7). It doubles what is set, for what it needs itself,
                /// and caps it. (For large windows of TCP it has to be set
                /// before the connection is made; local sockets are bounded by
                /// the sender's buffer.)
                set_recv_buffer_size, recv_buffer_size: usize,
                |s, size| s.set_recv_buffer_size(size),
                |s| s.recv_buffer_size()
            );
        }
    };
}

pub(crate) use {
    buffer_options, device_options, option, socket_options, stream_options, take_error,
};
