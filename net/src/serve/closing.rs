//! A word that is said once and heard by everybody: the server is closing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(super) struct Closing {
    said: AtomicBool,
    hearers: Mutex<Hearers>,
}

#[derive(Debug, Default)]
struct Hearers {
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Closing {
    fn lock(&self) -> MutexGuard<'_, Hearers> {
        // Nothing that can panic runs under the lock, but the allocator.
        self.hearers.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn say(&self) {
        let wakers = {
            let mut hearers = self.lock();
            // Under the lock, so that who registers sees the word or is in
            // the list that is taken here.
            self.said.store(true, Ordering::Release);
            std::mem::take(&mut hearers.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    pub(super) fn is_said(&self) -> bool {
        self.said.load(Ordering::Acquire)
    }
}

/// One who hears it. As long as its task keeps its waker, asking again costs one
/// load and one comparison, and no lock that all connections would share.
#[derive(Debug)]
pub(super) struct Hearer {
    closing: Arc<Closing>,
    registered: Option<(u64, Waker)>,
}

impl Hearer {
    pub(super) fn new(closing: Arc<Closing>) -> Hearer {
        Hearer {
            closing,
            registered: None,
        }
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.closing.is_said() {
            return Poll::Ready(());
        }
        if (self.registered.as_ref()).is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        // Before the lock: to clone a foreign one may run any code.
        let waker = cx.waker().clone();
        let kept = waker.clone();
        let mut hearers = self.closing.lock();
        if self.closing.is_said() {
            return Poll::Ready(());
        }
        let number = match &self.registered {
            Some((number, _)) => *number,
            None => {
                hearers.next += 1;
                hearers.next
            }
        };
        let old = hearers.wakers.insert(number, waker);
        drop(hearers);
        drop(old);
        self.registered = Some((number, kept));
        Poll::Pending
    }
}

impl Drop for Hearer {
    fn drop(&mut self) {
        if let Some((number, _)) = self.registered {
            let gone = self.closing.lock().wakers.remove(&number);
            drop(gone);
        }
    }
}
