//! Programs, decoded from bytes: any bytes are one, and fewer bytes are a
//! shorter one, so that a fuzzer can shrink what it found.

/// How many steps are run at most: programs end.
const LONGEST: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix,
    Tcp,
}

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) transport: Transport,
    /// With small send buffers, so that sends are partial.
    pub(crate) small: bool,
    /// Made by std and taken over, or made by the runtime.
    pub(crate) taken_over: bool,
    pub(crate) steps: Vec<Step>,
}

/// An end of the connection: 0 or 1.
pub(crate) type End = usize;

/// What becomes of an operation that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is waited for, if it has to end.
    Finish,
    /// It is dropped after so many polls.
    GiveUp { polls: usize },
    /// It goes on beside the next steps.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Read,
    Write,
    Both,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Sends so many bytes; `how` chooses the call.
    Send {
        end: End,
        len: usize,
        how: u8,
        mode: Mode,
    },
    /// Receives once, at most so many bytes.
    Recv {
        end: End,
        room: usize,
        how: u8,
        mode: Mode,
    },
    /// Waits for what this end left to go on.
    Settle {
        end: End,
    },
    /// Drops what this end left to go on.
    Cancel {
        end: End,
    },
    /// Ends directions; `settle`: after what this end sends is sent.
    Shutdown {
        end: End,
        side: Side,
        settle: bool,
    },
    /// Drops the end; `tidy`: with nothing unread and nothing going on.
    Drop {
        end: End,
        tidy: bool,
    },
    /// TCP only.
    Nodelay {
        end: End,
        on: bool,
    },
    Yield {
        times: usize,
    },
}

impl Program {
    pub(crate) fn decode(bytes: &[u8]) -> Program {
        let mut bytes = bytes.iter().copied();
        let head = bytes.next().unwrap_or(0);
        let mut steps = Vec::new();
        while steps.len() < LONGEST {
            let Some(code) = bytes.next() else { break };
            steps.push(step(code, || bytes.next().unwrap_or(0)));
        }
        Program {
            transport: match head & 1 {
                0 => Transport::Unix,
                _ => Transport::Tcp,
            },
            small: head & 2 != 0,
            taken_over: head & 4 != 0,
            steps,
        }
    }
}

fn step(code: u8, mut byte: impl FnMut() -> u8) -> Step {
    let end = usize::from(code >> 4 & 1);
    let more = code >> 5;
    match code & 15 {
        0..=4 => Step::Send {
            end,
            len: size(byte()),
            how: byte(),
            mode: mode(more),
        },
        5..=9 => Step::Recv {
            end,
            room: size(byte()).max(1),
            how: byte(),
            mode: mode(more),
        },
        10 => Step::Settle { end },
        11 => Step::Cancel { end },
        12 => Step::Shutdown {
            end,
            side: match more & 3 {
                0 => Side::Read,
                1 | 2 => Side::Write,
                _ => Side::Both,
            },
            settle: more & 4 != 0,
        },
        13 => Step::Drop {
            end,
            tidy: more & 1 != 0,
        },
        14 => Step::Nodelay {
            end,
            on: more & 1 != 0,
        },
        _ => Step::Yield {
            times: usize::from(more),
        },
    }
}

fn mode(bits: u8) -> Mode {
    match bits {
        0..=2 => Mode::Finish,
        3..=5 => Mode::GiveUp {
            polls: usize::from(bits - 2) % 3,
        },
        6 => Mode::GiveUp { polls: 3 },
        _ => Mode::Leave,
    }
}

/// Small ones mostly, and up to a quarter of a mebibyte.
fn size(byte: u8) -> usize {
    match byte {
        0..=191 => usize::from(byte),
        _ => (8 << ((byte - 192) / 4)) + usize::from(byte % 4),
    }
}
