//! What is answered to a request.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};

use crate::server::house::Count;
use crate::store::Store;
use crate::value::Work;

type Answer = Response<Full<Bytes>>;

/// What a connection was answered; each has its own, so that counting shares
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    requests: Count,
    hits: Count,
    misses: Count,
}

impl Figures {
    pub(crate) fn add(&self, more: &Figures) {
        self.requests.add(more.requests.get());
        self.hits.add(more.hits.get());
        self.misses.add(more.misses.get());
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "requests={} hits={} misses={}",
            self.requests, self.hits, self.misses
        )
    }
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Site<S> {
    store: S,
    work: Work,
    figures: Arc<Figures>,
}

impl<S: Store> Site<S> {
    pub(crate) fn new(store: S, work: Work) -> Site<S> {
        Site {
            store,
            work,
            figures: Arc::default(),
        }
    }

    /// What this connection was answered so far.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    async fn answer(self, request: Request<Incoming>) -> Answer {
        self.figures.requests.add(1);
        if request.method() != Method::GET {
            let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            let allowed = HeaderValue::from_static("GET");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        let Some(key) = request.uri().path().strip_prefix("/key/") else {
            return say(StatusCode::NOT_FOUND, "ask for /key/N\n");
        };
        match key.parse() {
            Ok(key) => self.value(key).await,
            Err(_) => say(StatusCode::BAD_REQUEST, "N is a number below 2^64\n"),
        }
    }

    /// Two who miss the same key at a time both make it: the values are equal.
    async fn value(self, key: u64) -> Answer {
        let (value, from) = match self.store.get(key).await {
            Some(value) => {
                self.figures.hits.add(1);
                (value, "hit")
            }
            None => {
                self.figures.misses.add(1);
                // Under the color of the connection: others go on.
                let value = self.work.value(key);
                self.store.put(key, value.clone()).await;
                (value, "miss")
            }
        };
        let mut answer = plain(value);
        let from = HeaderValue::from_static(from);
        answer.headers_mut().insert("x-cache", from);
        answer
    }
}

fn plain(text: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(text));
    let kind = HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn say(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = plain(Bytes::from_static(text.as_bytes()));
    *answer.status_mut() = status;
    answer
}

impl<S: Store> Service<Request<Incoming>> for Site<S> {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}
