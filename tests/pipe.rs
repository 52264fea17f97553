//! Pipes, FIFOs, and the streams of child processes.

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::bytes::{check, pattern};
use common::everywhere;
use common::futures::{give_up, join, poll_once};
use isochrome::net::pipe::{self, OpenOptions, Receiver, Sender};
use isochrome::{Color, Runtime, yield_now};

everywhere!(
    what_is_written_comes_out_in_order,
    the_end_comes_when_the_last_sender_goes,
    nobody_reads_is_an_error,
    a_full_pipe_makes_writers_wait,
    a_read_that_is_given_up_loses_no_byte,
    a_write_that_is_given_up_has_written_nothing,
    several_readers_share_a_pipe,
    a_child_reads_and_writes,
    an_end_given_away_blocks_again,
    only_the_right_end_of_a_pipe_is_taken_over,
    a_fifo_without_a_reader_says_so,
    a_fifo_without_a_writer_waits_for_the_first,
    a_fifo_opened_both_ways_never_ends,
    what_is_no_fifo_is_refused,
    tries_do_not_wait,
);

/// A FIFO, gone with this.
struct Fifo(PathBuf);

impl Fifo {
    async fn new() -> Fifo {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("isochrome-pipe-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        pipe::create_fifo(&path, 0o600).await.unwrap();
        Fifo(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn expect(receiver: &Receiver, from: usize, to: usize) {
    let mut place = from;
    let mut buf = [0; 10_000];
    while place < to {
        let n = receiver.read(&mut buf).await.unwrap();
        assert!(n > 0, "ended at {place}");
        check(place, &buf[..n]);
        place += n;
    }
    assert_eq!(place, to);
}

async fn end(receiver: &Receiver) {
    assert_eq!(receiver.read(&mut [0; 10]).await.unwrap(), 0);
}

fn what_is_written_comes_out_in_order(rt: Runtime) {
    const SIZE: usize = 1 << 20;
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let writer = Color::new().spawn(async move {
            sender.write_all(&pattern(0, SIZE / 2)).await.unwrap();
            let (result, back) = sender.send_all(pattern(SIZE / 2, SIZE / 2)).await;
            result.unwrap();
            check(SIZE / 2, &back);
        });
        expect(&receiver, 0, SIZE).await;
        end(&receiver).await;
        writer.await.unwrap();
    });
}

fn the_end_comes_when_the_last_sender_goes(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        sender.write_all(b"rest").await.unwrap();
        let waits = async {
            let (n, data) = receiver.read_owned(vec![0; 10]).await;
            assert_eq!(&data[..n.unwrap()], b"rest");
            end(&receiver).await;
            end(&receiver).await;
        };
        let goes = async {
            yield_now().await;
            drop(sender);
        };
        join(waits, goes).await;
    });
}

fn nobody_reads_is_an_error(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        // One that waits for room, and one that comes later.
        let fill = vec![0; sender.capacity().unwrap()];
        sender.write_all(&fill).await.unwrap();
        let waits = async {
            let error = sender.write(b"more").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        };
        let goes = async {
            yield_now().await;
            yield_now().await;
            drop(receiver);
        };
        join(waits, goes).await;
        let error = sender.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

fn a_full_pipe_makes_writers_wait(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let size = sender.set_capacity(4096).unwrap();
        assert_eq!(size, receiver.capacity().unwrap());
        sender.write_all(&pattern(0, size)).await.unwrap();
        let more = pattern(size, size);
        let mut write = Box::pin(sender.write(&more));
        for _ in 0..5 {
            assert!(poll_once(&mut write).await.is_pending());
            yield_now().await;
        }
        expect(&receiver, 0, size).await;
        assert_eq!(write.await.unwrap(), size);
        expect(&receiver, size, 2 * size).await;
    });
}

fn a_read_that_is_given_up_loses_no_byte(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        for i in 0..200 {
            assert!(give_up(receiver.read(&mut [0; 3])).await.is_pending());
            if i % 2 == 0 {
                yield_now().await;
            }
            sender.write_all(&pattern(i * 10, 10)).await.unwrap();
            if i % 3 == 0 {
                yield_now().await;
            }
            expect(&receiver, i * 10, (i + 1) * 10).await;
        }
    });
}

fn a_write_that_is_given_up_has_written_nothing(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let size = sender.set_capacity(4096).unwrap();
        let mut place = 0;
        for i in 0..50 {
            sender.write_all(&pattern(place, size)).await.unwrap();
            assert!(give_up(sender.write(b"never")).await.is_pending());
            if i % 2 == 0 {
                yield_now().await;
            }
            expect(&receiver, place, place + size).await;
            place += size;
        }
        drop(sender);
        end(&receiver).await;
    });
}

fn several_readers_share_a_pipe(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let receiver = std::sync::Arc::new(receiver);
        let readers: Vec<_> = (0..8)
            .map(|_| {
                let receiver = receiver.clone();
                Color::new().spawn(async move {
                    let mut sum = 0;
                    loop {
                        match receiver.read(&mut [0; 7]).await.unwrap() {
                            0 => return sum,
                            n => sum += n,
                        }
                    }
                })
            })
            .collect();
        for _ in 0..1000 {
            sender.write_all(b"twelve bytes").await.unwrap();
        }
        drop(sender);
        let mut sum = 0;
        for reader in readers {
            sum += reader.await.unwrap();
        }
        assert_eq!(sum, 12_000);
    });
}

fn a_child_reads_and_writes(rt: Runtime) {
    const SIZE: usize = 300_000;
    rt.block_on(async {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = Sender::from_fd(child.stdin.take().unwrap()).unwrap();
        let from = Receiver::from_fd(child.stdout.take().unwrap()).unwrap();
        let writes = async move { to.write_all(&pattern(0, SIZE)).await.unwrap() };
        let reads = async {
            expect(&from, 0, SIZE).await;
            end(&from).await;
        };
        join(writes, reads).await;
        assert!(child.wait().unwrap().success());
    });
}

fn an_end_given_away_blocks_again(rt: Runtime) {
    rt.block_on(async {
        // To a child, which would end with an error if it saw EAGAIN.
        let (sender, receiver) = pipe::anonymous().unwrap();
        let (back_sender, back) = pipe::anonymous().unwrap();
        assert!(give_up(receiver.read(&mut [0])).await.is_pending());
        let stdin = receiver.into_blocking_fd().await.unwrap();
        let stdout = back_sender.into_blocking_fd().await.unwrap();
        let mut command = Command::new("cat");
        command.stdin(stdin).stdout(stdout);
        let mut child = command.spawn().unwrap();
        // Its ends of ours.
        drop(command);
        yield_now().await;
        sender.write_all(&pattern(0, 1000)).await.unwrap();
        expect(&back, 0, 1000).await;
        drop(sender);
        end(&back).await;
        assert!(child.wait().unwrap().success());
        // To a thread, as std's file.
        let (sender, receiver) = pipe::anonymous().unwrap();
        let mut file = File::from(receiver.into_blocking_fd().await.unwrap());
        let reads = isochrome::spawn_blocking(move || {
            let mut all = Vec::new();
            file.read_to_end(&mut all).unwrap();
            all
        });
        yield_now().await;
        sender.write_all(b"abc").await.unwrap();
        drop(sender);
        assert_eq!(reads.await.unwrap(), b"abc");
    });
}

fn only_the_right_end_of_a_pipe_is_taken_over(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let reading = receiver.into_blocking_fd().await.unwrap();
        let writing = sender.into_blocking_fd().await.unwrap();
        let error = Sender::from_fd(reading).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("writing"), "{error}");
        let error = Receiver::from_fd(writing).unwrap_err();
        assert!(error.to_string().contains("reading"), "{error}");
        let socket = UnixStream::pair().unwrap().0;
        let error = Receiver::from_fd(OwnedFd::from(socket)).unwrap_err();
        assert!(error.to_string().contains("no pipe"), "{error}");
    });
}

fn a_fifo_without_a_reader_says_so(rt: Runtime) {
    rt.block_on(async {
        let fifo = Fifo::new().await;
        let error = OpenOptions::new().open_sender(&fifo.0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        let text = error.to_string();
        assert!(
            text.contains("no reader") && text.contains("ENXIO"),
            "{text}"
        );
        let receiver = OpenOptions::new().open_receiver(&fifo.0).await.unwrap();
        let sender = OpenOptions::new().open_sender(&fifo.0).await.unwrap();
        sender.write_all(b"abc").await.unwrap();
        drop(receiver);
        let error = sender.write_all(b"abc").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        // Made once.
        let error = pipe::create_fifo(&fifo.0, 0o600).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    });
}

fn a_fifo_without_a_writer_waits_for_the_first(rt: Runtime) {
    rt.block_on(async {
        let fifo = Fifo::new().await;
        let receiver = OpenOptions::new().open_receiver(&fifo.0).await.unwrap();
        for _ in 0..5 {
            let polled = give_up(receiver.read(&mut [0; 3])).await;
            assert!(polled.is_pending(), "no end before there was a beginning");
            yield_now().await;
        }
        let reads = async {
            expect(&receiver, 0, 5000).await;
            end(&receiver).await;
        };
        let writes = async {
            yield_now().await;
            let sender = OpenOptions::new().open_sender(&fifo.0).await.unwrap();
            yield_now().await;
            sender.write_all(&pattern(0, 5000)).await.unwrap();
        };
        join(reads, writes).await;
        // One that comes and goes without a word is an end too; and after the
        // end another may come.
        let fresh = OpenOptions::new().open_receiver(&fifo.0).await.unwrap();
        let comes_and_goes = async {
            yield_now().await;
            drop(OpenOptions::new().open_sender(&fifo.0).await.unwrap());
        };
        join(end(&fresh), comes_and_goes).await;
        let sender = OpenOptions::new().open_sender(&fifo.0).await.unwrap();
        sender.write_all(&pattern(0, 10)).await.unwrap();
        expect(&fresh, 0, 10).await;
    });
}

fn a_fifo_opened_both_ways_never_ends(rt: Runtime) {
    rt.block_on(async {
        let fifo = Fifo::new().await;
        let mut both = OpenOptions::new();
        let both = both.read_write(true);
        let sender = both.open_sender(&fifo.0).await.unwrap();
        sender.write_all(&pattern(0, 10)).await.unwrap();
        let receiver = both.open_receiver(&fifo.0).await.unwrap();
        expect(&receiver, 0, 10).await;
        drop(sender);
        for i in 1..5 {
            assert!(give_up(receiver.read(&mut [0; 3])).await.is_pending());
            let mut options = File::options();
            let options = options.write(true).custom_flags(libc::O_NONBLOCK);
            let mut of_std = options.open(&fifo.0).unwrap();
            of_std.write_all(&pattern(i * 10, 10)).unwrap();
            drop(of_std);
            expect(&receiver, i * 10, i * 10 + 10).await;
        }
    });
}

fn what_is_no_fifo_is_refused(rt: Runtime) {
    rt.block_on(async {
        let options = OpenOptions::new();
        let error = options.open_receiver("/dev/null").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = options.open_receiver("/missing/fifo").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

fn tries_do_not_wait(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        assert!(receiver.as_raw_fd() != sender.as_raw_fd());
        let error = receiver.try_read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(sender.try_write(b"abc").unwrap(), 3);
        let mut buf = [0; 2];
        assert_eq!(receiver.try_read(&mut buf).unwrap(), 2);
        let fill = vec![0; sender.capacity().unwrap()];
        while sender.try_write(&fill).is_ok() {}
        let error = sender.try_write(&fill).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    });
}
