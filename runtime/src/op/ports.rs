//! The two ports of a socket, in one word.

use std::fmt;

use super::owner::{Aside, claim_both, make_aside};
use super::port::abandon;
use super::slot::Slot;
use crate::descriptor::DescriptorRef;

/// Two [ports](super::Port) of a descriptor, one for each direction, and two
/// more for what goes past these: all of them by one pointer, and the first two
/// without memory of their own.
///
/// Dropping it abandons what is in flight.
pub struct Ports(DescriptorRef);

impl Ports {
    /// Makes the ports of `descriptor`.
    ///
    /// # Panics
    ///
    /// If it has a port already.
    pub fn new(descriptor: DescriptorRef) -> Ports {
        assert!(claim_both(&descriptor), "the descriptor has a port already");
        Ports(descriptor)
    }

    /// The descriptor that they operate on.
    #[inline]
    pub fn descriptor(&self) -> &DescriptorRef {
        &self.0
    }

    /// The port of what is received.
    #[inline]
    pub fn recv(&self) -> &Slot {
        &self.0.within().slots()[0]
    }

    /// The port of what is sent.
    #[inline]
    pub fn send(&self) -> &Slot {
        &self.0.within().slots()[1]
    }

    /// A port for those who receive past the first. Made when it is first
    /// asked for.
    pub fn recv_aside(&self) -> &Slot {
        &make_aside(&self.0)[0]
    }

    /// A port for those who send past the first, likewise.
    pub fn send_aside(&self) -> &Slot {
        &make_aside(&self.0)[1]
    }

    /// Whether anybody has asked for one of these two.
    pub fn has_aside(&self) -> bool {
        self.0.aside().is_some()
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.0.within().slots().iter().for_each(abandon);
        let aside = self.0.aside().into_iter();
        aside.flat_map(Aside::slots).for_each(abandon);
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ports").field(&self.0).finish()
    }
}
