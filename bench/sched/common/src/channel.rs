//! The channels that all runtimes are measured with: the same code for each,
//! so that what differs is the runtime.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// A bounded queue with one sender and one receiver. With a capacity of one it
/// is the slot of the ping-pong.
#[derive(Debug)]
pub struct Channel<T> {
    state: Mutex<State<T>>,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    values: VecDeque<T>,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

impl<T> Channel<T> {
    /// A queue of so many values.
    pub fn new(capacity: usize) -> Channel<T> {
        Channel {
            state: Mutex::new(State {
                values: VecDeque::with_capacity(capacity),
                sender: None,
                receiver: None,
            }),
            capacity,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("nothing panics inside")
    }

    /// Waits for room.
    pub async fn send(&self, value: T) {
        let mut value = Some(value);
        poll_fn(|cx| self.poll_send(&mut value, cx)).await
    }

    fn poll_send(&self, value: &mut Option<T>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.values.len() == self.capacity {
            remember(&mut state.sender, cx);
            return Poll::Pending;
        }
        let value = value.take().expect("polled after it was sent");
        state.values.push_back(value);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(waker) = receiver {
            waker.wake();
        }
        Poll::Ready(())
    }

    /// Puts a value in from any thread. There has to be room.
    pub fn put(&self, value: T) {
        let mut state = self.state();
        assert!(state.values.len() < self.capacity, "the channel is full");
        state.values.push_back(value);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(waker) = receiver {
            waker.wake();
        }
    }

    /// Waits for a value.
    pub async fn recv(&self) -> T {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state();
        let Some(value) = state.values.pop_front() else {
            remember(&mut state.receiver, cx);
            return Poll::Pending;
        };
        let sender = state.sender.take();
        drop(state);
        if let Some(waker) = sender {
            waker.wake();
        }
        Poll::Ready(value)
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}
