//! Which rooms and names there are: a cell too, in a color of its own.

use std::collections::{BTreeMap, HashSet};

use isochrome::{Color, ColorCell};

use crate::room::Room;

/// A room by its handle; clones are the same room.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) name: String,
    pub(crate) room: ColorCell<Room>,
    /// Tells it from earlier and later rooms of its name.
    number: u64,
}

/// The rooms and the names that are taken.
#[derive(Clone, Debug)]
pub(crate) struct Hall(ColorCell<Register>);

#[derive(Debug, Default)]
struct Register {
    rooms: BTreeMap<String, Door>,
    names: HashSet<String>,
    /// Rooms and guests so far.
    count: u64,
}

impl Hall {
    pub(crate) fn new() -> Hall {
        Hall(Color::new().cell(Register::default()))
    }

    /// The room of that name, new if there is none. It may be closed: then
    /// [`forget`](Hall::forget) it, and ask again.
    pub(crate) async fn room(&self, name: &str) -> Door {
        let name = name.to_owned();
        let room = move |register: &mut Register| {
            register.count += 1;
            let number = register.count;
            let door = register.rooms.entry(name.clone()).or_insert_with(|| Door {
                name,
                room: Color::new().cell(Room::default()),
                number,
            });
            door.clone()
        };
        self.0.with(room).await
    }

    /// Takes a closed room off the list, if nobody else has yet.
    pub(crate) async fn forget(&self, door: Door) {
        let forget = move |register: &mut Register| {
            let there = register.rooms.get(&door.name);
            if there.is_some_and(|there| there.number == door.number) {
                register.rooms.remove(&door.name);
            }
        };
        self.0.with(forget).await;
    }

    /// By name.
    pub(crate) async fn rooms(&self) -> Vec<Door> {
        let rooms = |register: &mut Register| register.rooms.values().cloned().collect();
        self.0.with(rooms).await
    }

    /// A name for somebody who has not said theirs.
    pub(crate) async fn guest(&self) -> String {
        let guest = |register: &mut Register| loop {
            register.count += 1;
            let name = format!("guest{}", register.count);
            if register.names.insert(name.clone()) {
                return name;
            }
        };
        self.0.with(guest).await
    }

    /// Gives one name up for another. `false`: that one is taken.
    #[must_use]
    pub(crate) async fn rename(&self, old: &str, new: &str) -> bool {
        let (old, new) = (old.to_owned(), new.to_owned());
        let rename = move |register: &mut Register| {
            let free = register.names.insert(new);
            if free {
                register.names.remove(&old);
            }
            free
        };
        self.0.with(rename).await
    }

    /// Gives a name up.
    pub(crate) async fn leave(&self, name: &str) {
        let name = name.to_owned();
        let leave = move |register: &mut Register| register.names.remove(&name);
        self.0.with(leave).await;
    }
}
