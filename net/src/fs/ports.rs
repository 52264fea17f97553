//! One port for each operation that is under way on a file at a time.

use std::io;
use std::sync::{Mutex, MutexGuard};

use isochrome_runtime::DescriptorRef;
use isochrome_runtime::op::{Completion, FileOp, Port, Yield};

/// Idle ports that a file keeps. From thin air: the depth at which a disk is
/// busy, a few kilobytes at most.
const KEPT: usize = 32;

#[derive(Debug)]
pub(super) struct Ports {
    pub(super) descriptor: DescriptorRef,
    pub(super) idle: Mutex<Vec<Port>>,
}

impl Ports {
    pub(super) fn new(descriptor: DescriptorRef) -> Ports {
        Ports {
            descriptor,
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Port>> {
        // Nothing that can panic runs under the lock.
        self.idle.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Carries out an operation beside those that are under way. If this is
    /// dropped, the port goes with the operation.
    pub(super) async fn run(&self, op: FileOp) -> (Completion, FileOp) {
        let idle = self.idle().pop();
        let port = idle.unwrap_or_else(|| Port::new(self.descriptor.clone()));
        let answer = port.file(op).await;
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push(port);
        }
        answer
    }

    /// As `run`, for operations that count something.
    pub(super) async fn count(&self, op: FileOp) -> (io::Result<usize>, FileOp) {
        let (completion, op) = self.run(op).await;
        (completion.map(count), op)
    }
}

/// What it counts, if anything.
pub(crate) fn count(yielded: Yield) -> usize {
    match yielded {
        Yield::Done(n) => n,
        Yield::Buf(_) | Yield::Socket(_) | Yield::File(_) => 0,
    }
}
