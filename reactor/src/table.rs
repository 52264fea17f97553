//! A slab whose names are never used twice.

use slab::Slab;

/// Values by names that consist of an index and a generation, so that the
/// name of a value that is gone finds nothing, also when its place is taken.
///
/// The generations are counted over the whole table: a name comes back only
/// after 2^32 insertions, the last of them in the very same place.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

fn index(key: u64) -> usize {
    key as u32 as usize
}

fn generation(key: u64) -> u32 {
    (key >> 32) as u32
}

impl<T> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table {
            slab: Slab::new(),
            generation: 0,
        }
    }

    /// Never returns `u64::MAX`, which is left to others: the index would
    /// have to be 2^32 - 1.
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let index = self.slab.insert((self.generation, value));
        debug_assert!(index < u32::MAX as usize);
        u64::from(self.generation) << 32 | index as u64
    }

    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        match self.slab.get(index(key)) {
            Some((g, value)) if *g == generation(key) => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        match self.slab.get_mut(index(key)) {
            Some((g, value)) if *g == generation(key) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        self.get(key)?;
        Some(self.slab.remove(index(key)).1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, (_, value))| value)
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.slab.drain().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_value_that_is_gone_finds_nothing() {
        let mut table = Table::new();
        let a = table.insert('a');
        assert_eq!(table.remove(a), Some('a'));
        let b = table.insert('b');
        assert_eq!(index(a), index(b), "the place is reused");
        assert_ne!(a, b);
        assert_eq!(table.get_mut(a), None);
        assert_eq!(table.remove(a), None);
        assert_eq!(table.remove(b), Some('b'));
        assert!(table.get(u64::MAX).is_none());
    }
}
