//! An echo server on isochrome, one color per connection.
//!
//! | variant | driver | how |
//! |---|---|---|
//! | `reactor`, `proactor` | epoll, io_uring | `recv()` gives a lease, which is sent from where it was received |
//! | `reactor-read`, `proactor-read` | the same two | `read(&mut buf)` into a buffer of the connection's own, which is then lent to `send_all` |
//! | `reactor-handicap` | epoll | as `reactor`, with one system call too many a round trip: the yardstick has to see it |
//! | `reactor-handicap-user` | epoll | as `reactor`, with [`WASTE`] instructions too many a round trip: the counts have to see them |

use std::io;
use std::os::fd::AsRawFd;

use isochrome::net::{TcpListener, TcpStream};
use isochrome::{Builder, DriverChoice, spawn_apart, time};
use server_common::{
    AFTER_AN_ERROR, Args, BUFFER, Delimited, Protocol, Spec, accepted, closed, fail, listen, said,
};

/// How a connection is served.
#[derive(Clone, Copy)]
enum Way {
    Lease,
    Read,
    Handicap,
    HandicapUser,
}

/// Instructions of a loop that does nothing, give or take a few for its start:
/// a decrement and a jump each turn.
const WASTE: u32 = 50;

fn main() {
    let args = Args::parse(Spec {
        variants: &[
            "reactor",
            "proactor",
            "reactor-read",
            "proactor-read",
            "reactor-handicap",
            "reactor-handicap-user",
        ],
        protocols: &[Protocol::Echo, Protocol::Delimited],
        parallel: true,
    });
    let (driver, way) = match args.variant {
        "proactor" => (DriverChoice::Proactor, Way::Lease),
        "proactor-read" => (DriverChoice::Proactor, Way::Read),
        "reactor-read" => (DriverChoice::Reactor, Way::Read),
        "reactor-handicap" => (DriverChoice::Reactor, Way::Handicap),
        "reactor-handicap-user" => (DriverChoice::Reactor, Way::HandicapUser),
        _ => (DriverChoice::Reactor, Way::Lease),
    };
    let end = Builder::new()
        .driver(driver)
        .workers(args.workers())
        .build()
        .and_then(|runtime| {
            let listener = listen(args.addr);
            runtime.block_on(serve(listener, way, args.protocol))
        });
    if let Err(e) = end {
        fail("isochrome", e);
    }
}

async fn serve(listener: std::net::TcpListener, way: Way, protocol: Protocol) -> io::Result<()> {
    said(&listener);
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                accepted();
                // Each a task of its own type, which is as large as it needs.
                match (protocol, way) {
                    (Protocol::Echo, Way::Lease) => drop(spawn_apart(echo_lease(stream))),
                    (Protocol::Echo, Way::Read) => drop(spawn_apart(echo_read(stream))),
                    (Protocol::Echo, Way::Handicap) => drop(spawn_apart(echo_handicap(stream))),
                    (Protocol::Echo, Way::HandicapUser) => {
                        drop(spawn_apart(echo_handicap_user(stream)));
                    }
                    (Protocol::Delimited, Way::Read) => drop(spawn_apart(delimited_read(stream))),
                    (Protocol::Delimited, _) => drop(spawn_apart(delimited_lease(stream))),
                }
            }
            Err(_) => time::sleep(AFTER_AN_ERROR).await,
        }
    }
}

/// A connection that is served, until this is dropped.
struct Served;

impl Drop for Served {
    fn drop(&mut self) {
        closed();
    }
}

async fn echo_lease(stream: TcpStream) -> io::Result<()> {
    let _served = Served;
    stream.set_nodelay(true)?;
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return stream.flush().await;
        }
        stream.feed(lease).await?;
    }
}

async fn echo_handicap(stream: TcpStream) -> io::Result<()> {
    let _served = Served;
    stream.set_nodelay(true)?;
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return stream.flush().await;
        }
        // What a server does that receives until EAGAIN.
        let mut none = 0u8;
        // SAFETY: one byte may be written, and there is room for it.
        unsafe {
            let to = (&raw mut none).cast();
            libc::recv(
                stream.as_raw_fd(),
                to,
                1,
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            )
        };
        stream.feed(lease).await?;
    }
}

async fn echo_handicap_user(stream: TcpStream) -> io::Result<()> {
    let _served = Served;
    stream.set_nodelay(true)?;
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return stream.flush().await;
        }
        waste();
        stream.feed(lease).await?;
    }
}

#[cfg(target_arch = "x86_64")]
fn waste() {
    // SAFETY: it changes one register, which is given to it, and the flags.
    unsafe {
        std::arch::asm!(
            "2:", "dec {turns:e}", "jnz 2b",
            turns = inout(reg) WASTE / 2 => _,
            options(nomem, nostack)
        );
    }
}

/// About as much.
#[cfg(not(target_arch = "x86_64"))]
fn waste() {
    for turn in 0..WASTE / 4 {
        std::hint::black_box(turn);
    }
}

async fn echo_read(stream: TcpStream) -> io::Result<()> {
    let _served = Served;
    stream.set_nodelay(true)?;
    let mut buf = vec![0; BUFFER];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        buf.truncate(n);
        let (sent, back) = stream.send_all(buf).await;
        sent?;
        buf = restored(back);
    }
}

async fn delimited_lease(stream: TcpStream) -> io::Result<()> {
    let _served = Served;
    stream.set_nodelay(true)?;
    stream.send_all(Delimited::GREETING).await.0?;
    let mut machine = Delimited::default();
    loop {
        let mut lease = stream.recv().await?;
        if lease.is_empty() {
            return Ok(());
        }
        let len = machine.transform(&mut lease);
        lease.truncate(len);
        stream.send_all(lease).await.0?;
    }
}

async fn delimited_read(stream: TcpStream) -> io::Result<()> {
    let _served = Served;
    stream.set_nodelay(true)?;
    stream.send_all(Delimited::GREETING).await.0?;
    let mut machine = Delimited::default();
    let mut buf = vec![0; BUFFER];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        let len = machine.transform(&mut buf[..n]);
        buf.truncate(len);
        let (sent, back) = stream.send_all(buf).await;
        sent?;
        buf = restored(back);
    }
}

/// Gives a truncated buffer its length back, without writing zeros over it.
fn restored(mut buf: Vec<u8>) -> Vec<u8> {
    assert!(buf.capacity() >= BUFFER);
    // SAFETY: it is the vector that was made with `BUFFER` zeros and only
    // truncated since, so that they are all initialised and within the
    // capacity.
    unsafe { buf.set_len(BUFFER) };
    buf
}
