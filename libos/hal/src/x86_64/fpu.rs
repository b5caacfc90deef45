//! Vector state: XSAVE areas in the standard format, as signal frames hold them.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use core::arch::x86_64::_xgetbv;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static SIZE: AtomicUsize = AtomicUsize::new(0);
static MASK: AtomicU64 = AtomicU64::new(0);

/// Offset of the XSAVE header in the area.
const HEADER: usize = 512;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;

/// Learns the size of the vCPU's state. Called once at boot.
pub(super) fn init() {
    // SAFETY: the VMM sets CR4.OSXSAVE and XCR0.
    let mask = unsafe { xgetbv0() };
    let [_, size, ..] = super::cpu::cpuid(0xd, 0);
    MASK.store(mask, Ordering::Relaxed);
    SIZE.store(size as usize, Ordering::Relaxed);
}

/// Reads XCR0.
///
/// # Safety
/// CR4.OSXSAVE must be set.
#[target_feature(enable = "xsave")]
unsafe fn xgetbv0() -> u64 {
    // SAFETY: the caller vouches for OSXSAVE.
    unsafe { _xgetbv(0) }
}

/// Bytes of an area: the features enabled in XCR0.
#[must_use]
pub fn size_bytes() -> usize {
    SIZE.load(Ordering::Relaxed)
}

/// The enabled features (XCR0).
#[must_use]
pub fn features() -> u64 {
    MASK.load(Ordering::Relaxed)
}

/// One thread's vector state.
#[derive(Debug)]
pub struct State(*mut u8);

// SAFETY: the pointer is the sole owner of its allocation.
unsafe impl Send for State {}

fn layout() -> Layout {
    Layout::from_size_align(size_bytes().max(1024), 64).unwrap_or(Layout::new::<[u64; 512]>())
}

impl State {
    /// The state a program starts with: everything in its initial configuration.
    #[must_use]
    pub fn initial() -> Self {
        let layout = layout();
        // SAFETY: the size is not 0.
        let area = unsafe { alloc_zeroed(layout) };
        if area.is_null() {
            handle_alloc_error(layout);
        }
        let mut state = Self(area);
        // FCW and MXCSR as after FNINIT and LDMXCSR of the default.
        state.bytes_mut()[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        state.bytes_mut()[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        state
    }

    /// A copy of the running thread's live state.
    #[must_use]
    pub fn of_running() -> Self {
        let mut state = Self::initial();
        state.save();
        state
    }

    /// Saves the live registers.
    pub fn save(&mut self) {
        let mask = features();
        // SAFETY: the area is 64-byte aligned and as large as CPUID says for XCR0.
        unsafe {
            core::arch::asm!("xsave64 [{}]", in(reg) self.0, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                options(nostack, preserves_flags));
        }
    }

    /// Loads the live registers.
    pub fn restore(&self) {
        let mask = features();
        // SAFETY: the area was written by `save`, `initial` or checked by `set`, so XRSTOR does not fault.
        unsafe {
            core::arch::asm!("xrstor64 [{}]", in(reg) self.0, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                options(nostack, preserves_flags));
        }
    }

    /// The area's bytes, in the layout of the standard (not compacted) XSAVE format.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation has this size and is initialised.
        unsafe { core::slice::from_raw_parts(self.0, size_bytes()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.0, layout().size()) }
    }

    /// Replaces the state by what a signal frame holds; `bytes` may be a legacy (FXSAVE, 512 bytes) image.
    /// What XRSTOR would refuse is masked away, as Linux does.
    pub fn set(&mut self, bytes: &[u8]) {
        let size = size_bytes();
        let len = bytes.len().min(size);
        let mxcsr_mask = {
            let raw: [u8; 4] = self.bytes()[MXCSR_MASK..MXCSR_MASK + 4]
                .try_into()
                .unwrap_or([0; 4]);
            match u32::from_le_bytes(raw) {
                0 => 0xffbf,
                mask => mask,
            }
        };
        let area = self.bytes_mut();
        area[..size].fill(0);
        area[..len].copy_from_slice(&bytes[..len]);
        let raw: [u8; 4] = area[MXCSR..MXCSR + 4].try_into().unwrap_or([0; 4]);
        let mxcsr = u32::from_le_bytes(raw) & mxcsr_mask & 0xffff;
        area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        let present = if len >= HEADER + 64 {
            let raw: [u8; 8] = area[HEADER..HEADER + 8].try_into().unwrap_or([0; 8]);
            u64::from_le_bytes(raw) & features()
        } else {
            3
        };
        area[HEADER..HEADER + 64].fill(0);
        area[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: allocated in `initial` with this layout, whose size never changes after boot.
        unsafe { dealloc(self.0, layout()) }
    }
}
