//! A bounded cache. It knows nothing of sharing: every method takes `&mut`.

use std::collections::HashMap;

use bytes::Bytes;

/// Keeps the values that were used lately, by the clock algorithm (Corbató, "A
/// paging experiment with the Multics system", 1968): a hand goes round, spares
/// what was used since it came by last, and takes the first that was not. It
/// comes near to least-recently-used, and a hit moves nothing.
#[derive(Debug)]
pub(crate) struct Cache {
    places: HashMap<u64, usize>,
    slots: Vec<Slot>,
    hand: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Slot {
    key: u64,
    value: Bytes,
    used: bool,
}

impl Cache {
    /// For so many values, at least one.
    pub(crate) fn new(capacity: usize) -> Cache {
        Cache {
            places: HashMap::new(),
            slots: Vec::new(),
            hand: 0,
            capacity,
        }
    }

    pub(crate) fn get(&mut self, key: u64) -> Option<Bytes> {
        let slot = &mut self.slots[*self.places.get(&key)?];
        slot.used = true;
        Some(slot.value.clone())
    }

    /// Does nothing if the key is there: its value is the same.
    pub(crate) fn put(&mut self, key: u64, value: Bytes) {
        if self.places.contains_key(&key) {
            return;
        }
        // Not used yet: what is asked for once goes before what is asked for
        // again.
        let slot = Slot {
            key,
            value,
            used: false,
        };
        if self.slots.len() < self.capacity {
            self.places.insert(key, self.slots.len());
            self.slots.push(slot);
            return;
        }
        while std::mem::take(&mut self.slots[self.hand].used) {
            self.advance();
        }
        self.places.remove(&self.slots[self.hand].key);
        self.places.insert(key, self.hand);
        self.slots[self.hand] = slot;
        self.advance();
    }

    fn advance(&mut self) {
        self.hand = (self.hand + 1) % self.slots.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: u64) -> Bytes {
        Bytes::from(key.to_string())
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        for capacity in [1, 2, 7] {
            let mut cache = Cache::new(capacity);
            for key in 0..100 {
                assert_eq!(cache.get(key), None);
                cache.put(key, value(key));
                assert_eq!(cache.get(key), Some(value(key)));
                assert!(cache.slots.len() <= capacity);
                assert_eq!(cache.places.len(), cache.slots.len());
            }
            let kept = (0..100).filter(|&key| cache.get(key).is_some());
            assert_eq!(kept.count(), capacity);
        }
    }

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::new(10);
        for key in 0..10 {
            cache.put(key, value(key));
        }
        for key in 10..1000 {
            for used in 0..5 {
                assert_eq!(cache.get(used), Some(value(used)), "at {key}");
            }
            cache.put(key, value(key));
        }
    }

    #[test]
    fn a_key_is_kept_once() {
        let mut cache = Cache::new(3);
        cache.put(1, value(1));
        cache.put(1, value(1));
        assert_eq!(cache.slots.len(), 1);
    }
}
