//! Descriptors that are passed: they arrive, and none is left open anywhere.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::pin;

use common::futures::{give_up, join};
use common::local::{abstract_name, is_closed, probe};
use common::{everywhere, file_limit, set_file_limit};
use isochrome::net::{UnixDatagram, UnixSeqpacket, UnixStream};
use isochrome::{Color, Runtime};

everywhere!(
    they_arrive_and_work,
    a_receiver_waits_for_them,
    they_are_closed_on_exec,
    many_at_once,
    too_many_are_refused,
    those_that_nobody_asked_for_are_closed,
    those_that_nobody_received_are_closed,
    a_pidfd_beside_them_is_closed,
    what_the_process_may_not_have_is_reported,
    bytes_before_them_come_first,
    a_sender_that_waits_sends_them_once,
    giving_up_loses_none,
);

/// Whoever passes, and whoever gets.
enum Ends {
    Stream(UnixStream, UnixStream),
    Datagram(UnixDatagram, UnixDatagram),
    Packet(UnixSeqpacket, UnixSeqpacket),
}

impl Ends {
    fn all() -> [Ends; 3] {
        let (a, b) = UnixStream::pair().unwrap();
        let (c, d) = UnixDatagram::pair().unwrap();
        let (e, f) = UnixSeqpacket::pair().unwrap();
        [Ends::Stream(a, b), Ends::Datagram(c, d), Ends::Packet(e, f)]
    }

    async fn pass(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<usize> {
        match self {
            Ends::Stream(a, _) => a.send_with_fds(data, fds).await,
            Ends::Datagram(a, _) => a.send_with_fds(data, fds).await,
            Ends::Packet(a, _) => a.send_with_fds(data, fds).await,
        }
    }

    async fn get(&self, buf: &mut [u8]) -> (usize, std::io::Result<Vec<OwnedFd>>) {
        match self {
            Ends::Stream(_, b) => b.recv_with_fds(buf).await.unwrap(),
            Ends::Datagram(_, b) => {
                let (got, _, fds) = b.recv_with_fds(buf).await.unwrap();
                (got.len, fds)
            }
            Ends::Packet(_, b) => {
                let (got, fds) = b.recv_with_fds(buf).await.unwrap().expect("a packet");
                (got.len, fds)
            }
        }
    }

    /// By the call that does not ask for them.
    async fn get_bytes(&self, buf: &mut [u8]) -> usize {
        match self {
            Ends::Stream(_, b) => b.read(buf).await.unwrap(),
            Ends::Datagram(_, b) => b.recv(buf).await.unwrap().len,
            Ends::Packet(_, b) => b.recv(buf).await.unwrap().expect("a packet").len,
        }
    }
}

fn they_arrive_and_work(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            let (mut here, there) = probe();
            assert_eq!(ends.pass(b"hello", &[there.as_fd()]).await.unwrap(), 5);
            drop(there);
            assert!(!is_closed(&here), "it is under way");
            let mut buf = [0; 20];
            let (n, fds) = ends.get(&mut buf).await;
            assert_eq!(&buf[..n], b"hello");
            let mut fds = fds.unwrap();
            assert_eq!(fds.len(), 1);
            let mut there = StdStream::from(fds.remove(0));
            there.write_all(b"it works").unwrap();
            let mut read = [0; 8];
            here.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"it works");
            drop(there);
            assert!(is_closed(&here));
            // And without any.
            ends.pass(b"bye", &[]).await.unwrap();
            let (n, fds) = ends.get(&mut buf).await;
            assert_eq!((&buf[..n], fds.unwrap().len()), (&b"bye"[..], 0));
        }
        // By name.
        let name = abstract_name();
        let receiver = UnixDatagram::bind(&name).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let (here, there) = probe();
        let sent = sender.send_to_with_fds(b"x", &name, &[there.as_fd()]).await;
        assert_eq!(sent.unwrap(), 1);
        drop(there);
        let (_, from, fds) = receiver.recv_with_fds(&mut [0; 8]).await.unwrap();
        assert!(from.is_unnamed());
        drop(fds.unwrap());
        assert!(is_closed(&here));
    });
}

fn a_receiver_waits_for_them(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            for _ in 0..10 {
                let (here, there) = probe();
                let mut buf = [0; 8];
                let receiver = ends.get(&mut buf);
                let sender = async {
                    isochrome::yield_now().await;
                    ends.pass(b"x", &[there.as_fd(), there.as_fd()])
                        .await
                        .unwrap();
                };
                let ((n, fds), ()) = join(receiver, sender).await;
                assert_eq!((n, fds.unwrap().len()), (1, 2));
                drop(there);
                assert!(is_closed(&here));
            }
        }
    });
}

fn they_are_closed_on_exec(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            let (_here, there) = probe();
            ends.pass(b"x", &[there.as_fd()]).await.unwrap();
            let (_, fds) = ends.get(&mut [0; 8]).await;
            let fds = fds.unwrap();
            // SAFETY: F_GETFD takes no pointer.
            let flags = unsafe { libc::fcntl(fds[0].as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
    });
}

fn many_at_once(rt: Runtime) {
    /// SCM_MAX_FD.
    const MOST: usize = 253;
    rt.block_on(async {
        for ends in Ends::all() {
            let (here, there) = probe();
            let fds = [there.as_fd(); MOST];
            assert_eq!(ends.pass(b"x", &fds).await.unwrap(), 1);
            let (n, got) = ends.get(&mut [0; 8]).await;
            let got = got.unwrap();
            assert_eq!((n, got.len()), (1, MOST));
            let mut numbers: Vec<_> = got.iter().map(AsRawFd::as_raw_fd).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), MOST, "each is its own");
            drop((got, there));
            assert!(is_closed(&here));
        }
    });
}

fn too_many_are_refused(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            let (_here, there) = probe();
            let error = ends.pass(b"x", &[there.as_fd(); 254]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("253"), "{error}");
        }
        let (a, _b) = UnixStream::pair().unwrap();
        let (_here, there) = probe();
        let error = a.send_with_fds(b"", &[there.as_fd()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("at least one"), "{error}");
        // Messages may be empty, and bring some nevertheless.
        let (a, b) = UnixSeqpacket::pair().unwrap();
        assert_eq!(a.send_with_fds(b"", &[there.as_fd()]).await.unwrap(), 0);
        let (got, fds) = b.recv_with_fds(&mut [0; 8]).await.unwrap().unwrap();
        assert_eq!((got.size, fds.unwrap().len()), (0, 1));
    });
}

fn those_that_nobody_asked_for_are_closed(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            let (here, there) = probe();
            ends.pass(b"x", &[there.as_fd()]).await.unwrap();
            drop(there);
            assert_eq!(ends.get_bytes(&mut [0; 8]).await, 1);
            assert!(is_closed(&here));
        }
    });
}

fn those_that_nobody_received_are_closed(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            let (here, there) = probe();
            ends.pass(b"x", &[there.as_fd()]).await.unwrap();
            drop((there, ends));
            // On the proactor the close waits for the end of what was in flight.
            common::eventually_async("closed", || is_closed(&here)).await;
        }
        // Received, and not taken by the task that asked.
        for ends in Ends::all() {
            let (here, there) = probe();
            {
                let mut buf = [0; 8];
                let mut get = pin!(ends.get(&mut buf));
                let first = give_up(get.as_mut()).await;
                assert!(first.is_pending());
                ends.pass(b"x", &[there.as_fd()]).await.unwrap();
            }
            drop((there, ends));
            common::eventually_async("closed", || is_closed(&here)).await;
        }
    });
}

/// SO_PASSPIDFD, which is not ours to set, but may be set on a socket that is
/// taken over.
fn a_pidfd_beside_them_is_closed(rt: Runtime) {
    const SO_PASSPIDFD: libc::c_int = 76;
    rt.block_on(async {
        for ends in Ends::all() {
            let fd = match &ends {
                Ends::Stream(_, b) => b.as_raw_fd(),
                Ends::Datagram(_, b) => b.as_raw_fd(),
                Ends::Packet(_, b) => b.as_raw_fd(),
            };
            let (on, size) = (1, size_of::<libc::c_int>() as libc::socklen_t);
            let from: *const libc::c_int = &on;
            // SAFETY: the option is an int, and its size is said.
            let answer =
                unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSPIDFD, from.cast(), size) };
            if answer < 0 {
                println!("skipped: {}", std::io::Error::last_os_error());
                return;
            }
            let (_here, there) = probe();
            let before = common::descriptors().len();
            for passed in [&[][..], &[there.as_fd()]] {
                ends.pass(b"x", passed).await.unwrap();
                let (got, fds) = ends.get(&mut [0; 8]).await;
                assert_eq!((got, fds.unwrap().len()), (1, passed.len()));
            }
            assert_eq!(common::descriptors().len(), before);
        }
    });
}

fn what_the_process_may_not_have_is_reported(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            let (here, there) = probe();
            let (mut buf, usual) = ([0; 8], file_limit().rlim_cur);
            ends.pass(b"lost", &[there.as_fd(); 5]).await.unwrap();
            ends.pass(b"next", &[there.as_fd()]).await.unwrap();
            drop(there);
            // Room for two more.
            let highest = here.try_clone().unwrap().as_raw_fd() as libc::rlim_t;
            set_file_limit(highest + 2);
            let (n, fds) = ends.get(&mut buf).await;
            set_file_limit(usual);
            assert_eq!(&buf[..n], b"lost", "the bytes are there");
            let error = fds.unwrap_err().to_string();
            assert!(error.contains("RLIMIT_NOFILE"), "{error}");
            // The next message is as it was.
            let (n, fds) = ends.get(&mut buf).await;
            assert_eq!((&buf[..n], fds.unwrap().len()), (&b"next"[..], 1));
            assert!(is_closed(&here), "those that came were closed");
        }
    });
}

fn bytes_before_them_come_first(rt: Runtime) {
    rt.block_on(async {
        let (a, b) = UnixStream::pair().unwrap();
        a.send_all("0123456789").await.0.unwrap();
        // On the proactor the rest is in a lease that waits in the socket.
        let mut buf = [0; 4];
        assert_eq!(b.read(&mut buf).await.unwrap(), 4);
        let (here, there) = probe();
        a.send_with_fds(b"fd", &[there.as_fd()]).await.unwrap();
        drop(there);
        let mut bytes = buf.to_vec();
        let mut got = Vec::new();
        while bytes.len() < 12 {
            let (n, fds) = b.recv_with_fds(&mut buf).await.unwrap();
            assert_ne!(n, 0);
            bytes.extend_from_slice(&buf[..n]);
            got.extend(fds.unwrap());
        }
        assert_eq!(bytes, b"0123456789fd");
        assert_eq!(got.len(), 1);
        drop(got);
        assert!(is_closed(&here));
        // A receive that was given up may be in flight, and takes the bytes, and
        // not the descriptor; the bytes stay here.
        assert!(give_up(b.recv()).await.is_pending());
        let (here, there) = probe();
        a.send_with_fds(b"more", &[there.as_fd()]).await.unwrap();
        drop(there);
        let (n, fds) = b.recv_with_fds(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"more");
        drop(fds.unwrap());
        assert!(is_closed(&here));
        // An empty buffer takes nothing.
        let (n, fds) = b.recv_with_fds(&mut []).await.unwrap();
        assert_eq!((n, fds.unwrap().len()), (0, 0));
        drop(a);
        let (n, fds) = b.recv_with_fds(&mut buf).await.unwrap();
        assert_eq!((n, fds.unwrap().len()), (0, 0), "the end");
    });
}

fn a_sender_that_waits_sends_them_once(rt: Runtime) {
    rt.block_on(async {
        for ends in Ends::all() {
            let mut before = 0;
            while give_up(ends.pass(&[0; 2048], &[])).await.is_ready() {
                before += 1;
                assert!(before < 10_000, "the kernel bounds its queues");
            }
            let (here, there) = probe();
            let passer = async {
                // Given up, it has passed nothing.
                assert!(
                    give_up(ends.pass(b"y", &[there.as_fd()]))
                        .await
                        .is_pending()
                );
                ends.pass(b"x", &[there.as_fd()]).await.unwrap();
            };
            let getter = async {
                let mut buf = [0; 2048];
                loop {
                    let (n, fds) = ends.get(&mut buf).await;
                    let fds = fds.unwrap();
                    if !fds.is_empty() {
                        assert_eq!((&buf[..n], fds.len()), (&b"x"[..], 1));
                        return fds;
                    }
                }
            };
            let ((), got) = join(passer, getter).await;
            drop((got, there));
            assert!(is_closed(&here));
        }
    });
}

fn giving_up_loses_none(rt: Runtime) {
    const COUNT: u8 = 60;
    rt.block_on(async {
        for ends in Ends::all() {
            let (here, there) = probe();
            let passer = async {
                for i in 0..COUNT {
                    ends.pass(&[i], &[there.as_fd()]).await.unwrap();
                    isochrome::yield_now().await;
                }
            };
            let getter = async {
                let (mut next, mut turn) = (0, 0);
                while next < COUNT {
                    turn += 1;
                    let mut buf = [0; 8];
                    let got = match turn % 3 {
                        0 => std::task::Poll::Ready(ends.get(&mut buf).await),
                        _ => give_up(ends.get(&mut buf)).await,
                    };
                    match got {
                        std::task::Poll::Ready((n, fds)) => {
                            assert_eq!((&buf[..n], fds.unwrap().len()), (&[next][..], 1));
                            next += 1;
                        }
                        std::task::Poll::Pending => isochrome::yield_now().await,
                    }
                }
            };
            join(passer, getter).await;
            drop(there);
            assert!(is_closed(&here));
        }
        // In a task that is given up with all that it has.
        for ends in Ends::all() {
            let (here, there) = probe();
            ends.pass(b"x", &[there.as_fd()]).await.unwrap();
            drop(there);
            let task = Color::new().spawn(async move {
                let _got = ends.get(&mut [0; 8]).await;
                std::future::pending::<()>().await;
            });
            task.abort();
            let _ = task.await;
            common::eventually_async("closed", || is_closed(&here)).await;
        }
    });
}
