//! What is known of one direction of a connection: what may be received next,
//! whether something has to be, and what the end may be.
//!
//! What a sender that was given up has sent is not known: any prefix. So the
//! place of the receiver in what was sent is a set of places, as of a
//! nondeterministic automaton; the bytes are random, and it soon has one
//! element.

use std::io;
use std::rc::Rc;

/// What was given to one send.
struct Piece {
    bytes: Rc<[u8]>,
    /// So much was sent at least, and at most.
    sure: usize,
    most: usize,
}

/// In which piece, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    Shut,
    Dropped,
}

/// Whether a receive has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Something,
    Nothing,
    Unknown,
}

pub(crate) struct Direction {
    pieces: Vec<Piece>,
    places: Vec<Place>,
    received: usize,
    pub(crate) writer: State,
    pub(crate) reader: State,
    /// Bytes may be lost: the connection may be reset, or is not read.
    pub(crate) lossy: bool,
    /// A receive may answer that the connection was reset.
    pub(crate) reset: bool,
    /// How much is received is the program's choice alone, not the moment's.
    pub(crate) exact: bool,
    /// The receiver was told of the end, or of a reset.
    pub(crate) ended: bool,
}

impl Direction {
    pub(crate) fn new() -> Direction {
        Direction {
            pieces: Vec::new(),
            places: vec![Place(0, 0)],
            received: 0,
            writer: State::Open,
            reader: State::Open,
            lossy: false,
            reset: false,
            exact: true,
            ended: false,
        }
    }

    /// How much was received, where all have to agree.
    pub(crate) fn agreed(&self) -> Option<usize> {
        self.exact.then_some(self.received)
    }

    // -- sending ----------------------------------------------------------

    /// Something is being sent; returns its number.
    pub(crate) fn begin(&mut self, bytes: Rc<[u8]>) -> usize {
        let most = bytes.len();
        let sure = 0;
        self.pieces.push(Piece { bytes, sure, most });
        self.pieces.len() - 1
    }

    /// So much of the last piece was sent, and no more will be.
    pub(crate) fn sent(&mut self, piece: usize, n: usize) {
        assert_eq!(piece + 1, self.pieces.len(), "one send at a time");
        assert!(n <= self.pieces[piece].most, "more was sent than given");
        let last = &mut self.pieces[piece];
        (last.sure, last.most) = (n, n);
        self.places.retain(|place| place.0 != piece || place.1 <= n);
        assert!(!self.places.is_empty(), "more was received than sent");
    }

    // -- receiving --------------------------------------------------------

    /// What is still to be received, at least and at most.
    pub(crate) fn left(&self) -> (usize, usize) {
        let left = |place: &Place| {
            let mut left = (0, 0);
            for (i, piece) in self.pieces.iter().enumerate().skip(place.0) {
                let from = if i == place.0 { place.1 } else { 0 };
                left.0 += piece.sure.saturating_sub(from);
                left.1 += piece.most - from;
            }
            left
        };
        let all = self.places.iter().map(left);
        all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            .expect("the receiver is somewhere")
    }

    /// What it may take up in the kernel, which counts pages and headers too,
    /// and a piece as a whole until the last of it was received.
    pub(crate) fn weight(&self) -> usize {
        let first = self.places.iter().map(|place| place.0).min().unwrap_or(0);
        let rest = self.pieces.iter().skip(first);
        rest.map(|piece| 2 * piece.most + 2500).sum()
    }

    pub(crate) fn expected(&self) -> Expected {
        match self.left() {
            _ if self.writer != State::Open || self.reader != State::Open => Expected::Something,
            (1.., _) => Expected::Something,
            (0, 0) if !self.reset => Expected::Nothing,
            _ => Expected::Unknown,
        }
    }

    /// Whether this is what may be received now. `Ok(true)`: it is the end.
    pub(crate) fn received(&mut self, result: &io::Result<Vec<u8>>) -> Result<bool, String> {
        let end = self.judge(result)?;
        self.ended |= end;
        Ok(end)
    }

    fn judge(&mut self, result: &io::Result<Vec<u8>>) -> Result<bool, String> {
        match result {
            Ok(bytes) if bytes.is_empty() => {
                let ended = self.writer != State::Open || self.reader != State::Open || self.reset;
                if !ended {
                    return Err("an end of what has not ended".into());
                }
                if !self.lossy && self.left().0 > 0 {
                    return Err(format!("the end, with {} bytes missing", self.left().0));
                }
                Ok(true)
            }
            Ok(bytes) => {
                self.take(bytes)?;
                Ok(false)
            }
            Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) && self.reset => Ok(true),
            Err(e) => Err(format!("receiving failed: {e}")),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            // Most of it at once.
            if let [Place(i, from)] = self.places[..] {
                if let Some(piece) = self.pieces.get(i) {
                    let n = piece.sure.saturating_sub(from).min(rest.len());
                    if n > 0 {
                        if piece.bytes[from..from + n] != rest[..n] {
                            return Err(self.wrong(bytes.len() - rest.len()));
                        }
                        self.places = vec![Place(i, from + n)];
                        rest = &rest[n..];
                        continue;
                    }
                }
            }
            let mut next: Vec<Place> = Vec::new();
            for place in &self.places {
                let Place(mut i, mut from) = *place;
                while let Some(piece) = self.pieces.get(i) {
                    let here = Place(i, from + 1);
                    if from < piece.most && piece.bytes[from] == byte && !next.contains(&here) {
                        next.push(here);
                    }
                    if from < piece.sure {
                        break;
                    }
                    (i, from) = (i + 1, 0);
                }
            }
            if next.is_empty() {
                return Err(self.wrong(bytes.len() - rest.len()));
            }
            self.places = next;
            rest = tail;
        }
        self.received += bytes.len();
        Ok(())
    }

    fn wrong(&self, at: usize) -> String {
        let received = self.received + at;
        let (least, most) = self.left();
        format!("byte {received} is wrong or was never sent ({least} to {most} were left)")
    }
}
