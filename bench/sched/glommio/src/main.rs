//! `glommio`.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

use std::future::Future;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement, Task, timer};
use sched_common::{Args, Rt, Stays};

#[derive(Debug)]
struct Glommio;

impl Rt for Glommio {
    type Join<T: Send + 'static> = Stays<Task<T>>;

    fn spawn<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // SAFETY: glommio's local tasks stay on the thread of their executor.
        unsafe { Stays::new(glommio::spawn_local(future)) }
    }

    fn detach<F>(future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        glommio::spawn_local(future).detach();
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        // SAFETY: as above.
        unsafe { Stays::new(timer::sleep(duration)) }
    }

    fn timeout<F>(duration: Duration, future: F) -> impl Future<Output = ()> + Send
    where
        F: Future<Output = ()> + Send,
    {
        let limited = async move {
            let _ = timer::timeout(duration, async {
                future.await;
                Ok(())
            })
            .await;
        };
        // SAFETY: as above.
        unsafe { Stays::new(limited) }
    }
}

fn main() {
    let args = Args::parse().one_worker_only();
    let builder = LocalExecutorBuilder::new(Placement::Unbound);
    let executor = builder.make().unwrap_or_else(|e| {
        eprintln!("glommio: {e}");
        std::process::exit(1)
    });
    sched_common::run::<Glommio>("glommio", &args, |case| {
        executor.run(async { glommio::spawn_local(case).await })
    })
}
