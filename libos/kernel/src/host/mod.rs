//! Queues to the VMM.

use husk_abi::boundary::boot::BootInfo;

/// The guest's side of the boundary's queues.
#[derive(Debug)]
pub struct Host;

impl Host {
    /// The queues are in the boot info.
    #[must_use]
    pub fn new(_boot: &BootInfo) -> Self {
        Self
    }

    /// Looks what the VMM has answered and wakes who waits for it.
    pub fn poll(&self) {}
}
