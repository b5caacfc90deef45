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
    /// 1 while a debugger is attached: the libOS rings [`super::doorbell::DEBUG`] for breakpoint and single-step
    /// traps before it looks at them itself. The VMM writes it at any time.
    pub debugger: AtomicU32,
    /// Guest to VMM, with `DEBUG`: virtual address of the trap's [`super::frame::TrapFrame`]. The VMM may change the
    /// frame before it lets the vCPU go on.
    pub debug_frame: AtomicU64,
    /// VMM to guest, the answer to `DEBUG`: [`DEBUG_NOT_OURS`] and so on.
    pub debug_answer: AtomicU32,
    /// Reserved, 0.
    pub reserved: AtomicU32,
    /// Guest to VMM, with `IDLE`, whose value says how many: guest physical addresses of 2 MiB blocks nobody uses, whose
    /// memory the VMM may give back to the host. They read as anything afterwards.
    pub freed_blocks: [AtomicU64; FREED_BLOCKS],
}
super::assert_size!(VcpuShared, 40 + FREED_BLOCKS * 8);

/// Blocks given back at a time, at most.
pub const FREED_BLOCKS: usize = 32;

/// The trap is not the debugger's: the libOS handles it as ever.
pub const DEBUG_NOT_OURS: u32 = 0;
/// The debugger has dealt with the trap; the vCPU is to go on.
pub const DEBUG_CONTINUE: u32 = 1;
/// The debugger has dealt with the trap and wants one instruction executed.
pub const DEBUG_STEP: u32 = 2;
