//! Which color has which number.
//!
//! Identity is exact: equal numbers are the same color, different ones never
//! share anything. A color is in the table as long as someone holds it.

use std::collections::HashMap;
use std::fmt;
use std::ptr::NonNull;

use super::core::{ColorRef, Core, Kind};
use crate::runtime::Handle;
use crate::sync::atomic::Ordering;
use crate::sync::{Mutex, MutexGuard};

/// Locks, so that workers that look up different numbers seldom meet.
const SHARDS: usize = 16;

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
        let color = ColorRef::new(runtime, Kind::Number(number), home);
        shard.insert(number, Entry(color.as_ptr()));
        color
    }

    /// Gives one reference up. `true`: it was the last, and the table has
    /// forgotten the color.
    pub(super) fn release(&self, number: u64, core: &Core) -> bool {
        let mut count = core.count().load(Ordering::Relaxed);
        while count > 1 {
            match core.count().compare_exchange_weak(
                count,
                count - 1,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return false,
                Err(other) => count = other,
            }
        }
        let mut shard = self.shard(number);
        // Acquire and Release: as for other colors.
        let last = core.count().fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            shard.remove(&number);
        }
        last
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}
