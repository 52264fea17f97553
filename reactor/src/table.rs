//! A slab whose names are never used twice.

use slab::Slab;

/// Values by names that consist of an index and a generation, so that the
/// name of a value that is gone finds nothing, also when its place is taken.
///
/// The generations are counted over the whole table: a name comes back only
/// after 2^32 insertions, the last of them in the very same place.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slab: Slab<T>,
    generation: u32,
}

/// What has room for its generation: it can be where a table beside the value
/// would leave a gap.
pub(crate) trait Tenant {
    /// The one that it was made with.
    fn generation(&self) -> u32;
}

fn index(key: u64) -> usize {
    key as u32 as usize
}

fn generation(key: u64) -> u32 {
    (key >> 32) as u32
}

fn name(generation: u32, index: usize) -> u64 {
    u64::from(generation) << 32 | index as u64
}

impl<T: Tenant> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table {
            slab: Slab::new(),
            generation: 0,
        }
    }

    /// Puts what is made for a generation there. Never returns `u64::MAX`,
    /// which is left to others: the index would have to be 2^32 - 1.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32) -> T) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let index = self.slab.insert(make(self.generation));
        debug_assert!(index < u32::MAX as usize);
        name(self.generation, index)
    }

    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let value = self.slab.get(index(key))?;
        (value.generation() == generation(key)).then_some(value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let value = self.slab.get_mut(index(key))?;
        (value.generation() == generation(key)).then_some(value)
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        self.get(key)?;
        Some(self.slab.remove(index(key)))
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
        self.slab.iter().map(|(_, value)| value)
    }

    /// Takes everything out, with its names.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (u64, T)> {
        let slab = std::mem::take(&mut self.slab);
        let named = |(index, value): (usize, T)| (name(value.generation(), index), value);
        slab.into_iter().map(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Value(u32);

    impl Tenant for Value {
        fn generation(&self) -> u32 {
            self.0
        }
    }

    #[test]
    fn the_name_of_a_value_that_is_gone_finds_nothing() {
        let mut table = Table::new();
        let a = table.insert(Value);
        assert_eq!(table.remove(a), Some(Value(1)));
        let b = table.insert(Value);
        assert_eq!(index(a), index(b), "the place is reused");
        assert_ne!(a, b);
        assert_eq!(table.get_mut(a), None);
        assert_eq!(table.remove(a), None);
        assert_eq!(table.remove(b), Some(Value(2)));
        assert!(table.get(u64::MAX).is_none());
    }
}
