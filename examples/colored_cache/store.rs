//! The four ways to share the cache.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_channel::{Receiver, Sender, bounded};
use bytes::Bytes;
use isochrome::{Color, ColorCell};

use crate::cache::Cache;

/// A cache that all connections have.
pub(crate) trait Store: Clone + fmt::Debug + Send + Sync + 'static {
    /// The value of `key`, if it is kept.
    fn get(&self, key: u64) -> impl Future<Output = Option<Bytes>> + Send;

    /// Keeps a value.
    fn put(&self, key: u64, value: Bytes) -> impl Future<Output = ()> + Send;
}

/// The cache has a color: what touches it runs under that, one step after
/// another, at once if nobody else is there.
#[derive(Clone, Debug)]
pub(crate) struct Colored(ColorCell<Cache>);

impl Colored {
    pub(crate) fn new(cache: Cache) -> Colored {
        Colored(Color::new().cell(cache))
    }
}

impl Store for Colored {
    async fn get(&self, key: u64) -> Option<Bytes> {
        self.0.with(move |cache| cache.get(key)).await
    }

    async fn put(&self, key: u64, value: Bytes) {
        self.0.with(move |cache| cache.put(key, value)).await;
    }
}

/// Behind a lock, which is never held across an await.
#[derive(Clone, Debug)]
pub(crate) struct Locked(Arc<Mutex<Cache>>);

impl Locked {
    pub(crate) fn new(cache: Cache) -> Locked {
        Locked(Arc::new(Mutex::new(cache)))
    }
}

impl Store for Locked {
    async fn get(&self, key: u64) -> Option<Bytes> {
        self.0.lock().expect("nothing panics here").get(key)
    }

    async fn put(&self, key: u64, value: Bytes) {
        self.0.lock().expect("nothing panics here").put(key, value);
    }
}

/// A task has the cache, and the others send it messages.
#[derive(Clone, Debug)]
pub(crate) struct Actor(Sender<Message>);

#[derive(Debug)]
enum Message {
    Get(u64, Sender<Option<Bytes>>),
    Put(u64, Bytes),
}

/// Senders wait if so many messages do. (Out of thin air.)
const MAILBOX: usize = 1024;

impl Actor {
    pub(crate) fn start(cache: Cache) -> Actor {
        let (sender, receiver) = bounded(MAILBOX);
        // Detached: it ends when the last sender is gone.
        drop(Color::new().spawn(Actor::act(cache, receiver)));
        Actor(sender)
    }

    async fn act(mut cache: Cache, mailbox: Receiver<Message>) {
        while let Ok(message) = mailbox.recv().await {
            match message {
                Message::Get(key, reply) => {
                    // Who asked may have been cut off.
                    let _ = reply.send(cache.get(key)).await;
                }
                Message::Put(key, value) => cache.put(key, value),
            }
        }
    }

    /// If the actor is gone, so is the runtime, and nobody reads an answer.
    async fn send(&self, message: Message) {
        let _ = self.0.send(message).await;
    }
}

impl Store for Actor {
    async fn get(&self, key: u64) -> Option<Bytes> {
        let (reply, answer) = bounded(1);
        self.send(Message::Get(key, reply)).await;
        answer.recv().await.ok().flatten()
    }

    async fn put(&self, key: u64, value: Bytes) {
        self.send(Message::Put(key, value)).await;
    }
}

/// Everybody is of the color of the cache, and reaches it directly.
#[derive(Clone, Debug)]
pub(crate) struct OneColor(ColorCell<Cache>);

impl OneColor {
    /// For connections of this color.
    pub(crate) fn new(color: &Color, cache: Cache) -> OneColor {
        OneColor(color.cell(cache))
    }
}

impl Store for OneColor {
    async fn get(&self, key: u64) -> Option<Bytes> {
        self.0.get().expect("our color").get(key)
    }

    async fn put(&self, key: u64, value: Bytes) {
        self.0.get().expect("our color").put(key, value);
    }
}
