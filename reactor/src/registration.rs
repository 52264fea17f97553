//! Descriptors in the epoll set, and who is told of their edges.

use isochrome_runtime::op::{InFlight, Interest};

use crate::table::Table;

/// A descriptor in the epoll set.
#[derive(Debug, Default)]
pub(crate) struct Registration {
    read: Direction,
    write: Direction,
}

impl Registration {
    #[inline]
    pub(crate) fn direction(&mut self, interest: Interest) -> &mut Direction {
        match interest {
            Interest::Read => &mut self.read,
            Interest::Write => &mut self.write,
        }
    }
}

/// One direction of it.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) subscribers: List,
    /// An edge told of an end, an error or urgent data. It will not be told
    /// again, and who subscribes later has to know.
    exceptional: bool,
}

impl Direction {
    /// An edge: tells everybody.
    #[inline]
    pub(crate) fn edge(&mut self, subscribers: &Table<Subscriber>, exceptional: bool) {
        self.exceptional |= exceptional;
        let mut next = self.subscribers.first();
        while let Some(subscriber) = next.and_then(|key| subscribers.get(key)) {
            next = subscriber.after;
            subscriber.op.edge(exceptional);
        }
    }

    /// Takes a subscriber in. It is told of what may have been told before.
    pub(crate) fn add(&mut self, subscribers: &mut Table<Subscriber>, subscriber: Subscriber) {
        let key = self.subscribers.push(subscribers, subscriber);
        if let Some(subscriber) = subscribers.get(key) {
            subscriber.op.set_key(key);
            subscriber.op.edge(self.exceptional);
        }
    }
}

/// An operation that is told of edges.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) op: InFlight,
    /// The registration and the direction.
    pub(crate) token: u64,
    pub(crate) interest: Interest,
    /// Its neighbours in the list.
    before: Option<u64>,
    after: Option<u64>,
}

impl Subscriber {
    pub(crate) fn new(op: InFlight, token: u64, interest: Interest) -> Subscriber {
        Subscriber {
            op,
            token,
            interest,
            before: None,
            after: None,
        }
    }
}

/// Subscribers in the order of their arrival: a list threaded through the
/// table that holds them, so that it takes no memory of its own and a cancel
/// no search.
#[derive(Debug, Default)]
pub(crate) struct List {
    ends: Option<(u64, u64)>,
}

impl List {
    #[inline]
    pub(crate) fn first(&self) -> Option<u64> {
        self.ends.map(|(first, _)| first)
    }

    /// Puts a subscriber at the end. Returns its key.
    fn push(&mut self, subscribers: &mut Table<Subscriber>, mut subscriber: Subscriber) -> u64 {
        let back = self.ends.map(|(_, back)| back);
        subscriber.before = back;
        let key = subscribers.insert(subscriber);
        if let Some(last) = back.and_then(|back| subscribers.get_mut(back)) {
            last.after = Some(key);
        }
        self.ends = Some((self.first().unwrap_or(key), key));
        key
    }

    /// Takes a subscriber out, wherever it stands in this list.
    pub(crate) fn remove(
        &mut self,
        subscribers: &mut Table<Subscriber>,
        key: u64,
    ) -> Option<Subscriber> {
        let gone = subscribers.remove(key)?;
        if let Some(before) = gone.before.and_then(|k| subscribers.get_mut(k)) {
            before.after = gone.after;
        }
        if let Some(after) = gone.after.and_then(|k| subscribers.get_mut(k)) {
            after.before = gone.before;
        }
        self.ends = self.ends.and_then(|(first, back)| {
            let first = if first == key { gone.after? } else { first };
            let back = if back == key { gone.before? } else { back };
            Some((first, back))
        });
        Some(gone)
    }
}
