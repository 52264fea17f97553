//! A conversation with one client, in blocking calls, and the machine that all
//! of them share.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use server_common::{BUFFER, Delimited, Protocol};

/// What a connection remembers between two reads.
pub struct Machine(Option<Delimited>);

impl Machine {
    pub fn new(protocol: Protocol) -> Machine {
        Machine((protocol == Protocol::Delimited).then(Delimited::default))
    }

    /// What a client hears first.
    pub fn greeting(&self) -> &'static [u8] {
        match self.0 {
            Some(_) => Delimited::GREETING,
            None => b"",
        }
    }

    /// Turns received bytes into their answer, at the front of `bytes`, and
    /// returns how long that is.
    pub fn answer(&mut self, bytes: &mut [u8]) -> usize {
        match &mut self.0 {
            Some(machine) => machine.transform(bytes),
            None => bytes.len(),
        }
    }
}

/// From the greeting to the end of the stream.
pub fn talk(mut stream: TcpStream, protocol: Protocol) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut machine = Machine::new(protocol);
    stream.write_all(machine.greeting())?;
    let mut buf = vec![0; BUFFER];
    loop {
        let n = match stream.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let len = machine.answer(&mut buf[..n]);
        stream.write_all(&buf[..len])?;
    }
}
