//! One thread in a select(2) loop.
//!
//! An `fd_set` has FD_SETSIZE bits, 1,024: a connection whose descriptor is
//! not below that is closed at once. Each turn costs a copy and a scan of both
//! sets, however few are ready.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;

use server_common::{AFTER_AN_ERROR, BUFFER, Protocol, accepted, closed, refused};

use crate::talk::Machine;

struct Connection {
    stream: TcpStream,
    machine: Machine,
    /// What the socket did not take. Until it is gone nothing is read.
    rest: Vec<u8>,
}

pub fn run(listener: TcpListener, protocol: Protocol) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let own = listener.as_raw_fd();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    connections.resize_with(libc::FD_SETSIZE, || None);
    let mut buf = vec![0; BUFFER];
    let (mut reading, mut writing) = (Set::new(), Set::new());
    let mut resting = false;
    // The highest descriptor so far, as select wants it.
    let mut highest = own;
    loop {
        // Out of descriptors: it does not ask for more in this turn.
        if resting {
            reading.remove(own);
        } else {
            reading.insert(own);
        }
        let (mut readable, mut writable) = (reading.clone(), writing.clone());
        let n = select(highest, &mut readable, &mut writable, resting)?;
        resting = false;
        if n == 0 {
            continue;
        }
        for fd in 0..=highest {
            if fd == own || !(readable.contains(fd) || writable.contains(fd)) {
                continue;
            }
            let slot = &mut connections[fd as usize];
            match slot.as_mut().map(|c| c.turn(&mut buf)) {
                Some(Ok(waits)) => {
                    waits.note(fd, &mut reading, &mut writing);
                }
                Some(Err(_)) => {
                    reading.remove(fd);
                    writing.remove(fd);
                    *slot = None;
                    closed();
                }
                None => {}
            }
        }
        if readable.contains(own) {
            resting = accept(&listener, protocol, |connection, waits| {
                let fd = connection.stream.as_raw_fd();
                highest = highest.max(fd);
                waits.note(fd, &mut reading, &mut writing);
                connections[fd as usize] = Some(connection);
            });
        }
    }
}

/// Takes in all that wait. True if there was no descriptor left.
fn accept(
    listener: &TcpListener,
    protocol: Protocol,
    mut admit: impl FnMut(Connection, Waits),
) -> bool {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(_) => return true,
        };
        accepted();
        if stream.as_raw_fd() >= libc::FD_SETSIZE as RawFd {
            refused();
            continue;
        }
        match Connection::new(stream, protocol) {
            Ok((connection, waits)) => admit(connection, waits),
            Err(_) => closed(),
        }
    }
}

/// What a connection waits for.
enum Waits {
    Read,
    Write,
}

impl Waits {
    fn note(self, fd: RawFd, reading: &mut Set, writing: &mut Set) {
        match self {
            Waits::Read => {
                reading.insert(fd);
                writing.remove(fd);
            }
            Waits::Write => {
                reading.remove(fd);
                writing.insert(fd);
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream, protocol: Protocol) -> io::Result<(Connection, Waits)> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let machine = Machine::new(protocol);
        let greeting = machine.greeting();
        let mut connection = Connection {
            stream,
            machine,
            rest: Vec::new(),
        };
        let waits = connection.send(greeting)?;
        Ok((connection, waits))
    }

    /// One read or write. The end of the stream is an error like others.
    fn turn(&mut self, buf: &mut [u8]) -> io::Result<Waits> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return self.send(&rest);
        }
        match self.stream.read(buf) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                let len = self.machine.answer(&mut buf[..n]);
                self.send(&buf[..len])
            }
            Err(e) if is_passing(&e) => Ok(Waits::Read),
            Err(e) => Err(e),
        }
    }

    /// Sends what the socket takes and keeps the rest.
    fn send(&mut self, bytes: &[u8]) -> io::Result<Waits> {
        if bytes.is_empty() {
            return Ok(Waits::Read);
        }
        let n = match self.stream.write(bytes) {
            Ok(n) => n,
            Err(e) if is_passing(&e) => 0,
            Err(e) => return Err(e),
        };
        if n == bytes.len() {
            return Ok(Waits::Read);
        }
        self.rest = bytes[n..].to_vec();
        Ok(Waits::Write)
    }
}

fn is_passing(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// An `fd_set`, of descriptors below FD_SETSIZE.
#[derive(Clone)]
struct Set(libc::fd_set);

impl Set {
    fn new() -> Set {
        let mut set = MaybeUninit::uninit();
        // SAFETY: FD_ZERO initialises the set that the pointer is to.
        unsafe {
            libc::FD_ZERO(set.as_mut_ptr());
            Set(set.assume_init())
        }
    }

    fn insert(&mut self, fd: RawFd) {
        assert!((fd as usize) < libc::FD_SETSIZE);
        // SAFETY: the bit is within the set.
        unsafe { libc::FD_SET(fd, &mut self.0) };
    }

    fn remove(&mut self, fd: RawFd) {
        assert!((fd as usize) < libc::FD_SETSIZE);
        // SAFETY: the bit is within the set.
        unsafe { libc::FD_CLR(fd, &mut self.0) };
    }

    fn contains(&self, fd: RawFd) -> bool {
        assert!((fd as usize) < libc::FD_SETSIZE);
        // SAFETY: the bit is within the set.
        unsafe { libc::FD_ISSET(fd, &self.0) }
    }
}

/// Waits for one of them; how many are ready.
fn select(
    highest: RawFd,
    readable: &mut Set,
    writable: &mut Set,
    resting: bool,
) -> io::Result<i32> {
    let mut limit = libc::timeval {
        tv_sec: 0,
        tv_usec: AFTER_AN_ERROR.as_micros() as libc::suseconds_t,
    };
    let limit = if resting { &raw mut limit } else { null_mut() };
    // SAFETY: the pointers are to sets of the size that select assumes, and to
    // a local time, or null.
    let n = unsafe {
        libc::select(
            highest + 1,
            &mut readable.0,
            &mut writable.0,
            null_mut(),
            limit,
        )
    };
    match n {
        -1 => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            e => Err(e),
        },
        n => Ok(n),
    }
}
