//! Accepting without descriptors. A process of its own, because the limit is
//! the process's.

use std::fs::File;
use std::future::poll_fn;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use isochrome_reactor::Reactor;
use isochrome_runtime::driver::Driver;
use isochrome_runtime::op::{Op, Port, Yield};
use isochrome_runtime::{Builder, Descriptor};

fn limit(descriptors: i32) {
    let limit = libc::rlimit {
        rlim_cur: descriptors as libc::rlim_t,
        rlim_max: 1024,
    };
    // SAFETY: the limit is read during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

#[test]
fn accept_says_emfile_once_each_time_and_recovers() {
    let runtime = Builder::new()
        .workers(1)
        .build_with(|worker| Ok(Box::new(Reactor::new(worker)?) as Box<dyn Driver>))
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let port = Port::new(Descriptor::new(listener.into(), runtime.handle()).unwrap());
    let accept = || poll_fn(|cx| port.poll_next(cx, || Op::Accept));

    let first = TcpStream::connect(to).unwrap();
    runtime.block_on(accept()).unwrap();
    let _second = TcpStream::connect(to).unwrap();
    // The lowest number that is free is the first that is forbidden.
    let probe = File::open("/dev/null").unwrap();
    let lowest = probe.as_raw_fd();
    drop(probe);
    limit(lowest);
    runtime.block_on(async {
        for _ in 0..3 {
            let error = accept().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        }
    });
    limit(1024);
    drop(first);
    // The connection is still there, and no new edge will tell of it.
    let start = Instant::now();
    let accepted = runtime.block_on(accept()).unwrap();
    assert!(matches!(accepted, Yield::Socket(_)));
    assert!(start.elapsed() < Duration::from_secs(1));
}
