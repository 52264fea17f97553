//! An echo server on tokio-uring, as its `tcp_listener` example writes it.
//! `--workers N` is N threads that share nothing but the port.

#![forbid(unsafe_code)]

use std::io;
use std::net::TcpListener as StdListener;
use std::thread;

use server_common::{
    AFTER_AN_ERROR, Args, BUFFER, Protocol, Spec, accepted, closed, fail, listen_each, said,
};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

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
    if let Err(e) = tokio_uring::start(serve(listener)) {
        fail("tokio-uring", e);
    }
}

async fn serve(listener: StdListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted();
                drop(tokio_uring::spawn(async move {
                    let _ = echo(stream).await;
                    closed();
                }));
            }
            Err(_) => tokio::time::sleep(AFTER_AN_ERROR).await,
        }
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = vec![0; BUFFER];
    loop {
        let (read, filled) = stream.read(buf).await;
        let n = read?;
        if n == 0 {
            return Ok(());
        }
        let (written, slice) = stream.write_all(filled.slice(..n)).await;
        written?;
        buf = slice.into_inner();
    }
}
