//! Connects, cancels and closes that race, thousands of them: as many
//! descriptors are open afterwards as before, whoever won.
//!
//! `ISOCHROME_RACES` says how many; 5,000 if it does not.

mod common;

use std::net::Shutdown;
use std::time::Duration;

use common::bytes::Random;
use common::futures::{give_up, poll_once, race};
use common::{descriptors, eventually_async, listen, on_both_drivers};
use isochrome::net::TcpStream;
use isochrome::time::sleep;
use isochrome::{Color, Runtime, yield_now};

on_both_drivers!(connects_cancels_and_closes_leave_no_descriptor);

/// Races between two looks at the descriptors.
const LAP: usize = 500;

fn connects_cancels_and_closes_leave_no_descriptor(rt: Runtime) {
    let races = std::env::var("ISOCHROME_RACES").ok();
    let races: usize = races.map_or(5_000, |n| n.parse().expect("a number of races"));
    let mut random = Random::seeded();
    rt.block_on(async {
        let (listener, address) = listen().await;
        let (ready, wait) = async_channel::bounded(1);
        let acceptor = Color::new().spawn(async move {
            // Accepts are given up too; what they took is taken by the next.
            let mut turn = 0u64;
            loop {
                turn += 1;
                if turn % 7 == 0 {
                    let _ = give_up(listener.accept()).await;
                }
                let accepted = match race(listener.accept(), wait.recv()).await {
                    common::futures::Either::First(accepted) => accepted,
                    common::futures::Either::Second(_) => break,
                };
                // Reset, and with the peer gone, among others.
                let Ok((stream, _)) = accepted else { continue };
                match turn % 3 {
                    0 => drop(stream),
                    1 => {
                        let _ = give_up(stream.recv()).await;
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                    _ => drop(Color::new().spawn(async move {
                        while stream.recv().await.is_ok_and(|data| !data.is_empty()) {}
                    })),
                }
            }
        });
        let before = descriptors().len();
        for done in 0..races {
            let mut connect = Box::pin(TcpStream::connect(address));
            let mut stream = None;
            for _ in 0..random.below(4) {
                if let std::task::Poll::Ready(connected) = poll_once(&mut connect).await {
                    stream = connected.ok();
                    break;
                }
                match random.below(8) {
                    0 => sleep(Duration::from_micros(50)).await,
                    1..4 => yield_now().await,
                    _ => {}
                }
            }
            match (stream, random.below(4)) {
                (Some(stream), 0) => {
                    let _ = give_up(stream.send_all(vec![1; 3000])).await;
                }
                (Some(stream), 1) => {
                    let _ = give_up(stream.recv()).await;
                    let _ = stream.shutdown(Shutdown::Both);
                }
                (Some(stream), _) => drop(Color::new().spawn(async move { drop(stream) })),
                // Finished elsewhere, or given up here.
                (None, 0) => drop(Color::new().spawn(async move {
                    let _ = race(connect, sleep(Duration::from_micros(100))).await;
                })),
                (None, _) => drop(connect),
            }
            if (done + 1) % LAP == 0 {
                eventually_async("closed", || descriptors().len() == before).await;
            }
        }
        eventually_async("all closed", || descriptors().len() == before).await;
        ready.send(()).await.unwrap();
        acceptor.await.unwrap();
    });
}
