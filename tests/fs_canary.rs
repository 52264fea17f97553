//! Reads that are with the disk, or wait at a pipe that is written to all the
//! time, while everything around them goes: future, task, runtime and thread,
//! in all orders. What they read into is freed only after the last of them is
//! over, and never changes after that.

mod common;

use std::fs as std_fs;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::bytes::Random;
use common::futures::give_up;
use common::{descriptors, descriptors_return_to, eventually};
use isochrome::fs::{File, OpenOptions};
use isochrome::net::{IoBuf, IoBufMut};
use isochrome::{Builder, DriverChoice, spawn, yield_now};

/// Bytes of one read: long enough that the disk is at it for a while.
const SIZE: usize = 256 << 10;
const FILE: u64 = 32 << 20;

/// What a freed buffer holds.
const CANARY: u8 = 0xa5;

/// Freed buffers, which are not given back to the allocator before somebody
/// has looked at them.
#[derive(Clone, Default)]
struct Graveyard(Arc<Mutex<Vec<Box<Memory>>>>);

#[repr(align(4096))]
struct Memory([u8; SIZE]);

impl Graveyard {
    fn buffer(&self) -> Buffer {
        // Not by way of the stack.
        let memory: Box<std::mem::MaybeUninit<Memory>> = Box::new_uninit();
        let raw = Box::into_raw(memory);
        // SAFETY: bytes, and all of them are written.
        let memory = unsafe {
            raw.cast::<u8>().write_bytes(0, SIZE);
            Box::from_raw(raw.cast::<Memory>())
        };
        Buffer {
            memory: Some(memory),
            graveyard: self.clone(),
        }
    }

    fn dead(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Looks at all that was freed, and gives it back to the allocator.
    fn inspect(&self) {
        for memory in self.0.lock().unwrap().drain(..) {
            let changed = memory.0.iter().position(|byte| *byte != CANARY);
            assert_eq!(changed, None, "written to after it was freed");
        }
    }
}

struct Buffer {
    memory: Option<Box<Memory>>,
    graveyard: Graveyard,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut memory = self.memory.take().unwrap();
        memory.0.fill(CANARY);
        self.graveyard.0.lock().unwrap().push(memory);
    }
}

// SAFETY: the bytes are in the box, until the drop.
unsafe impl IoBuf for Buffer {
    fn bytes(&self) -> &[u8] {
        &self.memory.as_ref().unwrap().0
    }
}

// SAFETY: likewise.
unsafe impl IoBufMut for Buffer {
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory.as_mut().unwrap().0
    }
}

struct Data(PathBuf);

impl Data {
    fn make() -> Data {
        // Where the tests are built is a disk, more likely than where
        // temporary files are.
        let name = format!("isochrome-canary-{}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let file = std_fs::File::create(&path).unwrap();
        for at in (0..FILE).step_by(1 << 20) {
            file.write_all_at(&vec![0x11; 1 << 20], at).unwrap();
        }
        file.sync_all().unwrap();
        Data(path)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std_fs::remove_file(&self.0);
    }
}

/// A pipe's reading end as a file, and the writing end, which does not wait.
///
/// With O_DIRECT, which means little to a reader, the file has the ring read
/// it. Any other pipe is refused before it gets there (ESPIPE).
fn pipe() -> (File, std_fs::File) {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    for (end, flag) in [(ends[0], libc::O_DIRECT), (ends[1], libc::O_NONBLOCK)] {
        // SAFETY: no pointers are passed.
        let set = unsafe { libc::fcntl(end, libc::F_SETFL, flag) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    let [reading, writing] = ends.map(|fd| unsafe { std_fs::File::from_raw_fd(fd) });
    (File::from_std(reading).expect("in a runtime"), writing)
}

/// Writes to a pipe until it is told to stop, or nobody has the other end.
struct Writer {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    fn start(mut pipe: std_fs::File) -> Writer {
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = over.clone();
            move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = pipe.write(&[0x22; 4096]);
                    thread::yield_now();
                }
            }
        });
        Writer { over, thread }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
    }
}

/// What goes first.
#[derive(Clone, Copy, Debug)]
enum End {
    Future,
    Task,
    File,
    Runtime,
    Thread,
}

const ENDS: [End; 5] = [End::Future, End::Task, End::File, End::Runtime, End::Thread];

fn one_round(driver: DriverChoice, data: &Data, graves: &Graveyard, end: End, seed: u64) -> usize {
    let mut random = Random(seed | 1);
    let workers = 1 + random.below(2);
    let reads = 1 + random.below(24);
    let turns = random.below(4);
    let rt = Builder::new().driver(driver).workers(workers).build();
    let rt = rt.expect("a runtime");
    let (path, graves) = (data.0.clone(), graves.clone());
    // The pool reads no pipes: pread(2) refuses them.
    let waits = match driver {
        DriverChoice::Proactor => random.below(4),
        _ => 0,
    };
    let writer = rt.block_on(async move {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_DIRECT);
        let file = Arc::new(options.open(&path).await.expect("the file"));
        let mut tasks = Vec::new();
        for _ in 0..reads {
            let at = random.below(FILE as usize / SIZE) as u64 * SIZE as u64;
            let buffer = graves.buffer();
            if let End::Future = end {
                drop(give_up(file.read_at(buffer, at)).await);
                continue;
            }
            let file = file.clone();
            tasks.push(spawn(async move {
                let _ = file.read_at(buffer, at).await;
            }));
        }
        let (pipe, writing) = pipe();
        let pipe = Arc::new(pipe);
        for _ in 0..waits {
            let buffer = graves.buffer();
            if let End::Future = end {
                assert!(give_up(pipe.read_at(buffer, 0)).await.is_pending());
                continue;
            }
            let pipe = pipe.clone();
            tasks.push(spawn(async move {
                let _ = pipe.read_at(buffer, 0).await;
            }));
        }
        for _ in 0..turns {
            yield_now().await;
        }
        let writer = Writer::start(writing);
        match end {
            End::Task => tasks.iter().for_each(|task| task.abort()),
            End::File => drop((file, pipe)),
            End::Future | End::Runtime | End::Thread => {}
        }
        drop(tasks);
        writer
    });
    drop(rt);
    writer.stop();
    reads + waits
}

fn rounds(driver: DriverChoice) {
    let _alone = common::alone();
    if !common::works(driver) {
        return;
    }
    // The long run is by hand.
    let rounds = std::env::var("ISOCHROME_CANARIES").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(40);
    let data = Data::make();
    let before = descriptors();
    let graves = Graveyard::default();
    let mut random = Random::seeded();
    let mut made = 0;
    for round in 0..rounds {
        let _watchdog = common::Watchdog::start("a round of canaries");
        let (end, seed) = (ENDS[round % ENDS.len()], random.next());
        let reads = match end {
            // The runtime is on a thread that ends right after it.
            End::Thread => thread::scope(|scope| {
                let thread = scope.spawn(|| one_round(driver, &data, &graves, end, seed));
                thread.join().expect("no panic")
            }),
            _ => one_round(driver, &data, &graves, end, seed),
        };
        made += reads;
        // A thread of the pool may be at its last one still.
        eventually("freed", || graves.dead() == made);
        if round % 10 == 9 {
            graves.inspect();
            made = 0;
        }
    }
    graves.inspect();
    descriptors_return_to(&before);
}

#[test]
fn nothing_that_was_freed_changes_on_the_proactor() {
    rounds(DriverChoice::Proactor);
}

#[test]
fn nothing_that_was_freed_changes_on_the_reactor() {
    rounds(DriverChoice::Reactor);
}
