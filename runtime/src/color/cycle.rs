//! Holds that would wait for each other.
//!
//! Only a hold that was asked for inside another can be part of a circle, and
//! only while it waits. So only those are noted, under a lock that no other hold
//! takes. Each looks, before it waits, whether it would close a circle: from the
//! color that it wants, to the noted holds inside a hold of that color, to the
//! colors that these want, and so on, to a color that is held around itself.
//!
//! Looking when one begins to wait is enough: a grant makes no circle, because
//! who is granted waits no more.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use super::core::ColorRef;
use super::hold::Held;
use crate::sync::{Mutex, MutexGuard};

/// The holds of a runtime that wait inside other holds.
pub(crate) struct Holds(Mutex<Vec<Arc<Held>>>);

/// What a circle looks like from the hold that would close it.
pub(super) struct Cycle {
    color: String,
    at: &'static Location<'static>,
    held_at: &'static Location<'static>,
    /// Where the hold waits that is inside the one at `held_at`; none if that is
    /// further out here.
    waits_at: Option<&'static Location<'static>>,
}

impl Holds {
    pub(crate) fn new() -> Holds {
        Holds(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Held>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes a hold that is about to wait.
    pub(super) fn add(&self, new: &Arc<Held>) -> Result<(), Cycle> {
        let mut waiting = self.lock();
        if let Some(cycle) = find(&waiting, new) {
            return Err(cycle);
        }
        waiting.push(new.clone());
        Ok(())
    }

    pub(super) fn remove(&self, held: &Held) {
        let mut waiting = self.lock();
        let found = waiting.iter().position(|w| std::ptr::eq(&**w, held));
        let removed = found.map(|i| waiting.swap_remove(i));
        drop(waiting);
        drop(removed);
    }
}

/// The hold around `inner` that has the color.
fn around<'a>(inner: &'a Held, color: &ColorRef) -> Option<&'a Held> {
    inner.around().find(|held| held.has(color.as_ptr()))
}

fn find(waiting: &[Arc<Held>], new: &Held) -> Option<Cycle> {
    let cycle = |held: &Held, waits_at| Cycle {
        color: format!("{:?}", new.color()),
        at: new.at,
        held_at: held.at,
        waits_at,
    };
    if let Some(held) = around(new, new.color()) {
        return Some(cycle(held, None));
    }
    let mut seen = vec![new.color().as_ptr()];
    waiting.iter().find_map(|first| {
        let held = around(first, new.color())?;
        let mut wanted = vec![first.color()];
        while let Some(color) = wanted.pop() {
            if around(new, color).is_some() {
                return Some(cycle(held, Some(first.at)));
            }
            if seen.contains(&color.as_ptr()) {
                continue;
            }
            seen.push(color.as_ptr());
            let next = waiting.iter().filter(|w| around(w, color).is_some());
            wanted.extend(next.map(|w| w.color()));
        }
        None
    })
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cycle {
            color, at, held_at, ..
        } = self;
        write!(
            f,
            "the hold of {color} at {at} would wait for ever: the color is held "
        )?;
        match self.waits_at {
            None => write!(f, "by the hold around it, made at {held_at}"),
            Some(waits_at) => write!(
                f,
                "by the hold made at {held_at}, which waits, at {waits_at}, for a color that is \
                 held around this one"
            ),
        }
    }
}
