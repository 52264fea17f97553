//! A word that is said once and heard by everybody: stop.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// An event that happens once and stays happened. It may be set from any
/// thread, a signal's too.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    said: AtomicBool,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Stop {
    /// Says it, and wakes all who listen.
    pub(crate) fn say(&self) {
        let wakers = {
            let mut listeners = self.listeners.lock().unwrap();
            // Under the lock, so that who registers sees the word or is in
            // the list that is taken here.
            self.said.store(true, Ordering::Release);
            std::mem::take(&mut listeners.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// Somebody who listens; each task has its own.
    pub(crate) fn listen(self: &Arc<Stop>) -> Listener {
        Listener {
            stop: self.clone(),
            registered: None,
        }
    }
}

/// One who listens for the word.
///
/// Made once for a task and kept. A server asks at each round trip: as long
/// as the task keeps its waker, that costs one load and one comparison, and
/// no lock that all connections would share.
#[derive(Debug)]
pub(crate) struct Listener {
    stop: Arc<Stop>,
    registered: Option<(u64, Waker)>,
}

impl Listener {
    /// Waits for the word.
    pub(crate) async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// What `future` yields, or `None` if the word comes first.
    ///
    /// The word has precedence: a client that always has something to say
    /// does not keep it from being heard. `future` is dropped then, so it has
    /// to be one that loses nothing by that, as `accept` and `recv` are.
    pub(crate) async fn until<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stop.said.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        match &self.registered {
            Some((_, waker)) if waker.will_wake(cx.waker()) => Poll::Pending,
            _ => self.register(cx.waker()),
        }
    }

    fn register(&mut self, waker: &Waker) -> Poll<()> {
        let mut listeners = self.stop.listeners.lock().unwrap();
        if self.stop.said.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let id = match &self.registered {
            Some((id, _)) => *id,
            None => {
                listeners.next += 1;
                listeners.next
            }
        };
        listeners.wakers.insert(id, waker.clone());
        self.registered = Some((id, waker.clone()));
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((id, _)) = self.registered.take() {
            // The waker is dropped outside of the lock.
            let _waker = self.stop.listeners.lock().unwrap().wakers.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn everybody_who_listens_is_woken_once() {
        let (stop, wakes) = (Arc::new(Stop::default()), Arc::new(Wakes::default()));
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let (mut a, mut b, mut gone) = (stop.listen(), stop.listen(), stop.listen());
        for _ in 0..3 {
            assert!(a.poll(&mut cx).is_pending());
            assert!(b.poll(&mut cx).is_pending());
            assert!(gone.poll(&mut cx).is_pending());
        }
        drop(gone);
        stop.say();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert!(a.poll(&mut cx).is_ready());
        assert!(stop.listen().poll(&mut cx).is_ready());
    }

    #[test]
    fn the_word_has_precedence() {
        let stop = Arc::new(Stop::default());
        let mut listener = stop.listen();
        let mut cx = Context::from_waker(Waker::noop());
        let got = pin!(listener.until(ready(7))).poll(&mut cx);
        assert_eq!(got, Poll::Ready(Some(7)));
        assert!(
            pin!(listener.until(pending::<()>()))
                .poll(&mut cx)
                .is_pending()
        );
        stop.say();
        let got = pin!(listener.until(ready(7))).poll(&mut cx);
        assert_eq!(got, Poll::Ready(None));
    }
}
