//! A kernel that has bad days: stands between the driver and its ring, in
//! tests.
//!
//! What it does a kernel may do, so that whatever works with a real one has to
//! work with it. It makes most of it happen for real: a refused or a short
//! enter leaves the queue as it is, a late completion lies in the ring's own
//! queue until that overflows, a receive without a buffer is answered by the
//! kernel.
//!
//! With `--cfg isochrome_faults` every driver gets it, with sizes, the flags of
//! an older kernel, kinds and odds that come from the seed in
//! `ISOCHROME_FAULT_SEED` (from the clock, and printed, if there is none) and
//! from how many drivers the process made before. The crate's own tests ask for
//! what they want by [`Plan::next`].
//!
//! Threads take their turns as they like, so that a seed tells which faults
//! there are and how many, and not exactly when.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use io_uring::{cqueue, opcode, squeue};

use crate::ring::{self, Entered, answered};
use crate::setup::{Config, LEVELS, SetupError};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An enter takes nothing, for want of memory: EAGAIN.
    Again,
    /// An enter takes nothing, for want of room for completions: EBUSY.
    Busy,
    /// A sleep ends for nothing: EINTR.
    Interrupted,
    /// An enter takes only some of the entries, and does not sleep then.
    Short,
    /// The submission queue has no room.
    Full,
    /// Completions are not seen yet, and stay in the kernel's queue.
    Blind,
    /// Some completions come later than others.
    Delayed,
    /// Completions come in another order: those of one operation in their own.
    Reordered,
    /// A cancel reaches the kernel some enters later.
    LateCancel,
    /// A cancel never does.
    NoCancel,
    /// A receive finds no buffer.
    NoBuffer,
    /// A send takes only a part.
    ShortSend,
    /// What goes on by itself ends with its first completion.
    OneShot,
    /// A completion that nobody asked for.
    Stranger,
}

const KINDS: usize = Fault::Stranger as usize + 1;

/// Which faults there are, and how often.
pub(crate) struct Plan {
    random: Random,
    /// Of each kind one in so many; 0: none.
    odds: [u32; KINDS],
}

thread_local! {
    static NEXT: Cell<Option<Plan>> = const { Cell::new(None) };
}

impl Plan {
    /// Only these, each one in so many chances.
    #[cfg(test)]
    pub(crate) fn of(faults: &[(Fault, u32)]) -> Plan {
        let mut plan = Plan {
            random: Random::new(1),
            odds: [0; KINDS],
        };
        for (fault, odds) in faults {
            plan.odds[*fault as usize] = *odds;
        }
        plan
    }

    /// Any that the runtime's tests can bear, as the seed will have it.
    fn seeded(mut random: Random) -> Plan {
        let mut odds = [0; KINDS];
        for one in &mut odds {
            *one = [0, 2, 5, 30, 200][random.below(5)];
        }
        // That is for the end only, and leaks.
        odds[Fault::NoCancel as usize] = 0;
        Plan { random, odds }
    }

    /// The next ring that this thread makes goes by this plan.
    pub(crate) fn next(self) {
        NEXT.set(Some(self));
    }

    fn strikes(&mut self, fault: Fault) -> bool {
        match self.odds[fault as usize] {
            0 => false,
            odds => self.random.below(odds as usize) == 0,
        }
    }
}

/// What a worker's ring is: a small one, perhaps as on an older kernel, and a
/// plan for it, if all drivers are to have faults.
pub(crate) fn config() -> Config {
    if !cfg!(isochrome_faults) {
        return Config::default();
    }
    static DRIVERS: AtomicU64 = AtomicU64::new(0);
    let driver = DRIVERS.fetch_add(1, Ordering::Relaxed);
    let mut random = Random::new(seed().wrapping_add(driver));
    let entries = [16, 32, 256][random.below(3)];
    let config = Config {
        entries,
        completions: entries * [1, 2, 16][random.below(3)],
        buffers: [4, 16, 512][random.below(3)],
        buffer_size: [1024, 4096, 16 * 1024][random.below(3)],
        level: LEVELS[random.below(3)],
    };
    Plan::seeded(random).next();
    config
}

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let set = std::env::var("ISOCHROME_FAULT_SEED");
        let set = set.ok().and_then(|seed| seed.parse().ok());
        set.unwrap_or_else(|| {
            let seed = RandomState::new().build_hasher().finish() % 1_000_000;
            eprintln!("ISOCHROME_FAULT_SEED={seed}");
            seed
        })
    })
}

/// An xorshift generator (Marsaglia 2003), seeded by splitmix64's mixer.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((mixed ^ (mixed >> 31)) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// A [`ring::Ring`] with faults: the same methods.
pub(crate) struct Ring {
    inner: ring::Ring,
    plan: Option<Plan>,
    /// Cancels that the kernel has not got yet, and after how many enters it
    /// will.
    late: Vec<(usize, squeue::Entry)>,
    /// Completions that were taken out of the kernel's queue, in the order in
    /// which the driver will see them.
    taken: Vec<cqueue::Entry>,
    /// How many of these the driver may pop.
    shown: usize,
    /// Sends were pushed that complete before the enter that takes them returns,
    /// if they do: what there is has to be seen then.
    prompt: bool,
}

/// No operation is called so: the generation is far away.
const STRANGER: u64 = 1 << 62 | 3;

/// So many bytes are not divided, as no kernel does that has any room.
const WHOLE: u32 = 512;

/// The most enters by which a cancel is late.
const LATEST: usize = 5;

impl Ring {
    pub(crate) fn new(config: &Config) -> Result<Ring, SetupError> {
        Ok(Ring {
            inner: ring::Ring::new(config)?,
            plan: NEXT.take(),
            late: Vec::new(),
            taken: Vec::new(),
            shown: 0,
            prompt: false,
        })
    }

    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.inner.submitter()
    }

    pub(crate) fn register_bell(&self, bell: RawFd) -> io::Result<()> {
        self.inner.register_bell(bell)
    }

    /// # Safety
    ///
    /// As for the [`ring::Ring`].
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        let Some(plan) = &mut self.plan else {
            // SAFETY: handed on from the caller.
            return unsafe { self.inner.push(entry) };
        };
        if plan.strikes(Fault::Full) {
            return false;
        }
        let mut raw = Raw::of(entry);
        self.prompt |= raw.code() == opcode::Send::CODE && raw.skips_success();
        match raw.code() {
            opcode::AsyncCancel::CODE if plan.strikes(Fault::NoCancel) => return true,
            opcode::AsyncCancel::CODE if plan.strikes(Fault::LateCancel) => {
                let enters = 1 + plan.random.below(LATEST);
                self.late.push((enters, entry.clone()));
                return true;
            }
            opcode::Recv::CODE if raw.selects_buffer() && plan.strikes(Fault::NoBuffer) => {
                raw = raw.answered_by(-libc::ENOBUFS);
            }
            // It completes if it falls short.
            opcode::Send::CODE if raw.skips_success() && plan.strikes(Fault::ShortSend) => {
                raw = raw.answered_by(-libc::EAGAIN);
            }
            opcode::Send::CODE if raw.skips_success() => {}
            opcode::Send::CODE if raw.len() > WHOLE && plan.strikes(Fault::ShortSend) => {
                let more = plan.random.below((raw.len() - WHOLE) as usize);
                raw.set_len(WHOLE + more as u32);
            }
            _ if raw.is_multishot() && plan.strikes(Fault::OneShot) => raw.set_one_shot(),
            _ => {}
        }
        // SAFETY: what it points to is the caller's, or a part of it.
        unsafe { self.inner.push(&raw.entry()) }
    }

    pub(crate) fn ready(&mut self) -> usize {
        let Some(plan) = &mut self.plan else {
            return self.inner.ready();
        };
        let all = self.prompt;
        self.prompt &= self.inner.queued() > 0;
        if all || self.shown == 0 && !plan.strikes(Fault::Blind) {
            let mut left = self.inner.ready();
            while left > 0 {
                let mut one = [MaybeUninit::uninit()];
                for entry in self.inner.pop(&mut one) {
                    let same = |other: &cqueue::Entry| other.user_data() == entry.user_data();
                    let first = self.taken.iter().rposition(same).map_or(0, |i| i + 1);
                    let at = match plan.strikes(Fault::Reordered) {
                        true => first + plan.random.below(self.taken.len() - first + 1),
                        false => self.taken.len(),
                    };
                    self.taken.insert(at, entry.clone());
                }
                left -= 1;
            }
            self.shown = match !all && plan.strikes(Fault::Delayed) {
                true => plan.random.below(self.taken.len() + 1),
                false => self.taken.len(),
            };
        }
        self.shown
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.taken.is_empty() || self.inner.has_ready()
    }

    pub(crate) fn pop<'a>(
        &mut self,
        into: &'a mut [MaybeUninit<cqueue::Entry>],
    ) -> &'a [cqueue::Entry] {
        if self.plan.is_none() {
            return self.inner.pop(into);
        }
        let n = self.shown.min(into.len());
        self.shown -= n;
        for (to, entry) in into.iter_mut().zip(self.taken.drain(..n)) {
            to.write(entry);
        }
        // SAFETY: the first `n` were just written.
        unsafe { std::slice::from_raw_parts(into.as_ptr().cast(), n) }
    }

    pub(crate) fn due(&self) -> bool {
        self.holds_back() || self.inner.due()
    }

    pub(crate) fn is_prompt(&self) -> bool {
        self.inner.is_prompt()
    }

    pub(crate) fn has_taken_all(&mut self) -> bool {
        self.inner.has_taken_all()
    }

    pub(crate) fn submit(&mut self) -> io::Result<Entered> {
        self.send_late();
        if let Some(entered) = self.refused_or_short() {
            return entered;
        }
        self.inner.submit()
    }

    pub(crate) fn submit_and_sleep(
        &mut self,
        limit: Option<Duration>,
        batch: Duration,
    ) -> io::Result<Entered> {
        self.send_late();
        if let Some(entered) = self.refused_or_short() {
            return entered;
        }
        if self.interrupted() {
            let entered = self.inner.submit()?;
            return match entered {
                Entered::Done => answered(io::Error::from_raw_os_error(libc::EINTR)),
                Entered::Busy => Ok(Entered::Busy),
            };
        }
        self.inner.submit_and_sleep(limit, batch)
    }

    pub(crate) fn sleep(&mut self, limit: Duration) -> io::Result<Entered> {
        if self.interrupted() {
            return answered(io::Error::from_raw_os_error(libc::EINTR));
        }
        self.inner.sleep(limit)
    }

    /// Something is on its way that no sleep would wait for.
    fn holds_back(&self) -> bool {
        !(self.late.is_empty() && self.taken.is_empty())
    }

    fn interrupted(&mut self) -> bool {
        let held = self.holds_back();
        let plan = self.plan.as_mut();
        held || plan.is_some_and(|plan| plan.strikes(Fault::Interrupted))
    }

    fn refused_or_short(&mut self) -> Option<io::Result<Entered>> {
        let plan = self.plan.as_mut()?;
        for (fault, errno) in [(Fault::Again, libc::EAGAIN), (Fault::Busy, libc::EBUSY)] {
            if plan.strikes(fault) {
                return Some(answered(io::Error::from_raw_os_error(errno)));
            }
        }
        let queued = self.inner.queued();
        if queued > 0 && plan.strikes(Fault::Short) {
            let some = plan.random.below(queued);
            return Some(self.inner.enter(some as u32, 0, None));
        }
        None
    }

    /// Pushes the cancels whose time has come, and what nobody asked for.
    fn send_late(&mut self) {
        if (self.plan.as_mut()).is_some_and(|plan| plan.strikes(Fault::Stranger)) {
            let entry = opcode::Nop::new().build().user_data(STRANGER);
            // SAFETY: it points to nothing. (No room: none, this time.)
            let _ = unsafe { self.inner.push(&entry) };
        }
        let inner = &mut self.inner;
        self.late.retain_mut(|(enters, entry)| {
            *enters = enters.saturating_sub(1);
            // SAFETY: a cancel points to nothing.
            *enters > 0 || !unsafe { inner.push(entry) }
        });
    }
}

/// An entry as `struct io_uring_sqe` of `linux/io_uring.h` lays it out.
struct Raw([u8; 64]);

const FLAGS: usize = 1;
const IOPRIO: usize = 2;
const LEN: usize = 24;
const OP_FLAGS: usize = 28;
const USER_DATA: usize = 32;

/// `IOSQE_BUFFER_SELECT`.
const BUFFER_SELECT: u8 = 1 << 5;
/// `IOSQE_CQE_SKIP_SUCCESS`.
const SKIP_SUCCESS: u8 = 1 << 6;
/// `IORING_NOP_INJECT_RESULT` (Linux 6.10): the length is the answer.
const INJECT_RESULT: u8 = 1 << 0;
/// `IORING_POLL_ADD_MULTI`, in the length.
const POLL_MULTI: u8 = 1 << 0;

impl Raw {
    fn of(entry: &squeue::Entry) -> Raw {
        // SAFETY: an entry is 64 bytes of plain data, or this does not compile.
        Raw(unsafe { mem::transmute::<squeue::Entry, [u8; 64]>(entry.clone()) })
    }

    fn entry(&self) -> squeue::Entry {
        // SAFETY: as above.
        unsafe { mem::transmute::<[u8; 64], squeue::Entry>(self.0) }
    }

    fn code(&self) -> u8 {
        self.0[0]
    }

    fn selects_buffer(&self) -> bool {
        self.0[FLAGS] & BUFFER_SELECT != 0
    }

    fn skips_success(&self) -> bool {
        self.0[FLAGS] & SKIP_SUCCESS != 0
    }

    fn len(&self) -> u32 {
        u32::from_ne_bytes(self.0[LEN..LEN + 4].try_into().expect("four bytes"))
    }

    fn set_len(&mut self, len: u32) {
        self.0[LEN..LEN + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Where its flag is that makes it go on by itself.
    fn multishot(&self) -> Option<(usize, u8)> {
        match self.code() {
            // IORING_ACCEPT_MULTISHOT, IORING_RECV_MULTISHOT.
            opcode::Accept::CODE => Some((IOPRIO, 1 << 0)),
            opcode::Recv::CODE => Some((IOPRIO, 1 << 1)),
            opcode::PollAdd::CODE => Some((LEN, POLL_MULTI)),
            _ => None,
        }
    }

    fn is_multishot(&self) -> bool {
        let multishot = self.multishot();
        multishot.is_some_and(|(at, flag)| self.0[at] & flag != 0)
    }

    fn set_one_shot(&mut self) {
        if let Some((at, flag)) = self.multishot() {
            self.0[at] &= !flag;
        }
    }

    /// One that does nothing and completes with `result`, by the same name.
    fn answered_by(&self, result: i32) -> Raw {
        let mut raw = Raw([0; 64]);
        raw.0[0] = opcode::Nop::CODE;
        raw.set_len(result as u32);
        raw.0[OP_FLAGS] = INJECT_RESULT;
        raw.0[USER_DATA..USER_DATA + 8].copy_from_slice(&self.0[USER_DATA..USER_DATA + 8]);
        raw
    }
}
