//! Reads that are with the disk while everything around them goes: future,
//! task, runtime and thread, in all orders. What they read into is freed only
//! after the last of them is over, and never changes after that.

mod common;

use std::fs as std_fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use common::bytes::Random;
use common::futures::give_up;
use common::{descriptors, descriptors_return_to, eventually};
use isochrome::fs::OpenOptions;
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
    rt.block_on(async move {
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
        for _ in 0..turns {
            yield_now().await;
        }
        match end {
            End::Task => tasks.iter().for_each(|task| task.abort()),
            End::File => drop(file),
            End::Future | End::Runtime | End::Thread => {}
        }
        drop(tasks);
    });
    reads
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
