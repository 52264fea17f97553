//! The poll-style traits of futures-io and of tokio, through what those crates
//! make of them.

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::os::unix::net::UnixStream;

use common::bytes::{check, pattern};
use common::futures::{give_up, join};
use common::{everywhere, pair, shrink};
use isochrome::net::{Async, TcpStream, pipe};
use isochrome::{Runtime, spawn};

/// More than the buffers of a connection hold.
const LEN: usize = 4 << 20;

/// Of these, one after the other goes there and comes back.
const PIECE: usize = 50_000;

/// Sends the pattern through one end and back through the other, with every
/// direction blocked at times.
macro_rules! there_and_back {
    ($name:ident, $read:path, $write:path, $end:ident) => {
        pub(super) async fn $name<S>(near: S, far: S)
        where
            S: $read + $write + Unpin + Send + 'static,
        {
            let echo = spawn(async move {
                let (mut far, mut at) = (far, 0);
                // All of a piece before any of it goes back: the other end
                // reads when it has written, and the sockets may hold less.
                while at < LEN {
                    let len = (LEN - at).min(PIECE);
                    let mut buf = vec![0; len];
                    let mut got = 0;
                    while got < len {
                        let n = far.read(&mut buf[got..]).await.unwrap();
                        assert_ne!(n, 0, "an early end");
                        got += n;
                    }
                    far.write_all(&buf).await.unwrap();
                    at += len;
                }
                assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
                far.$end().await.unwrap();
            });
            let (mut near, mut at) = (near, 0);
            let mut buf = vec![0; 7_777];
            while at < LEN {
                let len = (LEN - at).min(PIECE);
                near.write_all(&pattern(at, len)).await.unwrap();
                let end = at + len;
                while at < end {
                    let n = near.read(&mut buf).await.unwrap();
                    assert_ne!(n, 0, "an early end");
                    check(at, &buf[..n]);
                    at += n;
                }
            }
            near.flush().await.unwrap();
            near.$end().await.unwrap();
            assert_eq!(near.read(&mut buf).await.unwrap(), 0);
            // A second time does no harm.
            near.$end().await.unwrap();
            echo.await.unwrap();
        }
    };
}

mod futures {
    pub(super) use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};

    use super::*;

    there_and_back!(there_and_back, AsyncRead, AsyncWrite, close);
}

mod tokio {
    pub(super) use ::tokio::io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional,
    };

    use super::*;

    there_and_back!(there_and_back, AsyncRead, AsyncWrite, shutdown);
}

fn bytes_come_back_by_futures_io(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        for end in [&near, &far] {
            shrink(end);
            end.set_nodelay(true).unwrap();
        }
        futures::there_and_back(near, far).await;
    });
}

fn bytes_come_back_by_tokio(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        for end in [&near, &far] {
            shrink(end);
            end.set_nodelay(true).unwrap();
        }
        tokio::there_and_back(near, far).await;
    });
}

fn custom() -> (Async<Closing>, Async<Closing>) {
    let (near, far) = UnixStream::pair().unwrap();
    shrink(&near);
    let async_ = |stream| Async::new(Closing(stream)).unwrap();
    (async_(near), async_(far))
}

/// A stream of the user's own, which ends its writing when it is flushed after
/// the last byte: what an [`Async`] cannot know.
struct Closing(UnixStream);

impl std::os::fd::AsFd for Closing {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::io::Read for &Closing {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        (&self.0).read(buf)
    }
}

impl std::io::Write for &Closing {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        (&self.0).write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Write)
    }
}

fn a_descriptor_of_ones_own_is_a_stream_too(rt: Runtime) {
    rt.block_on(async {
        let (mut near, mut far) = custom();
        let sent = pattern(0, LEN);
        let write = async {
            futures::AsyncWriteExt::write_all(&mut near, &sent)
                .await
                .unwrap();
            futures::AsyncWriteExt::close(&mut near).await.unwrap();
        };
        let mut got = Vec::new();
        let read = tokio::AsyncReadExt::read_to_end(&mut far, &mut got);
        let (_, read) = join(write, read).await;
        assert_eq!(read.unwrap(), LEN);
        check(0, &got);
    });
}

fn halves_read_and_write(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let (mut read, mut write) = near.into_split();
        let echo = spawn(async move {
            // By reference, as one does in two tasks.
            futures::copy(&far, &mut &far).await.unwrap()
        });
        let reader = spawn(async move {
            let mut got = Vec::new();
            tokio::AsyncReadExt::read_to_end(&mut read, &mut got)
                .await
                .unwrap();
            got
        });
        tokio::AsyncWriteExt::write_all(&mut write, &pattern(0, LEN))
            .await
            .unwrap();
        tokio::AsyncWriteExt::shutdown(&mut write).await.unwrap();
        assert_eq!(echo.await.unwrap(), LEN as u64);
        let got = reader.await.unwrap();
        assert_eq!(got.len(), LEN);
        check(0, &got);
    });
}

fn slices_are_forwarded(rt: Runtime) {
    rt.block_on(async {
        let (mut near, far) = pair().await;
        let bufs = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        let n = tokio::AsyncWriteExt::write_vectored(&mut near, &bufs)
            .await
            .unwrap();
        assert_eq!(n, 5, "in one call");
        assert!(tokio::AsyncWrite::is_write_vectored(&near));
        let n = futures::AsyncWriteExt::write_vectored(&mut near, &bufs)
            .await
            .unwrap();
        assert_eq!(n, 5, "in one call");
        let mut got = [0; 10];
        tokio::AsyncReadExt::read_exact(&mut { far }, &mut got)
            .await
            .unwrap();
        assert_eq!(&got, b"abcdeabcde");
    });
}

/// Sends the pattern through a pipe, and reads it whole; dropping is the end.
macro_rules! through_a_pipe {
    ($traits:ident, $end:ident) => {
        async {
            let (mut sender, mut receiver) = pipe::anonymous().unwrap();
            let writer = spawn(async move {
                $traits::AsyncWriteExt::write_all(&mut sender, &pattern(0, LEN))
                    .await
                    .unwrap();
                $traits::AsyncWriteExt::flush(&mut sender).await.unwrap();
                $traits::AsyncWriteExt::$end(&mut sender).await.unwrap();
                // That told nobody: only the drop does.
                $traits::AsyncWriteExt::write_all(&mut &sender, &pattern(LEN, 5))
                    .await
                    .unwrap();
            });
            let mut got = Vec::new();
            $traits::AsyncReadExt::read_to_end(&mut receiver, &mut got)
                .await
                .unwrap();
            assert_eq!(got.len(), LEN + 5);
            check(0, &got);
            assert_eq!(
                $traits::AsyncReadExt::read(&mut &receiver, &mut [0; 9])
                    .await
                    .unwrap(),
                0
            );
            writer.await.unwrap();
        }
    };
}

fn pipes_read_and_write(rt: Runtime) {
    rt.block_on(async {
        through_a_pipe!(futures, close).await;
        through_a_pipe!(tokio, shutdown).await;
        let (mut sender, mut receiver) = pipe::anonymous().unwrap();
        let bufs = [IoSlice::new(b""), IoSlice::new(b"ab"), IoSlice::new(b"cde")];
        let n = tokio::AsyncWriteExt::write_vectored(&mut sender, &bufs).await;
        assert_eq!(n.unwrap(), 5, "in one call");
        assert!(tokio::AsyncWrite::is_write_vectored(&sender));
        let (mut none, mut a, mut b) = ([], [0; 4], [0; 4]);
        let mut bufs = [&mut none[..], &mut a, &mut b].map(IoSliceMut::new);
        let n = futures::AsyncReadExt::read_vectored(&mut receiver, &mut bufs).await;
        assert_eq!(n.unwrap(), 5, "in one call");
        assert_eq!((&a, &b), (b"abcd", b"e\0\0\0"));
        let n = futures::AsyncReadExt::read_vectored(&mut receiver, &mut []).await;
        assert_eq!(n.unwrap(), 0);
        drop(receiver);
        let gone = futures::AsyncWriteExt::write_all(&mut sender, b"x").await;
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

fn what_was_fed_comes_before_what_is_written(rt: Runtime) {
    const LEN: usize = 300_000;
    rt.block_on(async {
        for which in 0..2 {
            let (mut near, far) = pair().await;
            shrink(&near);
            let writer = async move {
                near.feed(pattern(0, LEN)).await.unwrap();
                let bytes = pattern(LEN, 1000);
                if which == 0 {
                    use futures::AsyncWriteExt as Ext;
                    Ext::write_all(&mut near, &bytes).await.unwrap();
                    near.feed(pattern(LEN + 1000, LEN)).await.unwrap();
                    Ext::flush(&mut near).await.unwrap();
                    near.feed(pattern(2 * LEN + 1000, LEN)).await.unwrap();
                    Ext::close(&mut near).await.unwrap();
                } else {
                    use tokio::AsyncWriteExt as Ext;
                    Ext::write_all(&mut near, &bytes).await.unwrap();
                    near.feed(pattern(LEN + 1000, LEN)).await.unwrap();
                    Ext::flush(&mut near).await.unwrap();
                    near.feed(pattern(2 * LEN + 1000, LEN)).await.unwrap();
                    Ext::shutdown(&mut near).await.unwrap();
                }
                near
            };
            let reader = async {
                let mut at = 0;
                loop {
                    let data = far.recv().await.unwrap();
                    if data.is_empty() {
                        return at;
                    }
                    check(at, &data);
                    at += data.len();
                }
            };
            let (near, at) = join(writer, reader).await;
            assert_eq!(at, 3 * LEN + 1000);
            drop(near);
        }
    });
}

/// Whatever fills its slices is filled by one call: the default of the trait
/// fills only the first.
fn reads_fill_several_slices(rt: Runtime) {
    async fn fill<S: futures::AsyncRead + Unpin>(mut stream: S) {
        let (mut a, mut b) = ([0; 2], [0; 9]);
        let mut bufs = [&mut a[..], &mut b].map(IoSliceMut::new);
        let n = futures::AsyncReadExt::read_vectored(&mut stream, &mut bufs).await;
        assert_eq!(n.unwrap(), 5);
        assert_eq!((&a, &b[..3]), (b"ab", &b"cde"[..]));
    }
    rt.block_on(async {
        let (mut near, mut far) = pair().await;
        for _ in 0..2 {
            far.send_all("abcde").await.0.unwrap();
            fill(&near).await;
            far.send_all("abcde").await.0.unwrap();
            fill(near.split().0).await;
        }
        let (read, mut write) = near.into_split();
        far.send_all("abcde").await.0.unwrap();
        fill(read).await;
        // Local streams too, and borrowed halves write.
        let (mut near, mut far_local) = isochrome::net::UnixStream::pair().unwrap();
        let (_, mut half) = far_local.split();
        tokio::AsyncWriteExt::write_all(&mut half, b"abcde")
            .await
            .unwrap();
        fill(near.split().0).await;
        let mut got = [0; 2];
        futures::AsyncWriteExt::write_all(&mut write, b"ok")
            .await
            .unwrap();
        tokio::AsyncReadExt::read_exact(&mut far, &mut got)
            .await
            .unwrap();
        assert_eq!(&got, b"ok");
    });
}

fn local_streams_come_back_by_both(rt: Runtime) {
    rt.block_on(async {
        for by_tokio in [true, false] {
            let (near, far) = isochrome::net::UnixStream::pair().unwrap();
            shrink(&near);
            shrink(&far);
            match by_tokio {
                true => tokio::there_and_back(near, far).await,
                false => futures::there_and_back(near, far).await,
            }
        }
    });
}

fn what_reads_give_up_is_not_lost(rt: Runtime) {
    rt.block_on(async {
        let (mut near, far) = pair().await;
        let sent = pattern(0, 100_000);
        let mut got = Vec::new();
        for piece in sent.chunks(1_000) {
            let mut buf = [0; 600];
            // On one driver it asks the kernel now, and what the kernel
            // brings after it has given up stays with the socket.
            let given_up = give_up(tokio::AsyncReadExt::read(&mut near, &mut buf)).await;
            assert!(given_up.is_pending());
            far.send_all(piece.to_vec()).await.0.unwrap();
            let end = got.len() + piece.len();
            while got.len() < end {
                let n = futures::AsyncReadExt::read(&mut near, &mut buf)
                    .await
                    .unwrap();
                got.extend_from_slice(&buf[..n]);
            }
        }
        assert_eq!(got, sent);
    });
}

fn tokio_copies_between_connections(rt: Runtime) {
    rt.block_on(async {
        let (client, mut proxy_near) = pair().await;
        let (mut proxy_far, server) = pair().await;
        let proxy = spawn(async move {
            tokio::copy_bidirectional(&mut proxy_near, &mut proxy_far)
                .await
                .unwrap()
        });
        let answer = |stream: TcpStream, from: usize, len: usize| async move {
            let mut got = Vec::new();
            let write = async {
                let mut stream = &stream;
                tokio::AsyncWriteExt::write_all(&mut stream, &pattern(from, len))
                    .await
                    .unwrap();
                tokio::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
            };
            let read = async {
                let mut stream = &stream;
                tokio::AsyncReadExt::read_to_end(&mut stream, &mut got)
                    .await
                    .unwrap();
            };
            join(write, read).await;
            got
        };
        let server = spawn(answer(server, 3, LEN / 2));
        let got = answer(client, 0, LEN).await;
        assert_eq!(got.len(), LEN / 2);
        check(3, &got);
        let got = server.await.unwrap();
        assert_eq!(got.len(), LEN);
        check(0, &got);
        assert_eq!(proxy.await.unwrap(), (LEN as u64, LEN as u64 / 2));
    });
}

everywhere!(
    bytes_come_back_by_futures_io,
    bytes_come_back_by_tokio,
    a_descriptor_of_ones_own_is_a_stream_too,
    halves_read_and_write,
    slices_are_forwarded,
    what_reads_give_up_is_not_lost,
    tokio_copies_between_connections,
    pipes_read_and_write,
    reads_fill_several_slices,
    what_was_fed_comes_before_what_is_written,
    local_streams_come_back_by_both,
);
