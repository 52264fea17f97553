//! Addresses and names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::num::IntErrorKind;

/// What can be turned into socket addresses: addresses at once, names by the
/// system's resolver.
///
/// Implemented for [`SocketAddr`] and its kin, slices of them, `(ip, port)`,
/// and for `"host:port"` and `("host", port)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no address",
    note = "write `\"host:port\"`, `(\"host\", port)`, or a `SocketAddr`"
)]
pub trait ToAddrs: sealed::Sealed {}

pub(crate) enum Addrs {
    Known(Vec<SocketAddr>),
    /// A name with its port.
    Name(String, u16),
    /// Neither, and why.
    Malformed(String),
}

mod sealed {
    pub trait Sealed {
        #[doc(hidden)]
        #[allow(private_interfaces, reason = "the trait is sealed")]
        fn addrs(&self) -> super::Addrs;
    }
}

macro_rules! known {
    ($($t:ty),*) => {$(
        impl sealed::Sealed for $t {
            #[allow(private_interfaces, reason = "the trait is sealed")]
            fn addrs(&self) -> Addrs {
                Addrs::Known(vec![(*self).into()])
            }
        }
        impl ToAddrs for $t {}
    )*};
}

known!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

impl sealed::Sealed for [SocketAddr] {
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn addrs(&self) -> Addrs {
        Addrs::Known(self.to_vec())
    }
}

impl ToAddrs for [SocketAddr] {}

impl sealed::Sealed for str {
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn addrs(&self) -> Addrs {
        if let Ok(addr) = self.parse() {
            return Addrs::Known(vec![addr]);
        }
        let parts = self.rsplit_once(':');
        match parts.map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(port))) => (host, port).addrs(),
            Some((_, Err(e))) if *e.kind() == IntErrorKind::PosOverflow => {
                Addrs::Malformed(format!("the port of `{self}` is above 65535"))
            }
            _ => Addrs::Malformed(format!(
                "`{self}` is no address: write IP:PORT or HOST:PORT"
            )),
        }
    }
}

impl ToAddrs for str {}

impl sealed::Sealed for (&str, u16) {
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn addrs(&self) -> Addrs {
        match self.0.parse::<IpAddr>() {
            Ok(ip) => (ip, self.1).addrs(),
            Err(_) => Addrs::Name(self.0.to_owned(), self.1),
        }
    }
}

impl ToAddrs for (&str, u16) {}

impl sealed::Sealed for (String, u16) {
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn addrs(&self) -> Addrs {
        (self.0.as_str(), self.1).addrs()
    }
}

impl ToAddrs for (String, u16) {}

impl sealed::Sealed for String {
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn addrs(&self) -> Addrs {
        self.as_str().addrs()
    }
}

impl ToAddrs for String {}

impl<T: ToAddrs + ?Sized> sealed::Sealed for &T {
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn addrs(&self) -> Addrs {
        (**self).addrs()
    }
}

impl<T: ToAddrs + ?Sized> ToAddrs for &T {}

/// The addresses of a name, all of them, in the order of the system's resolver
/// (getaddrinfo(3), on the blocking pool).
///
/// The resolver's own time limit is that of resolv.conf(5). For another one,
/// use [`timeout`](isochrome_runtime::time::timeout).
///
/// Dropping the future abandons the look-up: its thread goes on until the
/// resolver answers.
///
/// # Errors
///
/// If the argument is no address and no `host:port`; if the name has no
/// address; if the resolver or the blocking pool fails.
pub async fn resolve(what: impl ToAddrs) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = match what.addrs() {
        Addrs::Known(known) if known.is_empty() => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no address given",
            ));
        }
        Addrs::Known(known) => return Ok(known),
        Addrs::Name(host, port) => (host, port),
        Addrs::Malformed(why) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    };
    let name = host.clone();
    let look_up = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    let found = crate::runtime()?.spawn_blocking(look_up).await?;
    let explain = |why: String| format!("cannot resolve `{name}`: {why}");
    match found {
        Ok(addrs) if addrs.is_empty() => Err(io::Error::new(
            io::ErrorKind::NotFound,
            explain("it has no address".into()),
        )),
        Ok(addrs) => Ok(addrs),
        Err(e) => Err(io::Error::new(e.kind(), explain(e.to_string()))),
    }
}

/// What `attempt` makes of the first address for which it does not fail, or the
/// last error.
pub(crate) async fn first_of<T>(
    what: impl ToAddrs,
    attempt: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for address in resolve(what).await? {
        match attempt(address) {
            Ok(made) => return Ok(made),
            Err(e) => last = Some(e),
        }
    }
    Err(last.expect("resolve gives at least one address"))
}

#[cfg(test)]
mod tests {
    use super::sealed::Sealed;
    use super::*;

    #[test]
    fn addresses_need_no_resolver() {
        for known in ["127.0.0.1:80", "[::1]:80"] {
            assert!(matches!(known.addrs(), Addrs::Known(a) if a.len() == 1));
        }
        assert!(matches!(("::1", 80).addrs(), Addrs::Known(_)));
        assert!(matches!("localhost:80".addrs(), Addrs::Name(h, 80) if h == "localhost"));
        for bad in [
            "localhost",
            "localhost:http",
            "127.0.0.1",
            "127.0.0.1:-1",
            "",
        ] {
            let said = format!("`{bad}` is no address: write IP:PORT or HOST:PORT");
            assert!(matches!(bad.addrs(), Addrs::Malformed(why) if why == said));
        }
        for high in ["localhost:65536", "127.0.0.1:99999"] {
            let said = format!("the port of `{high}` is above 65535");
            assert!(matches!(high.addrs(), Addrs::Malformed(why) if why == said));
        }
    }
}
