//! Time: kvmclock's page and the wall clock's offset from it.
//!
//! This file is also compiled into the vDSO (`libos/vdso`), so it uses nothing but `core`.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

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

/// One reading of kvmclock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PvclockReading {
    /// Nanoseconds since the guest was created.
    pub ns: u64,
    /// Whether readings on different vCPUs agree with each other.
    pub is_stable: bool,
}

/// The page's fields, all of one update.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Snapshot {
    version: u32,
    tsc_timestamp: u64,
    system_time: u64,
    multiplier: u32,
    shift_flags: u32,
}

impl Snapshot {
    fn take(page: &PvclockVcpuTime) -> Self {
        Self {
            version: page.version.load(Ordering::Acquire),
            tsc_timestamp: page.tsc_timestamp.load(Ordering::Acquire),
            system_time: page.system_time.load(Ordering::Acquire),
            multiplier: page.tsc_to_system_mul.load(Ordering::Acquire),
            shift_flags: page.shift_flags.load(Ordering::Acquire),
        }
    }

    fn at(&self, tsc: u64) -> PvclockReading {
        let delta = tsc.saturating_sub(self.tsc_timestamp);
        let [shift, flags, ..] = self.shift_flags.to_le_bytes();
        let shift = shift.cast_signed();
        let scaled = if shift >= 0 {
            delta << (shift & 63)
        } else {
            delta >> (shift.unsigned_abs() & 63)
        };
        let elapsed = (u128::from(scaled) * u128::from(self.multiplier)) >> 32;
        PvclockReading {
            ns: self.system_time.wrapping_add(elapsed as u64),
            is_stable: u32::from(flags) & PVCLOCK_STABLE != 0,
        }
    }
}

impl PvclockVcpuTime {
    /// Reads the clock with `rdtsc`, which must not be executed before the loads that precede it.
    ///
    /// The page lies at one address that shows another page on each vCPU. libOS code stays on its vCPU, but a program
    /// may be moved at any instruction. The version alone would then not tell: two vCPUs' pages may have the same
    /// one. So all fields are read before and after the TSC and must be the same: either no move came between, or
    /// the pages are equal, which for a stable clock is the rule (KVM gives all vCPUs the same timestamp pair).
    #[inline]
    pub fn read(&self, mut rdtsc: impl FnMut() -> u64) -> PvclockReading {
        loop {
            let before = Snapshot::take(self);
            let tsc = rdtsc();
            fence(Ordering::Acquire);
            let after = Snapshot::take(self);
            if before == after && before.version & 1 == 0 {
                return before.at(tsc);
            }
            core::hint::spin_loop();
        }
    }

    /// Frequency of the TSC in kHz, 0 before KVM has told it.
    #[must_use]
    pub fn tsc_khz(&self) -> u64 {
        let now = Snapshot::take(self);
        let [shift, ..] = now.shift_flags.to_le_bytes();
        let shift = shift.cast_signed();
        let whole = (1_000_000u64 << 32)
            .checked_div(now.multiplier.into())
            .unwrap_or(0);
        if shift >= 0 {
            whole >> (shift & 63)
        } else {
            whole << (shift.unsigned_abs() & 63)
        }
    }
}

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

impl WallClock {
    /// Nanoseconds to add to kvmclock for the wall clock.
    #[inline]
    pub fn read(&self) -> i64 {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let offset = self.offset_ns.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before & 1 == 0 && before == self.sequence.load(Ordering::Relaxed) {
                return offset.cast_signed();
            }
            core::hint::spin_loop();
        }
    }
}

/// What the vDSO image holds, once, 8-byte aligned, where the libOS puts the virtual address of [`WallClock`].
/// Its upper bit is clear, which no address of the libOS has.
pub const VDSO_WALL_CLOCK_SLOT: u64 = 0x6b63_6f6c_636b_7368;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{PvclockReading, PvclockVcpuTime, WallClock};
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    fn page(shift: i8, multiplier: u32, flags: u8) -> PvclockVcpuTime {
        PvclockVcpuTime {
            version: AtomicU32::new(2),
            pad0: AtomicU32::new(0),
            tsc_timestamp: AtomicU64::new(1_000_000),
            system_time: AtomicU64::new(5_000),
            tsc_to_system_mul: AtomicU32::new(multiplier),
            shift_flags: AtomicU32::new(u32::from(shift.cast_unsigned()) | u32::from(flags) << 8),
        }
    }

    #[test]
    fn scales() {
        // 2 GHz: half a nanosecond a tick.
        let reading = page(0, 1 << 31, 1).read(|| 1_000_000 + 4_000);
        assert_eq!(
            reading,
            PvclockReading {
                ns: 7_000,
                is_stable: true
            }
        );
        // As KVM writes 3 GHz: shift -1, multiplier 2^32 * 2 / 3.
        let reading = page(-1, 2_863_311_530, 0).read(|| 1_000_000 + 3_000_000_000);
        assert_eq!(reading.ns, 5_000 + 999_999_999);
        assert!(!reading.is_stable);
        // 500 MHz: shift 1.
        assert_eq!(page(1, u32::MAX, 1).read(|| 1_000_500).ns, 5_000 + 999);
        // A TSC behind the timestamp does not wrap.
        assert_eq!(page(0, 1 << 31, 1).read(|| 10).ns, 5_000);
        // Days of uptime do not overflow the product.
        let days = 30 * 86_400 * 2_000_000_000;
        assert_eq!(
            page(0, 1 << 31, 1).read(|| 1_000_000 + days).ns,
            5_000 + days / 2
        );
    }

    #[test]
    fn an_update_in_between_is_noticed() {
        let page = page(0, 1 << 31, 1);
        let mut calls = 0;
        let reading = page.read(|| {
            calls += 1;
            match calls {
                // An update begins, and ends; then a move to a vCPU whose page has the same version.
                1 => drop(page.version.fetch_add(1, Ordering::Relaxed)),
                2 => drop(page.version.fetch_add(1, Ordering::Relaxed)),
                3 => page.system_time.store(9_000, Ordering::Relaxed),
                _ => {}
            }
            1_000_000
        });
        assert_eq!((calls, reading.ns), (4, 9_000));
    }

    #[test]
    fn wall_clock_waits_for_the_writer() {
        let wall = WallClock {
            sequence: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            offset_ns: AtomicU64::new(0),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for step in 1..=10_000u64 {
                    wall.sequence.fetch_add(1, Ordering::AcqRel);
                    wall.offset_ns.store(u64::MAX, Ordering::Relaxed);
                    core::sync::atomic::fence(Ordering::Release);
                    wall.offset_ns.store(step, Ordering::Release);
                    wall.sequence.fetch_add(1, Ordering::Release);
                }
            });
            let mut last = 0;
            while last < 10_000 {
                let now = wall.read();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
    }
}
