//! From bytes to lines.

use std::io;

use isochrome::net::{ReadHalf, RecvBuf};

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its end, and without what a terminal would take for commands.
    Text(String),
    /// More bytes than allowed.
    TooLong,
    /// The client has no more to say.
    End,
}

/// The lines of a connection.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: ReadHalf,
    /// Received, and not looked at yet.
    rest: RecvBuf,
    splitter: Splitter,
}

impl Lines {
    pub(crate) fn of(stream: ReadHalf, max: usize) -> Lines {
        Lines {
            stream,
            rest: RecvBuf::empty(),
            splitter: Splitter {
                partial: Vec::new(),
                max,
            },
        }
    }

    /// The next one. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Line> {
        loop {
            let (used, line) = self.splitter.feed(&self.rest);
            self.rest.advance(used);
            if let Some(line) = line {
                return Ok(line);
            }
            // Gives the buffer back: who is silent owns none.
            self.rest = RecvBuf::empty();
            self.rest = self.stream.recv().await?;
            if self.rest.is_empty() {
                return Ok(self.splitter.end());
            }
        }
    }

    /// Reads on to the end, for nothing.
    pub(crate) async fn discard(&mut self) {
        while let Ok(lease) = self.stream.recv().await {
            if lease.is_empty() {
                return;
            }
        }
    }
}

/// Finds the ends of lines. It knows nothing of sockets.
#[derive(Debug)]
struct Splitter {
    /// The beginning of a line whose end is yet to come.
    partial: Vec<u8>,
    max: usize,
}

impl Splitter {
    /// How many of the bytes were used, and the line that they completed.
    fn feed(&mut self, bytes: &[u8]) -> (usize, Option<Line>) {
        let end = bytes.iter().position(|&b| b == b'\n');
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        // One more for the `\r` that may come before the `\n`.
        if self.partial.len() + piece.len() > self.max + 1 {
            return (bytes.len(), Some(Line::TooLong));
        }
        self.partial.extend_from_slice(piece);
        match end {
            Some(end) => (end + 1, Some(self.take())),
            None => (bytes.len(), None),
        }
    }

    /// A last line may lack its end.
    fn end(&mut self) -> Line {
        match self.partial.is_empty() {
            true => Line::End,
            false => self.take(),
        }
    }

    fn take(&mut self) -> Line {
        let mut bytes = std::mem::take(&mut self.partial);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if bytes.len() > self.max {
            return Line::TooLong;
        }
        let text = String::from_utf8_lossy(&bytes);
        Line::Text(text.chars().filter(|c| !c.is_control()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of what comes in the given pieces.
    fn lines(max: usize, pieces: &[&[u8]]) -> Vec<Line> {
        let mut splitter = Splitter {
            partial: Vec::new(),
            max,
        };
        let mut lines = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (used, line) = splitter.feed(rest);
                rest = &rest[used..];
                lines.extend(line);
            }
        }
        lines.push(splitter.end());
        lines
    }

    fn text(text: &str) -> Line {
        Line::Text(text.into())
    }

    #[test]
    fn any_cut_makes_no_difference() {
        let all = b"one\r\n\ntwo\nthr\xffee";
        let expected = [text("one"), text(""), text("two"), text("thr\u{fffd}ee")];
        for at in 0..=all.len() {
            let (a, b) = all.split_at(at);
            assert_eq!(lines(100, &[a, b]), expected, "{at}");
        }
        let single: Vec<_> = all.chunks(1).collect();
        assert_eq!(lines(100, &single), expected);
        assert_eq!(lines(100, &[b"one\n"]), [text("one"), Line::End]);
    }

    #[test]
    fn the_longest_line_and_one_byte_more() {
        for end in ["\n", "\r\n"] {
            let line = |text: &str| format!("{text}{end}").into_bytes();
            assert_eq!(lines(3, &[&line("abc")])[0], text("abc"));
            assert_eq!(lines(3, &[&line("abcd")])[0], Line::TooLong);
        }
        // Before its end has come.
        assert_eq!(lines(3, &[b"abcd", b"e"])[0], Line::TooLong);
    }

    #[test]
    fn no_commands_for_terminals() {
        assert_eq!(lines(100, &[b"a\x1b[2Jb\0\x07\n"])[0], text("a[2Jb"));
    }
}
