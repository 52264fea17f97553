//! What ends the sleep of a worker, from any thread: in the ring, or in a host
//! loop outside of it.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use isochrome_runtime::driver::Unpark;
use isochrome_runtime::eventfd::EventFd;

pub(crate) struct Wake {
    /// Polled by the ring.
    source: EventFd,
    /// Made when a host loop asks for a descriptor; `None` if that failed.
    bell: OnceLock<Option<EventFd>>,
}

impl Wake {
    pub(crate) fn new(source: EventFd) -> Wake {
        Wake {
            source,
            bell: OnceLock::new(),
        }
    }

    pub(crate) fn source(&self) -> RawFd {
        self.source.as_raw_fd()
    }

    /// The bell, if there is one.
    pub(crate) fn bell(&self) -> Option<&EventFd> {
        self.bell.get().and_then(Option::as_ref)
    }

    /// The bell, made by `make` if nobody has asked for it before.
    pub(crate) fn bell_or(&self, make: impl FnOnce() -> Option<EventFd>) -> Option<&EventFd> {
        self.bell.get_or_init(make).as_ref()
    }
}

impl Unpark for Wake {
    fn unpark(&self) {
        self.source.unpark();
        // By hand, and not by the ring that polls the source: see `renew_bell`.
        if let Some(bell) = self.bell() {
            bell.unpark();
        }
    }
}
