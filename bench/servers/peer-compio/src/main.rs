//! An echo server on compio, as its `net` documentation writes it. Which
//! driver it has is decided by the features of the package: this one is
//! io_uring, and `peer-compio-poll` shares this file.
//!
//! `--workers N` is N threads that share nothing but the port.

#![forbid(unsafe_code)]

use std::io;
use std::net::TcpListener as StdListener;
use std::thread;

use compio::buf::{IntoInner, IoBuf};
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::Runtime;
use server_common::{
    AFTER_AN_ERROR, Args, BUFFER, Protocol, Spec, accepted, closed, fail, listen_each, said,
};

fn main() {
    let args = Args::parse(Spec {
        variants: &[],
        protocols: &[Protocol::Echo],
        parallel: true,
    });
    let mut listeners = listen_each(args.addr, args.workers());
    said(&listeners[0]);
    let own = listeners.remove(0);
    for listener in listeners {
        thread::spawn(move || run(listener));
    }
    run(own);
}

fn run(listener: StdListener) {
    if let Err(e) = Runtime::new().and_then(|runtime| runtime.block_on(serve(listener))) {
        fail("compio", e);
    }
}

async fn serve(listener: StdListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted();
                compio::runtime::spawn(async move {
                    let _ = echo(stream).await;
                    closed();
                })
                .detach();
            }
            Err(_) => compio::time::sleep(AFTER_AN_ERROR).await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf: Vec<u8> = Vec::with_capacity(BUFFER);
    loop {
        let (read, filled) = stream.read(buf).await.into();
        let n = read?;
        if n == 0 {
            return Ok(());
        }
        let (written, slice) = stream.write_all(filled.slice(..n)).await.into();
        written?;
        buf = slice.into_inner();
        buf.clear();
    }
}
