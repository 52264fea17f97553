//! Descriptors in the epoll set, and who is told of their edges.
//!
//! Nearly every direction of a descriptor has one subscriber, or none: that one
//! stands in the registration itself, so that an edge finds it in one step.
//! Those who come while it is there stand in a list, apart, so that a
//! registration that has none is small.

use std::collections::BTreeMap;

use isochrome_runtime::op::{InFlight, Interest};

use crate::table::{Table, Tenant};

/// A descriptor in the epoll set. What there is one of for each direction
/// stands in the order of [`at`].
#[derive(Debug)]
pub(crate) struct Registration {
    only: [Option<InFlight>; 2],
    generation: u32,
    /// An edge told of an end, an error or urgent data. It will not be told
    /// again, and who subscribes later has to know.
    exceptional: [bool; 2],
    /// It has lists among the [`Others`].
    crowded: bool,
}

// Each connection has one in the table, which takes no more for it.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Option<Registration>>() <= 24);

impl Tenant for Registration {
    fn generation(&self) -> u32 {
        self.generation
    }
}

#[inline]
fn at(interest: Interest) -> usize {
    match interest {
        Interest::Read => 0,
        Interest::Write => 1,
    }
}

impl Registration {
    pub(crate) fn new(generation: u32) -> Registration {
        Registration {
            only: [None, None],
            generation,
            exceptional: [false; 2],
            crowded: false,
        }
    }

    /// An edge: tells everybody.
    #[inline]
    pub(crate) fn edge(
        &mut self,
        token: u64,
        interest: Interest,
        others: &Others,
        exceptional: bool,
    ) {
        let at = at(interest);
        self.exceptional[at] |= exceptional;
        if let Some(only) = &self.only[at] {
            only.edge(exceptional);
        }
        if self.crowded {
            others.edge(token, at, exceptional);
        }
    }

    /// Whether it was told of something that another registration would not be
    /// told of again. Such a one does not move: what has ended is soon gone, and
    /// urgent data are rare.
    pub(crate) fn is_exceptional(&self) -> bool {
        self.exceptional.contains(&true)
    }

    /// Takes a subscriber in. It is told of what may have been told before.
    pub(crate) fn add(
        &mut self,
        others: &mut Others,
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
        self.crowded = true;
        let (key, other) = others.push(op, token, interest);
        other.op.set_key(Name::Other(key).raw());
        other.op.edge(exceptional);
    }

    /// Takes a subscriber out.
    pub(crate) fn remove(&mut self, others: &mut Others, name: Name) -> Option<InFlight> {
        match name {
            Name::Only(_, interest) => self.only[at(interest)].take(),
            Name::Other(key) => {
                let (op, is_last) = others.remove(key)?;
                self.crowded = !is_last;
                Some(op)
            }
        }
    }

    /// Takes all subscribers out, one by one.
    pub(crate) fn pop(&mut self, token: u64, others: &mut Others) -> Option<InFlight> {
        let only = self.only.iter_mut().find_map(Option::take);
        only.or_else(|| {
            let crowded = self.crowded.then_some(token);
            let first = crowded.and_then(|token| others.first(token))?;
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

/// Those who are told of edges beside the first of each direction.
#[derive(Debug)]
pub(crate) struct Others {
    table: Table<Other>,
    /// By registration, of those that have any.
    lists: BTreeMap<u64, [List; 2]>,
}

impl Others {
    pub(crate) fn new() -> Others {
        Others {
            table: Table::new(),
            lists: BTreeMap::new(),
        }
    }

    /// The registration of a subscriber.
    pub(crate) fn token(&self, key: u64) -> Option<u64> {
        self.table.get(key).map(|other| other.token)
    }

    #[cold]
    fn edge(&self, token: u64, at: usize, exceptional: bool) {
        if let Some(lists) = self.lists.get(&token) {
            lists[at].edge(&self.table, exceptional);
        }
    }

    fn push(&mut self, op: InFlight, token: u64, interest: Interest) -> (u64, &Other) {
        let lists = self.lists.entry(token).or_default();
        lists[at(interest)].push(&mut self.table, op, token, interest)
    }

    /// Takes a subscriber out. `true`: it was the last of its registration.
    fn remove(&mut self, key: u64) -> Option<(InFlight, bool)> {
        let other = self.table.get(key)?;
        let (token, at) = (other.token, at(other.interest));
        let lists = self.lists.get_mut(&token)?;
        let gone = lists[at].remove(&mut self.table, key)?;
        let is_last = lists.iter().all(|list| list.first().is_none());
        if is_last {
            self.lists.remove(&token);
        }
        Some((gone.op, is_last))
    }

    fn first(&self, token: u64) -> Option<u64> {
        self.lists.get(&token)?.iter().find_map(List::first)
    }
}

#[cfg(test)]
impl Others {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

/// An operation that is told of edges beside the only one.
#[derive(Debug)]
struct Other {
    op: InFlight,
    generation: u32,
    /// The registration and the direction.
    token: u64,
    interest: Interest,
    /// Its neighbours in the list.
    before: Option<u64>,
    after: Option<u64>,
}

impl Tenant for Other {
    fn generation(&self) -> u32 {
        self.generation
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
    fn push<'a>(
        &mut self,
        others: &'a mut Table<Other>,
        op: InFlight,
        token: u64,
        interest: Interest,
    ) -> (u64, &'a Other) {
        let back = self.ends.map(|(_, back)| back);
        let key = others.insert(|generation| Other {
            op,
            generation,
            token,
            interest,
            before: back,
            after: None,
        });
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
