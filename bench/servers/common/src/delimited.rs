//! The classic stateful protocol of echo servers, apart from any I/O.

/// The state of a connection that speaks the delimited protocol: one bit.
///
/// The server greets with `*`. Bytes are ignored until a `^`; from there on
/// every byte is sent back incremented by one (255 wraps to 0), until a `$`.
/// The delimiters are not echoed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delimited {
    echoing: bool,
}

impl Delimited {
    /// What a client hears first.
    pub const GREETING: &'static [u8] = b"*";

    /// Turns received bytes into their answer, at the front of `bytes`, and
    /// returns how long that is.
    pub fn transform(&mut self, bytes: &mut [u8]) -> usize {
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

    #[test]
    fn the_classic_session() {
        let (mut machine, mut out) = (Delimited::default(), Vec::new());
        for piece in ["^abc$de^abte$f", "xyz^123", "25$^ab$abab"] {
            let mut piece = piece.as_bytes().to_vec();
            let len = machine.transform(&mut piece);
            out.extend_from_slice(&piece[..len]);
        }
        assert_eq!(out, b"bcdbcuf23436bc");
    }
}
