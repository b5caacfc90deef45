//! What the host tells the guest unasked, and the one word the guest leaves there.

use std::sync::atomic::Ordering;

use husk_abi::boundary::events::HostEvents;
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::{self, GuestMemory};

/// Adds a signal for the container's init.
pub fn post_signal(memory: &GuestMemory, gpa: u64, signo: u32) {
    if (1..=64).contains(&signo) {
        let at = gpa + std::mem::offset_of!(HostEvents, signals) as u64;
        vmm::fetch_or_u64(memory, at, 1 << (signo - 1));
    }
}

/// The errno the guest left, if its first program could not be started.
pub fn start_error(memory: &GuestMemory, gpa: u64) -> Option<i32> {
    let at = gpa + std::mem::offset_of!(HostEvents, start_errno) as u64;
    let errno: u64 = memory.load(GuestAddress(at), Ordering::Acquire).ok()?;
    i32::try_from(errno)
        .ok()
        .filter(|errno| (1..4096).contains(errno))
}
