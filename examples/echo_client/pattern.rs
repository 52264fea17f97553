//! Bytes that tell which connection, round and place they belong to.

/// The bytes of one round of one connection.
///
/// Each byte depends on the connection, the round and its own place, so that
/// bytes of a neighbour, of an earlier round, or out of order are all wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    seed: u64,
}

impl Pattern {
    pub(crate) fn new(connection: usize, round: u64) -> Pattern {
        // The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014):
        // neighbours get seeds that have nothing to do with each other.
        let mut z = ((connection as u64) << 40) ^ round;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Pattern {
            seed: z ^ (z >> 31),
        }
    }

    /// The byte at `place`.
    pub(crate) fn at(self, place: usize) -> u8 {
        let step = (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (self.seed.wrapping_add(step) >> 32) as u8
    }

    pub(crate) fn fill(self, bytes: &mut [u8]) {
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = self.at(place);
        }
    }

    /// Where `bytes`, which begin at place `from`, differ first.
    pub(crate) fn first_difference(self, bytes: &[u8], from: usize) -> Option<usize> {
        let differs = |(i, &byte): (usize, &u8)| byte != self.at(from + i);
        bytes.iter().enumerate().position(differs).map(|i| from + i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let pattern = Pattern::new(3, 7);
        let mut bytes = [0; 300];
        pattern.fill(&mut bytes);
        assert_eq!(pattern.first_difference(&bytes, 0), None);
        assert_eq!(pattern.first_difference(&bytes[100..], 100), None);
        bytes[217] ^= 1;
        assert_eq!(pattern.first_difference(&bytes, 0), Some(217));
        assert_eq!(pattern.first_difference(&bytes[200..], 200), Some(217));
    }

    #[test]
    fn other_rounds_connections_and_places_differ() {
        let mut bytes = [0; 64];
        Pattern::new(3, 7).fill(&mut bytes);
        for (other, from) in [
            (Pattern::new(3, 8), 0),
            (Pattern::new(4, 7), 0),
            (Pattern::new(3, 7), 1),
        ] {
            assert!(other.first_difference(&bytes, from).is_some());
        }
    }
}
