//! The bytes: one endless stream per connection, cut out of one shared buffer.
//!
//! The buffer repeats with a prime period, so that no power-of-two message size
//! aligns with it: a message that is lost, doubled or given to a neighbour shows.
use crate::options::Protocol;

const PERIOD: usize = 65_537;
/// The most that is sent or compared in one go.
pub(crate) const CHUNK: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Pattern {
    sent: Vec<u8>,
    expected: Vec<u8>,
}

impl Pattern {
    pub(crate) fn new(protocol: Protocol) -> Self {
        // xorshift64*, any seed: the bytes need variety, not secrecy.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut byte = || loop {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let b = (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8;
            // The delimiters would change the server's state.
            if protocol == Protocol::Echo || (b != b'$' && b != b'^') {
                return b;
            }
        };
        let mut sent: Vec<u8> = (0..PERIOD).map(|_| byte()).collect();
        for i in 0..CHUNK {
            sent.push(sent[i]);
        }
        let add = u8::from(protocol == Protocol::Delimited);
        let expected = sent.iter().map(|b| b.wrapping_add(add)).collect();
        Self { sent, expected }
    }

    /// At most `len` bytes of `seed`'s stream from `offset` on.
    pub(crate) fn outgoing(&self, seed: u64, offset: u64, len: u64) -> &[u8] {
        let (at, len) = Self::place(seed, offset, len);
        &self.sent[at..at + len]
    }

    /// Where `got`, which should be at `offset` of `seed`'s stream, is wrong.
    pub(crate) fn first_wrong(&self, seed: u64, offset: u64, got: &[u8]) -> Option<u64> {
        let mut done = 0;
        for part in got.chunks(CHUNK) {
            let (at, len) = Self::place(seed, offset + done, part.len() as u64);
            let expected = &self.expected[at..at + len];
            if part != expected {
                let i = part
                    .iter()
                    .zip(expected)
                    .position(|(a, b)| a != b)
                    .unwrap_or(0);
                return Some(offset + done + i as u64);
            }
            done += part.len() as u64;
        }
        None
    }

    fn place(seed: u64, offset: u64, len: u64) -> (usize, usize) {
        // 40,503: a prime, so that neighbouring seeds start far apart.
        let start = seed.wrapping_mul(40_503).wrapping_add(offset) % PERIOD as u64;
        (start as usize, len.min(CHUNK as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_in_any_split() {
        let p = Pattern::new(Protocol::Echo);
        let whole = p.outgoing(7, 60_000, 20_000).to_vec();
        assert_eq!(p.first_wrong(7, 60_000, &whole), None);
        assert_eq!(p.first_wrong(7, 60_001, &whole[1..]), None);
        assert_eq!(p.outgoing(7, 70_000, 10), &whole[10_000..10_010]);
    }

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let p = Pattern::new(Protocol::Echo);
        let mut bytes = p.outgoing(1, 0, 100).to_vec();
        bytes[42] ^= 1;
        assert_eq!(p.first_wrong(1, 0, &bytes), Some(42));
    }

    #[test]
    fn a_neighbours_message_and_a_lost_one_are_wrong() {
        let p = Pattern::new(Protocol::Echo);
        assert!(p.first_wrong(2, 0, p.outgoing(1, 0, 64)).is_some());
        for size in [64, 4096, 65_536] {
            assert!(p.first_wrong(1, 0, p.outgoing(1, size, 64)).is_some());
        }
    }

    #[test]
    fn the_delimited_stream_has_no_delimiter_and_comes_back_plus_one() {
        let p = Pattern::new(Protocol::Delimited);
        let out = p.outgoing(3, 0, 65_537).to_vec();
        assert!(!out.contains(&b'$') && !out.contains(&b'^'));
        let back: Vec<u8> = out.iter().map(|b| b.wrapping_add(1)).collect();
        assert_eq!(p.first_wrong(3, 0, &back), None);
    }
}
