//! Time: kvmclock's page and the wall clock's offset from it.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// KVM's `struct pvclock_vcpu_time_info` (Documentation/virt/kvm/x86/msr.rst), 32 bytes.
#[repr(C)]
#[derive(Debug)]
pub struct PvclockVcpuTime {
    /// Odd while KVM updates the fields.
    pub version: AtomicU32,
    /// Padding of KVM's struct.
    pub pad0: AtomicU32,
    /// TSC at `system_time`.
    pub tsc_timestamp: AtomicU64,
    /// Guest nanoseconds at `tsc_timestamp`.
    pub system_time: AtomicU64,
    /// Multiplier, a fraction of 2^32.
    pub tsc_to_system_mul: AtomicU32,
    /// Byte 0: `tsc_shift` (signed); byte 1: flags, bit 0 is `STABLE`.
    pub shift_flags: AtomicU32,
}
super::assert_size!(PvclockVcpuTime, 32);

/// `PVCLOCK_TSC_STABLE_BIT` in the flags byte.
pub const PVCLOCK_STABLE: u32 = 1;

/// The wall clock: `CLOCK_REALTIME` = kvmclock + `offset_ns`. A seqlock the VMM writes.
#[repr(C)]
#[derive(Debug)]
pub struct WallClock {
    /// Odd while the VMM updates the offset.
    pub sequence: AtomicU32,
    /// Reserved, 0.
    pub reserved: AtomicU32,
    /// Nanoseconds to add to kvmclock, as two's complement.
    pub offset_ns: AtomicU64,
}
super::assert_size!(WallClock, 16);
