//! Guest RAM as KVM knows it: reserved whole, given to the guest in memory slots as the guest comes to use it.
//!
//! KVM keeps bookkeeping for every page of a slot, with shadow paging some 2.5 MiB a GiB: a slot as large as the host's
//! RAM costs more time and memory than the rest of a small container. Slots are only ever added, which takes nothing
//! from the guest that runs.

use std::sync::{Arc, Mutex, PoisonError};

use husk_abi::boundary::layout::LARGE_PAGE_SIZE;
use kvm_ioctls::VmFd;

use super::memory::Mapping;
use super::{Error, raw};

/// The slot of the RAM a machine starts with.
const FIRST_SLOT: u32 = 0;
/// The first of the others; those between have other uses.
const MORE_SLOTS: u32 = 3;
/// RAM a machine starts with, beyond the libOS's bookkeeping.
const START_BYTES: u64 = 1 << 30;
/// The libOS's bookkeeping for all RAM, which lies before the first RAM it hands out, is a smaller part of it than this.
const BOOKKEEPING: u64 = 512;

/// Guest RAM.
#[derive(Debug)]
pub struct Ram {
    vm: Arc<VmFd>,
    mapping: Mapping,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ready_bytes: u64,
    next_slot: u32,
}

/// How far RAM is to reach that reaches to `ready` of `all` bytes, when `wanted` are: at least double, so that there are few
/// slots whatever the guest asks for.
fn target(ready: u64, wanted: u64, all: u64) -> u64 {
    if wanted <= ready {
        return ready;
    }
    wanted.max(ready.saturating_mul(2)).min(all)
}

impl Ram {
    /// Gives the guest the start of `mapping`.
    ///
    /// # Errors
    /// When KVM has no memory for it.
    pub fn new(vm: Arc<VmFd>, mapping: Mapping) -> Result<Self, Error> {
        let start = START_BYTES + (mapping.bytes / BOOKKEEPING).next_multiple_of(LARGE_PAGE_SIZE);
        let ram = Self {
            vm,
            state: Mutex::new(State {
                ready_bytes: 0,
                next_slot: FIRST_SLOT,
            }),
            mapping,
        };
        ram.reach(start)?;
        Ok(ram)
    }

    /// How much the guest has.
    pub fn ready_bytes(&self) -> u64 {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ready_bytes
    }

    /// Gives the guest at least the first `wanted_bytes`, or all there is if that is less.
    ///
    /// # Errors
    /// When KVM has no memory for it.
    pub fn reach(&self, wanted_bytes: u64) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let from = state.ready_bytes;
        let to = target(from, wanted_bytes, self.mapping.bytes);
        if to == from {
            return Ok(());
        }
        let part = self.mapping.part(from, to - from);
        raw::set_memory(&self.vm, state.next_slot, from, &part, false)
            .map_err(Error::kvm("add guest memory"))?;
        state.ready_bytes = to;
        state.next_slot = (state.next_slot + 1).max(MORE_SLOTS);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn ram_grows_in_few_steps_and_never_beyond_its_end() {
        assert_eq!(target(4, 3, 100), 4);
        assert_eq!(target(4, 5, 100), 8);
        assert_eq!(target(4, 50, 100), 50);
        assert_eq!(target(4, u64::MAX, 100), 100);
        assert_eq!(target(100, u64::MAX, 100), 100);
        let mut ready = 1 << 30;
        let steps = std::iter::from_fn(|| {
            let next = target(ready, ready + 1, 1 << 39);
            (next > ready).then(|| ready = next)
        });
        assert!(steps.count() <= 9);
    }
}
