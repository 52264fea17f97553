//! Descriptors of the user's own: `Async`.

mod common;

use std::io::{self, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::task::Poll;

use common::futures::{Event, give_up, poll_once};
use common::{eventually_async, everywhere};
use isochrome::net::Async;
use isochrome::{Runtime, spawn, yield_now};

fn datagrams() -> (Async<UnixDatagram>, UnixDatagram) {
    let (near, far) = UnixDatagram::pair().unwrap();
    (Async::new(near).unwrap(), far)
}

async fn recv(socket: &Async<UnixDatagram>) -> io::Result<Vec<u8>> {
    let mut buf = [0; 100];
    let len = socket.read_with(|socket| socket.recv(&mut buf)).await?;
    Ok(buf[..len].to_vec())
}

fn what_is_there_is_read_at_once_and_what_comes_is_waited_for(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = datagrams();
        far.send(b"there").unwrap();
        assert_eq!(recv(&near).await.unwrap(), b"there");
        let mut waits = Box::pin(recv(&near));
        for i in 0..100 {
            assert!(poll_once(&mut waits).await.is_pending());
            far.send(&[i]).unwrap();
            assert_eq!(waits.await.unwrap(), [i]);
            waits = Box::pin(recv(&near));
        }
    });
}

fn each_is_read_by_one_of_several(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = datagrams();
        let near = std::sync::Arc::new(near);
        let readers: Vec<_> = (0..8)
            .map(|_| {
                let near = near.clone();
                isochrome::spawn_apart(async move {
                    let mut got = Vec::new();
                    loop {
                        match &recv(&near).await.unwrap()[..] {
                            [0xff] => return got,
                            one => got.push(one[0]),
                        }
                    }
                })
            })
            .collect();
        let far = Async::new(far).unwrap();
        for i in 0..200u8 {
            far.write_with(|far| far.send(&[i])).await.unwrap();
        }
        for _ in &readers {
            far.write_with(|far| far.send(&[0xff])).await.unwrap();
        }
        let mut all = Vec::new();
        for reader in readers {
            all.extend(reader.await.unwrap());
        }
        all.sort();
        assert_eq!(all, (0..200).collect::<Vec<u8>>());
    });
}

fn giving_up_loses_nothing(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = datagrams();
        for i in 0..100 {
            assert!(give_up(recv(&near)).await.is_pending());
            assert!(give_up(near.readable()).await.is_pending());
            far.send(&[i]).unwrap();
            if i % 2 == 0 {
                near.readable().await.unwrap();
            }
            assert_eq!(recv(&near).await.unwrap(), [i]);
        }
    });
}

fn readable_tells_of_the_present(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = datagrams();
        far.send(b"x").unwrap();
        for _ in 0..3 {
            near.readable().await.unwrap();
        }
        near.get_ref().recv(&mut [0; 10]).unwrap();
        let mut waits = Box::pin(near.readable());
        for _ in 0..3 {
            yield_now().await;
            assert!(poll_once(&mut waits).await.is_pending());
        }
        far.send(b"y").unwrap();
        waits.await.unwrap();
    });
}

fn a_full_one_is_written_to_when_there_is_room(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let near = Async::new(near).unwrap();
        near.writable().await.unwrap();
        let mut sent = 0;
        while let Ok(n) = near.get_ref().write(&[7; 4096]) {
            sent += n;
        }
        assert!(give_up(near.writable()).await.is_pending());
        let writer = spawn(async move {
            let n = near
                .write_with(|mut io| io.write(&[7; 4096]))
                .await
                .unwrap();
            (near, n)
        });
        let far = Async::new(far).unwrap();
        let mut got = 0;
        let mut buf = [0; 10_000];
        while got < sent {
            use std::io::Read;
            got += far.read_with(|mut io| io.read(&mut buf)).await.unwrap();
        }
        let (near, more) = writer.await.unwrap();
        assert!(more > 0);
        // The writer had to wait, and can be taken apart all the same.
        drop(near.into_inner());
        while got < sent + more {
            use std::io::Read;
            got += far.read_with(|mut io| io.read(&mut buf)).await.unwrap();
        }
        use std::io::Read;
        let end = far.read_with(|mut io| io.read(&mut buf)).await.unwrap();
        assert_eq!((got, end), (sent + more, 0), "closed, the duplicate too");
    });
}

fn errors_are_the_closures_own(rt: Runtime) {
    rt.block_on(async {
        let (near, _far) = datagrams();
        let error = near.read_with(|_| Err::<(), _>(io::Error::other("mine")));
        assert_eq!(error.await.unwrap_err().to_string(), "mine");
        let mut calls = 0;
        let answer = near.read_with(|_| {
            calls += 1;
            match calls {
                1 => Err(io::ErrorKind::Interrupted.into()),
                calls => Ok(calls),
            }
        });
        assert_eq!(answer.await.unwrap(), 2);
    });
}

fn a_closure_that_panics_takes_its_task_along_and_no_other(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = datagrams();
        let near = std::sync::Arc::new(near);
        let other = near.clone();
        let panics = spawn(async move {
            other
                .read_with(|_| -> io::Result<()> { panic!("in the closure") })
                .await
        });
        assert!(panics.await.unwrap_err().is_panic());
        far.send(b"x").unwrap();
        assert_eq!(recv(&near).await.unwrap(), b"x");
    });
}

fn a_regular_file_is_always_ready(rt: Runtime) {
    use std::io::Read;
    rt.block_on(async {
        let file = Async::new(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        file.readable().await.unwrap();
        let mut magic = [0; 4];
        file.read_with(|mut file| file.read(&mut magic))
            .await
            .unwrap();
        assert_eq!(&magic, b"\x7fELF");
    });
}

/// What all epoll sets of this process have in them.
fn in_epoll_sets() -> usize {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let infos = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
    let watched = |info: &str| info.lines().filter(|line| line.starts_with("tfd:")).count();
    infos.map(|info| watched(&info)).sum()
}

/// The wrapped descriptor stays open, and kept the duplicates that were closed
/// in the set.
fn what_is_not_waited_for_any_more_is_in_no_epoll_set(rt: Runtime) {
    rt.block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let before = in_epoll_sets();
        let waiting: Vec<_> = (0..20).map(|_| Async::new(&near).unwrap()).collect();
        for one in &waiting {
            assert!(give_up(one.readable()).await.is_pending());
        }
        for (i, one) in waiting.into_iter().enumerate() {
            match i % 2 {
                0 => drop(one),
                _ => drop(one.into_inner()),
            }
        }
        eventually_async("they are gone", || in_epoll_sets() == before).await;
        drop((near, far));
    });
}

fn outside_of_a_runtime_it_is_an_error(rt: Runtime) {
    drop(rt);
    let (near, _far) = UnixDatagram::pair().unwrap();
    let error = Async::new(near).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
}

fn the_end_of_the_runtime_ends_the_wait(rt: Runtime) {
    let (near, _far) = rt.block_on(async { datagrams() });
    let near = std::sync::Arc::new(near);
    let begun = Event::with_room(1);
    // On a foreign executor, which survives the runtime.
    let (waits, began) = (near.clone(), begun.clone());
    let thread = std::thread::spawn(move || {
        let mut future = Box::pin(async move { recv(&waits).await });
        common::futures::park_on(async {
            let Poll::Pending = poll_once(&mut future).await else {
                panic!("nothing is there")
            };
            began.set();
            future.await
        })
    });
    rt.block_on(eventually_async("the wait to begin", || begun.is_set()));
    drop(rt);
    let error = thread.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "{error}");
}

everywhere!(
    what_is_there_is_read_at_once_and_what_comes_is_waited_for,
    each_is_read_by_one_of_several,
    giving_up_loses_nothing,
    readable_tells_of_the_present,
    a_full_one_is_written_to_when_there_is_room,
    errors_are_the_closures_own,
    a_closure_that_panics_takes_its_task_along_and_no_other,
    a_regular_file_is_always_ready,
    what_is_not_waited_for_any_more_is_in_no_epoll_set,
    outside_of_a_runtime_it_is_an_error,
    the_end_of_the_runtime_ends_the_wait,
);
