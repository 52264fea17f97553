//! Operations on files that are given up: nothing is freed too early, and
//! nothing is left open.

mod common;

use std::fs as std_fs;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;

use common::bytes::{check, pattern};
use common::futures::{give_up, poll_once};
use common::{descriptors, eventually_async, everywhere};
use isochrome::fs::{self, File, OpenOptions};
use isochrome::net::{IoBuf, IoBufMut};
use isochrome::{Builder, DriverChoice, Handle, Runtime, yield_now};

everywhere!(
    a_late_open_is_closed,
    an_open_that_waits_is_given_up_at_once,
    a_dropped_read_keeps_its_buffer_until_the_end,
    a_dropped_write_keeps_its_buffer_until_the_end,
    close_waits_for_what_was_given_up,
    a_dropped_close_closes,
    the_end_of_the_runtime_ends_what_is_under_way,
);

/// A name in the directory for temporary files, and the file gone with it.
struct Path(PathBuf);

impl Path {
    fn new() -> Path {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("isochrome-cancel-{}-{number}", std::process::id());
        Path(std::env::temp_dir().join(name))
    }

    /// A FIFO, on which an open waits for the other end.
    fn fifo() -> Path {
        let path = Path::new();
        let name = std::ffi::CString::new(path.0.to_str().unwrap()).unwrap();
        // SAFETY: the name ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }

    /// Opens both ends of a FIFO for whoever waits to open one.
    fn release(&self) -> std_fs::File {
        let mut options = std_fs::OpenOptions::new();
        let options = options.read(true).write(true);
        options
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.0)
            .unwrap()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std_fs::remove_file(&self.0);
    }
}

/// A buffer that says when it is dropped. Aligned for O_DIRECT.
struct Watched {
    page: Box<Page>,
    drops: Arc<AtomicUsize>,
}

#[repr(align(4096))]
struct Page([u8; 4096]);

impl Watched {
    fn new(drops: &Arc<AtomicUsize>) -> Watched {
        Watched {
            page: Box::new(Page([0; 4096])),
            drops: drops.clone(),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: the bytes are in the box.
unsafe impl IoBuf for Watched {
    fn bytes(&self) -> &[u8] {
        &self.page.0
    }
}

// SAFETY: likewise.
unsafe impl IoBufMut for Watched {
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.page.0
    }
}

fn a_late_open_is_closed(rt: Runtime) {
    rt.block_on(async {
        let path = Path::new();
        fs::write(&path.0, "abc").await.unwrap();
        let before = descriptors();
        for i in 0..200 {
            let mut open = Box::pin(File::open(&path.0));
            let polled = poll_once(&mut open).await;
            for _ in 0..i % 4 {
                yield_now().await;
            }
            drop((polled, open));
        }
        eventually_async("closed", || descriptors().len() == before.len()).await;
    });
}

fn an_open_that_waits_is_given_up_at_once(rt: Runtime) {
    rt.block_on(async {
        let fifo = Path::fifo();
        let before = descriptors();
        for _ in 0..3 {
            let mut open = Box::pin(File::open(&fifo.0));
            for _ in 0..10 {
                if poll_once(&mut open).await.is_ready() {
                    // A ring does not wait for the other end.
                    break;
                }
                yield_now().await;
            }
        }
        // On the pool they still wait: what they open then is closed.
        let both = fifo.release();
        let pool_is_free = || async { fs::create_dir("/").await.unwrap_err().kind() };
        assert_eq!(pool_is_free().await, ErrorKind::AlreadyExists);
        drop(both);
        eventually_async("closed", || {
            // Who opened it after `both` was gone waits again.
            drop(fifo.release());
            descriptors().len() == before.len()
        })
        .await;
    });
}

fn a_dropped_read_keeps_its_buffer_until_the_end(rt: Runtime) {
    rt.block_on(async {
        let path = Path::new();
        fs::write(&path.0, pattern(0, 1 << 20)).await.unwrap();
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_DIRECT);
        let file = options.open(&path.0).await.unwrap();
        let drops = Arc::new(AtomicUsize::new(0));
        let mut made = 0;
        for i in 0..200 {
            let at = (i % 256) * 4096;
            let mut read = Box::pin(file.read_at(Watched::new(&drops), at as u64));
            made += 1;
            match poll_once(&mut read).await {
                Poll::Ready((n, buf)) => {
                    assert_eq!(n.unwrap(), 4096);
                    check(at, buf.bytes());
                }
                Poll::Pending if i % 3 == 0 => yield_now().await,
                Poll::Pending => {}
            }
        }
        eventually_async("dropped", || drops.load(Ordering::SeqCst) == made).await;
        let (result, buf) = file.read_exact_at(Watched::new(&drops), 4096).await;
        result.unwrap();
        check(4096, buf.bytes());
    });
}

fn a_dropped_write_keeps_its_buffer_until_the_end(rt: Runtime) {
    rt.block_on(async {
        let path = Path::new();
        let file = File::create(&path.0).await.unwrap();
        let drops = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            drop(give_up(file.write_at(Watched::new(&drops), 0)).await);
        }
        eventually_async("dropped", || drops.load(Ordering::SeqCst) == 100).await;
        file.close().await.unwrap();
        // Written or not, but nothing else.
        let len = std_fs::metadata(&path.0).unwrap().len();
        assert!(len == 0 || len == 4096, "{len}");
    });
}

fn close_waits_for_what_was_given_up(rt: Runtime) {
    rt.block_on(async {
        let path = Path::new();
        fs::write(&path.0, pattern(0, 1 << 20)).await.unwrap();
        let before = descriptors();
        for i in 0..100 {
            let mut options = OpenOptions::new();
            let options = options.read(true).custom_flags(libc::O_DIRECT);
            let file = options.open(&path.0).await.unwrap();
            let drops = Arc::new(AtomicUsize::new(0));
            for at in [0, 4096, 8192] {
                drop(give_up(file.read_at(Watched::new(&drops), at)).await);
            }
            if i % 2 == 0 {
                yield_now().await;
            }
            file.close().await.unwrap();
            assert_eq!(descriptors().len(), before.len(), "closed by now");
        }
    });
}

fn a_dropped_close_closes(rt: Runtime) {
    rt.block_on(async {
        let path = Path::new();
        fs::write(&path.0, "abc").await.unwrap();
        let before = descriptors();
        for i in 0..100 {
            let file = File::open(&path.0).await.unwrap();
            let mut close = Box::pin(file.close());
            let polled = match i % 3 {
                0 => Poll::Pending,
                _ => poll_once(&mut close).await,
            };
            if i % 2 == 0 {
                yield_now().await;
            }
            drop((polled, close));
        }
        eventually_async("closed", || descriptors().len() == before.len()).await;
    });
}

fn the_end_of_the_runtime_ends_what_is_under_way(rt: Runtime) {
    let path = Path::new();
    std_fs::write(&path.0, pattern(0, 1 << 20)).unwrap();
    let drops = Arc::new(AtomicUsize::new(0));
    let file = rt.block_on(async {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_DIRECT);
        let file = Arc::new(options.open(&path.0).await.unwrap());
        for i in 0..50 {
            let (file, buf) = (file.clone(), Watched::new(&drops));
            drop(isochrome::spawn(async move {
                let _ = file.read_at(buf, i * 4096).await;
                std::future::pending::<()>().await;
            }));
        }
        yield_now().await;
        file
    });
    drop(rt);
    // A thread of the pool may be at its last one still.
    common::eventually("dropped", || drops.load(Ordering::SeqCst) == 50);
    // Nobody is there to carry it out, and the buffer comes back.
    let (result, buf) = common::futures::park_on(file.read_at(Watched::new(&drops), 0));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    assert_eq!(buf.bytes().len(), 4096);
    assert!(Handle::current().is_none());
}

/// What the pool has to do while it is kept busy is refused, and what was
/// handed over comes back.
#[test]
fn a_full_pool_gives_the_buffer_back() {
    let _alone = common::alone();
    let mut builder = Builder::new().driver(DriverChoice::Reactor).workers(1);
    builder = builder.blocking_threads(1).blocking_queue(0);
    let rt = builder.build().unwrap();
    rt.block_on(async {
        let path = Path::new();
        // By std, so that the pool has had nothing to do yet.
        let file = File::from_std(std_fs::File::create(&path.0).unwrap()).unwrap();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let busy = {
            let gate = gate.clone();
            isochrome::spawn_blocking(move || {
                let mut open = gate.0.lock().unwrap();
                while !*open {
                    open = gate.1.wait(open).unwrap();
                }
            })
        };
        let mut other = OpenOptions::new();
        let other = other.read(true).open(&path.0).await;
        assert!(
            other
                .unwrap_err()
                .to_string()
                .contains("blocking pool is full")
        );
        let (result, back) = file.write_at(pattern(0, 100), 0).await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains("blocking_threads"), "{error}");
        check(0, &back);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        busy.await.unwrap();
        let mut data = back;
        // The thread may not be back yet.
        loop {
            let (result, back) = file.write_at(data, 0).await;
            if result.is_ok() {
                break;
            }
            data = back;
            yield_now().await;
        }
        assert_eq!(std_fs::read(&path.0).unwrap(), pattern(0, 100));
    });
}
