//! Which color has which number.
//!
//! Identity is exact: equal numbers are the same color, different ones never
//! share anything. A color is in the table as long as someone holds it.

use std::collections::HashMap;
use std::fmt;
use std::ptr::NonNull;

use super::core::{ColorRef, Core};
use crate::runtime::Handle;
use crate::sync::{Mutex, MutexGuard};

/// Locks, so that workers that look up different numbers seldom meet.
const SHARDS: usize = 16;

/// Memory for so many is kept in each, about.
const KEPT: usize = 64;

type Shard = HashMap<u64, Entry>;

#[derive(Clone, Copy)]
struct Entry(NonNull<Core>);

// SAFETY: `Core` is Sync; the entry does not own it.
unsafe impl Send for Entry {}

pub(crate) struct Table {
    shards: [Mutex<Shard>; SHARDS],
}

impl Table {
    pub(crate) fn new() -> Table {
        Table {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
        }
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, Shard> {
        // Fibonacci hashing (Knuth, vol. 3, 6.4): neighbours spread.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        let shard = &self.shards[spread as usize % SHARDS];
        shard.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The color with this number, made now if nobody holds it.
    pub(crate) fn get(&self, number: u64, runtime: &Handle, home: usize) -> ColorRef {
        let mut shard = self.shard(number);
        if let Some(entry) = shard.get(&number) {
            // SAFETY: a color leaves the table under this lock before it is
            // freed.
            return unsafe { ColorRef::count_up(entry.0) };
        }
        let color = ColorRef::numbered(runtime, number, home);
        shard.insert(number, Entry(color.as_ptr()));
        color
    }

    /// Gives one reference up. `true`: it was the last, and the table has
    /// forgotten the color.
    pub(super) fn release(&self, number: u64, core: &Core) -> bool {
        if core.refs().down_unless_last() {
            return false;
        }
        let mut shard = self.shard(number);
        let last = core.refs().down();
        if last {
            forget(&mut shard, number);
        }
        last
    }
}

/// Takes a color out, and in the end the memory that many of them took.
fn forget(shard: &mut Shard, number: u64) {
    shard.remove(&number);
    if shard.capacity() > KEPT && shard.len() < shard.capacity() / 4 {
        shard.shrink_to(KEPT.max(shard.capacity() / 2));
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_leave_little_behind() {
        let mut shard = Shard::new();
        let nobody = Entry(NonNull::dangling());
        shard.extend((0..100_000).map(|number| (number, nobody)));
        (0..100_000).for_each(|number| forget(&mut shard, number));
        assert!(shard.is_empty());
        let left = shard.capacity();
        assert!(left < 4 * KEPT, "room for {left} is left");
    }
}
