//! Who is at the other end of a local socket.

mod common;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;

use common::everywhere;
use common::futures::poll_once;
use common::local::abstract_name;
use isochrome::Runtime;
use isochrome::net::{
    Async, UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream,
};
use socket2::{Domain, SockAddr, Type};

everywhere!(
    the_other_process_is_known,
    a_pidfd_is_of_the_other_process,
    a_pidfd_tells_of_the_end_of_a_process,
);

fn the_other_process_is_known(rt: Runtime) {
    let name = abstract_name();
    rt.block_on(async {
        let listener = UnixListener::bind(&name).unwrap();
        let near = UnixStream::connect(&name).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        // SAFETY: they take nothing, and cannot fail.
        let me = unsafe { (libc::getuid(), libc::getgid()) };
        for stream in [near, far, a, b] {
            let cred = stream.peer_cred().unwrap();
            assert_eq!(cred.pid, Some(std::process::id() as i32));
            assert_eq!((cred.uid, cred.gid), me);
        }
    });
}

/// Whether the kernel knows pidfds of peers; what it says if not.
fn has_pidfds(answer: &io::Result<OwnedFd>) -> bool {
    match answer {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            println!("skipped: {e}");
            false
        }
        _ => true,
    }
}

/// The process that a pidfd is of, as proc_pid_fdinfo(5) tells; -1 if it is gone.
fn process_of(pidfd: &OwnedFd) -> i32 {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = fs::read_to_string(path).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.expect("a pidfd").trim().parse().unwrap()
}

fn a_pidfd_is_of_the_other_process(rt: Runtime) {
    rt.block_on(async {
        let stream = UnixStream::pair().unwrap();
        let packets = UnixSeqpacket::pair().unwrap();
        let datagrams = UnixDatagram::pair().unwrap();
        if !has_pidfds(&stream.0.peer_pidfd()) {
            return;
        }
        for pidfd in [
            stream.0.peer_pidfd(),
            packets.0.peer_pidfd(),
            datagrams.0.peer_pidfd(),
        ] {
            let pidfd = pidfd.unwrap();
            assert_eq!(process_of(&pidfd), std::process::id() as i32);
            // SAFETY: F_GETFD takes no pointer.
            let flags = unsafe { libc::fcntl(pidfd.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
        let error = UnixDatagram::unbound().unwrap().peer_pidfd().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    });
}

/// A process that connects, and then waits to be killed.
struct Peer(libc::pid_t);

impl Peer {
    fn connects(to: &str, kind: Type) -> Peer {
        let socket = socket2::Socket::new(Domain::UNIX, kind, None).unwrap();
        let name = SockAddr::unix(to).unwrap();
        let (fd, address, len) = (socket.as_raw_fd(), name.as_ptr(), name.len());
        // SAFETY: the child of a process with threads makes system calls only,
        // with memory that it has a copy of.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                if libc::connect(fd, address.cast(), len) == 0 {
                    loop {
                        libc::pause();
                    }
                }
                libc::_exit(1);
            }
            pid
        };
        assert!(pid > 0, "{}", io::Error::last_os_error());
        Peer(pid)
    }

    fn kill(&self) {
        // SAFETY: no pointers are passed.
        assert_eq!(unsafe { libc::kill(self.0, libc::SIGKILL) }, 0);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SAFETY: no status is asked for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

fn a_pidfd_tells_of_the_end_of_a_process(rt: Runtime) {
    rt.block_on(async {
        let name = abstract_name();
        let listener = UnixListener::bind(&name).unwrap();
        let peer = Peer::connects(&name, Type::STREAM);
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.peer_cred().unwrap().pid, Some(peer.0));
        let pidfd = stream.peer_pidfd();
        if !has_pidfds(&pidfd) {
            return;
        }
        let pidfd = pidfd.unwrap();
        assert_eq!(process_of(&pidfd), peer.0);
        let pidfd = Async::new(pidfd).unwrap();
        let mut ends = pin!(pidfd.readable());
        assert!(poll_once(&mut ends).await.is_pending());
        peer.kill();
        ends.await.unwrap();
        drop(peer);
        // It is of the same process, or there is none.
        match stream.peer_pidfd() {
            Ok(pidfd) => assert_eq!(process_of(&pidfd), -1),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ESRCH)),
        }

        let name = abstract_name();
        let listener = UnixSeqpacketListener::bind(&name).unwrap();
        let peer = Peer::connects(&name, Type::SEQPACKET);
        let (packets, _) = listener.accept().await.unwrap();
        assert_eq!(packets.peer_cred().unwrap().pid, Some(peer.0));
        let pidfd = packets.peer_pidfd().unwrap();
        assert_eq!(process_of(&pidfd), peer.0);
    });
}
