//! Control messages: what travels beside the bytes of a message, see cmsg(3)
//! and recvmsg(2).
//!
//! They are read and written as bytes, in the kernel's layout: a header of
//! length, level and type, the data, and padding to the size of a word.

use libc::c_int;

const WORD: usize = size_of::<usize>();
/// The header: the length, as the kernel has it, and two numbers.
pub(crate) const HEADER: usize = WORD + 2 * size_of::<c_int>();

const fn align(n: usize) -> usize {
    n.next_multiple_of(WORD)
}

/// Control messages to be sent, in `N` bytes.
#[derive(Debug)]
pub(crate) struct Control<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Control<N> {
    pub(crate) fn new() -> Control<N> {
        Control {
            bytes: [0; N],
            len: 0,
        }
    }

    /// Appends one. The caller has counted its room.
    pub(crate) fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let length = HEADER + data.len();
        let to = &mut self.bytes[self.len..];
        to[..WORD].copy_from_slice(&length.to_ne_bytes());
        to[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        to[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        to[HEADER..length].copy_from_slice(data);
        self.len += align(length);
    }
}

impl<const N: usize> AsRef<[u8]> for Control<N> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// How much room a control message with so much data takes.
pub(crate) const fn space(data: usize) -> usize {
    align(HEADER + data)
}

/// Control messages received: level, type and data of each.
#[derive(Debug)]
pub(crate) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Parts<'a> {
        Parts(bytes)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = (c_int, c_int, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk::<WORD>()?;
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::from_ne_bytes(*length);
        let data = rest.get(..length.checked_sub(HEADER)?)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((
            c_int::from_ne_bytes(*level),
            c_int::from_ne_bytes(*kind),
            data,
        ))
    }
}

/// The number that a control message carries.
pub(crate) fn number(data: &[u8]) -> Option<c_int> {
    match data {
        // IP_TOS comes as one byte.
        [byte] => Some(c_int::from(*byte)),
        _ => Some(c_int::from_ne_bytes(*data.first_chunk()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut control = Control::<128>::new();
        control.push(1, 2, b"abc");
        control.push(3, 4, b"");
        control.push(5, 6, &7_i32.to_ne_bytes());
        assert_eq!(control.as_ref().len(), space(3) + space(0) + space(4));
        let parts: Vec<_> = Parts::of(control.as_ref()).collect();
        assert_eq!(parts[0], (1, 2, &b"abc"[..]));
        assert_eq!(parts[1], (3, 4, &b""[..]));
        assert_eq!((parts[2].0, number(parts[2].2)), (5, Some(7)));
        assert_eq!(parts.len(), 3);
    }

    #[test]
    fn what_is_cut_off_ends_the_reading() {
        let mut control = Control::<64>::new();
        control.push(1, 2, b"abcdefgh");
        let bytes = control.as_ref();
        for end in 0..bytes.len() {
            assert_eq!(Parts::of(&bytes[..end]).count(), 0);
        }
        assert_eq!(Parts::of(&[0; 40]).count(), 0, "a length of nothing");
        assert_eq!(number(&[1, 2]), None);
    }
}
