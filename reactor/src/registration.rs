//! Descriptors in the epoll set, and who is told of their edges.
//!
//! Nearly every direction of a descriptor has one subscriber, or none: that one
//! stands in the registration itself, so that an edge finds it in one step.
//! Those who come while it is there stand in a list.

use isochrome_runtime::op::{InFlight, Interest};

use crate::table::Table;

/// A descriptor in the epoll set. What there is one of for each direction
/// stands in the order of [`at`].
#[derive(Debug, Default)]
pub(crate) struct Registration {
    only: [Option<InFlight>; 2],
    /// In a box, so that those who have none are small.
    others: Option<Box<[List; 2]>>,
    /// An edge told of an end, an error or urgent data. It will not be told
    /// again, and who subscribes later has to know.
    exceptional: [bool; 2],
}

#[inline]
fn at(interest: Interest) -> usize {
    match interest {
        Interest::Read => 0,
        Interest::Write => 1,
    }
}

impl Registration {
    /// An edge: tells everybody.
    #[inline]
    pub(crate) fn edge(&mut self, interest: Interest, others: &Table<Other>, exceptional: bool) {
        let at = at(interest);
        self.exceptional[at] |= exceptional;
        if let Some(only) = &self.only[at] {
            only.edge(exceptional);
        }
        if let Some(lists) = &self.others {
            lists[at].edge(others, exceptional);
        }
    }

    /// Takes a subscriber in. It is told of what may have been told before.
    pub(crate) fn add(
        &mut self,
        others: &mut Table<Other>,
        op: InFlight,
        token: u64,
        interest: Interest,
    ) {
        let at = at(interest);
        let exceptional = self.exceptional[at];
        if self.only[at].is_none() {
            op.set_key(Name::Only(token, interest).raw());
            self.only[at].insert(op).edge(exceptional);
            return;
        }
        let lists = self.others.get_or_insert_default();
        let (key, other) = lists[at].push(others, Other::new(op, token, interest));
        other.op.set_key(Name::Other(key).raw());
        other.op.edge(exceptional);
    }

    /// Takes a subscriber out.
    pub(crate) fn remove(&mut self, others: &mut Table<Other>, name: Name) -> Option<InFlight> {
        match name {
            Name::Only(_, interest) => self.only[at(interest)].take(),
            Name::Other(key) => {
                let at = at(others.get(key)?.interest);
                Some(self.others.as_mut()?[at].remove(others, key)?.op)
            }
        }
    }

    /// Takes all subscribers out, one by one.
    pub(crate) fn pop(&mut self, others: &mut Table<Other>) -> Option<InFlight> {
        let only = self.only.iter_mut().find_map(Option::take);
        only.or_else(|| {
            let first = self.others.as_ref()?.iter().find_map(List::first)?;
            self.remove(others, Name::Other(first))
        })
    }
}

#[cfg(test)]
impl Registration {
    /// How many there are, without the others.
    pub(crate) fn subscribers(&self) -> usize {
        self.only.iter().flatten().count()
    }
}

/// What a subscriber is called, to be cancelled by: the token of its
/// registration and the direction, or its key among the others. Marks in the
/// low half, where a table has its index, tell which; no table is that large.
/// The name of who is gone may be another's: by the contract only who is in
/// flight is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Only(u64, Interest),
    Other(u64),
}

const ONLY: u64 = 1 << 31;
const WRITE: u64 = 1 << 30;

impl Name {
    fn raw(self) -> u64 {
        match self {
            Name::Only(token, Interest::Read) => token | ONLY,
            Name::Only(token, Interest::Write) => token | ONLY | WRITE,
            Name::Other(key) => key,
        }
    }

    pub(crate) fn from_raw(raw: u64) -> Name {
        match (raw & ONLY != 0, raw & WRITE != 0) {
            (true, false) => Name::Only(raw & !ONLY, Interest::Read),
            (true, true) => Name::Only(raw & !ONLY & !WRITE, Interest::Write),
            (false, _) => Name::Other(raw),
        }
    }
}

/// An operation that is told of edges beside the only one.
#[derive(Debug)]
pub(crate) struct Other {
    op: InFlight,
    /// The registration and the direction.
    pub(crate) token: u64,
    interest: Interest,
    /// Its neighbours in the list.
    before: Option<u64>,
    after: Option<u64>,
}

impl Other {
    fn new(op: InFlight, token: u64, interest: Interest) -> Other {
        Other {
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
struct List {
    ends: Option<(u64, u64)>,
}

impl List {
    fn first(&self) -> Option<u64> {
        self.ends.map(|(first, _)| first)
    }

    fn edge(&self, others: &Table<Other>, exceptional: bool) {
        let mut next = self.first();
        while let Some(other) = next.and_then(|key| others.get(key)) {
            next = other.after;
            other.op.edge(exceptional);
        }
    }

    /// Puts a subscriber at the end. Returns it, and its key.
    fn push<'a>(&mut self, others: &'a mut Table<Other>, mut other: Other) -> (u64, &'a Other) {
        let back = self.ends.map(|(_, back)| back);
        other.before = back;
        let key = others.insert(other);
        if let Some(last) = back.and_then(|back| others.get_mut(back)) {
            last.after = Some(key);
        }
        self.ends = Some((self.first().unwrap_or(key), key));
        (key, others.get(key).expect("just put there"))
    }

    /// Takes a subscriber out, wherever it stands in this list.
    fn remove(&mut self, others: &mut Table<Other>, key: u64) -> Option<Other> {
        let gone = others.remove(key)?;
        if let Some(before) = gone.before.and_then(|k| others.get_mut(k)) {
            before.after = gone.after;
        }
        if let Some(after) = gone.after.and_then(|k| others.get_mut(k)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        let token = 0xdead_beef << 32 | 0x0fff_ffff;
        for name in [
            Name::Only(token, Interest::Read),
            Name::Only(token, Interest::Write),
            Name::Other(token),
        ] {
            assert_eq!(Name::from_raw(name.raw()), name);
        }
    }
}
