//! A worker and its driver: what tasks on its own thread ask at once, and what
//! others asked by commands.

use std::cell::RefMut;

use std::os::fd::AsFd;

use super::command::Command;
use super::local::Worker;
use crate::buf::Kept;
use crate::descriptor::Legacy;
use crate::driver::{Driver, Successor};
use crate::op::{InFlight, Slot, SlotRef};

impl Worker {
    /// Submits on this worker's driver, if it is not at work just now and
    /// takes the operation.
    #[inline]
    pub(super) fn submit(&self, op: InFlight) -> Result<(), InFlight> {
        match self.driver.try_borrow_mut() {
            Ok(mut driver) => driver.submit(op),
            Err(_) => Err(op),
        }
    }

    /// As `submit`, of what nobody waits for.
    #[inline]
    pub(super) fn feed(&self, op: InFlight) -> Result<(), InFlight> {
        match self.driver.try_borrow_mut() {
            Ok(mut driver) => driver.feed(op),
            Err(_) => Err(op),
        }
    }

    /// `false`: the driver is at work; leave a command.
    pub(super) fn hurry(&self) -> bool {
        self.driver
            .try_borrow_mut()
            .map(|mut driver| driver.hurry())
            .is_ok()
    }

    /// `false`: the driver is at work; leave a command.
    pub(super) fn cancel(&self, slot: &Slot) -> bool {
        let Ok(mut driver) = self.driver.try_borrow_mut() else {
            return false;
        };
        let Some(key) = slot.lock().life.cancel_key(self.index) else {
            // Not submitted yet: the command has to come after that.
            return false;
        };
        driver.cancel(key);
        true
    }

    /// As for `cancel`.
    pub(super) fn forget(&self, token: u64) -> bool {
        match self.driver.try_borrow_mut() {
            Ok(mut driver) => {
                driver.forget(token);
                true
            }
            Err(_) => false,
        }
    }

    /// The driver is at work: the legacy comes back, for a command.
    pub(super) fn forget_for(&self, token: u64, legacy: Legacy) -> Result<(), Legacy> {
        match self.driver.try_borrow_mut() {
            Ok(mut driver) => {
                driver.release(token, legacy.fd());
                Ok(())
            }
            Err(_) => Err(legacy),
        }
    }

    /// The receive buffers, if its driver works by readiness.
    #[inline]
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn driver(&self) -> RefMut<'_, Box<dyn Driver>> {
        self.driver.borrow_mut()
    }

    pub(super) fn obey(&self) {
        let shared = self.shared();
        if shared.commands.is_empty() {
            return;
        }
        let mut commands = self.commands.take();
        shared.commands.take(&mut commands);
        let mut driver = self.driver.borrow_mut();
        for command in commands.drain(..) {
            match command {
                Command::Submit(op) => {
                    let slot = SlotRef::to(op.slot());
                    if let Err(op) = driver.submit(op) {
                        // Its home is elsewhere: some worker of this runtime
                        // submitted it here meanwhile. Send it on (to this
                        // very worker, if it has moved here just now).
                        let home = op.descriptor().home(self.index);
                        op.moves_to(home);
                        self.runtime.shared().command(home, Command::Submit(op));
                    }
                    // Rule 3 in `op::lifecycle`.
                    self.end_abandoned(&mut **driver, slot.slot());
                }
                Command::Cancel(slot) => {
                    self.end_abandoned(&mut **driver, slot.slot());
                    // Of who waits for what is fed: it may not be with the
                    // kernel yet, so that to be awake is not enough.
                    if slot.slot().lock().life.is_fed() {
                        driver.hurry();
                    }
                }
                Command::Forget(token) => driver.forget(token),
                Command::Release(token, legacy) => driver.release(token, legacy.fd()),
                Command::HandOver(slot, to) => self.part_with(&mut **driver, slot, to),
                Command::Disown(slot, token) => {
                    let descriptor = slot.slot().descriptor();
                    driver.release(token, descriptor.as_fd());
                    descriptor.stays();
                }
            }
        }
        drop(driver);
        self.commands.replace(commands);
    }

    /// Asks the worker that has a subscription to hand it over to this one:
    /// rules 2 and 3 in `op::follow`.
    pub(crate) fn take_over(&self, slot: &Slot, from: usize) {
        let descriptor = slot.descriptor();
        let mut token = None;
        if descriptor.by_readiness() {
            if !descriptor.begin_move(from) {
                return;
            }
            let driver = self.driver.try_borrow_mut();
            token = driver.ok().and_then(|mut driver| driver.adopt(descriptor));
            if token.is_none() {
                return descriptor.stays();
            }
        }
        let to = Successor {
            worker: self.index,
            token,
        };
        let command = Command::HandOver(SlotRef::to(slot), to);
        self.runtime.shared().command(from, command);
    }

    fn part_with(&self, driver: &mut dyn Driver, slot: SlotRef, to: Successor) {
        let key = slot.slot().lock().life.follow_key(self.index);
        let moved = key.is_some_and(|key| driver.hand_over(key, to));
        if let Some(token) = to.token.filter(|_| !moved) {
            let command = Command::Disown(slot, token);
            self.runtime.shared().command(to.worker, command);
        }
    }

    /// Cancels what this worker's driver has in the slot and nobody wants.
    fn end_abandoned(&self, driver: &mut dyn Driver, slot: &Slot) {
        let key = slot.lock().life.cancel_key(self.index);
        if let Some(key) = key {
            driver.cancel(key);
        }
    }
}
