//! What the driver frees when it ends is touched by nobody afterwards, with
//! data arriving all the time.
//!
//! A ring that defers its completions receives and sends only in an enter, and
//! so would forgive most mistakes of the end; one of the oldest level does it
//! whenever its thread makes a system call. Cancels that come late give the
//! kernel time in between, and those that never come make the driver leak. All
//! of it is looked at while the ring is still open: Linux 6.18 carries nothing
//! out for one that is closed (older ones did).

use std::sync::atomic::AtomicBool;

use super::quarantine::Quarantine;
use super::*;
use crate::faults::{Fault, Plan};
use crate::setup::{LEVELS, Level};

/// Sizes that nothing else has.
const BUFFERS: u16 = 8;
const BUFFER: usize = 5000;
/// The buffers begin on a page, for which there is room.
const POOL: usize = BUFFERS as usize * BUFFER + 4096;
const SENT: usize = 4_000_001;

/// How often the kernel gets the chance to touch what it should not.
const LOOKS: usize = 200;

/// What is sent, and is no canary.
const BYTE: u8 = 1;

/// Reads for a while what is there, and says whether all of it was sent.
fn look(mut peer: TcpStream) -> bool {
    const LEN: usize = 30_000;
    let mut some = [0; LEN];
    (0..LOOKS).all(|_| {
        thread::yield_now();
        let n = peer.read(&mut some).unwrap_or(0);
        some[..n] == [BYTE; LEN][..n]
    })
}

/// Leaves the kernel little room, whatever it has learnt of connections on this
/// host: it may take megabytes of one that nobody reads.
fn shrink(socket: &impl AsRawFd, which: libc::c_int) {
    let (len, small) = (size_of::<libc::c_int>() as u32, 16_384 as libc::c_int);
    let (fd, from) = (socket.as_raw_fd(), (&raw const small).cast());
    // SAFETY: `len` bytes are read from `small` during the call.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, which, from, len) };
    assert_eq!(set, 0);
}

/// Ends a runtime with a send and a receive in flight, and looks at what that
/// freed and what it must not. Returns how many operations were leaked.
fn end_while_data_arrives(level: Level, faults: &[(Fault, u32)]) -> usize {
    let config = Config {
        buffers: BUFFERS,
        buffer_size: BUFFER,
        level,
        ..Config::default()
    };
    Plan::of(faults).next();
    let f = Fixture::new(config);
    let (idle, mut idle_peer) = f.tcp_pair();
    let (stuck, stuck_peer) = f.tcp_pair();
    stuck_peer.set_nonblocking(true).unwrap();
    shrink(&stuck_peer, libc::SO_RCVBUF);
    shrink(stuck.descriptor(), libc::SO_SNDBUF);
    begin(&f, &idle, || Op::Recv);
    let mut sending = Box::pin(send(&stuck, vec![BYTE; SENT], true));
    f.runtime.block_on(poll_fn(|cx| {
        assert!(sending.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    f.turn(3);
    let over = Arc::new(AtomicBool::new(false));
    let writes = thread::spawn({
        let over = over.clone();
        idle_peer.set_nonblocking(true).unwrap();
        move || {
            while !over.load(Ordering::Relaxed) {
                let _ = idle_peer.write(&[BYTE; 100]);
                thread::yield_now();
            }
        }
    });

    let quarantine = Quarantine::arm();
    // Given up, so that nobody but the driver has the buffer.
    drop(sending);
    let (clean, peer) = (Arc::default(), stuck_peer.try_clone().unwrap());
    f.after_shutdown({
        let clean: Arc<AtomicBool> = Arc::clone(&clean);
        move || clean.store(look(peer), Ordering::Relaxed)
    });
    let Fixture { runtime, seen, .. } = f;
    drop(runtime);
    drop((idle, stuck));
    let leaked = seen.lock().unwrap().leaked.expect("it was shut down");
    let freed = [POOL, SENT].map(|size| quarantine.count(size));
    let name = format!("{level:?} {faults:?}: {leaked} leaked");
    match leaked {
        0 => assert_eq!(freed, [1, 1], "{name}: it all goes in the end"),
        _ => assert_eq!(freed, [0, 0], "{name}: freed, and the kernel has it"),
    }
    let clean = clean.load(Ordering::Relaxed) && look(stuck_peer);
    assert!(clean, "{name}: memory was sent after it was freed");
    over.store(true, Ordering::Relaxed);
    writes.join().unwrap();
    let changed = quarantine.changed();
    assert_eq!(changed, None, "{name}: written to after it was freed");
    leaked
}

#[test]
fn what_the_end_frees_is_touched_by_nobody() {
    for level in LEVELS {
        for _ in 0..5 {
            for faults in [&[][..], &[(Fault::LateCancel, 1)], &[(Fault::Short, 2)]] {
                assert_eq!(end_while_data_arrives(level, faults), 0);
            }
        }
    }
}

#[test]
fn what_the_kernel_keeps_is_not_freed() {
    for level in LEVELS {
        // The send at least: the receive may end for want of a buffer.
        assert!(end_while_data_arrives(level, &[(Fault::NoCancel, 1)]) > 0);
    }
}
