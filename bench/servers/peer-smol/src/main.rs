//! An echo server on smol, as its `tcp-server` example writes it: the global
//! executor, whose threads are told by SMOL_THREADS (one, if not said), beside
//! the thread in `block_on`, which accepts and drives the reactor.

use std::io;

use server_common::{
    AFTER_AN_ERROR, Args, BUFFER, Protocol, Spec, accepted, closed, fail, listen, said,
};
use smol::Async;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};

fn main() {
    let args = Args::parse(Spec {
        variants: &[],
        protocols: &[Protocol::Echo],
        parallel: true,
    });
    if let Some(workers) = args.workers {
        // SAFETY: no other thread exists yet.
        unsafe { std::env::set_var("SMOL_THREADS", workers.to_string()) };
    }
    if let Err(e) = smol::block_on(serve(listen(args.addr))) {
        fail("smol", e);
    }
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    said(&listener);
    let listener = TcpListener::from(Async::new(listener)?);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted();
                smol::spawn(async move {
                    let _ = echo(stream).await;
                    closed();
                })
                .detach();
            }
            Err(_) => drop(smol::Timer::after(AFTER_AN_ERROR).await),
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
