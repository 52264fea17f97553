//! Ending what is in flight without losing what it brings: for a descriptor
//! that leaves the runtime.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::line::For;
use super::{Completion, Slot};

impl Slot {
    /// Ends what is in flight, and gives what it had brought and still brings
    /// until it has ended, in order: also what arrived with the cancel. The
    /// word that it was cancelled is not among it, and nothing is where the
    /// driver works by readiness.
    ///
    /// Dropping the future leaves it there.
    pub async fn recall(&self) -> Vec<Completion> {
        poll_fn(|cx| self.poll_end(cx)).await;
        let mut brought = Vec::new();
        loop {
            let mut state = self.lock();
            let completion = state.pop();
            let done = state.take_finished();
            drop(state);
            drop(done);
            match completion {
                None => return brought,
                Some(Err(e)) if is_cancel(&e) => {}
                Some(completion) => brought.push(completion),
            }
        }
    }

    /// Ready when nothing is in flight.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        let slot = self;
        let mut state = self.lock();
        if !state.life.is_in_flight() {
            return Poll::Ready(());
        }
        // In the line first: the cancel may be obeyed before it returns.
        let old = state.wait(None, For::Any, cx.waker());
        let to_cancel = state.life.recall();
        drop(state);
        drop(old);
        if to_cancel {
            slot.descriptor().runtime().cancel(slot);
        }
        Poll::Pending
    }
}

fn is_cancel(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::ECANCELED)
}
