//! What the host tells the guest unasked.

use core::sync::atomic::AtomicU64;

/// Set by the VMM, which then interrupts the guest; taken by the libOS.
#[repr(C)]
#[derive(Debug)]
pub struct HostEvents {
    /// Bit `n - 1`: signal `n` is for the container's init, sent from outside.
    pub signals: AtomicU64,
}
super::assert_size!(HostEvents, 8);
