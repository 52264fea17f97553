//! One thread for all, one for each, and a pool of them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use server_common::{AFTER_AN_ERROR, Protocol, accepted, closed, refused};

use crate::talk::talk;

/// Connections that may wait for a thread of the pool (thin air).
const QUEUE: usize = 1024;

pub fn sequential(listener: &TcpListener, protocol: Protocol) -> io::Result<()> {
    loop {
        serve(accept(listener), protocol);
    }
}

pub fn each(listener: &TcpListener, protocol: Protocol) -> io::Result<()> {
    loop {
        let stream = accept(listener);
        let started = thread::Builder::new().spawn(move || serve(stream, protocol));
        if started.is_err() {
            // The closure, and the stream in it, is dropped.
            refused();
        }
    }
}

pub fn pool(listener: &TcpListener, protocol: Protocol, threads: usize) -> io::Result<()> {
    let (queue, waiting) = sync_channel(QUEUE);
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..threads {
        let waiting = waiting.clone();
        thread::Builder::new().spawn(move || {
            while let Some(stream) = next(&waiting) {
                serve(stream, protocol);
            }
        })?;
    }
    loop {
        if queue.try_send(accept(listener)).is_err() {
            // Full: the stream is dropped.
            refused();
        }
    }
}

/// One waits for the channel, the others for the lock.
fn next(waiting: &Mutex<Receiver<TcpStream>>) -> Option<TcpStream> {
    waiting.lock().ok()?.recv().ok()
}

/// The next connection. Out of descriptors, or of anything else, it waits
/// until there are some.
pub fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                accepted();
                return stream;
            }
            Err(_) => thread::sleep(AFTER_AN_ERROR),
        }
    }
}

fn serve(stream: TcpStream, protocol: Protocol) {
    let _ = talk(stream, protocol);
    closed();
}
