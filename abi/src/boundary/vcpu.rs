//! The page each vCPU shares with its VMM thread.
//!
//! The VMM touches it only while the vCPU is outside the guest, on the vCPU's own thread, so neither side
//! sees the other halfway.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// No deadline.
pub const NO_DEADLINE: u64 = u64::MAX;

/// What vCPU and VMM tell each other; one page, at [`super::layout::PERCPU_SHARED`].
#[repr(C)]
#[derive(Debug)]
pub struct VcpuShared {
    /// Guest to VMM, with `TIMER` and `IDLE`: nanoseconds from now until the guest wants an interrupt
    /// (or to be woken), or [`NO_DEADLINE`].
    pub deadline_ns: AtomicU64,
    /// 1 from the VMM's injecting an interrupt until the libOS begins to look what it was about. While it
    /// is 1 the VMM does not inject: the interrupt stack is in use, and the libOS has yet to look.
    pub interrupt_in_service: AtomicU32,
    /// 1 once the libOS can take interrupts on this vCPU.
    pub interrupts_ready: AtomicU32,
    /// 1 once the container's first process is about to run; the VMM gives up on a libOS that never gets there.
    pub started: AtomicU32,
    /// Reserved, 0.
    pub reserved: AtomicU32,
}
super::assert_size!(VcpuShared, 24);
