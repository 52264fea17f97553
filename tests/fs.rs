//! Files: what std does, on both drivers.

mod common;

use std::fs as std_fs;
use std::io::{self, ErrorKind, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::bytes::{check, pattern};
use common::everywhere;
use isochrome::fs::{self, File, OpenOptions};
use isochrome::{Color, Runtime};

everywhere!(
    what_is_written_is_read,
    vectored_transfers_fill_one_buffer_after_the_other,
    the_position_moves_with_reads_and_writes,
    a_file_is_read_whole_whatever_its_length_says,
    a_length_that_there_is_no_memory_for_is_an_error,
    many_reads_of_one_file_go_on_at_once,
    errors_are_those_of_std,
    options_are_those_of_std,
    a_full_disk_is_an_error_and_the_buffer_comes_back,
    metadata_is_what_std_says,
    paths_are_handled_as_by_std,
    links_and_copies_are_made_as_by_std,
    a_file_changes_hands_with_std,
    an_offset_out_of_range_is_refused,
    files_in_memory_and_on_disk_are_read_alike,
);

/// A directory of this test's own, gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        Dir::under(&std::env::temp_dir())
    }

    fn under(parent: &Path) -> Dir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("isochrome-fs-{}-{number}", std::process::id());
        let path = parent.join(name);
        std_fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std_fs::remove_dir_all(&self.0);
    }
}

/// The same error, by number and kind.
#[track_caller]
fn same<T, U>(ours: io::Result<T>, of_std: io::Result<U>) {
    let (Err(ours), Err(of_std)) = (ours, of_std) else {
        panic!("both are errors")
    };
    assert_eq!(ours.raw_os_error(), of_std.raw_os_error(), "{ours}");
    assert_eq!(ours.kind(), of_std.kind());
}

fn what_is_written_is_read(rt: Runtime) {
    const SIZE: usize = 300_000;
    rt.block_on(async {
        let dir = Dir::new();
        let file = File::create(dir.join("a")).await.unwrap();
        let (result, back) = file.write_all_at(pattern(0, SIZE), 0).await;
        result.unwrap();
        check(0, &back);
        file.sync_all().await.unwrap();
        file.sync_data().await.unwrap();
        file.close().await.unwrap();
        assert_eq!(std_fs::read(dir.join("a")).unwrap(), pattern(0, SIZE));

        let file = File::open(dir.join("a")).await.unwrap();
        for (at, len) in [(0, 1), (7, 4096), (4096, 65_536), (SIZE - 10, 10)] {
            let (result, data) = file.read_exact_at(vec![0; len], at as u64).await;
            result.unwrap();
            check(at, &data);
        }
        // Over the end, and behind it.
        let (n, data) = file.read_at(vec![0; 100], SIZE as u64 - 10).await;
        assert_eq!(n.unwrap(), 10);
        check(SIZE - 10, &data[..10]);
        assert_eq!(file.read_at(vec![0; 9], SIZE as u64).await.0.unwrap(), 0);
        let (result, data) = file.read_exact_at(vec![0; 100], SIZE as u64 - 10).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(data.len(), 100);
        // Nothing is asked for.
        assert_eq!(file.read_at(Vec::new(), 0).await.0.unwrap(), 0);
        file.read_exact_at(Vec::new(), 0).await.0.unwrap();
        // A boxed array, and a boxed slice.
        let (result, data) = file.read_exact_at(Box::new([0; 64]), 3).await;
        result.unwrap();
        check(3, &data[..]);
        let (result, data) = file.read_exact_at(vec![0; 64].into_boxed_slice(), 3).await;
        result.unwrap();
        check(3, &data);
    });
}

fn vectored_transfers_fill_one_buffer_after_the_other(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(dir.join("a")).await.unwrap();
        let parts = vec![pattern(0, 10), Vec::new(), pattern(10, 5000)];
        let (n, parts) = file.write_vectored_at(parts, 3).await;
        assert_eq!(n.unwrap(), 5010);
        assert_eq!(parts.len(), 3);
        let bufs = vec![vec![1; 3], vec![1; 4000], vec![1; 2000]];
        let (n, bufs) = file.read_vectored_at(bufs, 0).await;
        assert_eq!(n.unwrap(), 5013);
        assert_eq!(bufs[0], [0; 3]);
        check(0, &bufs[1]);
        check(4000, &bufs[2][..1010]);
        assert_eq!(bufs[2][1010..], [1; 990]);
        // None at all, and more than the kernel takes at once.
        let (n, none) = file.read_vectored_at(Vec::<Vec<u8>>::new(), 0).await;
        assert_eq!((n.unwrap(), none.len()), (0, 0));
        let many = vec![vec![7u8]; 1500];
        let (n, many) = file.write_vectored_at(many, 0).await;
        assert_eq!((n.unwrap(), many.len()), (1024, 1500));
    });
}

fn the_position_moves_with_reads_and_writes(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true);
        let mut file = options.open(dir.join("a")).await.unwrap();
        for i in 0..10 {
            let (n, _) = file.write(pattern(i * 100, 100)).await;
            assert_eq!(n.unwrap(), 100);
        }
        assert_eq!(file.seek(SeekFrom::Current(0)).await.unwrap(), 1000);
        assert_eq!(file.seek(SeekFrom::Start(50)).await.unwrap(), 50);
        let (n, data) = file.read(vec![0; 25]).await;
        assert_eq!(n.unwrap(), 25);
        check(50, &data);
        assert_eq!(file.seek(SeekFrom::End(-5)).await.unwrap(), 995);
        assert_eq!(file.read(vec![0; 25]).await.0.unwrap(), 5);
        assert_eq!(file.read(vec![0; 25]).await.0.unwrap(), 0);
        let error = file.seek(SeekFrom::Current(-1001)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(file.seek(SeekFrom::Current(0)).await.unwrap(), 1000);

        let mut options = OpenOptions::new();
        let mut file = options.append(true).open(dir.join("a")).await.unwrap();
        for byte in [1, 2] {
            assert_eq!(file.write(vec![byte]).await.0.unwrap(), 1);
        }
        assert_eq!(file.write_at(vec![3], 0).await.0.unwrap(), 1);
        let all = std_fs::read(dir.join("a")).unwrap();
        assert_eq!(all[1000..], [1, 2, 3]);
    });
}

fn a_file_is_read_whole_whatever_its_length_says(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        for len in [0, 1, 8191, 8192, 8193, 100_000] {
            fs::write(dir.join("a"), pattern(0, len)).await.unwrap();
            assert_eq!(std_fs::read(dir.join("a")).unwrap(), pattern(0, len));
            assert_eq!(fs::read(dir.join("a")).await.unwrap(), pattern(0, len));
        }
        // Its length is 0, they say.
        let maps = fs::read_to_string("/proc/self/maps").await.unwrap();
        assert!(maps.contains("[stack]"), "{maps}");
        fs::write(dir.join("a"), vec![0xff, 0xfe]).await.unwrap();
        let error = fs::read_to_string(dir.join("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    });
}

/// Of a file that is all holes.
fn a_length_that_there_is_no_memory_for_is_an_error(rt: Runtime) {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        return;
    }
    let dir = Dir::under(shm);
    for len in [1 << 60, i64::MAX as u64] {
        let file = std_fs::File::create(dir.join("a")).unwrap();
        if let Err(e) = file.set_len(len) {
            println!("skipped: {e}");
            continue;
        }
        rt.block_on(async {
            same(fs::read(dir.join("a")).await, std_fs::read(dir.join("a")));
            let error = fs::read(dir.join("a")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        });
    }
}

fn many_reads_of_one_file_go_on_at_once(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        fs::write(dir.join("a"), pattern(0, 1 << 20)).await.unwrap();
        let file = Arc::new(File::open(dir.join("a")).await.unwrap());
        let readers = (0..100).map(|i| {
            let file = file.clone();
            Color::new().spawn(async move {
                for j in 0..10 {
                    let at = (i * 10_007 + j * 997) % (1 << 19);
                    let (result, data) = file.read_exact_at(vec![0; 4096], at as u64).await;
                    result.unwrap();
                    check(at, &data);
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.unwrap();
        }
    });
}

fn errors_are_those_of_std(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        let missing = dir.join("missing/file");
        same(File::open(&missing).await, std_fs::File::open(&missing));
        same(File::create(&missing).await, std_fs::File::create(&missing));
        same(fs::metadata(&missing).await, std_fs::metadata(&missing));
        same(
            fs::remove_file(&missing).await,
            std_fs::remove_file(&missing),
        );
        // A directory.
        same(File::create(&dir.0).await, std_fs::File::create(&dir.0));
        let (ours, of_std) = (File::open(&dir.0).await, std_fs::File::open(&dir.0));
        let (ours, of_std) = (ours.unwrap(), of_std.unwrap());
        let (result, buf) = ours.read_at(vec![0; 5], 0).await;
        assert_eq!(buf.len(), 5);
        same(result, of_std.read_at(&mut [0; 5], 0));
        // Not allowed by how it was opened.
        std_fs::write(dir.join("a"), "abc").unwrap();
        let ours = File::open(dir.join("a")).await.unwrap();
        let of_std = std_fs::File::open(dir.join("a")).unwrap();
        same(ours.write_at(vec![1], 0).await.0, of_std.write_at(&[1], 0));
        same(ours.set_len(1).await, of_std.set_len(1));
        let ours = File::create(dir.join("b")).await.unwrap();
        let of_std = std_fs::File::create(dir.join("b")).unwrap();
        same(
            ours.read_at(vec![1], 0).await.0,
            of_std.read_at(&mut [1], 0),
        );
        // Nobody may write there, root included.
        let proc = "/proc/self/maps";
        let mut options = std_fs::OpenOptions::new();
        let of_std = options.write(true).open("/proc/version/x");
        let mut options = OpenOptions::new();
        same(options.write(true).open("/proc/version/x").await, of_std);
        same(fs::remove_file(proc).await, std_fs::remove_file(proc));
        // No offsets here.
        let [reader, _writer] = pipe();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let ours = options.open(&path).await.unwrap();
        let of_std = std_fs::File::open(&path).unwrap();
        same(
            ours.read_at(vec![1], 0).await.0,
            of_std.read_at(&mut [1], 0),
        );
        let error = File::open("a\0b").await.unwrap_err();
        assert_eq!(error.kind(), std_fs::File::open("a\0b").unwrap_err().kind());
    });
}

/// The reader, and the writer.
fn pipe() -> [OwnedFd; 2] {
    let mut ends = [0; 2];
    // SAFETY: two numbers are written.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0);
    // SAFETY: just opened, and nobody else's.
    ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn options_are_those_of_std(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        for there in [false, true] {
            for bits in 0..64u32 {
                let bit = |n: u32| bits & 1 << n != 0;
                let prepare = |name: &str| {
                    let path = dir.join(name);
                    let _ = std_fs::remove_file(&path);
                    if there {
                        std_fs::write(&path, "abc").unwrap();
                    }
                    path
                };
                let (ours, of_std) = (prepare("ours"), prepare("std"));
                let opened = OpenOptions::new()
                    .read(bit(0))
                    .write(bit(1))
                    .append(bit(2))
                    .truncate(bit(3))
                    .create(bit(4))
                    .create_new(bit(5))
                    .mode(0o640)
                    .open(&ours)
                    .await;
                let expected = std_fs::OpenOptions::new()
                    .read(bit(0))
                    .write(bit(1))
                    .append(bit(2))
                    .truncate(bit(3))
                    .create(bit(4))
                    .create_new(bit(5))
                    .mode(0o640)
                    .open(&of_std);
                match (opened, expected) {
                    (Ok(file), Ok(_)) => {
                        let len = std_fs::metadata(&of_std).unwrap().len();
                        let meta = file.metadata().await.unwrap();
                        assert_eq!(meta.len(), len, "{bits:06b}");
                        let mode = std_fs::metadata(&of_std).unwrap().permissions().mode();
                        assert_eq!(meta.mode(), mode, "{bits:06b}");
                    }
                    (Err(ours), Err(of_std)) => {
                        assert_eq!(ours.kind(), of_std.kind(), "{bits:06b} {ours} {of_std}");
                    }
                    (ours, of_std) => panic!("{bits:06b}: {ours:?}, but std {of_std:?}"),
                }
            }
        }
        // Close-on-exec.
        let file = File::create(dir.join("a")).await.unwrap();
        // SAFETY: no pointers are passed.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    });
}

fn a_full_disk_is_an_error_and_the_buffer_comes_back(rt: Runtime) {
    rt.block_on(async {
        let mut options = OpenOptions::new();
        let full = options.write(true).open("/dev/full").await.unwrap();
        let mut of_std = std_fs::OpenOptions::new();
        let of_std = of_std.write(true).open("/dev/full").unwrap();
        let (result, back) = full.write_at(pattern(0, 5000), 0).await;
        same(result, of_std.write_at(&[1], 0));
        check(0, &back);
        let (result, back) = full.write_all_at(pattern(0, 5000), 0).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
        check(0, &back);
        let (result, back) = full.write_vectored_at(vec![vec![1], vec![2]], 0).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(back, [[1], [2]]);
        full.close().await.unwrap();
    });
}

fn metadata_is_what_std_says(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        std_fs::write(dir.join("a"), "abc").unwrap();
        std::os::unix::fs::symlink(dir.join("a"), dir.join("link")).unwrap();
        for path in [
            dir.join("a"),
            dir.join("link"),
            dir.0.clone(),
            "/dev/null".into(),
        ] {
            use std::os::unix::fs::MetadataExt;
            for follow in [true, false] {
                let (ours, of_std) = match follow {
                    true => (fs::metadata(&path).await, std_fs::metadata(&path)),
                    false => {
                        let of_std = std_fs::symlink_metadata(&path);
                        (fs::symlink_metadata(&path).await, of_std)
                    }
                };
                let (ours, of_std) = (ours.unwrap(), of_std.unwrap());
                assert_eq!(ours.len(), of_std.len());
                assert_eq!(ours.is_file(), of_std.is_file());
                assert_eq!(ours.is_dir(), of_std.is_dir());
                assert_eq!(ours.is_symlink(), of_std.is_symlink());
                assert_eq!(ours.mode(), of_std.mode());
                assert_eq!((ours.uid(), ours.gid()), (of_std.uid(), of_std.gid()));
                assert_eq!((ours.ino(), ours.nlink()), (of_std.ino(), of_std.nlink()));
                assert_eq!(ours.allocated(), of_std.blocks() * 512);
                assert_eq!(ours.modified(), of_std.modified().unwrap());
                assert_eq!(ours.accessed(), of_std.accessed().unwrap());
                assert_eq!(ours.created(), of_std.created().ok());
                let dev = (libc::major(of_std.dev()), libc::minor(of_std.dev()));
                assert_eq!(ours.dev(), dev);
            }
        }
        let file = OpenOptions::new()
            .write(true)
            .open(dir.join("a"))
            .await
            .unwrap();
        file.set_len(10).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().len(), 10);
        file.set_permissions(PermissionsExt::from_mode(0o600))
            .await
            .unwrap();
        assert_eq!(file.metadata().await.unwrap().mode() & 0o777, 0o600);
    });
}

fn paths_are_handled_as_by_std(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        fs::create_dir(dir.join("one")).await.unwrap();
        fs::create_dir_all(dir.join("two/three/four"))
            .await
            .unwrap();
        fs::write(dir.join("one/a"), "abc").await.unwrap();
        fs::rename(dir.join("one/a"), dir.join("two/b"))
            .await
            .unwrap();
        same(
            fs::remove_dir(dir.join("two")).await,
            std_fs::remove_dir(dir.join("two")),
        );
        let mut names: Vec<_> = fs::read_dir(dir.join("two")).await.unwrap();
        names.sort_by(|a, b| a.file_name().cmp(b.file_name()));
        assert_eq!(names.len(), 2);
        assert_eq!(names[0].file_name(), "b");
        assert_eq!(names[0].path(), dir.join("two/b"));
        assert!(names[0].file_type().is_file() && names[1].file_type().is_dir());
        fs::remove_file(dir.join("two/b")).await.unwrap();
        fs::remove_dir(dir.join("one")).await.unwrap();
        fs::remove_dir_all(dir.join("two")).await.unwrap();
        assert!(fs::read_dir(&dir.0).await.unwrap().is_empty());
    });
}

fn links_and_copies_are_made_as_by_std(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        let [a, b, link] = ["a", "b", "link"].map(|name| dir.join(name));
        fs::write(&a, "abc").await.unwrap();
        fs::set_permissions(&a, PermissionsExt::from_mode(0o640))
            .await
            .unwrap();
        assert_eq!(fs::copy(&a, &b).await.unwrap(), 3);
        let copied = fs::metadata(&b).await.unwrap();
        assert_eq!((copied.len(), copied.mode() & 0o777), (3, 0o640));
        same(fs::hard_link(&a, &b).await, std_fs::hard_link(&a, &b));
        fs::remove_file(&b).await.unwrap();
        fs::hard_link(&a, &b).await.unwrap();
        assert_eq!(fs::metadata(&a).await.unwrap().nlink(), 2);
        fs::symlink("a", &link).await.unwrap();
        assert_eq!(fs::read_link(&link).await.unwrap().to_str(), Some("a"));
        assert_eq!(
            fs::canonicalize(&link).await.unwrap(),
            std_fs::canonicalize(&a).unwrap()
        );
        same(fs::read_link(&a).await, std_fs::read_link(&a));
        assert!(fs::exists(&link).await.unwrap());
        fs::remove_file(&a).await.unwrap();
        // It leads nowhere now.
        assert!(!fs::exists(&link).await.unwrap());
        same(fs::canonicalize(&link).await, std_fs::canonicalize(&link));
        same(fs::copy(&a, &b).await, std_fs::copy(&a, &b));
    });
}

fn a_file_changes_hands_with_std(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        let mut options = std_fs::OpenOptions::new();
        let options = options.read(true).write(true).create(true);
        let mut of_std = options.open(dir.join("a")).unwrap();
        of_std.write_all(b"abc").unwrap();
        let file = File::from_std(of_std).unwrap();
        assert_eq!(file.write_at("XY", 1).await.0.unwrap(), 2);
        let mut of_std = file.into_std().await;
        of_std.write_all(b"def").unwrap();
        assert_eq!(std_fs::read(dir.join("a")).unwrap(), b"aXYdef");
    });
}

fn an_offset_out_of_range_is_refused(rt: Runtime) {
    rt.block_on(async {
        let dir = Dir::new();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true);
        for flags in [0, libc::O_DIRECT] {
            let options = options.clone().custom_flags(flags).clone();
            let file = options.open(dir.join("a")).await.unwrap();
            for at in [u64::MAX, 1 << 63] {
                let (result, buf) = file.read_at(vec![0; 3], at).await;
                assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
                assert_eq!(buf.len(), 3);
                let (result, _) = file.write_at(vec![0; 3], at).await;
                assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }
    });
}

fn files_in_memory_and_on_disk_are_read_alike(rt: Runtime) {
    rt.block_on(async {
        let shm = Path::new("/dev/shm");
        let mut places = vec![Dir::new()];
        if shm.is_dir() {
            places.push(Dir::under(shm));
        }
        for dir in places {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true);
            let file = options.open(dir.join("a")).await.unwrap();
            for i in 0..20 {
                let data = pattern(i * 5000, 5000);
                let at = i as u64 * 5000;
                assert_eq!(file.write_at(data, at).await.0.unwrap(), 5000);
                let (result, data) = file.read_exact_at(vec![0; 5000], at).await;
                result.unwrap();
                check(i * 5000, &data);
            }
        }
    });
}
