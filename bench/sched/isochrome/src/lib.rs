//! Isochrome, twice: with tasks that inherit the color of their spawner, which
//! makes them serial, and with a color for each task.

#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use isochrome::{Builder, DriverChoice, Handle, JoinHandle, time};
use sched_common::{Args, Rt};

/// Awaits a task that does not panic and that nobody aborts.
#[derive(Debug)]
pub struct Join<T>(JoinHandle<T>);

impl<T> Future for Join<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|output| output.expect("the task ends"))
    }
}

async fn timeout<F: Future<Output = ()> + Send>(duration: Duration, future: F) {
    let _ = time::timeout(duration, future).await;
}

macro_rules! runtime {
    ($name:ident, $doc:literal, $spawn:expr) => {
        #[doc = $doc]
        #[derive(Debug)]
        pub struct $name;

        impl Rt for $name {
            type Join<T: Send + 'static> = Join<T>;

            fn spawn<F>(future: F) -> Join<F::Output>
            where
                F: Future + Send + 'static,
                F::Output: Send + 'static,
            {
                Join($spawn(future))
            }

            fn detach<F>(future: F)
            where
                F: Future<Output = ()> + Send + 'static,
            {
                drop($spawn(future));
            }

            /// A color made outside begins on another worker than 0, and one
            /// made here, by a task of the default color, on 0.
            fn spawn_apart<A, B>(a: A, b: B) -> (Join<A::Output>, Join<B::Output>)
            where
                A: Future + Send + 'static,
                A::Output: Send + 'static,
                B: Future + Send + 'static,
                B::Output: Send + 'static,
            {
                let runtime = Handle::current().expect("a task has a runtime");
                let there = runtime.spawn_apart(b);
                (Join(isochrome::spawn_apart(a)), Join(there))
            }

            fn yield_now() -> impl Future<Output = ()> + Send {
                isochrome::yield_now()
            }

            fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
                time::sleep(duration)
            }

            fn timeout<F>(duration: Duration, future: F) -> impl Future<Output = ()> + Send
            where
                F: Future<Output = ()> + Send,
            {
                timeout(duration, future)
            }
        }
    };
}

runtime!(Serial, "`spawn`: the default color.", isochrome::spawn);
runtime!(Colors, "`spawn_apart`.", isochrome::spawn_apart);

/// The whole program.
pub fn main<R: Rt>(name: &str, driver: DriverChoice) -> ! {
    let args = Args::parse();
    let runtime = Builder::new().driver(driver).workers(args.workers).build();
    let runtime = runtime.unwrap_or_else(|e| {
        eprintln!("{name}: {e}");
        std::process::exit(1)
    });
    // The future of `block_on` is a task like others.
    sched_common::run::<R>(name, &args, |case| runtime.block_on(case))
}
