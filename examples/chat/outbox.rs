//! The queue of a member: rooms put lines in, and never wait; the member's
//! connection takes them out as fast as the client reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::{Receiver, Sender, TrySendError, bounded};
use bytes::Bytes;
use clap::ValueEnum;

use crate::Totals;
use crate::server::stop::{Listener, Stop};

/// What happens when the queue of a member is full.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Slow {
    /// The oldest line goes, and the member is told how many did
    DropOldest,
    /// The member goes
    Disconnect,
}

/// Bytes sent at once, about: so much is on its way beside the queue.
const BATCH: usize = 16 << 10;

/// Where rooms put lines. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    lines: Sender<Bytes>,
    slow: Slow,
    state: Arc<State>,
}

/// Where the connection takes them.
#[derive(Debug)]
pub(crate) struct Inbox {
    lines: Receiver<Bytes>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Lines dropped that the member was not told of. Nothing is ordered by
    /// it, so relaxed.
    missed: AtomicU64,
    /// Said when the member is to go.
    cut: Arc<Stop>,
    totals: Arc<Totals>,
}

/// A queue for so many lines.
pub(crate) fn outbox(lines: usize, slow: Slow, totals: Arc<Totals>) -> (Outbox, Inbox) {
    let (sender, receiver) = bounded(lines);
    let state = Arc::new(State {
        missed: AtomicU64::new(0),
        cut: Arc::default(),
        totals,
    });
    let outbox = Outbox {
        lines: sender,
        slow,
        state: state.clone(),
    };
    let inbox = Inbox {
        lines: receiver,
        state,
    };
    (outbox, inbox)
}

impl Outbox {
    /// Puts a line in, at once. Lines for those who are gone are dropped.
    pub(crate) fn push(&self, line: Bytes) {
        let totals = &self.state.totals;
        match self.slow {
            Slow::DropOldest => match self.lines.force_send(line) {
                Ok(None) => totals.queued.add(1),
                Ok(Some(_)) => {
                    totals.queued.add(1);
                    totals.dropped.add(1);
                    self.state.missed.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {}
            },
            Slow::Disconnect => match self.lines.try_send(line) {
                Ok(()) => totals.queued.add(1),
                Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => {
                    // Once: nothing is queued any more.
                    if self.lines.close() {
                        totals.slow.add(1);
                        self.state.cut.say();
                    }
                }
            },
        }
    }

    /// Hears when the member is to go.
    pub(crate) fn cut(&self) -> Listener {
        self.state.cut.listen()
    }

    /// No more lines: the connection takes out what is there.
    pub(crate) fn close(&self) {
        self.lines.close();
    }
}

impl PartialEq for Outbox {
    fn eq(&self, other: &Outbox) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

impl Inbox {
    /// The lines that are there, when there are any; `None` after the last.
    pub(crate) async fn batch(&self) -> Option<Vec<u8>> {
        let first = self.lines.recv().await.ok()?;
        let mut batch = Vec::with_capacity(first.len());
        let missed = self.state.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let notice = format!("* {missed} lines were dropped: you read too slowly\n");
            batch.extend_from_slice(notice.as_bytes());
        }
        batch.extend_from_slice(&first);
        while batch.len() < BATCH {
            let Ok(line) = self.lines.try_recv() else {
                break;
            };
            batch.extend_from_slice(&line);
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn full(slow: Slow) -> (Outbox, Inbox, Arc<Totals>) {
        let totals = Arc::new(Totals::default());
        let (outbox, inbox) = outbox(3, slow, totals.clone());
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n"] {
            outbox.push(line.into());
        }
        (outbox, inbox, totals)
    }

    fn now<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_oldest_lines_go_and_are_counted() {
        let (outbox, inbox, totals) = full(Slow::DropOldest);
        let Poll::Ready(Some(batch)) = now(inbox.batch()) else {
            panic!("three lines are there");
        };
        let batch = String::from_utf8(batch).unwrap();
        assert_eq!(
            batch,
            "* 2 lines were dropped: you read too slowly\n3\n4\n5\n"
        );
        assert_eq!((totals.queued.get(), totals.dropped.get()), (5, 2));
        assert!(now(inbox.batch()).is_pending());
        outbox.push("6\n".into());
        outbox.close();
        assert_eq!(now(inbox.batch()), Poll::Ready(Some(b"6\n".to_vec())));
        assert_eq!(now(inbox.batch()), Poll::Ready(None));
    }

    #[test]
    fn the_slow_are_cut_once() {
        let (outbox, inbox, totals) = full(Slow::Disconnect);
        assert!(now(outbox.cut().wait()).is_ready());
        assert_eq!((totals.queued.get(), totals.slow.get()), (3, 1));
        assert_eq!(now(inbox.batch()), Poll::Ready(Some(b"1\n2\n3\n".to_vec())));
        assert_eq!(now(inbox.batch()), Poll::Ready(None));
    }
}
