//! The classic stateful protocol of echo servers.
//!
//! The server greets with `*`. Bytes are ignored until a `^`; from there on
//! every byte is sent back incremented by one (255 wraps to 0), until a `$`.
//! The delimiters are not echoed:
//!
//! ```text
//!           ^                       in:  ^abc$de^abte$f
//!   +---> ignoring ---> echoing     out: bcd    bcuf
//!   |                      |
//!   +----------------------+
//!                  $
//! ```
//!
//! A `^` between the delimiters is a byte like any other, and so is a `$`
//! outside of them.
//!
//! The machine works in place, since an answer is never longer than its
//! input: the server receives into a lease, transforms it and sends the same
//! lease back. It knows nothing of sockets, so that the fuzz target can share
//! this file.

/// The state between two reads: one bit.
#[derive(Debug, Default)]
pub(crate) struct Delimited {
    echoing: bool,
}

impl Delimited {
    /// What a client hears first.
    pub(crate) const GREETING: &'static [u8] = b"*";

    /// Turns received bytes into their answer, at the front of `bytes`, and
    /// returns how long that is. What lies behind is left in no particular
    /// state.
    pub(crate) fn transform(&mut self, bytes: &mut [u8]) -> usize {
        let mut written = 0;
        for at in 0..bytes.len() {
            let byte = bytes[at];
            match (self.echoing, byte) {
                (false, b'^') => self.echoing = true,
                (true, b'$') => self.echoing = false,
                (false, _) => {}
                (true, _) => {
                    bytes[written] = byte.wrapping_add(1);
                    written += 1;
                }
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &[u8] = b"^abc$de^abte$fxyz^12325$^ab$abab";
    const OUTPUT: &[u8] = b"bcdbcuf23436bc";

    /// The answer to `input`, received in pieces that end at `cuts`.
    fn answer(input: &[u8], cuts: &[usize]) -> Vec<u8> {
        let (mut machine, mut out, mut from) = (Delimited::default(), Vec::new(), 0);
        for to in cuts.iter().copied().chain([input.len()]) {
            let mut piece = input[from..to].to_vec();
            let len = machine.transform(&mut piece);
            out.extend_from_slice(&piece[..len]);
            from = to;
        }
        out
    }

    #[test]
    fn the_classic_session() {
        assert_eq!(answer(INPUT, &[14, 21]), OUTPUT);
    }

    #[test]
    fn any_two_cuts_make_no_difference() {
        for first in 0..=INPUT.len() {
            for second in first..=INPUT.len() {
                assert_eq!(answer(INPUT, &[first, second]), OUTPUT);
            }
        }
    }

    #[test]
    fn every_byte_between_the_delimiters_is_incremented() {
        let between: Vec<u8> = (0..=255).filter(|&b| b != b'$').collect();
        let input = [b"^", &between[..], b"$"].concat();
        let output: Vec<u8> = between.iter().map(|b| b.wrapping_add(1)).collect();
        assert_eq!(answer(&input, &[]), output);
    }

    #[test]
    fn delimiters_out_of_place() {
        assert_eq!(answer(b"$$^^^$^", &[]), b"__");
        assert_eq!(answer(b"", &[]), b"");
    }
}
