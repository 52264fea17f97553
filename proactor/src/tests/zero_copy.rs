//! Sends without a copy, with both completions made by hand: between the
//! result and the word that the kernel is done with the memory, the buffer is
//! the kernel's.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Waker};

use io_uring::cqueue;
use isochrome_runtime::buf::IoBuf;
use isochrome_runtime::op::{FileOp, SendBuf};
use isochrome_runtime::time::timeout;

use super::*;
use crate::operation::Operation;
use crate::table::Key;

/// `IORING_CQE_F_MORE` and `IORING_CQE_F_NOTIF`.
const MORE: u32 = 1 << 1;
const NOTIF: u32 = 1 << 3;

/// What a kernel is to say next of the send, and what it was asked to cancel.
#[derive(Default)]
pub(super) struct Script {
    results: Mutex<Vec<(i32, u32)>>,
    pub(super) cancels: AtomicUsize,
}

/// A proactor whose sends without a copy, and closes, reach no kernel.
struct Scripted {
    inner: Proactor,
    script: Arc<Script>,
    send: Option<Key>,
}

// SAFETY: as of the driver within.
unsafe impl Driver for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn by_readiness(&self) -> bool {
        false
    }

    fn submit(&mut self, op: InFlight) -> Result<(), InFlight> {
        let scripted = |op: &Op| matches!(op, Op::SendZc { .. } | Op::File(FileOp::Close(_)));
        if !op.with_op(|op| scripted(op)) {
            return self.inner.submit(op);
        }
        // As if it had been.
        let made = |key| (Operation::new(op, key, |_| true), ());
        let (key, ()) = self.inner.table.insert_with(made);
        self.send = Some(key);
        Ok(())
    }

    fn cancel(&mut self, key: u64) {
        assert_eq!(self.send.map(Key::raw), Some(key));
        self.script.cancels.fetch_add(1, Ordering::SeqCst);
        self.inner.cancel(key);
    }

    fn park(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let results = std::mem::take(&mut *self.script.results.lock().unwrap());
        for (result, flags) in results {
            let key = self.send.expect("a send is in flight").raw();
            // `struct io_uring_cqe` of `linux/io_uring.h`.
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&key.to_ne_bytes());
            raw[8..12].copy_from_slice(&result.to_ne_bytes());
            raw[12..].copy_from_slice(&flags.to_ne_bytes());
            // SAFETY: an entry is 16 bytes of plain data, or this does not
            // compile.
            let entry = unsafe { std::mem::transmute::<[u8; 16], cqueue::Entry>(raw) };
            self.inner.complete(&entry);
        }
        self.inner.park(wait)
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        self.inner.unparker()
    }

    fn shutdown(&mut self, grace: Duration) -> usize {
        self.inner.shutdown(grace)
    }
}

pub(super) fn bed() -> (Runtime, Arc<Script>) {
    let script = Arc::<Script>::default();
    let of_driver = script.clone();
    let driver = move |_worker: usize| {
        let scripted = Scripted {
            inner: Proactor::with_config(&Config::default())?,
            script: of_driver.clone(),
            send: None,
        };
        Ok(Box::new(scripted) as Box<dyn Driver>)
    };
    let grace = Duration::from_millis(20);
    let builder = Builder::new().workers(1).shutdown_grace(grace);
    (builder.build_with(driver).unwrap(), script)
}

/// A buffer whose end is seen.
struct Watched(Vec<u8>, Arc<AtomicUsize>);

// SAFETY: the bytes are on the heap.
unsafe impl IoBuf for Watched {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

type Sending<'a> = SendBuf<'a, Watched>;

fn poll(sending: Pin<&mut Sending<'_>>) -> Poll<(io::Result<usize>, Watched)> {
    sending.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the driver say what the script has.
pub(super) async fn says(script: &Script, result: i32, flags: u32) {
    script.results.lock().unwrap().push((result, flags));
    while !script.results.lock().unwrap().is_empty() {
        yield_now().await;
    }
}

#[test]
fn the_buffer_comes_back_with_the_last_completion_only() {
    for (result, sent) in [(10, Ok(10)), (-libc::ECONNRESET, Err(libc::ECONNRESET))] {
        let (runtime, script) = bed();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let port = Port::new(Descriptor::new(ours.into(), runtime.handle()).unwrap());
        let drops = Arc::<AtomicUsize>::default();
        runtime.block_on(async {
            let mut sending = pin!(port.send_zc(Watched(vec![1; 10], drops.clone())));
            assert!(poll(sending.as_mut()).is_pending());
            says(&script, result, MORE).await;
            assert!(poll(sending.as_mut()).is_pending(), "it is the kernel's");
            says(&script, 0, NOTIF).await;
            let Poll::Ready((told, back)) = poll(sending.as_mut()) else {
                panic!("it is done");
            };
            assert_eq!(told.map_err(|e| e.raw_os_error().unwrap()), sent);
            assert_eq!(back.0, [1; 10]);
            assert_eq!(drops.load(Ordering::SeqCst), 0);
        });
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        assert_eq!(script.cancels.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_buffer_that_was_given_up_lives_until_the_last_completion() {
    // Given up before the result, and after it.
    for told_before in [false, true] {
        let (runtime, script) = bed();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let port = Port::new(Descriptor::new(ours.into(), runtime.handle()).unwrap());
        let drops = Arc::<AtomicUsize>::default();
        runtime.block_on(async {
            {
                let mut sending = pin!(port.send_zc(Watched(vec![1; 10], drops.clone())));
                assert!(poll(sending.as_mut()).is_pending());
                if told_before {
                    says(&script, 10, MORE).await;
                }
            }
            assert_eq!(script.cancels.load(Ordering::SeqCst), 1);
            if !told_before {
                says(&script, -libc::ECANCELED, MORE).await;
            }
            yield_now().await;
            assert_eq!(drops.load(Ordering::SeqCst), 0, "freed under the kernel");
            says(&script, 0, NOTIF).await;
            assert_eq!(drops.load(Ordering::SeqCst), 1);
        });
    }
}

/// Begins a send, and gives it up before its result or after it.
async fn give_up(port: &Port, script: &Script, told_before: bool, drops: &Arc<AtomicUsize>) {
    {
        let mut sending = pin!(port.send_zc(Watched(vec![1; 10], drops.clone())));
        assert!(poll(sending.as_mut()).is_pending());
        if told_before {
            says(script, 10, MORE).await;
        }
    }
    if !told_before {
        says(script, 10, MORE).await;
    }
    yield_now().await;
    assert_eq!(drops.load(Ordering::SeqCst), 0, "freed under the kernel");
}

/// A peer that acknowledges nothing must not keep a connection open by it.
#[test]
fn a_buffer_that_was_given_up_holds_neither_the_line_nor_the_socket() {
    for told_before in [false, true] {
        let (runtime, script) = bed();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = Port::new(Descriptor::new(ours.into(), runtime.handle()).unwrap());
        let drops = Arc::<AtomicUsize>::default();
        runtime.block_on(async {
            give_up(&port, &script, told_before, &drops).await;
            let next = timeout(PATIENCE, port.send("next", true)).await;
            assert_eq!(next.expect("it has its turn").0.unwrap(), 4);
            drop(port);
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"next");
            assert_eq!(drops.load(Ordering::SeqCst), 0, "freed under the kernel");
            says(&script, 0, NOTIF).await;
            assert_eq!(drops.load(Ordering::SeqCst), 1);
        });
        assert_eq!(runtime.shutdown(), 0);
    }
}

#[test]
fn a_buffer_that_never_comes_back_is_leaked_and_the_socket_is_not() {
    for told_before in [false, true] {
        let (runtime, script) = bed();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = Port::new(Descriptor::new(ours.into(), runtime.handle()).unwrap());
        let drops = Arc::<AtomicUsize>::default();
        runtime.block_on(give_up(&port, &script, told_before, &drops));
        drop(port);
        assert_eq!(runtime.shutdown(), 1);
        assert_eq!(theirs.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert_eq!(drops.load(Ordering::SeqCst), 0, "freed under the kernel");
    }
}
