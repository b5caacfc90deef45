//! kvmclock: nanoseconds since the guest was created, without leaving it.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::clock::{PvclockVcpuTime, WallClock};
use husk_abi::boundary::layout::{DIRECT_MAP, PERCPU_PVCLOCK};

use super::boot;

/// Last value given out; keeps the clock from going back where the TSC is not stable.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the guest was created; never goes back.
#[must_use]
pub fn now_ns() -> u64 {
    // SAFETY: the VMM points kvmclock at this page of the vCPU's own region; all fields are atomics.
    let page = unsafe { &*(PERCPU_PVCLOCK as *const PvclockVcpuTime) };
    // SAFETY: reads a counter.
    let reading = page.read(|| unsafe { _rdtsc() });
    if reading.is_stable {
        reading.ns
    } else {
        reading
            .ns
            .max(LAST.fetch_max(reading.ns, Ordering::Relaxed))
    }
}

/// Frequency of the TSC in kHz.
#[must_use]
pub fn tsc_khz() -> u64 {
    // SAFETY: as for `now_ns`.
    let page = unsafe { &*(PERCPU_PVCLOCK as *const PvclockVcpuTime) };
    page.tsc_khz()
}

/// Virtual address of the [`WallClock`], for the vDSO.
#[must_use]
pub fn wall_clock_address() -> u64 {
    DIRECT_MAP + boot::info().wall_clock_gpa
}

/// What to add to [`now_ns`] for `CLOCK_REALTIME`, in nanoseconds; follows the host's clock.
#[must_use]
pub fn wall_offset_ns() -> i64 {
    // SAFETY: the VMM keeps the struct at this RAM address, which is not handed out; fields are atomics.
    let wall = unsafe { &*(wall_clock_address() as *const WallClock) };
    wall.read()
}
