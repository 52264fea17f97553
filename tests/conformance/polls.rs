//! The poll forms of calls, and what wraps others: they answer what the calls
//! do. What is pending is woken when it has something to answer.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::unix::net as std_unix;
use std::task::Poll;

use isochrome::net::{Arrival, Async, Transmit, UdpSocket, UnixDatagram, UnixStream, copy, pipe};
use isochrome::{Runtime, yield_now};

use crate::common;
use crate::common::futures::join;
use crate::common::local::abstract_name;
use crate::common::{LOCAL, everywhere, pair, std_pair};

everywhere!(
    streams,
    pipes,
    messages,
    local_messages,
    descriptors,
    copies
);

fn streams(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_pair().await;
        let mut buf = [0; 3];
        // All are pending, and then woken one by one.
        let (read, ()) = join(poll_fn(|cx| near.poll_peek(cx, &mut buf)), async {
            far.write_all(b"abcdefg").unwrap();
        })
        .await;
        assert!((1..=3).contains(&read.unwrap()));
        let [mut a, mut b] = [[0; 2]; 2];
        let bufs = &mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        let n = poll_fn(|cx| near.poll_read_vectored(cx, bufs)).await;
        assert_eq!(n.unwrap(), 4);
        assert_eq!([a, b], [*b"ab", *b"cd"]);
        let lease = poll_fn(|cx| near.poll_recv(cx)).await.unwrap();
        assert_eq!(*lease, *b"efg");
        drop(far);
        assert_eq!(poll_fn(|cx| near.poll_recv(cx)).await.unwrap().len(), 0);
        assert_eq!(poll_fn(|cx| near.poll_peek(cx, &mut a)).await.unwrap(), 0);
        let bufs = &mut [IoSliceMut::new(&mut a)];
        let n = poll_fn(|cx| near.poll_read_vectored(cx, bufs)).await;
        assert_eq!(n.unwrap(), 0);
    });
}

fn pipes(rt: Runtime) {
    rt.block_on(async {
        let (sender, receiver) = pipe::anonymous().unwrap();
        let mut buf = [0; 8];
        let (read, ()) = join(poll_fn(|cx| receiver.poll_read(cx, &mut buf)), async {
            let n = poll_fn(|cx| sender.poll_write(cx, b"one")).await;
            assert_eq!(n.unwrap(), 3);
        })
        .await;
        assert_eq!((read.unwrap(), &buf[..3]), (3, &b"one"[..]));
        let slices = [IoSlice::new(b"two"), IoSlice::new(b"three")];
        let n = poll_fn(|cx| sender.poll_write_vectored(cx, &slices)).await;
        assert_eq!(n.unwrap(), 8);
        let n = poll_fn(|cx| receiver.poll_read(cx, &mut buf)).await;
        assert_eq!((n.unwrap(), &buf), (8, b"twothree"));
        drop(receiver);
        // On the proactor the end is closed when what waited there has ended.
        let error = loop {
            if let Err(e) = poll_fn(|cx| sender.poll_write(cx, b"x")).await {
                break e;
            }
            yield_now().await;
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        let error = poll_fn(|cx| sender.poll_write_vectored(cx, &slices)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

fn messages(rt: Runtime) {
    rt.block_on(async {
        let socket = UdpSocket::bind(LOCAL).await.unwrap();
        let to = socket.local_addr().unwrap();
        let bufs = [IoSlice::new(b"too long")];
        let transmit = Transmit::new(&bufs, Some(to));
        let mut buf = [0; 3];
        let mut bufs = [IoSliceMut::new(&mut buf)];
        let mut arrivals = [Arrival::NONE];
        let receive = poll_fn(|cx| socket.poll_recv_batch(cx, &mut bufs, &mut arrivals));
        let send = poll_fn(|cx| socket.poll_send_msg(cx, &transmit));
        let (received, sent) = join(receive, send).await;
        assert_eq!((received.unwrap(), sent.unwrap()), (1, 8));
        assert!(arrivals[0].received.truncated());
        assert_eq!(arrivals[0].from, to);

        let mut bufs = [IoSliceMut::new(&mut buf)];
        let receive = poll_fn(|cx| socket.poll_recv_msg(cx, &mut bufs));
        let send = poll_fn(|cx| socket.poll_send_batch(cx, &[transmit, transmit]));
        let (received, sent) = join(receive, send).await;
        assert_eq!((received.unwrap().from, sent.unwrap()), (to, 2));
        let looked = poll_fn(|cx| socket.poll_peek(cx, &mut buf)).await;
        assert_eq!(looked.unwrap().size, 8);
        let looked = poll_fn(|cx| socket.poll_peek_from(cx, &mut buf)).await;
        assert_eq!(looked.unwrap().1, to);
        assert_eq!(socket.try_recv(&mut buf).unwrap().size, 8);
        let pending = poll_fn(|cx| Poll::Ready(socket.poll_peek(cx, &mut buf).is_pending()));
        assert!(pending.await);
    });
}

fn local_messages(rt: Runtime) {
    rt.block_on(async {
        let name = abstract_name();
        let socket = UnixDatagram::bind(&name).unwrap();
        let mut buf = [0; 3];
        let receive = poll_fn(|cx| socket.poll_recv(cx, &mut buf));
        let send = poll_fn(|cx| socket.poll_send_to(cx, b"long", &name));
        let (received, sent) = join(receive, send).await;
        assert_eq!((received.unwrap().size, sent.unwrap()), (4, 4));
        let pending = poll_fn(|cx| Poll::Ready(socket.poll_recv(cx, &mut buf).is_pending()));
        assert!(pending.await);
        // What is no name is told at once.
        let told = poll_fn(|cx| socket.poll_send_to(cx, b"x", "nul\0inside")).await;
        assert_eq!(told.unwrap_err().kind(), ErrorKind::InvalidInput);
        // After the end, empty ones of nobody.
        socket.shutdown(Shutdown::Read).unwrap();
        let got = poll_fn(|cx| socket.poll_recv(cx, &mut buf)).await;
        assert_eq!(got.unwrap().size, 0);
    });
}

fn descriptors(rt: Runtime) {
    rt.block_on(async {
        let (near, mut far) = std_unix::UnixStream::pair().unwrap();
        let mut near = Async::new(near).unwrap();
        poll_fn(|cx| near.poll_writable(cx)).await.unwrap();
        let n = poll_fn(|cx| near.poll_write_with(cx, |mut near| near.write(b"x"))).await;
        assert_eq!(n.unwrap(), 1);
        far.read_exact(&mut [0]).unwrap();
        let (readable, ()) = join(poll_fn(|cx| near.poll_readable(cx)), async {
            far.write_all(b"yz").unwrap();
        })
        .await;
        readable.unwrap();
        let mut buf = [0; 4];
        let n = poll_fn(|cx| near.poll_read_with(cx, |mut near| near.read(&mut buf))).await;
        assert_eq!((n.unwrap(), &buf[..2]), (2, &b"yz"[..]));
        let pending = poll_fn(|cx| {
            let polled = near.poll_read_with(cx, |mut near| near.read(&mut buf));
            Poll::Ready(polled.is_pending())
        });
        assert!(pending.await);
        // What it wraps may be used as such.
        let blocked = near.get_mut().read(&mut buf).unwrap_err();
        assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    });
}

/// Until the end, from one family to another.
fn copies(rt: Runtime) {
    rt.block_on(async {
        let (from, mut source) = std_pair().await;
        let (to, mut sink) = std_unix::UnixStream::pair().unwrap();
        let to = UnixStream::from_std(to).unwrap();
        source.write_all(b"all of it").unwrap();
        drop(source);
        assert_eq!(copy(&from, &to).await.unwrap(), 9);
        drop(to);
        let mut got = String::new();
        sink.read_to_string(&mut got).unwrap();
        assert_eq!(got, "all of it");
        // The error of who sends is told.
        let (from, far) = pair().await;
        let (to, sink) = std_unix::UnixStream::pair().unwrap();
        let to = UnixStream::from_std(to).unwrap();
        drop(sink);
        far.send_all("for nobody").await.0.unwrap();
        let error = copy(&from, &to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}
