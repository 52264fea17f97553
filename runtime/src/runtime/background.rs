//! A runtime with every worker on a thread of its own.

use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::builder::Builder;
use super::handle::Handle;
use crate::driver::Driver;
use crate::sync::Mutex;

/// A runtime that runs in the background: worker 0 too has a thread of its
/// own, where the default color runs. Dereferences to its [`Handle`].
///
/// Dropping it ends the runtime, and waits, as dropping a
/// [`Runtime`](super::Runtime) does.
///
/// # Panics
///
/// When dropped within one of its own tasks, which would wait for itself.
#[derive(Debug)]
pub struct Background {
    handle: Handle,
    stop: Arc<Mutex<Stop>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    said: bool,
    waker: Option<Waker>,
}

impl Stop {
    fn poll(stop: &Mutex<Stop>, cx: &Context<'_>) -> Poll<()> {
        let mut stop = stop.lock().unwrap_or_else(|e| e.into_inner());
        if stop.said {
            return Poll::Ready(());
        }
        stop.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Builder {
    /// Builds the runtime and starts it on threads of its own; see
    /// [`build_with`](Builder::build_with).
    ///
    /// # Errors
    ///
    /// As for `build_with`.
    pub fn start_with<D>(self, driver: D) -> io::Result<Background>
    where
        D: Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync + 'static,
    {
        let stop = Arc::new(Mutex::new(Stop::default()));
        let (report, started) = mpsc::channel();
        let until = stop.clone();
        let main = move || match self.build_with(driver) {
            Ok(runtime) => {
                let _ = report.send(Ok(runtime.handle().clone()));
                runtime.block_on(poll_fn(|cx| Stop::poll(&until, cx)));
            }
            Err(e) => drop(report.send(Err(e))),
        };
        let name = String::from("isochrome-0");
        let thread = thread::Builder::new().name(name).spawn(main)?;
        let handle = started.recv().map_err(io::Error::other)??;
        Ok(Background {
            handle,
            stop,
            thread: Some(thread),
        })
    }
}

impl Deref for Background {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let mut stop = self.stop.lock().unwrap_or_else(|e| e.into_inner());
        stop.said = true;
        let waker = stop.waker.take();
        drop(stop);
        if let Some(waker) = waker {
            waker.wake();
        }
        assert!(
            self.handle.current_worker().is_none(),
            "a runtime was dropped within one of its own tasks"
        );
        if let Some(thread) = self.thread.take() {
            // A panic of a worker has aborted the process.
            let _ = thread.join();
        }
    }
}
