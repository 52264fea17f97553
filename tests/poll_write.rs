//! The poll forms of sending, which borrow what they send.

mod common;

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, IoSlice, Read};
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;

use common::bytes::{check, pattern};
use common::futures::{give_up, join};
use common::{everywhere, on_both_drivers, pair, shrink, std_pair};
use isochrome::net::TcpStream;
use isochrome::{Color, Runtime};

everywhere!(
    a_blocked_writer_is_woken_and_no_byte_is_lost,
    a_wait_that_was_given_up_is_in_nobodys_way,
    slices_are_sent_in_their_order,
    very_many_slices_are_sent_in_part,
    slices_are_tried_until_there_is_no_room,
    nothing_is_nothing,
    writing_to_the_gone_is_an_error_and_no_signal,
    a_writer_that_never_blocks_yields_all_the_same,
    the_end_comes_after_what_was_written,
);

on_both_drivers!(sixty_four_mebibytes, writers_on_many_connections);

async fn write(stream: &TcpStream, buf: &[u8]) -> std::io::Result<usize> {
    poll_fn(|cx| stream.poll_write(cx, buf)).await
}

async fn write_all(stream: &TcpStream, mut buf: &[u8]) {
    while !buf.is_empty() {
        let n = write(stream, buf).await.unwrap();
        buf = &buf[n..];
    }
}

/// Writes the pattern until there is no room, and says how much that was.
async fn fill(stream: &TcpStream) -> usize {
    let mut place = 0;
    while let Poll::Ready(n) = give_up(write(stream, &pattern(place, 5000))).await {
        place += n.unwrap();
    }
    place
}

/// Receives `len` bytes of the pattern from `place` on.
async fn take(stream: &TcpStream, mut place: usize, len: usize) {
    let end = place + len;
    let mut buf = vec![0; 64 << 10];
    while place < end {
        let most = buf.len().min(end - place);
        let n = stream.read(&mut buf[..most]).await.unwrap();
        assert_ne!(n, 0, "the end at {place} of {end}");
        check(place, &buf[..n]);
        place += n;
    }
}

fn a_blocked_writer_is_woken_and_no_byte_is_lost(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        let place = fill(&near).await;
        let writer = Color::new().spawn(async move {
            write_all(&near, &pattern(place, 256 << 10)).await;
            near
        });
        take(&far, 0, place + (256 << 10)).await;
        // And again, with a word of room that is old by now.
        let near = writer.await.unwrap();
        let place = fill(&near).await;
        let rest = async { write_all(&near, &pattern(place, 100_000)).await };
        join(rest, take(&far, 0, place + 100_000)).await;
    });
}

fn a_wait_that_was_given_up_is_in_nobodys_way(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        shrink(&near);
        for _ in 0..3 {
            let place = fill(&near).await;
            let owned = async { near.send_all(pattern(place, 200_000)).await.0.unwrap() };
            join(owned, take(&far, 0, place + 200_000)).await;
        }
    });
}

fn slices_are_sent_in_their_order(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        for sizes in [&[1, 2, 3][..], &[0, 0, 7, 0, 4096, 1], &[20_000, 10]] {
            let all = pattern(0, sizes.iter().sum());
            let mut rest = &all[..];
            let mut slices = Vec::new();
            for &size in sizes {
                let (slice, behind) = rest.split_at(size);
                slices.push(IoSlice::new(slice));
                rest = behind;
            }
            let n = poll_fn(|cx| near.poll_write_vectored(cx, &slices)).await;
            assert_eq!(n.unwrap(), all.len());
            take(&far, 0, all.len()).await;
        }
    });
}

fn very_many_slices_are_sent_in_part(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let all = pattern(0, 3000);
        // The kernel takes 1,024 slices, and empty ones count.
        let empty = std::iter::repeat_n(&[][..], 5000);
        let slices: Vec<_> = empty.chain(all.chunks(1)).map(IoSlice::new).collect();
        let mut sent = 0;
        while sent < all.len() {
            let rest = &slices[if sent == 0 { 0 } else { 5000 + sent }..];
            let n = poll_fn(|cx| near.poll_write_vectored(cx, rest)).await;
            let n = n.unwrap();
            assert_ne!(n, 0);
            sent += n;
        }
        take(&far, 0, sent).await;
    });
}

fn slices_are_tried_until_there_is_no_room(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let all = pattern(0, 3000);
        let empty = std::iter::repeat_n(&[][..], 5000);
        let slices: Vec<_> = empty.chain(all.chunks(1)).map(IoSlice::new).collect();
        assert_eq!(near.try_write_vectored(&slices).unwrap(), 1024);
        take(&far, 0, 1024).await;
        assert_eq!(near.try_write_vectored(&slices[..5000]).unwrap(), 0);
        let error = loop {
            match near.try_write_vectored(&[IoSlice::new(&all), IoSlice::new(&all)]) {
                Ok(n) => assert_ne!(n, 0),
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        // Which is not asked about nothing.
        assert_eq!(near.try_write_vectored(&[]).unwrap(), 0);
    });
}

fn nothing_is_nothing(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        drop(far);
        assert_eq!(write(&near, b"").await.unwrap(), 0);
        for slices in [&[][..], &[IoSlice::new(b""), IoSlice::new(b"")]] {
            let n = poll_fn(|cx| near.poll_write_vectored(cx, slices)).await;
            assert_eq!(n.unwrap(), 0);
        }
    });
}

fn writing_to_the_gone_is_an_error_and_no_signal(rt: Runtime) {
    rt.block_on(async {
        // One that writes when the other is gone, and one that waits then.
        for blocked in [false, true] {
            let (near, far) = pair().await;
            if blocked {
                shrink(&near);
                fill(&near).await;
            }
            let error = async {
                loop {
                    if let Err(e) = write(&near, b"anybody?").await {
                        break e.kind();
                    }
                }
            };
            let (kind, ()) = join(error, async { drop(far) }).await;
            // What was not read is a reset.
            let ends = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(ends.contains(&kind), "{kind:?}");
            near.shutdown(Shutdown::Both).unwrap_err();
            let kind = write(&near, b"still?").await.unwrap_err().kind();
            assert_eq!(kind, ErrorKind::BrokenPipe);
        }
    });
}

fn a_writer_that_never_blocks_yields_all_the_same(rt: Runtime) {
    const WRITES: usize = 1300;
    /// Of operations in one poll, at most.
    const BUDGET: usize = 128;
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let mut polls = 0;
        {
            let mut all = pin!(async {
                for _ in 0..WRITES {
                    assert_eq!(write(&near, b"x").await.unwrap(), 1);
                }
            });
            poll_fn(|cx| {
                polls += 1;
                all.as_mut().poll(cx)
            })
            .await;
        }
        assert!(polls >= WRITES / BUDGET, "{polls} polls");
        drop(near);
        assert_eq!(reader.join().unwrap(), WRITES);
    });
}

fn the_end_comes_after_what_was_written(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        write_all(&near, &pattern(0, 50_000)).await;
        near.shutdown(Shutdown::Write).unwrap();
        take(&far, 0, 50_000).await;
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    });
}

fn sixty_four_mebibytes(rt: Runtime) {
    const LEN: usize = 64 << 20;
    rt.block_on(async {
        let (near, far) = pair().await;
        let writer = Color::new().spawn(async move {
            let mut place = 0;
            while place < LEN {
                let bytes = pattern(place, 200_000.min(LEN - place));
                if place % 3 == 0 {
                    let (a, b) = bytes.split_at(bytes.len() / 3);
                    let slices = [IoSlice::new(a), IoSlice::new(b)];
                    let n = poll_fn(|cx| near.poll_write_vectored(cx, &slices)).await;
                    place += n.unwrap();
                } else {
                    place += write(&near, &bytes).await.unwrap();
                }
            }
        });
        take(&far, 0, LEN).await;
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        writer.await.unwrap();
    });
}

fn writers_on_many_connections(rt: Runtime) {
    const LEN: usize = 500_000;
    rt.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..100 {
            let (near, far) = pair().await;
            shrink(&near);
            tasks.push(Color::new().spawn(async move {
                write_all(&near, &pattern(0, LEN)).await;
            }));
            tasks.push(Color::new().spawn(async move { take(&far, 0, LEN).await }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}
