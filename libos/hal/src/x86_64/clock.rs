//! kvmclock: nanoseconds since the guest was created, without leaving it.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use husk_abi::boundary::clock::{PVCLOCK_STABLE, PvclockVcpuTime, WallClock};
use husk_abi::boundary::layout::{DIRECT_MAP, PERCPU_PVCLOCK};

use super::boot;

/// Last value given out; keeps the clock from going back where the TSC is not stable.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the guest was created; never goes back.
#[must_use]
pub fn now_ns() -> u64 {
    // SAFETY: the VMM points kvmclock at this page of the vCPU's own region; all fields are atomics.
    let page = unsafe { &*(PERCPU_PVCLOCK as *const PvclockVcpuTime) };
    let (now, stable) = loop {
        let version = page.version.load(Ordering::Acquire);
        // SAFETY: reads a counter.
        let tsc = unsafe { _rdtsc() };
        let delta = tsc.saturating_sub(page.tsc_timestamp.load(Ordering::Relaxed));
        let shift_flags = page.shift_flags.load(Ordering::Relaxed);
        let shift = (shift_flags & 0xff) as u8 as i8;
        let scaled = if shift >= 0 {
            delta << shift
        } else {
            delta >> -shift
        };
        let mul = u128::from(page.tsc_to_system_mul.load(Ordering::Relaxed));
        let ns =
            ((u128::from(scaled) * mul) >> 32) as u64 + page.system_time.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if version & 1 == 0 && version == page.version.load(Ordering::Relaxed) {
            break (ns, (shift_flags >> 8) & PVCLOCK_STABLE != 0);
        }
    };
    if stable {
        now
    } else {
        now.max(LAST.fetch_max(now, Ordering::Relaxed))
    }
}

/// What to add to [`now_ns`] for `CLOCK_REALTIME`, in nanoseconds; follows the host's clock.
#[must_use]
pub fn wall_offset_ns() -> i64 {
    let at = DIRECT_MAP + boot::info().wall_clock_gpa;
    // SAFETY: the VMM keeps the struct at this RAM address, which is not handed out; fields are atomics.
    let wall = unsafe { &*(at as *const WallClock) };
    loop {
        let before = wall.sequence.load(Ordering::Acquire);
        let offset = wall.offset_ns.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if before & 1 == 0 && before == wall.sequence.load(Ordering::Relaxed) {
            return offset as i64;
        }
    }
}
