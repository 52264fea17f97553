//! Accepting without descriptors for long: connections are shed, it is told,
//! and it recovers.

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::bytes::pattern;
use common::{eventually_async, file_limit, listen, pair, set_file_limit};
use isochrome::net::TcpStream;
use isochrome::{Builder, DriverChoice, Report, Runtime};

/// Holds every descriptor there is, at a limit that is near.
struct Full {
    files: Vec<File>,
    old: libc::rlim_t,
}

impl Full {
    fn new() -> Full {
        let mut full = Full::near(40);
        full.fill();
        full
    }

    /// None yet, but with so few left. (A ring keeps to the limit that was
    /// there when an accept was submitted: it has to be lowered before.)
    fn near(left: libc::rlim_t) -> Full {
        let old = file_limit().rlim_cur;
        set_file_limit(common::descriptors().len() as libc::rlim_t + left);
        let files = Vec::new();
        Full { files, old }
    }

    fn fill(&mut self) {
        while let Ok(file) = File::open("/dev/null") {
            self.files.push(file);
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        set_file_limit(self.old);
    }
}

type Told = Arc<Mutex<Vec<Report>>>;

fn reporting(driver: DriverChoice) -> Option<(Runtime, Told)> {
    if !common::works(driver) {
        return None;
    }
    let told = Told::default();
    let builder = Builder::new().driver(driver).workers(2).stealing(false);
    let builder = builder.on_report({
        let told = told.clone();
        move |report| told.lock().unwrap().push(report.clone())
    });
    Some((builder.build().unwrap(), told))
}

#[test]
fn a_shortage_that_lasts_sheds_those_who_wait_longest() {
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("a_shortage_that_lasts");
    for driver in [DriverChoice::Reactor, DriverChoice::Proactor] {
        let before = common::descriptors();
        let Some((runtime, told)) = reporting(driver) else {
            continue;
        };
        runtime.block_on(shed(&told));
        drop(runtime);
        common::descriptors_return_to(&before);
    }
}

/// A connection whose listener is closed: on the proactor that waits for the
/// end of what was in flight, and would be a free descriptor later.
async fn settled_pair() -> (TcpStream, TcpStream) {
    let before = common::descriptors().len();
    let both = pair().await;
    eventually_async("only the connection is left", || {
        common::descriptors().len() == before + 2
    })
    .await;
    both
}

async fn shed(told: &Told) {
    let (listener, address) = listen().await;
    let listener = Arc::new(listener);
    let (near, far) = settled_pair().await;
    let mut clients: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    let full = Full::new();
    let handle = isochrome::Handle::current().unwrap();
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let server = handle.spawn_pinned(1, {
        let (listener, accepted) = (listener.clone(), accepted.clone());
        async move {
            loop {
                let one = listener.accept().await.expect("it recovers");
                accepted.lock().unwrap().push(one);
            }
        }
    });
    // All of them, and who is connected is served meanwhile.
    eventually_async("all are shed", || listener.shed() == 20).await;
    for i in 0..100 {
        near.send_all(pattern(i, 10)).await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *pattern(i, 10));
    }
    assert!(accepted.lock().unwrap().is_empty());
    for client in &mut clients {
        client.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let reports = std::mem::take(&mut *told.lock().unwrap());
    let stalled = reports.iter().filter(|report| {
        let text = report.to_string();
        matches!(report, Report::AcceptStalled { listener, errno, .. }
            if **listener == *address.to_string() && *errno == libc::EMFILE && text.contains("open files"))
    });
    // Once in ten seconds, and this takes one or two.
    assert_eq!(stalled.count(), reports.len());
    assert!(!reports.is_empty() && reports.len() < 8, "{reports:?}");

    // There is room again: nobody is shed any more.
    drop(full);
    let shed = listener.shed();
    let late: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    eventually_async("all are accepted", || accepted.lock().unwrap().len() == 20).await;
    assert_eq!(listener.shed(), shed);
    eventually_async("it is told", || !told.lock().unwrap().is_empty()).await;
    let reports = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(reports.len(), 1, "{reports:?}");
    let resumed = matches!(&reports[0], Report::AcceptResumed { shed: 20, .. });
    assert!(resumed, "{reports:?}");
    server.abort();
    assert!(server.await.is_err());
    accepted.lock().unwrap().clear();
    drop(late);
}

/// Ten seconds without descriptors, under load. By hand:
/// `ISOCHROME_LONG=1 cargo test --release --test accept emfile -- --nocapture`
#[test]
fn emfile_for_ten_seconds() {
    if std::env::var_os("ISOCHROME_LONG").is_none() {
        return;
    }
    let _alone = common::alone();
    let _watchdog = common::Watchdog::start("emfile_for_ten_seconds");
    for driver in [DriverChoice::Reactor, DriverChoice::Proactor] {
        if let Some((runtime, _told)) = reporting(driver) {
            println!("{driver}:");
            runtime.block_on(stall());
        }
    }
}

/// Echoes for so long; what each round trip took.
async fn echoes(near: &TcpStream, far: &TcpStream, time: Duration) -> Vec<Duration> {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < time {
        let one = Instant::now();
        near.send_all(pattern(0, 64)).await.0.unwrap();
        assert_eq!(far.recv().await.unwrap().len(), 64);
        took.push(one.elapsed());
    }
    took.sort();
    took
}

async fn stall() {
    let mut full = Full::near(200);
    let (listener, address) = listen().await;
    let listener = Arc::new(listener);
    let (near, far) = settled_pair().await;
    let handle = isochrome::Handle::current().unwrap();
    let accepted = Arc::new(Mutex::new(None));
    // All that worker 1 does is to accept, and to close.
    let server = handle.spawn_pinned(1, {
        let (listener, accepted) = (listener.clone(), accepted.clone());
        async move {
            loop {
                let one = listener.accept().await.expect("it recovers");
                *accepted.lock().unwrap() = Some(Instant::now());
                drop(one);
            }
        }
    });
    let load = connectors(address);
    let figures = |name: &str, took: &[Duration]| {
        let at = |part: f64| took[(took.len() as f64 * part) as usize];
        let (count, half, most) = (took.len(), at(0.5), at(0.99));
        println!("  {name}: {count} round trips, p50 {half:?}, p99 {most:?}");
    };
    figures(
        "2 s with descriptors",
        &echoes(&near, &far, Duration::from_secs(2)).await,
    );
    full.fill();
    // Those of connections that are just being closed too.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        full.fill();
        isochrome::time::sleep(Duration::from_millis(1)).await;
    }
    let cpu = || handle.stats().workers[1].cpu_time;
    let (before, begun, refused) = (cpu(), Instant::now(), listener.pressure());
    let took = echoes(&near, &far, Duration::from_secs(10)).await;
    let (used, lasted) = (cpu().unwrap() - before.unwrap(), begun.elapsed());
    figures("10 s without", &took);
    let share = used.as_secs_f64() / lasted.as_secs_f64() * 100.0;
    let (refused, shed) = (listener.pressure() - refused, listener.shed());
    println!("  accepting took {used:?}, {share:.3}% of a core; refused {refused}, shed {shed}");
    let kept = accepted.lock().unwrap().take();
    println!(
        "  accepted meanwhile: {}",
        kept.is_some_and(|at| at > begun)
    );
    // From the middle of a rest, wherever that is, many times.
    let mut waits = Vec::new();
    for i in 0..20 {
        isochrome::time::sleep(Duration::from_millis(150 + 13 * i)).await;
        accepted.lock().unwrap().take();
        let freed = Instant::now();
        full.files.pop();
        while accepted.lock().unwrap().is_none() {
            isochrome::time::sleep(Duration::from_millis(1)).await;
        }
        waits.push(accepted.lock().unwrap().unwrap() - freed);
        // The descriptor that the connection had is taken again.
        full.fill();
    }
    waits.sort();
    let (half, most) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("  from a free descriptor to a connection: median {half:?}, most {most:?}");
    assert!(share < 1.0, "{share}% of a core");
    assert!(most < Duration::from_millis(100), "{most:?}");
    drop(load);
    server.abort();
    assert!(server.await.is_err());
}

/// Another process that connects all the time: this one has no descriptors.
fn connectors(to: SocketAddr) -> Load {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "connect_all_the_time"])
        .env("ISOCHROME_CONNECT_TO", to.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Load(child.unwrap())
}

/// Ends with the value.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body of that process: about 400 connections a second, each of which
/// waits a little for an answer.
#[test]
fn connect_all_the_time() {
    let Ok(to) = std::env::var("ISOCHROME_CONNECT_TO") else {
        return;
    };
    let to: SocketAddr = to.parse().unwrap();
    let threads = (0..8).map(|_| {
        std::thread::spawn(move || {
            loop {
                let patience = Duration::from_millis(20);
                if let Ok(mut stream) = std::net::TcpStream::connect_timeout(&to, patience) {
                    stream.set_read_timeout(Some(patience)).unwrap();
                    let _ = stream.read(&mut [0]);
                }
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}
