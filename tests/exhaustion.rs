//! No descriptor is left: accepting rests, tells, and recovers.

mod common;

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::bytes::pattern;
use common::{descriptors, eventually_async, everywhere, file_limit, listen, pair, set_file_limit};
use isochrome::net::TcpStream;
use isochrome::time::sleep;
use isochrome::{Color, Runtime};

everywhere!(
    accepting_rests_without_descriptors_and_recovers,
    a_connect_without_descriptors_says_so,
);

/// Opens files until no descriptor is left, at a limit that is near.
struct Full {
    files: Vec<File>,
    old: libc::rlim_t,
}

impl Full {
    fn new() -> Full {
        let old = file_limit().rlim_cur;
        set_file_limit(descriptors().len() as libc::rlim_t + 40);
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        assert!(!files.is_empty());
        Full { files, old }
    }

    fn free(&mut self, count: usize) {
        self.files.truncate(self.files.len() - count);
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        set_file_limit(self.old);
    }
}

async fn ask(near: &TcpStream, far: &TcpStream, i: usize) {
    near.send_all(pattern(i, 10)).await.0.unwrap();
    assert_eq!(*far.recv().await.unwrap(), *pattern(i, 10));
}

fn accepting_rests_without_descriptors_and_recovers(rt: Runtime) {
    const WAITING: usize = 5;
    rt.block_on(async {
        let (listener, address) = listen().await;
        let listener = Arc::new(listener);
        let before = descriptors().len();
        let (near, far) = pair().await;
        ask(&near, &far, 0).await;
        // The listener of the pair may be closed late, and leave room for one.
        eventually_async("closed", || descriptors().len() <= before + 2).await;
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let clients: Vec<_> = (0..WAITING)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let mut full = Full::new();
        let begun = Instant::now();
        let server = Color::new().spawn({
            let (listener, accepted) = (listener.clone(), accepted.clone());
            async move {
                loop {
                    let one = listener.accept().await.expect("it recovers");
                    accepted.lock().unwrap().push(one);
                }
            }
        });
        // Who is connected is served meanwhile.
        let mut i = 0;
        while listener.pressure() < 5 {
            i += 1;
            ask(&near, &far, i).await;
            assert!(begun.elapsed() < common::PATIENCE, "it does not tell");
        }
        // A rest is 5 ms at least, and soon 50.
        let rests = listener.pressure();
        sleep(Duration::from_millis(400)).await;
        let more = listener.pressure() - rests;
        assert!(more <= 120, "{more} refusals in 400 ms: it spins");
        assert!(accepted.lock().unwrap().is_empty());

        // On a machine so slow that the shortage lasts, some may be shed.
        let served = || accepted.lock().unwrap().len() + listener.shed() as usize;
        full.free(1);
        eventually_async("one is accepted", || served() >= 1).await;
        full.free(WAITING - 1);
        eventually_async("all are accepted", || served() == WAITING).await;
        server.abort();
        assert!(server.await.is_err());
        let accepted = std::mem::take(&mut *accepted.lock().unwrap());
        for (stream, peer) in &accepted {
            let client = clients.iter().find(|c| c.local_addr().unwrap() == *peer);
            assert!(client.is_some(), "no connection was lost or taken twice");
            stream.send_all("welcome").await.0.unwrap();
        }
        drop(full);
        let kept = |client: &&std::net::TcpStream| {
            let local = client.local_addr().unwrap();
            accepted.iter().any(|(_, peer)| *peer == local)
        };
        for mut client in clients.iter().filter(kept) {
            let mut got = [0; 7];
            std::io::Read::read_exact(&mut client, &mut got).unwrap();
            assert_eq!(got, *b"welcome");
        }
    });
}

fn a_connect_without_descriptors_says_so(rt: Runtime) {
    rt.block_on(async {
        let (listener, address) = listen().await;
        let mut full = Full::new();
        for _ in 0..3 {
            let error = TcpStream::connect(address).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        }
        let error = isochrome::net::TcpListener::bind(common::LOCAL).await;
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        full.free(2);
        let near = TcpStream::connect(address).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        ask(&near, &far, 1).await;
    });
}

/// What a runtime cannot be built without: the error names it, and nothing of
/// the attempt stays.
#[test]
fn a_runtime_without_descriptors_is_an_error() {
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("a_runtime_without_descriptors");
    let before = descriptors();
    for driver in [
        isochrome::DriverChoice::Reactor,
        isochrome::DriverChoice::Proactor,
    ] {
        if !common::works(driver) {
            continue;
        }
        let mut full = Full::new();
        // Some of what it needs, more and more of it.
        for spare in 0..8 {
            let built = isochrome::Builder::new().driver(driver).workers(4).build();
            if let Err(e) = &built {
                let text = e.to_string();
                let kind = e.raw_os_error();
                assert!(
                    kind == Some(libc::EMFILE) || text.contains("os error 24"),
                    "{spare} spare, {driver}: {text}"
                );
            }
            drop(built);
            full.free(1);
        }
    }
    common::descriptors_return_to(&before);
}
