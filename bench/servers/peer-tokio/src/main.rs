//! An echo server on tokio, as the front page of its documentation writes it.
//!
//! `mt` is the multi-threaded scheduler with as many workers as tokio takes by
//! itself, or as `--workers` says; `ct` is the current-thread one.

#![forbid(unsafe_code)]

use std::io;

use server_common::{
    AFTER_AN_ERROR, Args, BUFFER, Protocol, Spec, accepted, closed, fail, listen, said,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

fn main() {
    let args = Args::parse(Spec {
        variants: &["mt", "ct"],
        protocols: &[Protocol::Echo],
        parallel: true,
    });
    let mut builder = match args.variant {
        "ct" => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if let Some(workers) = args.workers {
        if args.variant == "ct" && workers > 1 {
            fail("--workers", "the current-thread scheduler has one");
        }
        builder.worker_threads(workers);
    }
    let end = builder
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(listen(args.addr))));
    if let Err(e) = end {
        fail("tokio", e);
    }
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    said(&listener);
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted();
                drop(tokio::spawn(async move {
                    let _ = echo(stream).await;
                    closed();
                }));
            }
            Err(_) => tokio::time::sleep(AFTER_AN_ERROR).await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = vec![0; BUFFER];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..n]).await?;
    }
}
