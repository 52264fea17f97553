//! Local sockets: streams and datagrams against std, seqpackets against the
//! system calls.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net as std_unix;

use isochrome::Runtime;
use isochrome::net::{
    UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::common;
use crate::common::agree::{alike, same, same_error};
use crate::common::everywhere;
use crate::common::local::{Place, abstract_name, stale};

everywhere!(
    names_of_streams,
    names_of_datagrams,
    names_of_seqpackets,
    clients_with_a_name,
    streams,
    streams_that_end,
    streams_without_a_connection,
    datagrams,
    seqpackets,
);

/// Names at which nothing can be connected to, or bound.
fn wrong(place: &Place) -> Vec<String> {
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    stale(&place.path("stale"));
    fs::write(place.path("file"), "").unwrap();
    symlink(place.path("loop"), place.path("loop")).unwrap();
    fs::create_dir(place.path("closed")).unwrap();
    fs::set_permissions(place.path("closed"), PermissionsExt::from_mode(0o000)).unwrap();
    vec![
        path("stale"),
        path("file"),
        path("file/below"),
        path("no/such/directory"),
        path("loop"),
        path("closed/socket"),
        path(""),
        path("nul\0inside"),
        path(&"long".repeat(50)),
    ]
}

fn names_of_streams(rt: Runtime) {
    let place = Place::new();
    let wrong = wrong(&place);
    rt.block_on(async {
        for name in &wrong {
            same_error(
                UnixStream::connect(name).await,
                std_unix::UnixStream::connect(name),
            );
            // (To root a closed directory is open.)
            let ours = UnixListener::bind(name).map(|_| fs::remove_file(name));
            let std = std_unix::UnixListener::bind(name).map(|_| fs::remove_file(name));
            alike(ours, std);
        }
        let held = place.path("held");
        let std = std_unix::UnixListener::bind(&held).unwrap();
        same_error(
            UnixListener::bind(&held),
            std_unix::UnixListener::bind(&held),
        );
        // Addresses, as std has them.
        let ours = UnixListener::bind(place.path("ours")).unwrap();
        let path = ours.local_addr().unwrap();
        assert_eq!(path.as_pathname(), Some(place.path("ours").as_path()));
        let client = std_unix::UnixStream::connect(place.path("ours")).unwrap();
        let (stream, peer) = ours.accept().await.unwrap();
        assert_eq!(peer.is_unnamed(), client.local_addr().unwrap().is_unnamed());
        let text = |addr: io::Result<std_unix::SocketAddr>| addr.map(|a| format!("{a:?}"));
        same(text(stream.local_addr()), text(client.peer_addr()));
        same(text(stream.peer_addr()), text(client.local_addr()));
        drop(std);
    });
}

fn names_of_datagrams(rt: Runtime) {
    let place = Place::new();
    let wrong = wrong(&place);
    rt.block_on(async {
        let ours = UnixDatagram::unbound().unwrap();
        let std = std_unix::UnixDatagram::unbound().unwrap();
        for name in &wrong {
            same_error(ours.connect(name), std.connect(name));
            same(ours.send_to(b"x", name).await, std.send_to(b"x", name));
            same(ours.try_send_to(b"x", name), std.send_to(b"x", name));
            let bound = UnixDatagram::bind(name).map(|_| fs::remove_file(name));
            let of_std = std_unix::UnixDatagram::bind(name).map(|_| fs::remove_file(name));
            alike(bound, of_std);
        }
        same(ours.send(b"x").await, std.send(b"x"));
        same(ours.try_send(b"x"), std.send(b"x"));
        let text = |addr: io::Result<std_unix::SocketAddr>| addr.map(|a| format!("{a:?}"));
        same(text(ours.peer_addr()), text(std.peer_addr()));
        same(text(ours.local_addr()), text(std.local_addr()));
        // One whose peer is another.
        let path = place.path("taken");
        let taken = std_unix::UnixDatagram::bind(&path).unwrap();
        let peer = place.path("peer");
        let _peer = std_unix::UnixDatagram::bind(&peer).unwrap();
        taken.connect(&peer).unwrap();
        same(ours.send_to(b"x", &path).await, std.send_to(b"x", &path));
        same_error(ours.connect(&path), std.connect(&path));
    });
}

fn names_of_seqpackets(rt: Runtime) {
    let place = Place::new();
    let wrong = wrong(&place);
    rt.block_on(async {
        // (The system call takes the part before a NUL.)
        for name in wrong.iter().filter(|name| !name.contains('\0')) {
            let socket = || Socket::new(Domain::UNIX, Type::SEQPACKET, None);
            let addr = SockAddr::unix(name);
            let connect = addr.and_then(|addr| socket()?.connect(&addr));
            alike(UnixSeqpacket::connect(name).await, connect);
            let addr = SockAddr::unix(name);
            let bind = addr.and_then(|addr| socket()?.bind(&addr));
            let bind = bind.map(|()| fs::remove_file(name));
            let ours = UnixSeqpacketListener::bind(name).map(|_| fs::remove_file(name));
            alike(ours, bind);
        }
        // Another type listens there.
        let name = abstract_name();
        let _listener = UnixListener::bind(&name).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let address = SockAddr::unix(&name).unwrap();
        same_error(
            UnixSeqpacket::connect(&name).await,
            socket.connect(&address),
        );
    });
}

struct Twins {
    ours: UnixStream,
    std: std_unix::UnixStream,
    to_ours: std_unix::UnixStream,
    to_std: std_unix::UnixStream,
}

fn twins() -> Twins {
    let (ours, to_ours) = std_unix::UnixStream::pair().unwrap();
    let (std, to_std) = std_unix::UnixStream::pair().unwrap();
    Twins {
        ours: UnixStream::from_std(ours).unwrap(),
        std,
        to_ours,
        to_std,
    }
}

/// Clients that have a name, against sockets that are bound and connected by
/// system calls.
fn clients_with_a_name(rt: Runtime) {
    let place = Place::new();
    rt.block_on(async {
        let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
        let bound = |kind, from: &str, to: &str| {
            let socket = Socket::new(Domain::UNIX, kind, None)?;
            socket.bind(&SockAddr::unix(from)?)?;
            socket.connect(&SockAddr::unix(to)?)
        };
        let listener = UnixListener::bind(path("streams")).unwrap();
        let packets = UnixSeqpacketListener::bind(path("packets")).unwrap();
        for from in [path("client"), abstract_name()] {
            let client = UnixStream::connect_from(&from, path("streams"))
                .await
                .unwrap();
            let (served, peer) = listener.accept().await.unwrap();
            assert_eq!(
                peer.as_pathname(),
                client.local_addr().unwrap().as_pathname()
            );
            assert!(!peer.is_unnamed());
            client.write_all(b"x").await.unwrap();
            served.read_exact(&mut [0]).await.unwrap();
            // In use.
            let again = UnixStream::connect_from(&from, path("streams")).await;
            same_error(again, bound(Type::STREAM, &from, &path("streams")));
        }
        let from = path("other");
        let client = UnixSeqpacket::connect_from(&from, path("packets"))
            .await
            .unwrap();
        let (served, peer) = packets.accept().await.unwrap();
        assert_eq!(peer.as_pathname(), Some(place.path("other").as_path()));
        client.send(b"x").await.unwrap();
        assert_eq!(served.recv(&mut [0]).await.unwrap().unwrap().len, 1);
        let again = UnixSeqpacket::connect_from(&from, path("packets")).await;
        same_error(again, bound(Type::SEQPACKET, &from, &path("packets")));
        // Nobody is there; what was bound stays.
        let to = path("nobody");
        let ours = UnixStream::connect_from(path("late"), &to).await;
        same_error(ours, bound(Type::STREAM, &path("late of std"), &to));
        assert!(place.path("late").exists());
    });
}

fn streams(rt: Runtime) {
    rt.block_on(async {
        let mut twins = twins();
        for mut end in [&twins.to_ours, &twins.to_std] {
            end.write_all(b"0123456789").unwrap();
        }
        let (ours, mut std) = (&twins.ours, &twins.std);
        let [mut a, mut b] = [[0; 3]; 2];
        same(ours.read(&mut a).await, std.read(&mut b));
        assert_eq!(a, b);
        same(ours.read_exact(&mut a).await, std.read_exact(&mut b));
        assert_eq!(a, b);
        let lease = ours.recv().await.unwrap();
        let mut rest = [0; 8];
        let n = std.read(&mut rest).unwrap();
        assert_eq!(*lease, rest[..n]);
        std.set_nonblocking(true).unwrap();
        same(ours.try_read(&mut a), std.read(&mut b));
        same(ours.write_all(b"one").await, std.write_all(b"one"));
        same(ours.send_all("two").await.0, std.write_all(b"two"));
        same(ours.try_write(b"three"), std.write(b"three"));
        let mut got = [[0; 11]; 2];
        twins.to_ours.read_exact(&mut got[0]).unwrap();
        twins.to_std.read_exact(&mut got[1]).unwrap();
        assert_eq!(got[0], got[1]);
    });
}

fn streams_that_end(rt: Runtime) {
    rt.block_on(async {
        // The other end goes, with something unread, and without.
        for unread in [false, true] {
            let twins = twins();
            let (ours, mut std) = (&twins.ours, &twins.std);
            for mut end in [&twins.to_ours, &twins.to_std] {
                end.write_all(b"data").unwrap();
            }
            if unread {
                same(ours.write(b"x").await, std.write(b"x"));
            }
            let Twins {
                ours,
                mut std,
                to_ours,
                to_std,
            } = twins;
            drop((to_ours, to_std));
            let [mut a, mut b] = [[0; 4]; 2];
            for _ in 0..3 {
                same(ours.read(&mut a).await, std.read(&mut b));
            }
            same(ours.recv().await.map(|r| r.len()), std.read(&mut b));
            let (to, and) = (&mut Vec::new(), &mut Vec::new());
            same(ours.read_to_end(to).await, std.read_to_end(and));
            same(ours.take_error().map(drop), std.take_error().map(drop));
            same(ours.write(b"x").await, std.write(b"x"));
            same(ours.send_all("x").await.0, std.write_all(b"x"));
            same(ours.shutdown(Shutdown::Both), std.shutdown(Shutdown::Both));
        }
        // Either end ends directions.
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            for own in [true, false] {
                let twins = twins();
                let (ours, mut std) = (&twins.ours, &twins.std);
                match own {
                    true => same(ours.shutdown(how), std.shutdown(how)),
                    false => {
                        twins.to_ours.shutdown(how).unwrap();
                        twins.to_std.shutdown(how).unwrap();
                    }
                }
                std.set_nonblocking(true).unwrap();
                same(ours.write(b"x").await, std.write(b"x"));
                same(ours.send_all("x").await.0, std.write_all(b"x"));
                same(ours.try_write(b"x"), std.write(b"x"));
                let [mut a, mut b] = [[0; 4]; 2];
                same(ours.try_read(&mut a), std.read(&mut b));
            }
        }
    });
}

fn streams_without_a_connection(rt: Runtime) {
    rt.block_on(async {
        let fresh = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            std_unix::UnixStream::from(OwnedFd::from(socket))
        };
        let ours = UnixStream::from_std(fresh()).unwrap();
        let mut std = fresh();
        let [mut a, mut b] = [[0; 4]; 2];
        same(ours.read(&mut a).await, std.read(&mut b));
        same(ours.write(b"x").await, std.write(b"x"));
        same(ours.send_all("x").await.0, std.write_all(b"x"));
        same(ours.shutdown(Shutdown::Both), std.shutdown(Shutdown::Both));
        let text = |addr: io::Result<std_unix::SocketAddr>| addr.map(|a| format!("{a:?}"));
        same(text(ours.peer_addr()), text(std.peer_addr()));
        // What does not listen accepts nobody.
        let deaf = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            std_unix::UnixListener::from(OwnedFd::from(socket))
        };
        let ours = UnixListener::from_std(deaf()).unwrap();
        same_error(ours.accept().await, deaf().accept());
        same(ours.take_error().map(drop), deaf().take_error().map(drop));
    });
}

fn datagrams(rt: Runtime) {
    rt.block_on(async {
        let (ours, to_ours) = UnixDatagram::pair().unwrap();
        let (std, to_std) = std_unix::UnixDatagram::pair().unwrap();
        let [mut a, mut b] = [[0; 4]; 2];
        for data in [&b"fits"[..], b"", b"is cut"] {
            same(to_ours.send(data).await, to_std.send(data));
            let looked = ours.peek(&mut a).await.unwrap();
            assert_eq!((looked.len, looked.size), (data.len().min(4), data.len()));
            same(ours.recv(&mut a).await.map(|got| got.len), std.recv(&mut b));
            same(to_ours.try_send(data), to_std.send(data));
            same(ours.try_recv(&mut a).map(|got| got.len), std.recv(&mut b));
            same(to_ours.send(data).await, to_std.send(data));
            let got = ours.recv_from(&mut a).await.unwrap();
            let of_std = std.recv_from(&mut b).unwrap();
            assert_eq!(
                (got.0.len, got.1.is_unnamed()),
                (of_std.0, of_std.1.is_unnamed())
            );
            assert_eq!(a, b);
        }
        std.set_nonblocking(true).unwrap();
        let got = ours.try_recv_from(&mut a).map(drop);
        same(got, std.recv_from(&mut b).map(drop));
        same(ours.try_recv(&mut a).map(|got| got.len), std.recv(&mut b));
        std.set_nonblocking(false).unwrap();
        let long = vec![0; 4 << 20];
        same(to_ours.send(&long).await, to_std.send(&long));
        same(to_ours.try_send(&long), to_std.send(&long));
        same(
            to_ours.shutdown(Shutdown::Write),
            to_std.shutdown(Shutdown::Write),
        );
        same(to_ours.send(b"x").await, to_std.send(b"x"));
        drop((to_ours, to_std));
        same(ours.send(b"x").await, std.send(b"x"));
        same(ours.shutdown(Shutdown::Read), std.shutdown(Shutdown::Read));
        same(ours.recv(&mut a).await.map(|got| got.len), std.recv(&mut b));
    });
}

fn seqpackets(rt: Runtime) {
    rt.block_on(async {
        let pair = || Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let (ours, to_ours) = UnixSeqpacket::pair().unwrap();
        let (raw, to_raw) = pair();
        let [mut a, mut b] = [[0; 4]; 2];
        for data in [&b"fits"[..], b"is cut"] {
            same(to_ours.send(data).await, to_raw.send(data));
            let looked = ours.peek(&mut a).await.unwrap().unwrap();
            assert_eq!(looked.size, data.len());
            let got = ours.recv(&mut a).await.map(|got| got.unwrap().len);
            same(got, (&raw).read(&mut b));
            assert_eq!(a, b);
        }
        raw.set_nonblocking(true).unwrap();
        let got = ours.try_recv(&mut a).map(|got| got.unwrap().len);
        same(got, (&raw).read(&mut b));
        raw.set_nonblocking(false).unwrap();
        let long = vec![0; 4 << 20];
        same(to_ours.send(&long).await, to_raw.send(&long));
        same(to_ours.try_send(&long), to_raw.send(&long));
        let flags = libc::MSG_NOSIGNAL;
        for how in [Shutdown::Read, Shutdown::Write] {
            let (ours, _to_ours) = UnixSeqpacket::pair().unwrap();
            let (raw, _to_raw) = pair();
            same(ours.shutdown(how), raw.shutdown(how));
            let sent = raw.send_with_flags(b"x", flags);
            same(ours.send(b"x").await, sent);
            if how == Shutdown::Read {
                let got = ours
                    .recv(&mut a)
                    .await
                    .map(|got| got.map_or(0, |got| got.len));
                same(got, (&raw).read(&mut b));
            }
        }
        // The other end goes, with something unread.
        same(ours.send(b"x").await, raw.send(b"x"));
        drop((to_ours, to_raw));
        for _ in 0..2 {
            let got = ours
                .recv(&mut a)
                .await
                .map(|got| got.map_or(0, |got| got.len));
            same(got, (&raw).read(&mut b));
        }
        same(ours.send(b"x").await, raw.send_with_flags(b"x", flags));
        // Without a connection.
        let fresh = || Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let ours = UnixSeqpacket::from_fd(fresh().into()).unwrap();
        let raw = fresh();
        let got = ours
            .recv(&mut a)
            .await
            .map(|got| got.map_or(0, |got| got.len));
        same(got, (&raw).read(&mut b));
        same(ours.send(b"x").await, raw.send_with_flags(b"x", flags));
        same(ours.peer_addr().map(drop), raw.peer_addr().map(drop));
        let deaf = UnixSeqpacketListener::from_fd(fresh().into()).unwrap();
        same_error(deaf.accept().await, SockRef::from(&raw).accept());
    });
}
