//! Socket addresses as the kernel takes them.

use std::fmt;
use std::net::SocketAddr;

/// A socket address in the kernel's form: see ip(7) and ipv6(7).
#[derive(Clone, Copy)]
pub struct Address(Form);

#[derive(Clone, Copy)]
enum Form {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Address {
    /// Where it begins. Valid as long as the value is there and not moved.
    pub fn as_ptr(&self) -> *const libc::sockaddr {
        match &self.0 {
            Form::V4(v4) => (&raw const *v4).cast(),
            Form::V6(v6) => (&raw const *v6).cast(),
        }
    }

    /// How long it is, in bytes.
    pub fn size(&self) -> libc::socklen_t {
        let size = match self.0 {
            Form::V4(_) => size_of::<libc::sockaddr_in>(),
            Form::V6(_) => size_of::<libc::sockaddr_in6>(),
        };
        size as libc::socklen_t
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Address {
        Address(match addr {
            SocketAddr::V4(v4) => Form::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Form::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.0 {
            Form::V4(_) => "v4",
            Form::V6(_) => "v6",
        };
        f.debug_tuple("Address").field(&family).finish()
    }
}
