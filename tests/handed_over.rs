//! Listeners handed over at exec, as systemd does it: a child of this test is
//! started so.

mod common;

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use isochrome::net::{TcpListener, listen_fds};
use isochrome::{DriverChoice, Runtime};

const CHILD: &str = "ISOCHROME_HANDED_OVER";

#[test]
fn listeners_are_taken_over_once_and_by_name() {
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("listeners_are_taken_over");
    for driver in [DriverChoice::Reactor, DriverChoice::Proactor] {
        if !common::works(driver) {
            continue;
        }
        let listener = std::net::TcpListener::bind(common::LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::net::UdpSocket::bind(common::LOCAL).unwrap();
        let name = format!("isochrome-handed-over-{}-{driver}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let local = UnixListener::bind_addr(&abstract_name).unwrap();
        let fds = [listener.as_raw_fd(), other.as_raw_fd(), local.as_raw_fd()];
        // The variable has to name the process that is started: exec keeps it.
        let script = "export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, driver.to_string())
            .env("LISTEN_FDS", "3")
            .env("LISTEN_FDNAMES", "web:other:local")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let hand_over = move || {
            // Away from 3 to 5 first, which any of them may be. The copies
            // are not close-on-exec; what lies on 3 to 5 now is the child's.
            // SAFETY: no memory is touched.
            let placed = unsafe {
                let spare = fds.map(|fd| libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100));
                (3..).zip(spare).all(|(to, fd)| libc::dup2(fd, to) == to)
            };
            match placed {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes system calls only, which a child of a
        // process with threads may.
        unsafe { command.pre_exec(hand_over) };
        let child = command.spawn().unwrap();
        drop((listener, local));
        let mut by_name = UnixStream::connect_addr(&abstract_name).unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let mut said = String::new();
        let read = stream.read_to_string(&mut said);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
        read.unwrap();
        assert_eq!(said, "handed over");
        let mut said = String::new();
        by_name.read_to_string(&mut said).unwrap();
        assert_eq!(said, "by name");
    }
}

/// What the child does; nothing, if this is none.
#[test]
fn child() {
    let Ok(driver) = std::env::var(CHILD) else {
        return;
    };
    let choice = [DriverChoice::Reactor, DriverChoice::Proactor];
    let choice = choice
        .into_iter()
        .find(|c| c.to_string() == driver)
        .unwrap();
    let mut given = listen_fds().unwrap();
    assert_eq!(given.len(), 3);
    assert!(listen_fds().unwrap().is_empty(), "once");
    for one in &given {
        // SAFETY: no memory is touched.
        let flags = unsafe { libc::fcntl(one.as_fd().as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
    let runtime: Runtime = common::build(choice, 1);
    runtime.block_on(async {
        let local = given.pop().unwrap();
        assert_eq!(local.name(), "local");
        assert!(local.is_unix_listener() && !local.is_tcp_listener());
        let local = local.into_unix_listener().unwrap();
        let other = given.pop().unwrap();
        assert_eq!(other.name(), "other");
        assert!(!other.is_tcp_listener() && !other.is_unix_listener());
        let error = other.into_tcp_listener().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("`other`"), "{error}");
        let web = given.pop().unwrap();
        assert_eq!(web.name(), "web");
        let listener: TcpListener = web.into_tcp_listener().unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        stream.send_all("handed over").await.0.unwrap();
        let (stream, _) = local.accept().await.unwrap();
        stream.send_all("by name").await.0.unwrap();
    });
}

#[test]
fn nobody_is_handed_anything_without_the_variables() {
    if std::env::var(CHILD).is_err() {
        assert!(listen_fds().unwrap().is_empty());
    }
}
