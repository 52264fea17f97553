//! The choice of a driver.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use isochrome_proactor::Proactor;
use isochrome_reactor::Reactor;
use isochrome_runtime::driver::Driver;
use isochrome_runtime::{Background, Placement, Report};

/// Chooses the driver where the program does not.
const VARIABLE: &str = "ISOCHROME_DRIVER";

/// Which driver a runtime uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// The proactor if io_uring works here, else the reactor. The environment
    /// variable `ISOCHROME_DRIVER` (`auto`, `reactor`, `proactor`) may decide
    /// otherwise.
    #[default]
    Auto,
    /// epoll.
    Reactor,
    /// io_uring. If it does not work here, that is an error.
    Proactor,
}

impl FromStr for DriverChoice {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<DriverChoice> {
        match text {
            "auto" => Ok(DriverChoice::Auto),
            "reactor" => Ok(DriverChoice::Reactor),
            "proactor" => Ok(DriverChoice::Proactor),
            _ => {
                let message = format!("`{text}` is no driver: say auto, reactor or proactor");
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DriverChoice::Auto => "auto",
            DriverChoice::Reactor => "reactor",
            DriverChoice::Proactor => "proactor",
        })
    }
}

/// How a runtime is to be.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    runtime: isochrome_runtime::Builder,
    driver: DriverChoice,
    batch: Duration,
}

impl Builder {
    /// The defaults: the driver that works here, and as many workers as there
    /// are processors to use.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Which driver to use; [`DriverChoice::Auto`] if not said.
    pub fn driver(mut self, driver: DriverChoice) -> Builder {
        self.driver = driver;
        self
    }

    /// How many workers there are, the thread in `block_on` counted in: 1 to
    /// 32,767, and what is beyond counts as the nearest.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.runtime = self.runtime.workers(workers);
        self
    }

    /// The most threads of the blocking pool; 512 if not said. Zero counts
    /// as one.
    pub fn blocking_threads(mut self, threads: usize) -> Builder {
        self.runtime = self.runtime.blocking_threads(threads);
        self
    }

    /// The most closures that wait for a thread of the blocking pool; 10,000
    /// if not said.
    pub fn blocking_queue(mut self, closures: usize) -> Builder {
        self.runtime = self.runtime.blocking_queue(closures);
        self
    }

    /// How long the end of the runtime waits for what cannot be cut short;
    /// see [`isochrome_runtime::Builder::shutdown_grace`]. One second if not
    /// said.
    pub fn shutdown_grace(mut self, grace: Duration) -> Builder {
        self.runtime = self.runtime.shutdown_grace(grace);
        self
    }

    /// Where colors start that are made on a worker; [`Placement::Here`] if not
    /// said. With [`Placement::RoundRobin`] one task that accepts connections
    /// and gives each a color of its own hands them out to all workers.
    pub fn placement(mut self, placement: Placement) -> Builder {
        self.runtime = self.runtime.placement(placement);
        self
    }

    /// Whether a worker with nothing to do takes ready colors from others; it
    /// does if not said. See [`isochrome_runtime::Builder::stealing`].
    pub fn stealing(mut self, stealing: bool) -> Builder {
        self.runtime = self.runtime.stealing(stealing);
        self
    }

    /// Trades latency for processor time on the proactor: for `time` after it
    /// went to sleep, a worker waits for 32 completions and not for the first
    /// alone, so that it wakes less often and finds more to do. Zero, which
    /// is the default, turns it off.
    ///
    /// It pays with a steady load below what the worker can do: 64 connections
    /// with 20,000 round trips a second took 11% less of the processor with
    /// 50 us, and 25% less with 100 us. A saturated worker wins nothing: it
    /// finds enough to do by itself.
    ///
    /// It costs up to `time` of latency: whatever comes so soon after the
    /// worker went to sleep, data, sockets, files and wakes from other
    /// threads alike, may wait for the rest of it. A worker that has slept for
    /// longer wakes at once. Timers are not delayed, nor is a host's own loop
    /// (once it has asked for [`as_fd`](isochrome_runtime::Runtime::as_fd)).
    ///
    /// It needs Linux 6.12. On an older one, and on the reactor, it has no
    /// effect.
    ///
    /// ```
    /// let builder = isochrome::Builder::new().batch(std::time::Duration::from_micros(50));
    /// # builder.build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn batch(mut self, time: Duration) -> Builder {
        self.batch = time;
        self
    }

    /// Who is told of colors that take most of a core and of polls that take
    /// too long; see [`isochrome_runtime::Builder::on_report`].
    ///
    /// ```
    /// let builder = isochrome::Builder::new()
    ///     .long_poll(std::time::Duration::from_millis(10))
    ///     .on_report(|report| eprintln!("{report}"));
    /// # builder.build()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_report(mut self, report: impl Fn(&Report) + Send + Sync + 'static) -> Builder {
        self.runtime = self.runtime.on_report(report);
        self
    }

    /// Reports polls that take longer than this. If not said, no poll is
    /// timed; see [`isochrome_runtime::Builder::long_poll`].
    pub fn long_poll(mut self, limit: Duration) -> Builder {
        self.runtime = self.runtime.long_poll(limit);
        self
    }

    /// Builds the runtime.
    ///
    /// If the choice is left to the runtime and io_uring does not work here,
    /// one line on standard error says why, once in a process, and so does
    /// [`Runtime::fallback`].
    ///
    /// # Errors
    ///
    /// If the driver that was asked for does not work here: what the kernel
    /// answered, and what to do. If the system has no descriptors or threads
    /// left. If `ISOCHROME_DRIVER` names no driver.
    pub fn build(self) -> io::Result<Runtime> {
        let (choice, fallback) = choose(self.driver)?;
        let inner = self.runtime.build_with(factory(choice, self.batch))?;
        Ok(Runtime { inner, fallback })
    }

    /// Builds the runtime and starts it in the background, every worker on a
    /// thread of its own: for programs whose main thread does something else.
    /// Dropping what is returned ends the runtime.
    ///
    /// ```
    /// let background = isochrome::Builder::new().start()?;
    /// let task = background.spawn(async { 6 * 7 });
    /// # assert_eq!(isochrome::Runtime::new()?.block_on(task).unwrap(), 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`build`](Builder::build).
    pub fn start(self) -> io::Result<Background> {
        let (choice, _) = choose(self.driver)?;
        self.runtime.start_with(factory(choice, self.batch))
    }
}

/// Makes the drivers of one kind, for each worker on its thread.
fn factory(
    choice: DriverChoice,
    batch: Duration,
) -> impl Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync {
    move |worker| {
        Ok(match choice {
            DriverChoice::Reactor => Box::new(Reactor::new(worker)?),
            DriverChoice::Auto | DriverChoice::Proactor => Box::new(Proactor::new()?.batch(batch)),
        })
    }
}

fn from_environment() -> io::Result<DriverChoice> {
    let text = match std::env::var_os(VARIABLE) {
        None => return Ok(DriverChoice::Auto),
        Some(text) if text.is_empty() => return Ok(DriverChoice::Auto),
        Some(text) => text,
    };
    text.to_string_lossy()
        .parse()
        .map_err(|e: io::Error| io::Error::new(e.kind(), format!("{VARIABLE}: {e}")))
}

/// Tries the proactor out where it may be used. Gives the reason if it was not
/// taken.
fn choose(choice: DriverChoice) -> io::Result<(DriverChoice, Option<io::Error>)> {
    let choice = match choice {
        DriverChoice::Auto => from_environment()?,
        forced => forced,
    };
    if choice == DriverChoice::Reactor {
        return Ok((choice, None));
    }
    match isochrome_proactor::probe() {
        Ok(()) => Ok((DriverChoice::Proactor, None)),
        Err(e) if choice == DriverChoice::Proactor => Err(e.into()),
        Err(e) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| eprintln!("isochrome: using epoll: {e}"));
            Ok((DriverChoice::Reactor, Some(e.into())))
        }
    }
}

/// A runtime with one of isochrome's drivers.
///
/// It dereferences to [`isochrome_runtime::Runtime`], where `block_on` is
/// described, and the end.
///
/// ```
/// let runtime = isochrome::Runtime::new()?;
/// assert_eq!(runtime.block_on(async { 6 * 7 }), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Runtime {
    inner: isochrome_runtime::Runtime,
    fallback: Option<io::Error>,
}

impl Runtime {
    /// A runtime with the defaults of [`Builder`].
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`].
    pub fn new() -> io::Result<Runtime> {
        Builder::new().build()
    }

    /// Why the runtime took the reactor although it was free to choose;
    /// `None` if it was not, or took the proactor.
    pub fn fallback(&self) -> Option<&io::Error> {
        self.fallback.as_ref()
    }

    /// Ends the runtime as dropping it does, and says how many operations the
    /// kernel had not given back after the grace period. Their memory was
    /// leaked.
    ///
    /// Who awaits one of those from another executor gets ECANCELED, but for
    /// what has a buffer to hand back (a send; a read or a write of a file): the
    /// kernel may use that buffer still, so the future never completes. Give
    /// such an await a limit of its own if it may outlive the runtime.
    pub fn shutdown(self) -> usize {
        self.inner.shutdown()
    }
}

impl Deref for Runtime {
    type Target = isochrome_runtime::Runtime;

    fn deref(&self) -> &isochrome_runtime::Runtime {
        &self.inner
    }
}
