//! The kernel's heap: talc over a first region in the image and, later, large frames.
//!
//! A system call makes and drops a handful of small objects (paths, names, references): those that are dropped are kept by size,
//! some of each, and handed out again without asking talc.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};
use husk_hal::lock::{RawSpinLock, SpinLock};
use husk_hal::phys;
use husk_kernel::Kernel;
use talc::TalcLock;
use talc::base::{Talc, binning::Binning};
use talc::source::Source;

const FIRST_BYTES: usize = 2 << 20;

/// Small objects are of a multiple of so many bytes, aligned to it.
const STEP: usize = 32;
/// Kinds of small objects.
const CLASSES: usize = 16;
/// Most objects kept of a kind.
const KEPT: usize = 128;

static TALC: TalcLock<RawSpinLock, Frames> = TalcLock::new(Frames { first: true });

#[global_allocator]
static HEAP: Heap = Heap {
    kept: [const { SpinLock::new(Kept::EMPTY) }; CLASSES],
};

/// The allocator.
struct Heap {
    kept: [SpinLock<Kept>; CLASSES],
}

/// Free objects of one kind, each with the address of the next at its start.
struct Kept {
    first: *mut u8,
    count: usize,
}

// SAFETY: the objects are nobody's while they are in the list; the lock around it makes it one vCPU's at a time.
unsafe impl Send for Kept {}

impl Kept {
    const EMPTY: Self = Self {
        first: ptr::null_mut(),
        count: 0,
    };
}

/// The kind of object `layout` is served by, and what talc is asked for.
fn class(layout: Layout) -> Option<(usize, Layout)> {
    let index = layout.size().checked_sub(1)? / STEP;
    if index >= CLASSES || layout.align() > STEP {
        return None;
    }
    let whole = Layout::from_size_align((index + 1) * STEP, STEP).ok()?;
    Some((index, whole))
}

// SAFETY: what talc gives is given to one caller at a time, whole; an object goes back to talc with the layout it came with.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((index, whole)) = class(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { TALC.alloc(layout) };
        };
        let mut kept = self.kept[index].lock();
        let first = kept.first;
        if first.is_null() {
            drop(kept);
            // SAFETY: a layout of some size.
            return unsafe { TALC.alloc(whole) };
        }
        // SAFETY: it is a free object, aligned for an address, at whose start `dealloc` has put the next one's.
        kept.first = unsafe { first.cast::<*mut u8>().read() };
        kept.count -= 1;
        first
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let Some((index, whole)) = class(layout) else {
            // SAFETY: the caller's promise: `alloc` gave it for this layout, and so did talc.
            return unsafe { TALC.dealloc(object, layout) };
        };
        let mut kept = self.kept[index].lock();
        if kept.count >= KEPT {
            drop(kept);
            // SAFETY: objects of this kind come from talc with this layout.
            return unsafe { TALC.dealloc(object, whole) };
        }
        // SAFETY: it is the caller's last use of an object of at least `STEP` bytes, aligned to them.
        unsafe { object.cast::<*mut u8>().write(kept.first) };
        kept.first = object;
        kept.count += 1;
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: not 0, and no overflow when rounded up to the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(wanted)) {
            // SAFETY: as for `dealloc`; talc keeps or moves it.
            (None, None) => unsafe { TALC.realloc(object, layout, size) },
            (Some((old, _)), Some((new, _))) if old == new => object,
            _ => {
                // SAFETY: a layout of some size.
                let moved = unsafe { self.alloc(wanted) };
                if !moved.is_null() {
                    // SAFETY: both are at least as long as the shorter, and different objects; the old one is given up after.
                    unsafe {
                        ptr::copy_nonoverlapping(object, moved, layout.size().min(size));
                        self.dealloc(object, layout);
                    }
                }
                moved
            }
        }
    }
}

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
