//! An echo server on monoio, as its `echo` example writes it.
//!
//! `uring` is the io_uring driver as it comes, `uring-defer` the same with a
//! ring that has SINGLE_ISSUER and DEFER_TASKRUN, `legacy` the epoll driver.
//! `--workers N` is N threads that share nothing but the port.

#![forbid(unsafe_code)]

use std::io;
use std::net::TcpListener as StdListener;
use std::thread;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use server_common::{
    AFTER_AN_ERROR, Args, BUFFER, Protocol, Spec, accepted, closed, fail, listen_each, said,
};

fn main() {
    let args = Args::parse(Spec {
        variants: &["uring", "uring-defer", "legacy"],
        protocols: &[Protocol::Echo],
        parallel: true,
    });
    let mut listeners = listen_each(args.addr, args.workers());
    said(&listeners[0]);
    let own = listeners.remove(0);
    let variant = args.variant;
    for listener in listeners {
        thread::spawn(move || run(variant, listener));
    }
    run(variant, own);
}

fn run(variant: &str, listener: StdListener) {
    let end = match variant {
        "legacy" => RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()
            .and_then(|mut runtime| runtime.block_on(serve(listener, true))),
        _ => {
            let mut ring = io_uring::IoUring::builder();
            if variant == "uring-defer" {
                ring.setup_single_issuer().setup_defer_taskrun();
            }
            RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(ring)
                .enable_timer()
                .build()
                .and_then(|mut runtime| runtime.block_on(serve(listener, false)))
        }
    };
    if let Err(e) = end {
        fail("monoio", e);
    }
}

async fn serve(listener: StdListener, nonblocking: bool) -> io::Result<()> {
    listener.set_nonblocking(nonblocking)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted();
                drop(monoio::spawn(async move {
                    let _ = echo(stream).await;
                    closed();
                }));
            }
            Err(_) => monoio::time::sleep(AFTER_AN_ERROR).await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf: Vec<u8> = Vec::with_capacity(BUFFER);
    loop {
        let (read, filled) = stream.read(buf).await;
        if read? == 0 {
            return Ok(());
        }
        let (written, emptied) = stream.write_all(filled).await;
        written?;
        buf = emptied;
        buf.clear();
    }
}
