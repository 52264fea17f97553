//! A hierarchical timer wheel: Varghese and Lauck, "Hashed and Hierarchical
//! Timing Wheels", SOSP 1987, scheme 7.
//!
//! Six levels of 64 slots. A slot of level 0 is one tick wide, one of level
//! `n` is 64^n ticks. A timer stands in the level of the highest digit (base
//! 64) in which its deadline differs from the present; when the present
//! reaches its slot, it fires or moves to a lower level. Starting and removing
//! are O(1), and a timer moves at most five times.

use std::task::Waker;

use slab::Slab;

const LEVELS: usize = 6;
const SLOTS: usize = 64;
const BITS: u32 = 6;

/// Deadlines further away than this (two years of milliseconds) are taken as
/// this far: who waits then asks the clock and starts again.
const FAR: u64 = (1 << (BITS * LEVELS as u32)) - 1;

/// Names a timer. A stale key finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
pub(crate) struct Wheel {
    /// Ticks up to this one have been fired.
    now: u64,
    levels: [Level; LEVELS],
    timers: Slab<Timer>,
    generation: u32,
}

#[derive(Debug)]
struct Level {
    /// A bit for each slot that is not empty.
    occupied: u64,
    first: [u32; SLOTS],
}

impl Level {
    fn new() -> Level {
        Level {
            occupied: 0,
            first: [NONE; SLOTS],
        }
    }
}

#[derive(Debug)]
struct Timer {
    deadline: u64,
    generation: u32,
    level: u8,
    slot: u8,
    before: u32,
    after: u32,
    waker: Waker,
}

const NONE: u32 = u32::MAX;

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            now: 0,
            levels: std::array::from_fn(|_| Level::new()),
            timers: Slab::new(),
            generation: 0,
        }
    }

    /// Starts a timer. A deadline that has passed fires at the next `advance`.
    pub(crate) fn start(&mut self, deadline: u64, waker: Waker) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.timers.insert(Timer {
            // The present slot was emptied: the earliest that can fire is next.
            deadline: deadline.clamp(self.now + 1, self.now + FAR),
            generation,
            level: 0,
            slot: 0,
            before: NONE,
            after: NONE,
            waker,
        }) as u32;
        self.link(index);
        Key { index, generation }
    }

    /// How many have not fired.
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    fn timer(&mut self, key: Key) -> Option<&mut Timer> {
        let timer = self.timers.get_mut(key.index as usize)?;
        (timer.generation == key.generation).then_some(timer)
    }

    /// The waker of a timer that has not fired.
    pub(crate) fn waker(&mut self, key: Key) -> Option<&mut Waker> {
        self.timer(key).map(|timer| &mut timer.waker)
    }

    /// Ends a timer that has not fired, and gives its waker back.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Waker> {
        self.timer(key)?;
        self.unlink(key.index);
        Some(self.timers.remove(key.index as usize).waker)
    }

    /// Ends all timers, and gives their wakers. Keys stay stale.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Waker> + use<> {
        for level in &mut self.levels {
            *level = Level::new();
        }
        let timers = std::mem::take(&mut self.timers);
        timers.into_iter().map(|(_, timer)| timer.waker)
    }

    /// The tick at which `advance` has something to do: the nearest deadline,
    /// or the move of a far one to a lower level before that.
    pub(crate) fn next(&self) -> Option<u64> {
        (0..LEVELS).find_map(|level| self.next_in(level))
    }

    /// The first occupied slot of a level, as the tick at which it begins.
    /// Timers of a lower level come before those of a higher one.
    fn next_in(&self, level: usize) -> Option<u64> {
        let occupied = self.levels[level].occupied;
        if occupied == 0 {
            return None;
        }
        let shift = BITS * level as u32;
        let here = (self.now >> shift) % SLOTS as u64;
        let ahead = u64::from(occupied.rotate_right(here as u32).trailing_zeros());
        let begin = ((self.now >> shift) + ahead) << shift;
        // The present slot of a level is empty, but for the highest, which a
        // far deadline goes once round.
        let round = (SLOTS as u64) << shift;
        Some(if begin > self.now {
            begin
        } else {
            begin + round
        })
    }

    /// Goes on to tick `to`, and hands the wakers of what is due to `fired`.
    pub(crate) fn advance(&mut self, to: u64, fired: &mut Vec<Waker>) {
        while let Some(next) = self.next() {
            if next > to {
                break;
            }
            self.now = next;
            self.empty_present(fired);
        }
        self.now = self.now.max(to);
    }

    /// Fires or moves what is in the present slots, from the highest level
    /// that turns down to the lowest.
    fn empty_present(&mut self, fired: &mut Vec<Waker>) {
        for level in (0..LEVELS).rev() {
            let shift = BITS * level as u32;
            if self.now & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = ((self.now >> shift) % SLOTS as u64) as usize;
            while self.levels[level].first[slot] != NONE {
                let index = self.levels[level].first[slot];
                self.unlink(index);
                if self.timers[index as usize].deadline <= self.now {
                    fired.push(self.timers.remove(index as usize).waker);
                } else {
                    self.link(index);
                }
            }
        }
    }

    fn link(&mut self, index: u32) {
        let deadline = self.timers[index as usize].deadline;
        // The highest digit that differs says the level.
        let differs = (deadline ^ self.now) | 1;
        let level = ((63 - differs.leading_zeros()) / BITS).min(LEVELS as u32 - 1);
        let slot = (deadline >> (BITS * level)) % SLOTS as u64;
        let place = &mut self.levels[level as usize];
        let after = std::mem::replace(&mut place.first[slot as usize], index);
        place.occupied |= 1 << slot;
        if after != NONE {
            self.timers[after as usize].before = index;
        }
        let timer = &mut self.timers[index as usize];
        timer.level = level as u8;
        timer.slot = slot as u8;
        timer.before = NONE;
        timer.after = after;
    }

    fn unlink(&mut self, index: u32) {
        let timer = &self.timers[index as usize];
        let (before, after) = (timer.before, timer.after);
        let (level, slot) = (usize::from(timer.level), usize::from(timer.slot));
        if after != NONE {
            self.timers[after as usize].before = before;
        }
        if before != NONE {
            self.timers[before as usize].after = after;
            return;
        }
        let place = &mut self.levels[level];
        place.first[slot] = after;
        if after == NONE {
            place.occupied &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;

    struct Note {
        id: u64,
        log: Arc<std::sync::Mutex<Vec<u64>>>,
    }

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.log.lock().unwrap().push(self.id);
        }
    }

    /// A generator that needs no crate: xorshift64 (Marsaglia 2003).
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// Random starts, removals and steps, against an ordered map.
    #[test]
    fn agrees_with_an_ordered_map() {
        static SEED: AtomicU64 = AtomicU64::new(0x1234_5678_9abc_def1);
        for _ in 0..20 {
            let seed = SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            println!("seed {seed:#x}");
            against_map(&mut Rng(seed | 1));
        }
    }

    fn against_map(rng: &mut Rng) {
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut wheel = Wheel::new();
        let mut model: BTreeMap<u64, Vec<(u64, Key)>> = BTreeMap::new();
        let mut now = 0;
        for id in 0..2000 {
            match rng.next() % 4 {
                0 | 1 => {
                    let far = 1 << (rng.next() % 30);
                    let deadline = now + rng.next() % far;
                    let note = Arc::new(Note {
                        id,
                        log: log.clone(),
                    });
                    let key = wheel.start(deadline, note.into());
                    model
                        .entry(deadline.max(now + 1))
                        .or_default()
                        .push((id, key));
                }
                2 => {
                    let Some(mut entry) = model.first_entry() else {
                        continue;
                    };
                    let (_, key) = entry.get_mut().pop().unwrap();
                    if entry.get().is_empty() {
                        entry.remove();
                    }
                    assert!(wheel.remove(key).is_some());
                    assert!(wheel.remove(key).is_none());
                }
                _ => {
                    now += rng.next() % (1 << (rng.next() % 26));
                    let mut fired = Vec::new();
                    wheel.advance(now, &mut fired);
                    fired.into_iter().for_each(Waker::wake);
                    let later = model.split_off(&(now + 1));
                    let due = std::mem::replace(&mut model, later);
                    let mut expected: Vec<u64> = due.into_values().flatten().map(|d| d.0).collect();
                    let mut got = std::mem::take(&mut *log.lock().unwrap());
                    expected.sort_unstable();
                    got.sort_unstable();
                    assert_eq!(got, expected);
                    if let Some((&nearest, _)) = model.first_key_value() {
                        let next = wheel.next().unwrap();
                        assert!(next > now && next <= nearest);
                    } else {
                        assert_eq!(wheel.next(), None);
                    }
                }
            }
        }
    }

    #[test]
    fn a_deadline_beyond_the_wheel_is_taken_as_far() {
        let mut wheel = Wheel::new();
        let key = wheel.start(u64::MAX, Waker::noop().clone());
        assert!(wheel.next().is_some_and(|next| next > 0));
        let mut fired = Vec::new();
        wheel.advance(FAR - 1, &mut fired);
        assert!(fired.is_empty());
        wheel.advance(FAR, &mut fired);
        assert_eq!(fired.len(), 1);
        assert!(wheel.remove(key).is_none());
    }
}
