//! A client that drives exactly so many round trips.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The size of a message.
pub const MESSAGE: usize = 64;

/// Longer than any answer takes, under any tool.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Client {
    streams: Vec<TcpStream>,
}

impl Client {
    /// Connects so many times.
    pub fn connect(addr: SocketAddr, connections: usize) -> io::Result<Client> {
        let mut streams = Vec::with_capacity(connections);
        for _ in 0..connections {
            let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            streams.push(stream);
        }
        Ok(Client { streams })
    }

    /// A round trip on every connection, so many times: all messages are sent
    /// before the first answer is awaited. The answers are compared.
    pub fn rounds(&mut self, rounds: usize) -> io::Result<()> {
        let mut message = [0; MESSAGE];
        let mut answer = [0; MESSAGE];
        for round in 0..rounds {
            message.fill(b'a' + (round % 26) as u8);
            for stream in &mut self.streams {
                stream.write_all(&message)?;
            }
            for stream in &mut self.streams {
                stream.read_exact(&mut answer)?;
                if answer != message {
                    return Err(io::Error::other("the echo differs"));
                }
            }
        }
        Ok(())
    }

    /// A round trip on each connection, one after the other.
    pub fn each_once(&mut self) -> io::Result<()> {
        let message = [b'x'; MESSAGE];
        let mut answer = [0; MESSAGE];
        for stream in &mut self.streams {
            stream.write_all(&message)?;
            stream.read_exact(&mut answer)?;
        }
        Ok(())
    }
}
