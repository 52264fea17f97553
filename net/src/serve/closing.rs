//! A word that is said once and heard by everybody: the server is closing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(super) struct Closing {
    said: AtomicBool,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Closing {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        // Nothing that can panic runs under the lock, but the allocator.
        self.listeners.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn say(&self) {
        let wakers = {
            let mut listeners = self.lock();
            // Under the lock, so that who registers sees the word or is in
            // the list that is taken here.
            self.said.store(true, Ordering::Release);
            std::mem::take(&mut listeners.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    pub(super) fn is_said(&self) -> bool {
        self.said.load(Ordering::Acquire)
    }
}

/// One who listens. As long as its task keeps its waker, asking again costs one
/// load and one comparison, and no lock that all connections would share.
#[derive(Debug)]
pub(super) struct Listener {
    closing: Arc<Closing>,
    registered: Option<(u64, Waker)>,
}

impl Listener {
    pub(super) fn new(closing: Arc<Closing>) -> Listener {
        Listener {
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
        let mut listeners = self.closing.lock();
        if self.closing.is_said() {
            return Poll::Ready(());
        }
        let number = match &self.registered {
            Some((number, _)) => *number,
            None => {
                listeners.next += 1;
                listeners.next
            }
        };
        let waker = cx.waker().clone();
        let old = listeners.wakers.insert(number, waker.clone());
        drop(listeners);
        drop(old);
        self.registered = Some((number, waker));
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((number, _)) = self.registered {
            let gone = self.closing.lock().wakers.remove(&number);
            drop(gone);
        }
    }
}
