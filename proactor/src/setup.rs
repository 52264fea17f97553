//! Which ring is built, and what is said when the kernel refuses it.

use std::fmt;
use std::io;

use io_uring::IoUring;

/// The sizes of what a worker gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Entries of the submission queue. One turn of the worker rarely submits
    /// more, and what does not fit waits in the driver.
    pub(crate) entries: u32,
    /// Entries of the completion queue. One wake of one multishot receive
    /// fills up to 32, and an overflow ends every multishot that it meets.
    pub(crate) completions: u32,
    /// Receive buffers: a power of two.
    pub(crate) buffers: u16,
    /// Bytes in each. Against 4 KiB, 16 KiB take 2.6 times less CPU for a
    /// stream; 64 KiB take another third off, for four times the memory.
    pub(crate) buffer_size: usize,
    /// The most that is asked of the kernel.
    pub(crate) level: Level,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            entries: 256,
            completions: 4096,
            buffers: 512,
            buffer_size: 16 * 1024,
            level: Level::NoArray,
        }
    }
}

/// Below this a ring is not worth having.
const LEAST_ENTRIES: u32 = 16;

/// How much is asked of the kernel, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Linux 6.6: no indirection between the queue and its entries.
    NoArray,
    /// Linux 6.1: completions are made when the worker asks for them, and not
    /// in the middle of its tasks.
    Deferred,
    /// Linux 6.0: the first with multishot receives, and so the oldest that
    /// this driver runs on.
    Cooperative,
}

pub(crate) const LEVELS: [Level; 3] = [Level::NoArray, Level::Deferred, Level::Cooperative];

/// Builds the best ring that the kernel grants: with fewer flags if it does
/// not know one (EINVAL), smaller if there is no memory for it (ENOMEM: for
/// users other than root, rings count against RLIMIT_MEMLOCK).
pub(crate) fn negotiate(config: &Config) -> Result<IoUring, SetupError> {
    let ring = granted(config, build)?;
    limit_threads(&ring);
    Ok(ring)
}

/// What `build` makes of the most that it does not refuse.
fn granted<R>(
    config: &Config,
    build: impl Fn(Level, u32, u32) -> io::Result<R>,
) -> Result<R, SetupError> {
    let (mut entries, mut completions) = (config.entries, config.completions);
    let mut levels = LEVELS.iter().skip_while(|level| **level != config.level);
    let mut level = levels.next();
    loop {
        let Some(now) = level else {
            return Err(SetupError::new(
                Step::Setup,
                io::Error::from_raw_os_error(libc::EINVAL),
            ));
        };
        let error = match build(*now, entries, completions) {
            Ok(ring) => return Ok(ring),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINVAL) => level = levels.next(),
            Some(libc::ENOMEM) if entries / 2 >= LEAST_ENTRIES => {
                entries /= 2;
                completions /= 2;
            }
            _ => return Err(SetupError::new(Step::Setup, error)),
        }
    }
}

/// The most kernel threads of a ring, for work on files, which ends, and for
/// what may wait for others, as a splice from an empty pipe does. Its own
/// limits are four for each processor, for each ring, and as many as
/// RLIMIT_NPROC allows. 16 are enough for what goes there: buffered writes, of
/// which one runs at a time for a file, syncs and names (cold and O_DIRECT
/// reads need none). What waits for others must not be kept from running by
/// what it waits for: as many as the blocking pool has. Both from thin air.
const KERNEL_THREADS: [u32; 2] = [16, 512];

/// Takes the kernel's limits down, and never up. (One that knows none, before
/// Linux 5.15, has its own ways.)
fn limit_threads(ring: &IoUring) {
    // Zeros ask.
    let mut most = [0, 0];
    if ring
        .submitter()
        .register_iowq_max_workers(&mut most)
        .is_ok()
    {
        let mut least = [0, 1].map(|i| KERNEL_THREADS[i].min(most[i]));
        let _ = ring.submitter().register_iowq_max_workers(&mut least);
    }
}

fn build(level: Level, entries: u32, completions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(completions)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_taskrun_flag();
    match level {
        Level::NoArray => builder.setup_defer_taskrun().setup_no_sqarray(),
        Level::Deferred => builder.setup_defer_taskrun(),
        Level::Cooperative => builder.setup_coop_taskrun(),
    };
    builder.build(entries)
}

/// Where on the way to a working ring the kernel said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// io_uring_setup(2), and mapping what it made.
    Setup,
    /// The eventfd that other threads wake the worker by.
    Wake,
    /// Asking which operations there are.
    Operations,
    /// Registering the ring of receive buffers.
    Buffers,
    /// io_uring_enter(2) with an operation that does nothing.
    Enter,
    /// A multishot receive on a socket pair.
    Receive,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Setup => "setting up a ring",
            Step::Wake => "making an eventfd",
            Step::Operations => "probing the operations",
            Step::Buffers => "registering receive buffers",
            Step::Enter => "entering the ring",
            Step::Receive => "a trial multishot receive",
        })
    }
}

/// Why there is no ring: the step, what the kernel answered, and what can be
/// done about it.
///
/// As an [`io::Error`] it keeps its kind and can be taken out again by
/// `into_inner` and a downcast.
#[derive(Debug)]
pub struct SetupError {
    step: Step,
    source: io::Error,
}

impl SetupError {
    pub(crate) fn new(step: Step, source: io::Error) -> SetupError {
        SetupError { step, source }
    }

    /// The step that failed.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The kernel's errno; `None` if it granted everything and then did
    /// something else than asked.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// What to do about it.
    fn advice(&self) -> &'static str {
        match (self.step, self.errno()) {
            (_, Some(libc::EPERM | libc::EACCES)) => {
                "io_uring is blocked here: by a seccomp filter (as in most containers; \
                 allow io_uring_setup, io_uring_enter and io_uring_register) or by the \
                 sysctl kernel.io_uring_disabled (0 allows it)"
            }
            (_, Some(libc::ENOSYS)) => {
                "the kernel is built without io_uring, or a sandbox hides it"
            }
            (_, Some(libc::ENOMEM)) => {
                "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=), or run fewer workers"
            }
            (_, Some(libc::EMFILE | libc::ENFILE)) => {
                "raise the limit of open files (ulimit -n, LimitNOFILE=)"
            }
            (_, Some(libc::EINVAL) | None) => "Linux 6.0 or newer is needed",
            _ => "the epoll driver works without it",
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SetupError { step, source } = self;
        write!(f, "io_uring: {step} failed: {source}; {}", self.advice())
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> io::Error {
        io::Error::new(error.source.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_threads_are_limited() {
        let ring = negotiate(&Config::default()).unwrap();
        let mut limits = [0, 0];
        if ring
            .submitter()
            .register_iowq_max_workers(&mut limits)
            .is_ok()
        {
            assert!((1..=16).contains(&limits[0]), "{limits:?}");
            assert!((1..=512).contains(&limits[1]), "{limits:?}");
        }
    }

    #[test]
    fn every_level_that_this_kernel_knows_builds() {
        for level in LEVELS {
            match build(level, 8, 16) {
                Ok(ring) => assert!(ring.params().cq_entries() >= 16),
                Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EINVAL), "{level:?}"),
            }
        }
    }

    /// What is asked for when each attempt is refused so.
    fn asked(refuse: impl Fn(Level, u32) -> Option<i32>) -> (Vec<(Level, u32, u32)>, Option<i32>) {
        let asked = std::cell::RefCell::new(Vec::new());
        let granted = granted(&Config::default(), |level, entries, completions| {
            asked.borrow_mut().push((level, entries, completions));
            match refuse(level, entries) {
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None => Ok(()),
            }
        });
        let errno = granted.err().and_then(|error| {
            assert_eq!(error.step(), Step::Setup);
            error.errno()
        });
        (asked.into_inner(), errno)
    }

    #[test]
    fn flags_are_given_up_newest_first() {
        use Level::{Cooperative, Deferred, NoArray};
        let all = [
            (NoArray, 256, 4096),
            (Deferred, 256, 4096),
            (Cooperative, 256, 4096),
        ];
        let (seen, errno) = asked(|level, _| (level == NoArray).then_some(libc::EINVAL));
        assert_eq!((&seen[..], errno), (&all[..2], None));
        let (seen, errno) = asked(|_, _| Some(libc::EINVAL));
        assert_eq!((&seen[..], errno), (&all[..], Some(libc::EINVAL)));
    }

    #[test]
    fn a_ring_is_halved_for_want_of_memory() {
        let (seen, errno) = asked(|_, entries| (entries > 64).then_some(libc::ENOMEM));
        let sizes: Vec<_> = seen.iter().map(|asked| (asked.1, asked.2)).collect();
        assert_eq!(
            (&sizes[..], errno),
            (&[(256, 4096), (128, 2048), (64, 1024)][..], None)
        );
        let (seen, errno) = asked(|_, _| Some(libc::ENOMEM));
        assert_eq!(seen.last().map(|asked| asked.1), Some(LEAST_ENTRIES));
        assert_eq!(errno, Some(libc::ENOMEM));
    }

    #[test]
    fn a_refusal_is_not_argued_with() {
        for refusal in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP] {
            let (seen, errno) = asked(|_, _| Some(refusal));
            assert_eq!((seen.len(), errno), (1, Some(refusal)));
        }
    }

    #[test]
    fn an_error_says_where_what_and_how_to_go_on() {
        let source = io::Error::from_raw_os_error(libc::EPERM);
        let error = io::Error::from(SetupError::new(Step::Setup, source));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let text = error.to_string();
        assert!(text.contains("setting up a ring"), "{text}");
        assert!(text.contains("os error 1"), "{text}");
        assert!(text.contains("seccomp"), "{text}");
        let inner = error
            .into_inner()
            .unwrap()
            .downcast::<SetupError>()
            .unwrap();
        assert_eq!(inner.errno(), Some(libc::EPERM));
    }
}
