//! Who is in a room. Plain data: the color of its cell does the rest.

use bytes::Bytes;

use crate::outbox::Outbox;

/// A room. It is closed when the last member leaves, and stays closed: its
/// name may be another room's by then.
#[derive(Debug, Default)]
pub(crate) struct Room {
    members: Vec<Member>,
    closed: bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    outbox: Outbox,
}

impl Room {
    /// Takes a member in, and tells everybody. `false`: it is closed.
    #[must_use]
    pub(crate) fn join(&mut self, name: String, outbox: Outbox, told: Bytes) -> bool {
        if self.closed {
            return false;
        }
        self.members.push(Member { name, outbox });
        self.tell(&told);
        true
    }

    /// Lets a member go, and tells the others. `true`: that was the last one,
    /// and the room is closed.
    #[must_use]
    pub(crate) fn leave(&mut self, outbox: &Outbox, told: &Bytes) -> bool {
        self.members.retain(|member| member.outbox != *outbox);
        self.tell(told);
        self.closed = self.members.is_empty();
        self.closed
    }

    pub(crate) fn rename(&mut self, outbox: &Outbox, name: String, told: &Bytes) {
        let member = self.members.iter_mut().find(|m| m.outbox == *outbox);
        member.expect("it is in the room").name = name;
        self.tell(told);
    }

    /// Puts a line into everybody's queue, the speaker's too.
    pub(crate) fn tell(&self, line: &Bytes) {
        for member in &self.members {
            member.outbox.push(line.clone());
        }
    }

    /// In the order in which they came.
    pub(crate) fn names(&self) -> Vec<String> {
        self.members.iter().map(|m| m.name.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }
}
