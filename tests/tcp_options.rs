//! Options, and sockets that are given some before they are connected.

mod common;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use common::{everywhere, listen, pair};
use isochrome::Runtime;
use isochrome::net::{Keepalive, TcpSocket, TcpStream};
use socket2::SockRef;

everywhere!(
    what_is_set_is_what_the_system_says,
    a_listener_hands_options_on,
    a_socket_is_bound_and_connected,
    errors_of_binding_are_those_of_std,
    a_group_shares_a_port,
    fast_open_carries_the_first_bytes,
    version_six_has_its_own_options,
);

fn local() -> SocketAddr {
    common::LOCAL.parse().unwrap()
}

/// Every option of a stream, on either type, against what the system says.
macro_rules! check_options {
    ($socket:expr) => {{
        let socket = &$socket;
        let system = SockRef::from(socket);
        for on in [true, false] {
            socket.set_nodelay(on).unwrap();
            assert_eq!(socket.nodelay().unwrap(), on);
            assert_eq!(system.tcp_nodelay().unwrap(), on);
            socket.set_quickack(on).unwrap();
            assert_eq!(socket.quickack().unwrap(), system.tcp_quickack().unwrap());
        }
        for linger in [Some(Duration::ZERO), Some(Duration::from_secs(3)), None] {
            socket.set_linger(linger).unwrap();
            assert_eq!(socket.linger().unwrap(), linger);
            assert_eq!(system.linger().unwrap(), linger);
        }
        let keepalive = Keepalive {
            time: Duration::from_secs(61),
            interval: Duration::from_secs(7),
            retries: 4,
        };
        assert_eq!(socket.keepalive().unwrap(), None);
        socket.set_keepalive(Some(keepalive)).unwrap();
        assert_eq!(socket.keepalive().unwrap(), Some(keepalive));
        assert_eq!(system.tcp_keepalive_time().unwrap(), keepalive.time);
        assert_eq!(system.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(system.tcp_keepalive_retries().unwrap(), 4);
        socket.set_keepalive(None).unwrap();
        assert!(!system.keepalive().unwrap());
        let at_once = Keepalive {
            time: Duration::ZERO,
            ..keepalive
        };
        let error = socket.set_keepalive(Some(at_once)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for limit in [Some(Duration::from_millis(1500)), None] {
            socket.set_user_timeout(limit).unwrap();
            assert_eq!(system.tcp_user_timeout().unwrap(), limit);
            assert_eq!(socket.user_timeout().unwrap(), limit);
        }
        socket.set_send_buffer_size(32 << 10).unwrap();
        assert_eq!(socket.send_buffer_size().unwrap(), 64 << 10, "doubled");
        socket.set_recv_buffer_size(32 << 10).unwrap();
        assert_eq!(socket.recv_buffer_size().unwrap(), 64 << 10, "doubled");
        check_socket_options!(socket);
    }};
}

macro_rules! check_socket_options {
    ($socket:expr) => {{
        let socket = &$socket;
        let system = SockRef::from(socket);
        socket.set_ttl(33).unwrap();
        assert_eq!(socket.ttl().unwrap(), 33);
        assert_eq!(system.ttl_v4().unwrap(), 33);
        assert!(socket.set_ttl(1000).is_err());
        socket.set_tos(0x10).unwrap();
        assert_eq!(socket.tos().unwrap(), 0x10);
        assert_eq!(system.tos_v4().unwrap(), 0x10);
        match socket.set_mark(7) {
            Ok(()) => assert_eq!(socket.mark().unwrap(), 7),
            Err(e) => assert_eq!(e.kind(), ErrorKind::PermissionDenied),
        }
        socket.set_incoming_cpu(0).unwrap();
        socket.incoming_cpu().unwrap();
        assert!(socket.take_error().unwrap().is_none());
    }};
}

fn what_is_set_is_what_the_system_says(rt: Runtime) {
    rt.block_on(async {
        let socket = TcpSocket::v4().unwrap();
        check_options!(socket);
        let (near, _far) = pair().await;
        check_options!(near);
        let (listener, _) = listen().await;
        check_socket_options!(listener);

        for on in [true, false] {
            socket.set_reuse_address(on).unwrap();
            assert_eq!(socket.reuse_address().unwrap(), on);
            socket.set_reuse_port(on).unwrap();
            assert_eq!(socket.reuse_port().unwrap(), on);
            socket.set_fast_open_connect(on).unwrap();
            assert_eq!(socket.fast_open_connect().unwrap(), on);
        }
        socket.set_fast_open_queue(5).unwrap();
        assert_eq!(socket.device().unwrap(), None);
        let error = socket.bind_device(Some("no such device")).unwrap_err();
        let kinds = [ErrorKind::NotFound, ErrorKind::PermissionDenied];
        assert!(kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::ENODEV));
        if socket.bind_device(Some("lo")).is_ok() {
            assert_eq!(socket.device().unwrap().as_deref(), Some("lo"));
        }
        assert!(format!("{socket:?}").contains("fd"));
    });
}

fn a_listener_hands_options_on(rt: Runtime) {
    rt.block_on(async {
        let socket = TcpSocket::v4().unwrap();
        socket.set_nodelay(true).unwrap();
        let keepalive = Keepalive {
            time: Duration::from_secs(30),
            ..Keepalive::default()
        };
        socket.set_keepalive(Some(keepalive)).unwrap();
        socket.bind(local()).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = socket.listen(7).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        let _near = TcpStream::connect(address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        assert!(far.nodelay().unwrap());
        assert_eq!(far.keepalive().unwrap(), Some(keepalive));
    });
}

fn a_socket_is_bound_and_connected(rt: Runtime) {
    rt.block_on(async {
        let (listener, address) = listen().await;
        let socket = TcpSocket::like(address).unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let from = socket.local_addr().unwrap();
        let near = socket.connect(address).await.unwrap();
        assert_eq!(near.local_addr().unwrap(), from);
        let (far, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, from);
        near.send_all("bound").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"bound");

        let refused = TcpSocket::v4().unwrap();
        refused.bind(local()).unwrap();
        let nobody = TcpSocket::v4().unwrap();
        let error = nobody.connect(refused.local_addr().unwrap()).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

fn errors_of_binding_are_those_of_std(rt: Runtime) {
    fn same(ours: &io::Error, std: io::Error) {
        assert_eq!(ours.raw_os_error(), std.raw_os_error());
    }
    rt.block_on(async {
        let (_listener, used) = listen().await;
        let not_here: SocketAddr = "192.0.2.1:0".parse().unwrap();
        for address in [used, not_here] {
            let std = std::net::TcpListener::bind(address).unwrap_err();
            let ours = isochrome::net::TcpListener::bind(address).await;
            same(&ours.unwrap_err(), std);
            let std = std::net::TcpListener::bind(address).unwrap_err();
            let socket = TcpSocket::v4().unwrap();
            same(&socket.bind(address).unwrap_err(), std);
        }
        let socket = TcpSocket::v4().unwrap();
        let six = socket.bind("[::1]:0".parse().unwrap()).unwrap_err();
        assert_eq!(six.raw_os_error(), Some(libc::EAFNOSUPPORT));
    });
}

fn a_group_shares_a_port(rt: Runtime) {
    rt.block_on(async {
        let one = TcpSocket::v4().unwrap();
        one.set_reuse_port(true).unwrap();
        one.bind(local()).unwrap();
        let address = one.local_addr().unwrap();
        let two = TcpSocket::v4().unwrap();
        let error = two.bind(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        two.set_reuse_port(true).unwrap();
        two.bind(address).unwrap();
        let (_one, _two) = (one.listen(10).unwrap(), two.listen(10).unwrap());
    });
}

fn fast_open_carries_the_first_bytes(rt: Runtime) {
    rt.block_on(async {
        let socket = TcpSocket::v4().unwrap();
        socket.set_fast_open_queue(16).unwrap();
        assert_eq!(socket.fast_open_queue().unwrap(), 16);
        socket.bind(local()).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        // The first gets the cookie, if the system has it switched on; the
        // bytes arrive either way.
        for _ in 0..3 {
            let socket = TcpSocket::v4().unwrap();
            socket.set_fast_open_connect(true).unwrap();
            let near = socket.connect(address).await.unwrap();
            near.send_all("early").await.0.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            assert_eq!(*far.recv().await.unwrap(), *b"early");
            far.send_all("back").await.0.unwrap();
            assert_eq!(*near.recv().await.unwrap(), *b"back");
        }
    });
}

fn version_six_has_its_own_options(rt: Runtime) {
    rt.block_on(async {
        let socket = match TcpSocket::v6() {
            Ok(socket) => socket,
            Err(e) => return println!("skipped: no IPv6 here: {e}"),
        };
        let system = SockRef::from(&socket);
        socket.set_ttl(33).unwrap();
        assert_eq!(system.unicast_hops_v6().unwrap(), 33);
        assert_eq!(socket.ttl().unwrap(), 33);
        socket.set_tos(0x10).unwrap();
        assert_eq!(system.tclass_v6().unwrap(), 0x10);
        assert_eq!(socket.tos().unwrap(), 0x10);
        for on in [true, false] {
            socket.set_only_v6(on).unwrap();
            assert_eq!(socket.only_v6().unwrap(), on);
        }
    });
}
