//! Who is connected, and figures that only grow.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::stop::{Listener, Stop};

/// A figure that only ever grows. Nothing is ordered by it, so relaxed.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Those who are connected. Each connection holds a [`Ticket`]; the strong
/// count of the allocation is their number, and the last drop is the word
/// that nobody is left.
#[derive(Debug)]
pub(crate) struct House {
    own: Ticket,
    empty: Arc<Stop>,
}

/// The right to be served; given back by dropping it.
#[derive(Clone, Debug)]
pub(crate) struct Ticket(Arc<LastOneOut>);

#[derive(Debug)]
struct LastOneOut(Arc<Stop>);

impl Drop for LastOneOut {
    fn drop(&mut self) {
        self.0.say();
    }
}

impl House {
    pub(crate) fn new() -> House {
        let empty = Arc::new(Stop::default());
        House {
            own: Ticket(Arc::new(LastOneOut(empty.clone()))),
            empty,
        }
    }

    /// A ticket, if fewer than `most` are out.
    pub(crate) fn admit(&self, most: Option<usize>) -> Option<Ticket> {
        // Only the accept loop gives tickets out: the number can but fall
        // between the look and the clone.
        if most.is_some_and(|most| self.census().open() >= most) {
            return None;
        }
        Some(self.own.clone())
    }

    pub(crate) fn census(&self) -> Census {
        Census {
            tickets: Arc::downgrade(&self.own.0),
            kept: 1,
        }
    }

    /// Admits nobody any more; the listener hears when the last one has left.
    pub(crate) fn close(self) -> (Listener, Census) {
        let mut census = self.census();
        census.kept = 0;
        (self.empty.listen(), census)
    }
}

/// Tells how many are connected.
#[derive(Debug)]
pub(crate) struct Census {
    tickets: Weak<LastOneOut>,
    /// Tickets that the house keeps for itself.
    kept: usize,
}

impl Census {
    pub(crate) fn open(&self) -> usize {
        self.tickets.strong_count().saturating_sub(self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn tickets_are_counted_and_the_last_one_out_says_so() {
        let house = House::new();
        let first = house.admit(Some(2)).unwrap();
        let second = house.admit(Some(2)).unwrap();
        assert!(house.admit(Some(2)).is_none());
        drop(first);
        assert_eq!(house.census().open(), 1);
        let (mut empty, census) = house.close();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(census.open(), 1);
        assert!(pin!(empty.wait()).poll(&mut cx).is_pending());
        drop(second);
        assert!(pin!(empty.wait()).poll(&mut cx).is_ready());
        assert_eq!(census.open(), 0);
    }
}
