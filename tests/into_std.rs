//! Sockets that leave the runtime, with what the runtime had of them.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use common::bytes::{check, pattern};
use common::futures::give_up;
use common::{eventually_async, everywhere, is_registered, listen, pair, std_pair};
use isochrome::net::{TcpListener, TcpStream, UnixSeqpacket, UnixSeqpacketListener, UnixStream};
use isochrome::{Runtime, yield_now};

/// What a peer sends while the socket leaves.
const LEN: usize = 100_000;

fn is_blocking(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    assert!(flags >= 0);
    flags & libc::O_NONBLOCK == 0
}

/// Sends the pattern in pieces from a thread, to meet whatever is going on.
fn send_from_a_thread(mut to: impl Write + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for piece in pattern(0, LEN).chunks(1_000) {
            to.write_all(piece).unwrap();
        }
    })
}

/// Reads the rest, after what came with the socket.
fn read_on(mut socket: impl Read, mut got: Vec<u8>) {
    socket.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), LEN);
    check(0, &got);
}

fn no_byte_is_lost_on_the_way_to_std(rt: Runtime) {
    rt.block_on(async {
        for round in 0..30 {
            let (near, far) = std_pair().await;
            let fd = near.as_raw_fd();
            assert!(give_up(near.recv()).await.is_pending());
            let sender = send_from_a_thread(far);
            // In every state: before the first byte, amid the receives, and
            // with leases that nobody took.
            for _ in 0..round {
                yield_now().await;
            }
            let (std, ahead) = near.into_std().await.unwrap();
            assert_eq!(std.as_raw_fd(), fd);
            assert!(is_blocking(std.as_fd()));
            assert!(!is_registered(fd));
            read_on(std, ahead);
            sender.join().unwrap();
        }
    });
}

fn no_byte_of_a_local_stream_is_lost(rt: Runtime) {
    rt.block_on(async {
        for round in 0..30 {
            let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
            let near = UnixStream::from_std(near).unwrap();
            let sender = send_from_a_thread(far);
            let mut buf = [0; 10];
            near.read_exact(&mut buf).await.unwrap();
            for _ in 0..round {
                yield_now().await;
            }
            let (std, ahead) = near.into_std().await.unwrap();
            assert!(is_blocking(std.as_fd()));
            read_on(std, [&buf[..], &ahead].concat());
            sender.join().unwrap();
        }
    });
}

fn what_was_read_in_part_comes_whole(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        far.write_all(b"one two three").unwrap();
        let mut buf = [0; 4];
        assert_eq!(near.read(&mut buf).await.unwrap(), 4);
        drop(far);
        let (mut std, mut rest) = near.into_std().await.unwrap();
        std.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"two three");
    });
}

fn a_socket_goes_and_comes_back(rt: Runtime) {
    rt.block_on(async {
        let (mut near, far) = pair().await;
        for _ in 0..5 {
            assert!(give_up(near.recv()).await.is_pending());
            let (std, ahead) = near.into_std().await.unwrap();
            assert_eq!(ahead, b"");
            near = TcpStream::from_std(std).unwrap();
            far.send_all(b"ping".to_vec()).await.0.unwrap();
            assert_eq!(near.recv().await.unwrap().len(), 4);
            near.send_all(b"pong".to_vec()).await.0.unwrap();
            assert_eq!(far.recv().await.unwrap().len(), 4);
        }
    });
}

/// A send that was given up ends first, so that its bytes and those of std are
/// not mixed.
fn a_send_that_was_given_up_ends_first(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        // More than the sockets hold.
        let big = vec![1; 64 << 20];
        assert!(give_up(near.send_all(big)).await.is_pending());
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            got
        });
        let (mut std, _) = near.into_std().await.unwrap();
        std.write_all(&[2; 1_000]).unwrap();
        drop(std);
        let got = reader.join().unwrap();
        let first = got.iter().position(|byte| *byte == 2).unwrap();
        assert!(got[..first].iter().all(|byte| *byte == 1));
        assert_eq!(got[first..], [2; 1_000]);
    });
}

fn a_reset_is_told_once(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = std_pair().await;
        assert!(give_up(near.recv()).await.is_pending());
        socket2::SockRef::from(&far)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(far);
        let told = match near.into_std().await {
            Ok((mut std, ahead)) => {
                assert_eq!(ahead, b"");
                std.read(&mut [0; 1]).map(drop)
            }
            Err(e) => Err(e),
        };
        assert_eq!(told.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

fn no_connection_is_lost_on_the_way_to_std(rt: Runtime) {
    rt.block_on(async {
        for round in 0..10 {
            let (listener, at) = listen().await;
            assert!(give_up(listener.accept()).await.is_pending());
            let mut clients: Vec<_> = (0..5)
                .map(|_| std::net::TcpStream::connect(at).unwrap())
                .collect();
            for _ in 0..round {
                yield_now().await;
            }
            let (std, ahead) = listener.into_std().await.unwrap();
            assert!(is_blocking(std.as_fd()));
            assert!(!is_registered(std.as_raw_fd()));
            let ahead_were = ahead.len();
            for stream in ahead {
                stream.send_all(b"ahead".to_vec()).await.0.unwrap();
            }
            for _ in ahead_were..5 {
                std.accept().unwrap().0.write_all(b"stood").unwrap();
            }
            for client in &mut clients {
                client.read_exact(&mut [0; 5]).unwrap();
            }
            std.set_nonblocking(true).unwrap();
            let more = std.accept().unwrap_err();
            assert_eq!(more.kind(), ErrorKind::WouldBlock);
            // And back again.
            let listener = TcpListener::from_std(std).unwrap();
            let _client = std::net::TcpStream::connect(at).unwrap();
            listener.accept().await.unwrap();
        }
    });
}

fn seqpackets_leave_too(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixSeqpacket::pair().unwrap();
        let mut buf = [0; 10];
        assert!(give_up(near.recv(&mut buf)).await.is_pending());
        far.send(b"late").await.unwrap();
        let fd = near.into_fd().await.unwrap();
        assert!(is_blocking(fd.as_fd()));
        assert!(!is_registered(fd.as_raw_fd()));
        let near = UnixSeqpacket::from_fd(fd).unwrap();
        assert_eq!(near.recv(&mut buf).await.unwrap().unwrap().len, 4);

        let name = format!("\0isochrome-into-fd-{}", std::process::id());
        let listener = UnixSeqpacketListener::bind(&name[..]).unwrap();
        assert!(give_up(listener.accept()).await.is_pending());
        let client = UnixSeqpacket::connect(&name[..]).await.unwrap();
        let (fd, ahead) = listener.into_fd().await.unwrap();
        assert!(is_blocking(fd.as_fd()));
        let listener = UnixSeqpacketListener::from_fd(fd).unwrap();
        let server = match ahead.into_iter().next() {
            Some(server) => server,
            None => listener.accept().await.unwrap().0,
        };
        server.send(b"hello").await.unwrap();
        let got = client.recv(&mut buf).await.unwrap().unwrap();
        assert_eq!(got.len, 5);
    });
}

/// Also after the runtime has ended, and when nobody awaits it.
fn a_socket_leaves_whatever_becomes_of_the_runtime(rt: Runtime) {
    let (near, mut far) = rt.block_on(async {
        let (near, far) = std_pair().await;
        assert!(give_up(near.recv()).await.is_pending());
        let (dropped, mut other) = std_pair().await;
        assert!(give_up(dropped.recv()).await.is_pending());
        let _ = give_up(dropped.into_std()).await;
        other.set_nonblocking(true).unwrap();
        let mut end = || other.read(&mut [0; 1]).is_ok_and(|n| n == 0);
        eventually_async("the end", &mut end).await;
        (near, far)
    });
    drop(rt);
    let (mut std, ahead) = futures_util::FutureExt::now_or_never(near.into_std())
        .expect("nothing is in flight any more")
        .unwrap();
    assert_eq!(ahead, b"");
    far.write_all(b"x").unwrap();
    assert_eq!(std.read(&mut [0; 2]).unwrap(), 1);
}

everywhere!(
    no_byte_is_lost_on_the_way_to_std,
    no_byte_of_a_local_stream_is_lost,
    what_was_read_in_part_comes_whole,
    a_socket_goes_and_comes_back,
    a_send_that_was_given_up_ends_first,
    a_reset_is_told_once,
    no_connection_is_lost_on_the_way_to_std,
    seqpackets_leave_too,
    a_socket_leaves_whatever_becomes_of_the_runtime,
);
