//! One connection: what its client says, and what it is told.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use isochrome::net::{TcpStream, WriteHalf};
use isochrome::time::timeout;
use isochrome::{spawn, yield_now};

use crate::Terms;
use crate::hall::Door;
use crate::lines::{Line, Lines};
use crate::outbox::{Inbox, Outbox, outbox};
use crate::server::house::Ticket;
use crate::server::stop::Listener;

/// How long a client that leaves, or a server that stops, waits for the last
/// lines to be read.
const GRACE: Duration = Duration::from_secs(1);

/// Characters of a name, at most.
const NAME: usize = 32;

/// Lines handled in a row. Steps in idle colors are taken on the spot, and a
/// client that says much at once would keep its worker for all of it.
const IN_A_ROW: u32 = 32;

const HELP: &str = "\
* /name NAME   say who you are
* /join ROOM   go into a room, and out of the one that you are in
* /leave       go out of the room
* /who         who is in the room
* /rooms       which rooms there are
* /quit        goodbye
* anything else is said to the room
";

/// Serves one client until it leaves, is told to, or the server stops.
pub(crate) async fn serve(stream: TcpStream, terms: Terms, ticket: Ticket) {
    let totals = terms.totals.clone();
    totals.connections.add(1);
    // If the client is gone already, the first receive will tell.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (outbox, inbox) = outbox(terms.queue, terms.slow, totals.clone());
    // Of our color, as everything of a session is.
    let writer = spawn(write(writer, inbox));
    let mut session = Session {
        name: terms.hall.guest().await,
        room: None,
        lines: Lines::of(reader, terms.max_line),
        cut: outbox.cut(),
        stop: terms.stop.listen(),
        outbox,
        terms,
    };
    let end = session.run().await;
    session.leave().await;
    session.terms.hall.leave(&session.name).await;
    session.outbox.close();
    match end {
        Ok(End::Over) => {
            let abort = writer.abort_handle();
            // A client that quits may be gone before the last line: no error.
            let _ = timeout(GRACE, writer).await;
            abort.abort();
            // Closing while the client is still sending would be a reset, and
            // what it has not read yet would be lost.
            let _ = timeout(GRACE, session.lines.discard()).await;
        }
        Ok(End::Cut) => writer.abort(),
        Err(_) => {
            writer.abort();
            totals.errors.add(1);
        }
    }
    drop(session);
    // Only now, with the socket closed, is there room for another.
    drop(ticket);
}

/// Sends what the member is told. An error ends it, and the reading half hears
/// of the same.
async fn write(stream: WriteHalf, inbox: Inbox) -> io::Result<()> {
    while let Some(batch) = inbox.batch().await {
        stream.send_all(batch).await.0?;
    }
    Ok(())
}

/// How a session ends, if not by an error.
enum End {
    /// The last lines are still sent.
    Over,
    /// The member reads too slowly: nothing is.
    Cut,
}

struct Session {
    name: String,
    room: Option<Door>,
    lines: Lines,
    outbox: Outbox,
    cut: Listener,
    stop: Listener,
    terms: Terms,
}

/// What there is to do next.
enum Next {
    Line(Line),
    Silent,
    Stop,
    Cut,
}

impl Session {
    async fn run(&mut self) -> io::Result<End> {
        self.tell(format!("* welcome, {}; /help says more", self.name));
        for count in 1.. {
            match self.next().await? {
                Next::Line(Line::Text(text)) => {
                    if self.line(text.trim()).await {
                        return Ok(End::Over);
                    }
                }
                Next::Line(Line::TooLong) => {
                    let max = self.terms.max_line;
                    self.tell(format!("! a line has at most {max} bytes: goodbye"));
                    return Ok(End::Over);
                }
                Next::Line(Line::End) => return Ok(End::Over),
                Next::Silent => {
                    self.terms.totals.idle.add(1);
                    self.tell("* you said nothing for too long: goodbye".into());
                    return Ok(End::Over);
                }
                Next::Stop => {
                    self.tell("* the server stops: goodbye".into());
                    return Ok(End::Over);
                }
                Next::Cut => return Ok(End::Cut),
            }
            if count % IN_A_ROW == 0 {
                yield_now().await;
            }
        }
        unreachable!("it counts without end")
    }

    async fn next(&mut self) -> io::Result<Next> {
        let line = self.stop.until(self.lines.next());
        let line = async {
            match self.terms.idle_timeout {
                None => Some(line.await),
                Some(limit) => timeout(limit, line).await.ok(),
            }
        };
        Ok(match self.cut.until(line).await {
            None => Next::Cut,
            Some(None) => Next::Silent,
            Some(Some(None)) => Next::Stop,
            Some(Some(Some(line))) => Next::Line(line?),
        })
    }

    /// Does what a line says. `true`: the client is done.
    async fn line(&mut self, text: &str) -> bool {
        let Some(command) = text.strip_prefix('/') else {
            self.say(text).await;
            return false;
        };
        let (command, rest) = command.split_once(' ').unwrap_or((command, ""));
        match (command, rest.trim()) {
            ("name", name) => self.rename(name).await,
            ("join", room) => self.join(room).await,
            ("leave", "") if self.room.is_none() => self.tell(NO_ROOM.into()),
            ("leave", "") => self.leave().await,
            ("who", "") => self.who().await,
            ("rooms", "") => self.rooms().await,
            ("help", "") => self.outbox.push(Bytes::from_static(HELP.as_bytes())),
            ("quit", "") => {
                self.tell("* goodbye".into());
                return true;
            }
            _ => self.tell(format!("! no such command: /{command}; try /help")),
        }
        false
    }

    async fn say(&self, text: &str) {
        if text.is_empty() {
            return;
        }
        let Some(door) = &self.room else {
            self.tell(NO_ROOM.into());
            return;
        };
        self.terms.totals.said.add(1);
        let line = bytes(format!("[{}] {}: {text}", door.name, self.name));
        door.room.with(move |room| room.tell(&line)).await;
    }

    async fn join(&mut self, name: &str) {
        if let Err(why) = acceptable("room", name) {
            self.tell(why);
            return;
        }
        if self.room.as_ref().is_some_and(|door| door.name == name) {
            self.tell(format!("! you are in {name}"));
            return;
        }
        self.leave().await;
        let told = bytes(format!("* {} joins {name}", self.name));
        loop {
            let door = self.terms.hall.room(name).await;
            let (who, outbox, told) = (self.name.clone(), self.outbox.clone(), told.clone());
            let joined = door.room.with(move |room| room.join(who, outbox, told));
            if joined.await {
                self.room = Some(door);
                return;
            }
            // The last member left between the two steps.
            self.terms.hall.forget(door).await;
        }
    }

    async fn leave(&mut self) {
        let Some(door) = self.room.take() else {
            return;
        };
        let told = bytes(format!("* {} leaves {}", self.name, door.name));
        let (outbox, others) = (self.outbox.clone(), told.clone());
        let empty = door.room.with(move |room| room.leave(&outbox, &others));
        if empty.await {
            self.terms.hall.forget(door).await;
        }
        // Who left is told too.
        self.outbox.push(told);
    }

    async fn rename(&mut self, name: &str) {
        if let Err(why) = acceptable("name", name) {
            self.tell(why);
            return;
        }
        if !self.terms.hall.rename(&self.name, name).await {
            self.tell(format!("! {name} is taken"));
            return;
        }
        let old = std::mem::replace(&mut self.name, name.to_owned());
        let told = bytes(format!("* {old} is now {name}"));
        match &self.room {
            None => self.outbox.push(told),
            Some(door) => {
                let (outbox, name) = (self.outbox.clone(), self.name.clone());
                let rename = move |room: &mut crate::room::Room| room.rename(&outbox, name, &told);
                door.room.with(rename).await;
            }
        }
    }

    async fn who(&self) {
        let Some(door) = &self.room else {
            self.tell(NO_ROOM.into());
            return;
        };
        let names = door.room.with(|room| room.names()).await;
        self.tell(format!("* in {}: {}", door.name, names.join(" ")));
    }

    async fn rooms(&self) {
        let mut line = String::from("* rooms:");
        for door in self.terms.hall.rooms().await {
            let members = door.room.with(|room| room.len()).await;
            // It may be closing.
            if members > 0 {
                line += &format!(" {}({members})", door.name);
            }
        }
        self.tell(line);
    }

    /// A line for this member alone.
    fn tell(&self, line: String) {
        self.outbox.push(bytes(line));
    }
}

const NO_ROOM: &str = "! you are in no room: /join ROOM";

fn bytes(mut line: String) -> Bytes {
    line.push('\n');
    line.into()
}

/// Whether a name, of a room or a member, will do.
fn acceptable(what: &str, name: &str) -> Result<(), String> {
    let fits = (1..=NAME).contains(&name.len());
    if fits
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    {
        return Ok(());
    }
    Err(format!(
        "! a {what} has 1 to {NAME} of the characters a-z A-Z 0-9 - _"
    ))
}
