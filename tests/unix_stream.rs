//! Local streams: names, stale files, round trips, halves.

mod common;

use std::fs;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as std_unix;
use std::pin::pin;
use std::task::{Context, Waker};

use common::agree::same_error as same;
use common::bytes::{check, pattern};
use common::everywhere;
use common::futures::{Either, give_up, join, race};
use common::local::{Place, abstract_name, longest_named, stale};
use isochrome::net::{SocketFile, UnixDatagram, UnixListener, UnixStream};
use isochrome::{Color, Runtime};
use socket2::SockRef;

everywhere!(
    round_trips,
    a_path_and_its_peer,
    abstract_names_need_no_file,
    every_form_of_a_name,
    a_stale_file_says_so,
    what_else_is_in_the_way,
    errors_are_those_of_std,
    the_file_goes_if_asked_for,
    a_full_queue_is_waited_for,
    halves,
    streams_larger_than_any_buffer,
    giving_up_loses_no_byte,
    writes_that_wait_for_room,
    std_sockets_are_taken_over,
    incoming_gives_one_connection_after_another,
    a_peer_that_is_gone,
    a_peer_whose_name_std_cannot_say,
);

async fn echo(stream: &UnixStream) {
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            return stream.shutdown(Shutdown::Write).unwrap();
        }
        stream.send_all(data).await.0.unwrap();
    }
}

fn round_trips(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let server = Color::new().spawn(async move { echo(&far).await });
        for len in [1, 10, 4096, 100_000] {
            let ((), ()) = join(
                async {
                    near.send_all(pattern(0, len)).await.0.unwrap();
                },
                async {
                    let mut place = 0;
                    while place < len {
                        let data = near.recv().await.unwrap();
                        check(place, &data);
                        place += data.len();
                    }
                },
            )
            .await;
        }
        near.shutdown(Shutdown::Write).unwrap();
        assert!(near.recv().await.unwrap().is_empty());
        server.await.unwrap();
    });
}

fn a_path_and_its_peer(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    rt.block_on(async {
        let listener = UnixListener::bind(&path).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(address.as_pathname(), Some(&*path));
        let near = UnixStream::connect(&path).await.unwrap();
        let (far, peer) = listener.accept().await.unwrap();
        assert!(peer.is_unnamed());
        let to = near.peer_addr().unwrap();
        assert_eq!(to.as_pathname(), Some(&*path));
        assert!(near.local_addr().unwrap().is_unnamed());
        assert!(far.peer_addr().unwrap().is_unnamed());
        near.send_all("hello").await.0.unwrap();
        let mut buf = [0; 10];
        assert_eq!(far.read(&mut buf).await.unwrap(), 5);
        let shown = format!("{near:?} {listener:?}");
        assert!(
            shown.contains("UnixStream {") && shown.contains("UnixListener {"),
            "{shown}"
        );
        assert!(shown.contains("socket"), "{shown}");
        // By the address that was told.
        let again = UnixStream::connect(&to).await.unwrap();
        listener.accept().await.unwrap();
        drop(again);
    });
}

fn abstract_names_need_no_file(rt: Runtime) {
    let name = abstract_name();
    rt.block_on(async {
        let listener = UnixListener::bind(&name).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(address.as_abstract_name(), Some(&name.as_bytes()[1..]));
        let near = UnixStream::connect(&address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        near.send_all("x").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"x");
        let error = UnixListener::bind(&name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("`@{}`", &name[1..])), "{text}");
        drop(listener);
        // On the proactor the close waits for the end of what was in flight.
        common::eventually_async("the name is free", || UnixListener::bind(&name).is_ok()).await;
        let refused = UnixStream::connect(&name).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

fn every_form_of_a_name(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    rt.block_on(async {
        let _listener = UnixListener::bind(path.as_os_str()).unwrap();
        let text = path.to_str().unwrap();
        UnixStream::connect(text).await.unwrap();
        UnixStream::connect(text.to_owned()).await.unwrap();
        UnixStream::connect(path.clone()).await.unwrap();
        UnixStream::connect(path.clone().into_os_string())
            .await
            .unwrap();
        UnixStream::connect(std_unix::SocketAddr::from_pathname(&path).unwrap())
            .await
            .unwrap();
        for bad in [
            "a\0b".to_owned(),
            "x".repeat(108),
            format!("\0{}", "x".repeat(108)),
        ] {
            let error = UnixListener::bind(&bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains("is no name for a socket"), "{text}");
            let error = UnixStream::connect(&bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        // The longest that there are.
        let longest = format!("\0{:x<107}", &abstract_name()[1..]);
        UnixListener::bind(&longest).unwrap();
        // No name: the kernel chooses an abstract one.
        let chosen = UnixListener::bind("").unwrap().local_addr().unwrap();
        assert!(chosen.as_abstract_name().is_some(), "{chosen:?}");
    });
}

fn a_stale_file_says_so(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    stale(&path);
    rt.block_on(async {
        let error = UnixListener::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains("stale"), "{text}");
        assert!(
            text.contains("remove the file"),
            "it says what to do: {text}"
        );
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        let error = UnixStream::connect(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("stale"), "{error}");
        fs::remove_file(&path).unwrap();
        UnixListener::bind(&path).unwrap();
    });
}

fn what_else_is_in_the_way(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    rt.block_on(async {
        let living = std_unix::UnixListener::bind(&path).unwrap();
        let error = UnixListener::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("living"), "{error}");
        // Nobody was connected to, to find that out.
        living.set_nonblocking(true).unwrap();
        assert_eq!(living.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

        let datagrams = place.path("datagrams");
        let _living = std_unix::UnixDatagram::bind(&datagrams).unwrap();
        let error = UnixListener::bind(&datagrams).unwrap_err();
        assert!(error.to_string().contains("living"), "{error}");

        let file = place.path("file");
        fs::write(&file, "text").unwrap();
        let error = UnixListener::bind(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("not a socket"), "{error}");
        let error = UnixStream::connect(&file).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"text");
    });
}

fn errors_are_those_of_std(rt: Runtime) {
    let place = Place::new();
    rt.block_on(async {
        let nowhere = place.path("no/such/directory");
        same(
            UnixListener::bind(&nowhere),
            std_unix::UnixListener::bind(&nowhere),
        );
        same(
            UnixStream::connect(&nowhere).await,
            std_unix::UnixStream::connect(&nowhere),
        );
        let path = place.path("socket");
        let _open = std_unix::UnixListener::bind(&path).unwrap();
        same(
            UnixListener::bind(&path),
            std_unix::UnixListener::bind(&path),
        );
        // Of another type.
        let datagrams = place.path("datagrams");
        let _open = std_unix::UnixDatagram::bind(&datagrams).unwrap();
        same(
            UnixStream::connect(&datagrams).await,
            std_unix::UnixStream::connect(&datagrams),
        );
        let left = place.path("stale");
        stale(&left);
        same(
            UnixStream::connect(&left).await,
            std_unix::UnixStream::connect(&left),
        );
        let long = "x".repeat(200);
        same(
            UnixListener::bind(&long),
            std_unix::UnixListener::bind(&long),
        );
    });
}

fn the_file_goes_if_asked_for(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    rt.block_on(async {
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "it stays behind by default");
        fs::remove_file(&path).unwrap();

        let listener = UnixListener::bind(&path).unwrap();
        let file = SocketFile::of(&listener).unwrap();
        assert_eq!(file.path(), path);
        drop((listener, file));
        assert!(!path.exists());

        // Not what another has put there.
        let first = UnixListener::bind(&path).unwrap();
        let file = SocketFile::of(&first).unwrap();
        fs::remove_file(&path).unwrap();
        let second = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        drop(second);

        let unnamed = UnixStream::pair().unwrap().0;
        let error = SocketFile::of(&unnamed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(
            SocketFile::of(&UnixListener::bind(abstract_name()).unwrap())
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidInput
        );
        let gone = place.path("gone");
        let listener = UnixListener::bind(&gone).unwrap();
        fs::remove_file(&gone).unwrap();
        let error = SocketFile::of(&listener).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

fn a_full_queue_is_waited_for(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    rt.block_on(async {
        // Room for one more than is said.
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket
            .bind(&socket2::SockAddr::unix(&path).unwrap())
            .unwrap();
        socket.listen(0).unwrap();
        let listener = UnixListener::from_std(socket.into()).unwrap();
        let first = UnixStream::connect(&path).await.unwrap();
        // Given up: it leaves nothing in the queue.
        assert!(give_up(UnixStream::connect(&path)).await.is_pending());
        let mut second = pin!(UnixStream::connect(&path));
        assert!(
            second
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        let (_, _) = listener.accept().await.unwrap();
        let (second, accepted) = join(second, listener.accept()).await;
        let (second, (accepted, _)) = (second.unwrap(), accepted.unwrap());
        second.send_all("2").await.0.unwrap();
        assert_eq!(*accepted.recv().await.unwrap(), *b"2");
        assert!(
            give_up(listener.accept()).await.is_pending(),
            "no third one"
        );
        drop(first);
    });
}

fn halves(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let (read, write) = near.into_split();
        let server = Color::new().spawn(async move { echo(&far).await });
        let writer = Color::new().spawn(async move {
            write.send_all(pattern(0, 300_000)).await.0.unwrap();
            // The end of the stream, by dropping the half.
        });
        let mut place = 0;
        loop {
            let data = read.recv().await.unwrap();
            if data.is_empty() {
                break;
            }
            check(place, &data);
            place += data.len();
        }
        assert_eq!(place, 300_000);
        writer.await.unwrap();
        server.await.unwrap();
    });
}

fn streams_larger_than_any_buffer(rt: Runtime) {
    const LEN: usize = 8 << 20;
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let writer = Color::new().spawn(async move {
            let mut place = 0;
            while place < LEN {
                let len = 60_000.min(LEN - place);
                near.send_all(pattern(place, len)).await.0.unwrap();
                place += len;
            }
        });
        let mut place = 0;
        let mut buf = vec![0; 40_001];
        loop {
            // Both ways in turn; a lease may be left over from the one before.
            let n = if place % 2 == 0 {
                far.read(&mut buf).await.unwrap()
            } else {
                let lease = far.recv().await.unwrap();
                buf.clear();
                buf.extend_from_slice(&lease);
                let n = buf.len();
                buf.resize(n.max(40_001), 0);
                n
            };
            if n == 0 {
                break;
            }
            check(place, &buf[..n]);
            place += n;
        }
        assert_eq!(place, LEN);
        writer.await.unwrap();
    });
}

fn giving_up_loses_no_byte(rt: Runtime) {
    const LEN: usize = 20_000;
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let writer = Color::new().spawn(async move {
            let mut place = 0;
            while place < LEN {
                let len = 37.min(LEN - place);
                near.send_all(pattern(place, len)).await.0.unwrap();
                place += len;
                isochrome::yield_now().await;
            }
        });
        let mut place = 0;
        let mut turn = 0;
        loop {
            turn += 1;
            let mut buf = [0; 50];
            let n = match turn % 3 {
                0 => race(far.read(&mut buf), async {}).await,
                1 => race(far.read(&mut buf), isochrome::yield_now()).await,
                _ => Either::First(far.read(&mut buf).await),
            };
            let Either::First(n) = n else {
                continue;
            };
            let n = n.unwrap();
            if n == 0 {
                break;
            }
            check(place, &buf[..n]);
            place += n;
        }
        assert_eq!(place, LEN);
        writer.await.unwrap();
    });
}

fn writes_that_wait_for_room(rt: Runtime) {
    const LEN: usize = 2_000_000;
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let writer = Color::new().spawn(async move {
            let mut place = 0;
            while place < LEN {
                let data = pattern(place, 100_000.min(LEN - place));
                place += poll_fn(|cx| near.poll_write(cx, &data)).await.unwrap();
            }
        });
        let mut place = 0;
        while place < LEN {
            let mut buf = [0; 5000];
            let n = poll_fn(|cx| far.poll_read(cx, &mut buf)).await.unwrap();
            assert_ne!(n, 0);
            check(place, &buf[..n]);
            place += n;
        }
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        writer.await.unwrap();
    });
}

fn std_sockets_are_taken_over(rt: Runtime) {
    let place = Place::new();
    let path = place.path("socket");
    rt.block_on(async {
        for nonblocking in [true, false] {
            let (a, b) = std_unix::UnixStream::pair().unwrap();
            a.set_nonblocking(nonblocking).unwrap();
            b.set_nonblocking(nonblocking).unwrap();
            let a = UnixStream::from_std(a).unwrap();
            let b = UnixStream::from_std(b).unwrap();
            a.send_all("over").await.0.unwrap();
            assert_eq!(*b.recv().await.unwrap(), *b"over");
            let listener = std_unix::UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let listener = UnixListener::from_std(listener).unwrap();
            let _file = SocketFile::of(&listener).unwrap();
            let near = UnixStream::connect(&path).await.unwrap();
            let (far, _) = listener.accept().await.unwrap();
            near.send_all("listening").await.0.unwrap();
            assert_eq!(*far.recv().await.unwrap(), *b"listening");
        }
    });
}

fn incoming_gives_one_connection_after_another(rt: Runtime) {
    let name = abstract_name();
    rt.block_on(async {
        let listener = UnixListener::bind(&name).unwrap();
        let client = Color::new().spawn(async move {
            for i in 0..20_u8 {
                let stream = UnixStream::connect(&name).await.unwrap();
                stream.send_all(vec![i]).await.0.unwrap();
            }
        });
        let mut incoming = listener.incoming();
        for i in 0..20 {
            let stream = incoming.next().await.unwrap().unwrap();
            assert_eq!(*stream.recv().await.unwrap(), [i]);
            assert!(stream.recv().await.unwrap().is_empty());
        }
        client.await.unwrap();
    });
}

fn a_peer_that_is_gone(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let (std_near, std_far) = std_unix::UnixStream::pair().unwrap();
        drop((far, std_far));
        use std::io::{Read, Write};
        same(near.send_all("x").await.0, (&std_near).write_all(b"x"));
        assert_eq!(near.read(&mut [0; 3]).await.unwrap(), 0);
        assert_eq!((&std_near).read(&mut [0; 3]).unwrap(), 0);
        // With bytes unread it is a reset.
        let (near, far) = UnixStream::pair().unwrap();
        let (std_near, std_far) = std_unix::UnixStream::pair().unwrap();
        near.send_all("x").await.0.unwrap();
        (&std_near).write_all(b"x").unwrap();
        drop((far, std_far));
        same(near.read(&mut [0; 3]).await, (&std_near).read(&mut [0; 3]));
    });
}

#[test]
fn without_a_runtime_the_error_says_so() {
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("without_a_runtime");
    let errors = [
        common::futures::park_on(UnixStream::connect("/nowhere")).unwrap_err(),
        UnixStream::pair().unwrap_err(),
        UnixListener::bind(abstract_name()).unwrap_err(),
    ];
    for error in errors {
        assert!(
            error.to_string().contains("no isochrome runtime"),
            "{error}"
        );
    }
}

/// It must not end who accepts, nor take a message along.
fn a_peer_whose_name_std_cannot_say(rt: Runtime) {
    rt.block_on(async {
        let place = Place::new();
        let listener = UnixListener::bind(abstract_name()).unwrap();
        let client = longest_named(libc::SOCK_STREAM, &place);
        let to = SockRef::from(&listener).local_addr().unwrap();
        SockRef::from(&client).connect(&to).unwrap();
        let client = UnixStream::from_std(client.into()).unwrap();
        let (stream, from) = listener.accept().await.unwrap();
        assert!(from.is_unnamed());
        assert!(stream.peer_addr().unwrap().is_unnamed());
        assert!(client.local_addr().unwrap().is_unnamed());

        let place = Place::new();
        let receiver = UnixDatagram::bind(abstract_name()).unwrap();
        let sender = longest_named(libc::SOCK_DGRAM, &place);
        let sender = UnixDatagram::from_std(sender.into()).unwrap();
        let to = receiver.local_addr().unwrap();
        sender.send_to(b"here", &to).await.unwrap();
        let (got, from) = receiver.recv_from(&mut [0; 10]).await.unwrap();
        assert_eq!((got.len, from.is_unnamed()), (4, true));
    });
}
