//! HTTP/1.1 by hyper, on the adapter: its server, its client, and raw sockets
//! where a client does what hyper's would not.

mod common;

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::bytes::{check, pattern};
use common::everywhere;
use common::futures::{Event, join, poll_once};
use common::{eventually_async, listen, pair, shrink};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1 as client;
use hyper::rt::{Executor as _, Timer as _};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use isochrome::hyper::{Executor, Io, Timer};
use isochrome::net::{TcpStream, UnixStream};
use isochrome::{Color, JoinHandle, Runtime, spawn, yield_now};

everywhere!(
    many_requests_on_one_connection,
    pipelined_requests_are_answered_in_order,
    bodies_of_unknown_length_both_ways,
    a_large_body_both_ways,
    a_client_that_leaves_within_its_request,
    a_client_that_leaves_within_its_answer,
    a_client_that_ends_its_half_is_answered,
    a_head_that_does_not_come_times_out,
    a_timer_is_reset_in_its_place,
    a_graceful_shutdown_finishes_what_was_asked,
    a_graceful_shutdown_ends_the_idle,
    the_executor_keeps_the_color,
    an_upgrade_gives_every_byte_back,
    local_streams_carry_it_too,
);

type Served = JoinHandle<hyper::Result<()>>;

/// Serves one connection in a color of its own.
fn serve<S, F, B>(stream: TcpStream, service: S) -> Served
where
    S: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(move |request| {
        let answer = service(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = server::Builder::new();
    builder.timer(Timer).half_close(true);
    Color::new().spawn(async move { builder.serve_connection(Io::new(stream), service).await })
}

/// hyper's client on a connection, driven by a task of its own.
async fn connect<B>(stream: TcpStream) -> client::SendRequest<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = client::handshake(Io::new(stream)).await.unwrap();
    drop(Color::new().spawn(connection));
    sender
}

/// One request, when the connection is ready for it.
async fn ask<B: Body + 'static>(
    sender: &mut client::SendRequest<B>,
    request: Request<B>,
) -> Response<Incoming> {
    sender.ready().await.unwrap();
    sender.send_request(request).await.unwrap()
}

/// Answers with the path.
async fn path(request: Request<Incoming>) -> Response<String> {
    Response::new(request.uri().path().to_owned())
}

/// Answers with the body, piece by piece.
async fn echo(request: Request<Incoming>) -> Response<Incoming> {
    Response::new(request.into_body())
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header(header::HOST, "test");
    request.body(Empty::new()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// What comes until the end, by a client that is none of hyper's.
async fn read_to_end(stream: &TcpStream) -> String {
    let mut all = Vec::new();
    loop {
        let lease = stream.recv().await.unwrap();
        if lease.is_empty() {
            return String::from_utf8(all).unwrap();
        }
        all.extend_from_slice(&lease);
    }
}

fn many_requests_on_one_connection(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let served = serve(far, path);
        let mut sender = connect(near).await;
        for i in 0..200 {
            let response = ask(&mut sender, get(&format!("/{i}"))).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(text(response).await, format!("/{i}"));
        }
        drop(sender);
        served.await.unwrap().unwrap();
    });
}

fn pipelined_requests_are_answered_in_order(rt: Runtime) {
    const REQUESTS: usize = 500;
    rt.block_on(async {
        let (near, far) = pair().await;
        // Some answers take a while, the next ones do not overtake them.
        let served = serve(far, |request| async {
            if request.uri().path().ends_with('7') {
                yield_now().await;
            }
            path(request).await
        });
        let mut requests = String::new();
        for i in 0..REQUESTS {
            let last = if i + 1 == REQUESTS {
                "close"
            } else {
                "keep-alive"
            };
            requests += &format!("GET /{i} HTTP/1.1\r\nhost: test\r\nconnection: {last}\r\n\r\n");
        }
        let (sent, answers) = join(near.send_all(requests.into_bytes()), read_to_end(&near)).await;
        sent.0.unwrap();
        let bodies = answers.lines().filter(|line| line.starts_with('/'));
        // A body ends where the next answer begins.
        let bodies: Vec<_> = bodies
            .map(|line| line.trim_end_matches("HTTP/1.1 200 OK"))
            .collect();
        let expected: Vec<_> = (0..REQUESTS).map(|i| format!("/{i}")).collect();
        assert_eq!(bodies, expected);
        served.await.unwrap().unwrap();
    });
}

/// A body of unknown length: pieces, with a pause now and then.
struct Pieces {
    place: usize,
    len: usize,
    paused: bool,
}

impl Pieces {
    fn of(len: usize) -> Pieces {
        Pieces {
            place: 0,
            len,
            paused: false,
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.paused = !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let n = (self.place % 9973 + 1).min(self.len - self.place);
        let piece = pattern(self.place, n);
        self.place += n;
        Poll::Ready((n > 0).then(|| Ok(Frame::data(piece.into()))))
    }
}

/// Reads a body of the pattern; says how long it was.
async fn check_body(mut body: Incoming) -> usize {
    let mut place = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        check(place, &data);
        place += data.len();
    }
    place
}

fn bodies_of_unknown_length_both_ways(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let served = serve(far, echo);
        let mut sender = connect(near).await;
        for len in [0, 1, 1000, 1 << 20] {
            let request = Request::post("/").header(header::HOST, "test");
            let request = request.body(Pieces::of(len)).unwrap();
            let response = ask(&mut sender, request).await;
            assert_eq!(response.headers()[header::TRANSFER_ENCODING], "chunked");
            assert_eq!(check_body(response.into_body()).await, len);
        }
        drop(sender);
        served.await.unwrap().unwrap();
    });
}

fn a_large_body_both_ways(rt: Runtime) {
    const LEN: usize = 16 << 20;
    rt.block_on(async {
        let (near, far) = pair().await;
        // Many partial writes, and the server waits for room.
        shrink(&near);
        shrink(&far);
        let served = serve(far, |request| async {
            assert_eq!(request.headers()[header::CONTENT_LENGTH], LEN.to_string());
            echo(request).await
        });
        let mut sender = connect(near).await;
        let request = Request::post("/").header(header::HOST, "test");
        let body = Full::new(Bytes::from(pattern(0, LEN)));
        let response = ask(&mut sender, request.body(body).unwrap()).await;
        assert_eq!(check_body(response.into_body()).await, LEN);
        drop(sender);
        served.await.unwrap().unwrap();
    });
}

fn a_client_that_leaves_within_its_request(rt: Runtime) {
    rt.block_on(async {
        for part in [
            "GET / HT",
            "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf",
        ] {
            let (near, far) = pair().await;
            let served = serve(far, |request| async {
                let body = request.into_body().collect().await;
                let error = std::error::Error::source(&body.unwrap_err())
                    .unwrap()
                    .to_string();
                assert!(error.contains("end of file"), "{error}");
                Response::new(String::new())
            });
            near.send_all(part).await.0.unwrap();
            drop(near);
            // Of the body, the service heard.
            let result = served.await.unwrap();
            let body = part.starts_with("POST");
            assert!(body || result.unwrap_err().is_incomplete_message());
        }
    });
}

fn a_client_that_leaves_within_its_answer(rt: Runtime) {
    /// Tells when it is dropped.
    struct Gone(Event);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.set();
        }
    }
    rt.block_on(async {
        let (near, far) = pair().await;
        let gone = Event::default();
        let guard = Arc::new(Gone(gone.clone()));
        let served = serve(far, move |_| {
            let guard = guard.clone();
            async move {
                let endless = std::iter::repeat_with(move || {
                    let _ = &guard;
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[7; 1000])))
                });
                Response::new(StreamBody::new(Iter(endless)))
            }
        });
        near.send_all("GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .0
            .unwrap();
        assert!(near.recv().await.unwrap().starts_with(b"HTTP/1.1 200 OK"));
        drop(near);
        served.await.unwrap().unwrap_err();
        gone.wait().await;
    });
}

/// An iterator as a stream.
struct Iter<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Iter<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

fn a_client_that_ends_its_half_is_answered(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let served = serve(far, |request| async {
            yield_now().await;
            path(request).await
        });
        near.send_all("GET /half HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .0
            .unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_to_end(&near).await;
        assert!(answer.ends_with("\r\n\r\n/half"), "{answer}");
        served.await.unwrap().unwrap();
    });
}

fn a_head_that_does_not_come_times_out(rt: Runtime) {
    const LIMIT: Duration = Duration::from_millis(30);
    rt.block_on(async {
        for head in ["", "GET / HTTP/1.1\r\nhost: te"] {
            let (near, far) = pair().await;
            let served = Color::new().spawn(async {
                let service =
                    service_fn(|request| async { Ok::<_, Infallible>(path(request).await) });
                let mut builder = server::Builder::new();
                builder.timer(Timer).header_read_timeout(LIMIT);
                builder.serve_connection(Io::new(far), service).await
            });
            // The time starts anew with each request.
            for _ in 0..3 {
                near.send_all("GET / HTTP/1.1\r\nhost: test\r\n\r\n")
                    .await
                    .0
                    .unwrap();
                assert!(near.recv().await.unwrap().starts_with(b"HTTP/1.1 200 OK"));
            }
            near.send_all(head).await.0.unwrap();
            read_to_end(&near).await;
            assert!(served.await.unwrap().unwrap_err().is_timeout());
        }
    });
}

fn a_timer_is_reset_in_its_place(rt: Runtime) {
    rt.block_on(async {
        let far = Timer.now() + Duration::from_secs(3600);
        let mut sleep = Timer.sleep_until(far);
        assert!(poll_once(&mut sleep).await.is_pending());
        let place: *const () = (&raw const *sleep).cast();
        Timer.reset(&mut sleep, Timer.now());
        assert_eq!((&raw const *sleep).cast(), place);
        sleep.await;
        Timer.sleep(Duration::from_millis(1)).await;
    });
}

fn a_graceful_shutdown_finishes_what_was_asked(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let (asked, answer) = (Event::default(), Event::default());
        let served = {
            let (asked, answer) = (asked.clone(), answer.clone());
            Color::new().spawn(async move {
                let service = service_fn(|request| async {
                    asked.set();
                    answer.wait().await;
                    Ok::<_, Infallible>(path(request).await)
                });
                let connection = server::Builder::new().serve_connection(Io::new(far), service);
                let mut connection = pin!(connection);
                let mut asked = pin!(asked.wait());
                std::future::poll_fn(|cx| {
                    assert!(connection.as_mut().poll(cx).is_pending());
                    asked.as_mut().poll(cx)
                })
                .await;
                connection.as_mut().graceful_shutdown();
                answer.set();
                connection.await
            })
        };
        near.send_all("GET /last HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .0
            .unwrap();
        let said = read_to_end(&near).await;
        assert!(said.contains("connection: close\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\n/last"), "{said}");
        served.await.unwrap().unwrap();
    });
}

fn a_graceful_shutdown_ends_the_idle(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = pair().await;
        let stop = Event::default();
        let served = {
            let stop = stop.clone();
            Color::new().spawn(async move {
                let service =
                    service_fn(|request| async { Ok::<_, Infallible>(path(request).await) });
                let connection = server::Builder::new().serve_connection(Io::new(far), service);
                let mut connection = pin!(connection);
                let mut stop = pin!(stop.wait());
                std::future::poll_fn(|cx| {
                    assert!(connection.as_mut().poll(cx).is_pending());
                    stop.as_mut().poll(cx)
                })
                .await;
                connection.as_mut().graceful_shutdown();
                connection.await
            })
        };
        let mut sender = connect(near).await;
        let response = ask(&mut sender, get("/one")).await;
        assert_eq!(text(response).await, "/one");
        stop.set();
        served.await.unwrap().unwrap();
        eventually_async("the client hears", || sender.is_closed()).await;
    });
}

fn the_executor_keeps_the_color(rt: Runtime) {
    rt.block_on(async {
        let color = Color::new();
        let (ran, same) = (Event::default(), Arc::new(AtomicUsize::new(0)));
        let (told, counted, expected) = (ran.clone(), same.clone(), color.clone());
        let parent = color.spawn(async move {
            Executor.execute(async move {
                let here = Color::current() == Some(expected);
                counted.fetch_add(here.into(), Ordering::Relaxed);
                told.set();
            });
        });
        parent.await.unwrap();
        ran.wait().await;
        assert_eq!(same.load(Ordering::Relaxed), 1);
    });
}

fn an_upgrade_gives_every_byte_back(rt: Runtime) {
    const EARLY: usize = 100_000;
    rt.block_on(async {
        let (listener, address) = listen().await;
        let served = spawn(async move {
            let (far, _) = listener.accept().await.unwrap();
            let (told, heard) = async_channel::bounded(1);
            let service = service_fn(move |request| {
                let told = told.clone();
                async move {
                    told.send(hyper::upgrade::on(request)).await.unwrap();
                    let response = Response::builder()
                        .status(StatusCode::SWITCHING_PROTOCOLS)
                        .header(header::CONNECTION, "upgrade")
                        .header(header::UPGRADE, "pattern");
                    Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap())
                }
            });
            let connection = server::Builder::new().serve_connection(Io::new(far), service);
            connection.with_upgrades().await.unwrap();
            let upgraded = heard.recv().await.unwrap().await.unwrap();
            let parts = upgraded.downcast::<Io>().unwrap();
            let (stream, rest) = parts.io.into_parts();
            // First what hyper read, then what waited behind it.
            check(0, &parts.read_buf);
            let mut place = parts.read_buf.len();
            check(place, &rest);
            place += rest.len();
            while place < EARLY {
                let lease = stream.recv().await.unwrap();
                check(place, &lease);
                place += lease.len();
            }
            stream.send_all("done").await.0.unwrap();
        });
        let near = TcpStream::connect(address).await.unwrap();
        let mut all = b"GET / HTTP/1.1\r\nhost: test\r\n".to_vec();
        all.extend_from_slice(b"connection: upgrade\r\nupgrade: pattern\r\n\r\n");
        all.extend_from_slice(&pattern(0, EARLY));
        let (sent, said) = join(near.send_all(all), read_to_end(&near)).await;
        sent.0.unwrap();
        assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
        assert!(said.ends_with("\r\n\r\ndone"), "{said}");
        served.await.unwrap();
    });
}

fn local_streams_carry_it_too(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let served = spawn(async move {
            let service = service_fn(async |request| Ok::<_, Infallible>(path(request).await));
            server::Builder::new()
                .serve_connection(Io::new(far), service)
                .await
        });
        let (mut sender, connection) = client::handshake(Io::from(near)).await.unwrap();
        drop(spawn(connection));
        for i in 0..10 {
            let at = format!("/{i}");
            assert_eq!(text(ask(&mut sender, get(&at)).await).await, at);
        }
        drop(sender);
        served.await.unwrap().unwrap();
    });
}
