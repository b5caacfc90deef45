//! The kernel's heap: talc over a first region in the image and, later, large frames.

use core::alloc::Layout;
use core::sync::atomic::{AtomicPtr, Ordering};

use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};
use husk_hal::lock::RawSpinLock;
use husk_hal::phys;
use husk_kernel::Kernel;
use talc::TalcLock;
use talc::base::{Talc, binning::Binning};
use talc::source::Source;

const FIRST_BYTES: usize = 2 << 20;

#[global_allocator]
static HEAP: TalcLock<RawSpinLock, Frames> = TalcLock::new(Frames { first: true });

static KERNEL: AtomicPtr<Kernel> = AtomicPtr::new(core::ptr::null_mut());

/// From now on the heap grows by frames of `kernel`.
pub fn grow_from(kernel: &'static Kernel) {
    KERNEL.store(core::ptr::from_ref(kernel).cast_mut(), Ordering::Release);
}

/// Where talc gets memory.
#[derive(Debug)]
struct Frames {
    first: bool,
}

// SAFETY: `acquire` claims memory nobody else uses and does not allocate.
unsafe impl Source for Frames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        static mut FIRST: [u8; FIRST_BYTES] = [0; FIRST_BYTES];
        let (base, bytes) = if talc.source.first {
            talc.source.first = false;
            ((&raw mut FIRST).cast::<u8>(), FIRST_BYTES)
        } else {
            let kernel = KERNEL.load(Ordering::Acquire);
            // SAFETY: stored once from a `&'static Kernel`.
            let kernel = unsafe { kernel.as_ref() }.ok_or(())?;
            let bytes = (layout.size() + layout.align() + 4096) as u64;
            let large = bytes.next_multiple_of(LARGE_PAGE_SIZE);
            // Large pages by preference; when memory is short or in pieces, just what is needed.
            let (frame, bytes) = match kernel.frames.alloc_for_libos(large / PAGE_SIZE) {
                Ok(frame) => (frame, large),
                Err(_) => {
                    let small = bytes.next_multiple_of(16 * PAGE_SIZE);
                    (
                        kernel
                            .frames
                            .alloc_for_libos(small / PAGE_SIZE)
                            .map_err(drop)?,
                        small,
                    )
                }
            };
            (phys::direct_address(frame) as *mut u8, bytes as usize)
        };
        // SAFETY: the region was just reserved for the heap, for ever.
        unsafe { talc.claim(base, bytes) }.map(drop).ok_or(())
    }
}
