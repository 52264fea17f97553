//! Bytes from files to connections, and from connections to each other.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::bytes::{check, pattern};
use common::futures::{give_up, join, poll_once};
use common::{descriptors, eventually_async, everywhere, pair, shrink, std_pair};
use isochrome::fs::{self, File};
use isochrome::net::{TcpStream, copy, copy_bidirectional, sendfile};
use isochrome::{Color, Runtime, spawn_blocking, yield_now};

everywhere!(
    a_file_is_sent_whole_or_in_part,
    what_cannot_be_spliced_is_sent_by_a_buffer,
    an_offset_out_of_range_is_refused,
    sending_to_who_is_gone_is_an_error,
    a_file_given_up_midway_leaves_a_prefix_and_no_descriptor,
    both_directions_are_copied_and_each_end_is_passed_on,
    an_error_of_one_direction_ends_both,
    copying_that_is_given_up_leaves_both_usable,
);

struct Data(PathBuf);

impl Data {
    async fn new(len: usize) -> Data {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("isochrome-transfer-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, pattern(0, len)).await.unwrap();
        Data(path)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Reads to the end on a thread.
fn drained(mut far: std::net::TcpStream) -> isochrome::JoinHandle<Vec<u8>> {
    spawn_blocking(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all
    })
}

fn a_file_is_sent_whole_or_in_part(rt: Runtime) {
    const SIZE: usize = 700_000;
    rt.block_on(async {
        let data = Data::new(SIZE).await;
        let file = File::open(&data.0).await.unwrap();
        let cases = [
            (0, SIZE as u64),
            (0, u64::MAX),
            (12_345, 10),
            (12_345, 400_000),
            (SIZE as u64 - 100_000, 1 << 40),
            (SIZE as u64, 100),
            (SIZE as u64, 1 << 20),
            (7, 0),
        ];
        for (offset, len) in cases {
            let (near, far) = std_pair().await;
            shrink(&near);
            let far = drained(far);
            near.send_all("before").await.0.unwrap();
            let sent = sendfile(&file, offset, len, &near).await.unwrap();
            near.send_all("after").await.0.unwrap();
            drop(near);
            let all = far.await.unwrap();
            assert_eq!(sent, len.min(SIZE as u64 - offset));
            assert_eq!(all.len() as u64, sent + 11);
            let (before, rest) = all.split_at(6);
            let (middle, after) = rest.split_at(sent as usize);
            assert_eq!((before, after), (&b"before"[..], &b"after"[..]));
            check(offset as usize, middle);
        }
    });
}

fn what_cannot_be_spliced_is_sent_by_a_buffer(rt: Runtime) {
    rt.block_on(async {
        // sysfs and procfs differ in this from kernel to kernel: both ways
        // give the bytes.
        let path = "/proc/self/limits";
        let file = File::open(path).await.unwrap();
        let (near, far) = std_pair().await;
        let far = drained(far);
        let sent = sendfile(&file, 0, u64::MAX, &near).await.unwrap();
        drop(near);
        let all = far.await.unwrap();
        assert_eq!(all.len() as u64, sent);
        assert_eq!(all, std::fs::read(path).unwrap());
    });
}

/// -1 is "where the file stands" to the kernel, from where 200,000 bytes were
/// sent.
fn an_offset_out_of_range_is_refused(rt: Runtime) {
    rt.block_on(async {
        let data = Data::new(200_000).await;
        let file = File::open(&data.0).await.unwrap();
        let (near, far) = std_pair().await;
        let far = drained(far);
        for offset in [u64::MAX, 1 << 63] {
            for len in [1000, 200_000] {
                let error = sendfile(&file, offset, len, &near).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            }
        }
        drop(near);
        assert_eq!(far.await.unwrap(), []);
    });
}

fn sending_to_who_is_gone_is_an_error(rt: Runtime) {
    rt.block_on(async {
        let data = Data::new(8 << 20).await;
        let file = File::open(&data.0).await.unwrap();
        let (near, mut far) = std_pair().await;
        shrink(&near);
        let goes = spawn_blocking(move || {
            far.read_exact(&mut [0; 1000]).unwrap();
        });
        let error = sendfile(&file, 0, 8 << 20, &near).await.unwrap_err();
        goes.await.unwrap();
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    });
}

fn a_file_given_up_midway_leaves_a_prefix_and_no_descriptor(rt: Runtime) {
    rt.block_on(async {
        let data = Data::new(8 << 20).await;
        let before = descriptors();
        for turns in [0, 1, 5, 50] {
            let file = File::open(&data.0).await.unwrap();
            let (near, far) = std_pair().await;
            shrink(&near);
            let mut sending = Box::pin(sendfile(&file, 0, 8 << 20, &near));
            for _ in 0..turns {
                assert!(poll_once(&mut sending).await.is_pending(), "nobody reads");
                yield_now().await;
            }
            drop(sending);
            drop(near);
            let all = drained(far).await.unwrap();
            assert!(all.len() < 8 << 20);
            check(0, &all);
        }
        eventually_async("closed", || descriptors().len() == before.len()).await;
    });
}

fn both_directions_are_copied_and_each_end_is_passed_on(rt: Runtime) {
    const THERE: usize = 500_000;
    const BACK: usize = 800_000;
    rt.block_on(async {
        // near - (a b) - far
        let (near, a) = pair().await;
        let (b, far) = pair().await;
        let proxy = Color::new().spawn(async move { copy_bidirectional(&a, &b).await.unwrap() });
        let client = async {
            near.send_all(pattern(0, THERE)).await.0.unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            receive(&near, 0, BACK).await;
        };
        let server = async {
            // The end has come through while this direction is open.
            receive(&far, 0, THERE).await;
            far.send_all(pattern(0, BACK)).await.0.unwrap();
            far.shutdown(Shutdown::Write).unwrap();
        };
        join(client, server).await;
        assert_eq!(proxy.await.unwrap(), (THERE as u64, BACK as u64));
        // One direction.
        let (near, a) = pair().await;
        let (b, far) = pair().await;
        near.send_all("abc").await.0.unwrap();
        drop(near);
        assert_eq!(copy(&a, &b).await.unwrap(), 3);
        b.send_all("def").await.0.unwrap();
        drop(b);
        let mut all = Vec::new();
        loop {
            let data = far.recv().await.unwrap();
            if data.is_empty() {
                break;
            }
            all.extend_from_slice(&data);
        }
        assert_eq!(all, b"abcdef");
    });
}

/// All bytes, and then the end.
async fn receive(stream: &TcpStream, from: usize, to: usize) {
    let mut place = from;
    loop {
        let data = stream.recv().await.unwrap();
        if data.is_empty() {
            break;
        }
        check(place, &data);
        place += data.len();
    }
    assert_eq!(place, to);
}

fn an_error_of_one_direction_ends_both(rt: Runtime) {
    rt.block_on(async {
        let (near, a) = std_pair().await;
        let (b, mut far) = std_pair().await;
        // `near` is ours, `a` is std's: the proxy is between `near` and `b`.
        let proxied = copy_bidirectional(&near, &b);
        let resets = async {
            yield_now().await;
            far.write_all(b"abc").unwrap();
            let a = socket2::Socket::from(a);
            a.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(a);
        };
        let (result, ()) = join(proxied, resets).await;
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&result.unwrap_err().kind()));
    });
}

fn copying_that_is_given_up_leaves_both_usable(rt: Runtime) {
    rt.block_on(async {
        let (near, a) = pair().await;
        let (b, far) = pair().await;
        for i in 0..20 {
            // Nothing has come, so nothing is lost.
            assert!(give_up(copy_bidirectional(&a, &b)).await.is_pending());
            if i % 2 == 0 {
                yield_now().await;
            }
            near.send_all(vec![i]).await.0.unwrap();
            assert_eq!(*a.recv().await.unwrap(), [i]);
            far.send_all(vec![i]).await.0.unwrap();
            assert_eq!(*b.recv().await.unwrap(), [i]);
        }
    });
}
