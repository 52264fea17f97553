//! An echo server on glommio, as its `echo` example writes it: futures-lite's
//! traits on its unbuffered stream. `--workers N` is N executors that share
//! nothing but the port, each not pinned: what pins the process pins them.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::thread;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
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
    match LocalExecutorBuilder::new(Placement::Unbound).make() {
        Ok(executor) => executor.run(serve(listener)),
        Err(e) => fail("glommio", e),
    }
}

async fn serve(listener: StdListener) {
    // SAFETY: the descriptor listens, and is given away.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    loop {
        match listener.accept().await {
            Ok(stream) => {
                accepted();
                drop(
                    glommio::spawn_local(async move {
                        let _ = echo(stream).await;
                        closed();
                    })
                    .detach(),
                );
            }
            Err(_) => sleep(AFTER_AN_ERROR).await,
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
