//! How to do what programs do every day. There is nothing in this module but
//! this text.
//!
//! # To begin
//!
//! ```toml
//! [dependencies]
//! isochrome = { path = "../isochrome" } # where you have a checkout
//! ```
//!
//! | feature | brings |
//! |---|---|
//! | `futures-io`, `tokio-io` | those crates' `AsyncRead` and `AsyncWrite` on streams and pipes |
//! | `hyper` | the module `isochrome::hyper`: HTTP by hyper |
//! | `tracing` | [reports](crate::Report) as events of the crate `tracing` |
//!
//! All are off by default. Without any, one program is
//!
//! ```
//! fn main() -> std::io::Result<()> {
//!     isochrome::Runtime::new()?.block_on(async {
//!         println!("hello");
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # If you know tokio or smol
//!
//! | there | here |
//! |---|---|
//! | `#[tokio::main]`, `smol::block_on` | [`Runtime::new`](crate::Runtime::new) and [`block_on`](isochrome_runtime::Runtime::block_on) |
//! | `tokio::spawn`, `smol::spawn` | [`spawn_apart`]; [`spawn`](crate::spawn) is serial with its spawner |
//! | a task that is cancelled when its handle is dropped (smol) | [`abort`](crate::JoinHandle::abort): a handle that is dropped detaches |
//! | `LocalSet`, `LocalExecutor` | [`spawn_local`](crate::spawn_local) |
//! | a mutex around what tasks share | [`ColorCell`](crate::ColorCell); a mutex of std's does as well, not held across an await |
//! | `sync::mpsc`, `oneshot`, `Notify`, semaphores | crates that know no runtime: `async-channel`, `event-listener`, `futures` |
//! | `select!`, `join!`, `JoinSet` | those of `futures`, see [below](#the-first-of-several-all-of-many) |
//! | `AsyncReadExt`, `BufReader`, codecs | what is built in (`recv`, `read_exact`, `write_all`), or the features above |
//! | `TcpStream::into_split`, `Arc<..>` | as there; but all calls take `&self`, so mostly neither is needed |
//! | `tokio::signal`, `tokio::process` | below: [Ctrl-C](#ctrl-c), [child processes](#child-processes) |
//! | `time::sleep`, `timeout`, `interval`, `Sleep::reset` | [the same](crate::time) |
//! | `task::block_in_place` | [`spawn_blocking`](crate::spawn_blocking) |
//! | `time::pause` | none: tests wait for events, or for short times |
//!
//! Sockets call by call are in `docs/surface.md` of the repository.
//!
//! Libraries that call `tokio::spawn` or make tokio's sockets by themselves
//! need tokio's runtime, which can run beside this one on threads of its own:
//! tasks of either may await what was made in the other.
//!
//! # A task in parallel, a task in series
//!
//! What [`block_on`](isochrome_runtime::Runtime::block_on) runs and what it
//! [`spawn`](crate::spawn)s is of the default color: serial, on one thread.
//! That is what most of a program wants. Give what is to run in parallel a
//! color of its own, and what is shared by such tasks a color too:
//!
//! ```
//! use isochrome::{Color, Runtime, spawn_apart};
//! # fn main() -> std::io::Result<()> {
//! # Runtime::new()?.block_on(async {
//! let total = Color::new().cell(0);
//! let mut tasks = Vec::new();
//! for n in 0..10 {
//!     let total = total.clone();
//!     tasks.push(spawn_apart(async move {
//!         total.with(move |total| *total += n).await; // no lock
//!     }));
//! }
//! for task in tasks {
//!     task.await?; // an error if it panicked
//! }
//! assert_eq!(total.with(|total| *total).await, 45);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! What may be done between two awaits, and what not, stands at
//! [`Color`](crate::Color).
//!
//! # Ctrl-C
//!
//! The runtime installs no signal handlers. With the crate `signal-hook` a
//! signal is a byte in a socket, which [`Async`](crate::net::Async) waits for:
//!
//! ```
//! use std::io::{self, Read};
//! use std::os::unix::net::UnixStream;
//!
//! use isochrome::net::{Async, TcpListener, serve};
//! use isochrome::{Runtime, spawn};
//! use signal_hook::consts::{SIGINT, SIGTERM};
//! use signal_hook::low_level::pipe;
//!
//! /// SIGINT and SIGTERM, from now on.
//! fn signals() -> io::Result<Async<UnixStream>> {
//!     let (signals, to) = UnixStream::pair()?;
//!     pipe::register(SIGINT, to.try_clone()?)?;
//!     pipe::register(SIGTERM, to)?;
//!     Async::new(signals)
//! }
//!
//! async fn next(signals: &Async<UnixStream>) -> io::Result<()> {
//!     signals.read_with(|mut from| from.read_exact(&mut [0])).await
//! }
//!
//! fn main() -> io::Result<()> {
//!     Runtime::new()?.block_on(async {
//!         let signals = signals()?;
//!         let listener = TcpListener::bind("127.0.0.1:0").await?;
//!         let server = serve(listener, |stream, _| async move {
//!             stream.write_all(b"hello\n").await
//!         });
//!         let handle = server.handle();
//!         let server = spawn(server.run());
//! #       signal_hook::low_level::raise(SIGINT)?;
//!         next(&signals).await?;
//!         handle.close(); // handlers may end in their own time, see `grace`
//!         println!("{:?}", server.await??);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! A program that computes for long without an await hears it late; the
//! examples of the repository wait on a thread of their own, which can end the
//! process at the second signal whatever the workers are at.
//!
//! # Lines
//!
//! With the feature `futures-io`, which works on `&stream` too, so that one
//! task can read and write:
//!
#![cfg_attr(feature = "futures-io", doc = "```")]
#![cfg_attr(not(feature = "futures-io"), doc = "```ignore")]
//! use futures_util::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
//! use isochrome::net::TcpStream;
//!
//! async fn shout(stream: TcpStream) -> std::io::Result<()> {
//!     let mut lines = BufReader::new(&stream);
//!     let mut line = String::new();
//!     // At most so much, or a client that sends no `\n` fills the memory.
//!     while (&mut lines).take(4096).read_line(&mut line).await? > 0 {
//!         line.make_ascii_uppercase();
//!         stream.write_all(line.as_bytes()).await?;
//!         line.clear();
//!     }
//!     Ok(())
//! }
//! # drop(shout);
//! ```
//!
//! With `tokio-io`, the codecs of `tokio-util` (`Framed::new(stream,
//! LinesCodec::new_with_max_length(4096))`), `tokio-rustls` and
//! `async-compression` take streams as they are. Without either, see
//! `examples/chat/lines.rs`: lines out of leases, so that a silent client owns
//! no buffer.
//!
//! # The first of several, all of many
//!
//! Futures of this crate are ordinary ones, for every combinator there is.
//! Each says what dropping it loses: mostly nothing, so that it can be tried
//! again; a send that is given up leaves open how much went out.
//!
//! ```
//! use std::pin::pin;
//! use std::time::Duration;
//!
//! use futures_util::future::{Either, select, try_join_all};
//! use futures_util::stream::{FuturesUnordered, StreamExt};
//! use isochrome::time::{sleep, timeout};
//! use isochrome::{Runtime, spawn_apart};
//!
//! # fn main() -> std::io::Result<()> {
//! # Runtime::new()?.block_on(async {
//! // The first of two. (Or `futures::select!`.)
//! match select(pin!(sleep(Duration::from_secs(60))), pin!(async { 1 })).await {
//!     Either::Left(_) => println!("a minute is over"),
//!     Either::Right((one, _)) => assert_eq!(one, 1),
//! }
//! // All, in their order; the first error ends it.
//! let squares = try_join_all((0..100).map(|n| spawn_apart(async move { n * n }))).await?;
//! assert_eq!(squares[9], 81);
//! // As they finish.
//! let mut running: FuturesUnordered<_> = (0..100).map(|n| spawn_apart(async move { n })).collect();
//! while let Some(done) = running.next().await {
//!     done?;
//! }
//! // Not for ever. The task goes on if only its handle is given up: abort it.
//! let task = spawn_apart(sleep(Duration::from_secs(3600)));
//! let abort = task.abort_handle();
//! if timeout(Duration::from_millis(5), task).await.is_err() {
//!     abort.abort();
//! }
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Work that takes long
//!
//! Between two awaits a task has its worker for itself. What computes for long
//! either gives way at times by
//! [`yield_now`](crate::yield_now), or is a closure for
//! [`spawn_blocking`](crate::spawn_blocking), as is everything that blocks.
//! The I/O of this crate gives way by itself when it is always ready; a channel
//! of another crate that always has something in it does not, so a loop over
//! one that computes wants a `yield_now` as well.
//! [`Builder::long_poll`](crate::Builder::long_poll) finds those who forgot.
//!
//! # Child processes
//!
//! `std::process` starts them, their streams are [pipes](crate::net::pipe),
//! and [`process::wait`](crate::process::wait) waits for their end:
//!
//! ```
//! use std::process::{Command, Stdio};
//!
//! use isochrome::net::pipe;
//! use isochrome::{Runtime, process, spawn};
//!
//! # fn main() -> std::io::Result<()> {
//! # Runtime::new()?.block_on(async {
//! let mut child = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//! let to = pipe::Sender::from_fd(child.stdin.take().expect("it is piped"))?;
//! let from = pipe::Receiver::from_fd(child.stdout.take().expect("it is piped"))?;
//! // At the same time, or both wait for each other once the pipes are full.
//! let writer = spawn(async move { to.write_all(b"2\n1\n").await }); // and `to` is dropped
//! let mut sorted = Vec::new();
//! from.read_to_end(&mut sorted).await?;
//! writer.await??;
//! assert_eq!(sorted, b"1\n2\n");
//! assert!(process::wait(&mut child).await?.success());
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # The terminal
//!
//! `println!` blocks for as long as nobody reads, which seldom matters. What is
//! typed is best read by a thread that sends it on: to make the terminal itself
//! non-blocking would do so for the shell, too.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! # isochrome::Runtime::new()?.block_on(async {
//! let (to, lines) = async_channel::bounded(16);
//! std::thread::spawn(move || {
//!     for line in std::io::stdin().lines().map_while(Result::ok) {
//!         if to.send_blocking(line).is_err() {
//!             break;
//!         }
//!     }
//! });
//! while let Ok(line) = lines.recv().await {
//!     println!("you said {line}");
//! }
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Tests
//!
//! Each test makes a runtime of its own; dropping it ends all that is left. `ISOCHROME_DRIVER=reactor cargo test` and `=proactor` run them on
//! either driver. With more than one worker, what has colors of its own runs in
//! parallel, as it will in production.
//!
//! ```
//! # mod example {
//! #[test]
//! fn it_answers() -> std::io::Result<()> {
//!     isochrome::Builder::new().workers(2).build()?.block_on(async {
//!         let (a, b) = isochrome::net::UnixStream::pair()?;
//!         a.write_all(b"ping").await?;
//!         let mut got = [0; 4];
//!         isochrome::time::timeout(std::time::Duration::from_secs(10), b.read_exact(&mut got)).await??;
//!         assert_eq!(&got, b"ping");
//!         Ok(())
//!     })
//! }
//! # }
//! ```
//!
//! # What it says of itself
//!
//! With the feature `tracing`, what is noticed (a color that takes most of a
//! core, a poll that took too long, a listener without descriptors) is a
//! warning with the target `isochrome`; without, hand a closure to
//! [`Builder::on_report`](crate::Builder::on_report).
//! [`Handle::stats`](crate::Handle::stats) has the figures of workers and of
//! colors with a name.
//!
//! # In a loop of one's own
//!
//! A program that has an event loop already runs the runtime in it: nothing
//! else is needed than a descriptor and a time to wait for.
//!
//! ```no_run
//! # use std::time::{Duration, Instant};
//! # use isochrome::Builder;
//! # fn wait_in_my_loop(_: std::os::fd::BorrowedFd<'_>, _: Option<Duration>) {}
//! # fn main() -> std::io::Result<()> {
//! let runtime = Builder::new().workers(1).build()?;
//! let task = runtime.handle().spawn(async { 1 });
//! runtime.turn(Some(Duration::ZERO));
//! while !task.is_finished() {
//!     let due = runtime.next_deadline();
//!     let most = due.map(|due| due.saturating_duration_since(Instant::now()));
//!     let fd = runtime.as_fd().expect("both drivers have one");
//!     wait_in_my_loop(fd, most); // until `fd` is readable: epoll, poll, libuv, ..
//!     runtime.turn(Some(Duration::ZERO));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The other way round, [`Builder::start`](crate::Builder::start) gives a
//! runtime on threads of its own, for a program whose main thread does
//! something else: [`Background`](crate::Background) is a
//! [`Handle`](crate::Handle) to spawn by, from any thread.
//!
//! [`spawn_apart`]: crate::spawn_apart
