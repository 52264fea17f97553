//! The operations that a driver has in flight, by key.
//!
//! A [`Key`] is an index and a generation. The kernel carries it through as
//! `user_data`, and the runtime as the name to cancel by; either may come back
//! with the key of something that is long gone, and then finds nothing, where
//! a pointer would find freed memory or a stranger.

/// What an operation is called: the index of its entry in the low half, the
/// generation of the table when it was entered in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

/// No entry has this index: keys with it name the driver's own business.
const RESERVED: u32 = u32::MAX;

/// Set beside the index of a send in `prompt`, in the other half.
const PROMPT: u32 = 1 << 31;

/// Set in the index of a request that cancels; no table is that large.
const CANCEL: u64 = 1 << 31;

impl Key {
    /// The poll on the wake source.
    pub(crate) const WAKE: Key = Key::new(RESERVED, 0);
    /// The request that cancels everything.
    pub(crate) const CANCEL_ALL: Key = Key::new(RESERVED, 1);

    const fn new(index: u32, generation: u32) -> Key {
        Key((generation as u64) << 32 | index as u64)
    }

    pub(crate) const fn from_raw(raw: u64) -> Key {
        Key(raw)
    }

    /// The key of the request that cancels the operation with this key.
    pub(crate) const fn cancel(self) -> Key {
        Key(self.0 | CANCEL)
    }

    /// The operation that the request with this key cancels.
    pub(crate) fn cancels(self) -> Option<Key> {
        let is_cancel = self.0 & CANCEL != 0 && self.0 as u32 != RESERVED;
        is_cancel.then_some(Key(self.0 & !CANCEL))
    }

    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    const fn index(self) -> usize {
        self.0 as u32 as usize
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Key {
    /// What a send in `prompt` is called: a half that no index is.
    pub(crate) const fn prompt(index: usize) -> Key {
        Key::new(RESERVED, PROMPT | index as u32)
    }

    pub(crate) const fn is_prompt(self) -> bool {
        self.0 as u32 == RESERVED && self.generation() & PROMPT != 0
    }

    /// Which of these.
    pub(crate) const fn prompt_index(self) -> usize {
        (self.generation() & !PROMPT) as usize
    }
}

/// What has room for its generation: it can be where a table beside the value
/// would leave a gap.
pub(crate) trait Tenant {
    /// That of the key which it was made for.
    fn generation(&self) -> u32;
}

/// Entries by key.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Vec<Entry<T>>,
    /// The vacant entry that is filled next, if there is one in `entries`.
    vacant: u32,
    len: usize,
    /// One for the whole table, and a new one for each entry: an index would
    /// have to be reused exactly 2^32 insertions later for a stale key to fit.
    generation: u32,
}

#[derive(Debug)]
enum Entry<T> {
    Filled(T),
    /// With the entry that is filled after it.
    Vacant(u32),
}

impl<T: Tenant> Entry<T> {
    /// What has this key.
    #[inline]
    fn of(&self, key: Key) -> Option<&T> {
        match self {
            Entry::Filled(value) if value.generation() == key.generation() => Some(value),
            _ => None,
        }
    }

    #[inline]
    fn of_mut(&mut self, key: Key) -> Option<&mut T> {
        match self {
            Entry::Filled(value) if value.generation() == key.generation() => Some(value),
            _ => None,
        }
    }
}

impl<T: Tenant> Table<T> {
    /// What an entry takes.
    #[cfg(target_pointer_width = "64")]
    pub(crate) const ENTRY: usize = size_of::<Entry<T>>();

    pub(crate) fn new() -> Table<T> {
        Table {
            entries: Vec::new(),
            vacant: 0,
            len: 0,
            generation: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Enters what `make` makes, which is told its key, and returns what else
    /// it makes.
    #[inline]
    pub(crate) fn insert_with<E>(&mut self, make: impl FnOnce(Key) -> (T, E)) -> (Key, E) {
        let index = self.vacant;
        if index as usize >= self.entries.len() {
            self.grow();
        }
        self.generation = self.generation.wrapping_add(1);
        let key = Key::new(index, self.generation);
        let entry = &mut self.entries[key.index()];
        let (value, extra) = make(key);
        debug_assert_eq!(value.generation(), key.generation());
        match std::mem::replace(entry, Entry::Filled(value)) {
            Entry::Vacant(next) => self.vacant = next,
            Entry::Filled(_) => unreachable!("an entry in the list of the vacant ones is one"),
        }
        self.len += 1;
        (key, extra)
    }

    #[cold]
    fn grow(&mut self) {
        let next = self.entries.len() + 1;
        debug_assert!(next < CANCEL as usize);
        self.entries.push(Entry::Vacant(next as u32));
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key.index())?.of_mut(key)
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        let entry = self.entries.get(key.index());
        entry.is_some_and(|entry| entry.of(key).is_some())
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.remove_if(key, |_| true)
    }

    /// Removes what has this key, if that is there and `is_over` says so.
    #[inline]
    pub(crate) fn remove_if(
        &mut self,
        key: Key,
        is_over: impl FnOnce(&mut T) -> bool,
    ) -> Option<T> {
        let entry = self.entries.get_mut(key.index())?;
        if !is_over(entry.of_mut(key)?) {
            return None;
        }
        let Entry::Filled(value) = std::mem::replace(entry, Entry::Vacant(self.vacant)) else {
            unreachable!("it was there just now");
        };
        self.vacant = key.index() as u32;
        self.len -= 1;
        Some(value)
    }

    /// Every entry, by key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| match entry {
            Entry::Filled(value) => Some(Key::new(index as u32, value.generation())),
            Entry::Vacant(_) => None,
        })
    }

    /// Takes every entry out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.vacant = 0;
        self.len = 0;
        self.entries.drain(..).filter_map(|entry| match entry {
            Entry::Filled(value) => Some(value),
            Entry::Vacant(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Value {
        number: u32,
        generation: u32,
    }

    impl Tenant for Value {
        fn generation(&self) -> u32 {
            self.generation
        }
    }

    fn insert(table: &mut Table<Value>, number: u32) -> Key {
        let made = |key: Key| Value {
            number,
            generation: key.generation(),
        };
        table.insert_with(|key| (made(key), ())).0
    }

    fn remove(table: &mut Table<Value>, key: Key) -> Option<u32> {
        table.remove(key).map(|value| value.number)
    }

    #[test]
    fn the_halves_of_a_key_do_not_mix() {
        let key = Key::new(0xdead_beef, 0x0123_4567);
        assert_eq!(key.index(), 0xdead_beef);
        assert_eq!(key.generation(), 0x0123_4567);
        assert_eq!(Key::from_raw(key.raw()), key);
        assert_ne!(Key::WAKE, Key::CANCEL_ALL);
        for reserved in [Key::WAKE, Key::CANCEL_ALL] {
            assert_eq!(reserved.cancels(), None);
        }
        let key = Key::new(7, 3);
        assert_eq!(key.cancel().cancels(), Some(key));
        assert_eq!(key.cancels(), None);
    }

    #[test]
    fn a_stale_key_does_not_reach_the_next_tenant() {
        let mut table = Table::new();
        let first = insert(&mut table, 1);
        assert_eq!(remove(&mut table, first), Some(1));
        let second = insert(&mut table, 2);
        assert_eq!(first.index(), second.index(), "the index is reused");
        assert!(!table.contains(first));
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(second).unwrap().number, 2);
    }

    #[test]
    fn what_was_left_last_is_filled_first_and_then_the_table_grows() {
        let mut table = Table::new();
        let keys = [0, 1, 2].map(|n| insert(&mut table, n));
        assert_eq!(
            table.remove_if(keys[1], |v| v.number == 7),
            None,
            "not over"
        );
        assert!(table.remove_if(keys[1], |v| v.number == 1).is_some());
        assert_eq!(remove(&mut table, keys[0]), Some(0));
        assert_eq!((table.len(), table.keys().count()), (1, 1));
        let again = [3, 4, 5].map(|n| insert(&mut table, n));
        assert_eq!(again.map(Key::index), [0, 1, 3]);
        let drained = table.drain().map(|value| value.number);
        assert_eq!(drained.collect::<Vec<_>>(), [3, 4, 2, 5]);
        assert_eq!(insert(&mut table, 6).index(), 0);
    }

    #[test]
    fn unknown_and_reserved_keys_find_nothing() {
        let mut table = Table::new();
        insert(&mut table, 1);
        for key in [Key::WAKE, Key::CANCEL_ALL, Key::new(7, 1), Key::new(0, 0)] {
            assert_eq!(table.get_mut(key), None);
            assert_eq!(table.remove(key), None);
        }
    }

    #[test]
    fn the_generation_wraps() {
        let mut table = Table::new();
        table.generation = u32::MAX;
        let key = insert(&mut table, 1);
        assert_eq!(key.generation(), 0);
        assert!(table.contains(key));
        assert_eq!(table.drain().count(), 1);
        assert_eq!(table.len(), 0);
    }
}
