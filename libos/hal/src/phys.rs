//! Guest physical memory as frames: reading, writing and page-table entries.
//!
//! A [`Frame`] is only a number; which frames hold what is the kernel's frame allocator's business. The
//! functions here check that a frame lies in RAM (or in a read-only range that was announced), copy bytes
//! and never hand out references, so two frames' users cannot alias Rust borrows.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use husk_abi::boundary::layout::PAGE_SIZE;

const PAGE: usize = PAGE_SIZE as usize;

static BASE: AtomicUsize = AtomicUsize::new(0);
static RAM_FRAMES: AtomicU64 = AtomicU64::new(0);
static ROM_FIRST: AtomicU64 = AtomicU64::new(0);
static ROM_END: AtomicU64 = AtomicU64::new(0);
static WINDOW_FIRST: AtomicU64 = AtomicU64::new(0);
static WINDOW_END: AtomicU64 = AtomicU64::new(0);

/// A 4 KiB frame of guest physical memory, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame(u64);

impl Frame {
    /// The frame with number `number`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The frame that holds guest physical address `gpa`.
    #[must_use]
    pub const fn containing(gpa: u64) -> Self {
        Self(gpa / PAGE_SIZE)
    }

    /// The frame's number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Guest physical address of the frame's first byte.
    #[must_use]
    pub const fn gpa(self) -> u64 {
        self.0 * PAGE_SIZE
    }

    /// The frame `count` after this one.
    #[must_use]
    pub const fn offset(self, count: u64) -> Self {
        Self(self.0 + count)
    }

    /// Whether the frame lies in RAM.
    #[must_use]
    pub fn is_ram(self) -> bool {
        self.0 < RAM_FRAMES.load(Ordering::Relaxed)
    }

    fn is_rom(self) -> bool {
        self.0 >= ROM_FIRST.load(Ordering::Relaxed) && self.0 < ROM_END.load(Ordering::Relaxed)
    }

    /// Whether the frame lies in the window host files are mapped into. Reading a frame nothing is mapped at, or writing
    /// one that is mapped for reading only, ends the machine.
    #[must_use]
    pub fn is_window(self) -> bool {
        self.0 >= WINDOW_FIRST.load(Ordering::Relaxed)
            && self.0 < WINDOW_END.load(Ordering::Relaxed)
    }

    fn is_readable(self) -> bool {
        self.is_ram() || self.is_rom() || self.is_window()
    }
}

/// Tells this module where physical memory is mapped and how much there is.
///
/// # Safety
/// `base..base + ram_bytes`, `base + rom.start..base + rom.end` and the same of `window` must stay mapped (the first
/// and the last writable) for the rest of the program, and what the kernel hands out as frames must not be used
/// by Rust objects.
pub unsafe fn init(
    base: usize,
    ram_bytes: u64,
    rom: core::ops::Range<u64>,
    window: core::ops::Range<u64>,
) {
    WINDOW_FIRST.store(window.start / PAGE_SIZE, Ordering::Relaxed);
    WINDOW_END.store(window.end / PAGE_SIZE, Ordering::Relaxed);
    BASE.store(base, Ordering::Relaxed);
    ROM_FIRST.store(rom.start / PAGE_SIZE, Ordering::Relaxed);
    ROM_END.store(rom.end.div_ceil(PAGE_SIZE), Ordering::Relaxed);
    RAM_FRAMES.store(ram_bytes / PAGE_SIZE, Ordering::Release);
}

/// Copies bytes into a frame of RAM or of the window, starting `offset` bytes into it.
pub fn write_shared(frame: Frame, offset: usize, bytes: &[u8]) {
    assert!(frame.is_ram() || frame.is_window());
    assert!(
        offset <= PAGE && bytes.len() <= PAGE - offset,
        "range leaves the frame"
    );
    // SAFETY: as in `read`, the other way round; the frame is mapped writable.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), address(frame, offset), bytes.len()) }
}

fn ram(frame: Frame, offset: usize, len: usize) -> *mut u8 {
    assert!(frame.is_ram(), "frame {:#x} is not RAM", frame.0);
    assert!(
        offset <= PAGE && len <= PAGE - offset,
        "range leaves the frame"
    );
    address(frame, offset)
}

fn address(frame: Frame, offset: usize) -> *mut u8 {
    (BASE.load(Ordering::Relaxed) + frame.0 as usize * PAGE + offset) as *mut u8
}

/// Copies bytes out of a frame (RAM, read-only or of the window), starting `offset` bytes into it.
pub fn read(frame: Frame, offset: usize, bytes: &mut [u8]) {
    assert!(frame.is_readable(), "frame {:#x} is not memory", frame.0);
    assert!(
        offset <= PAGE && bytes.len() <= PAGE - offset,
        "range leaves the frame"
    );
    // SAFETY: the frame is mapped (`init`) and the range lies in it; `bytes` is an exclusive borrow of
    // Rust memory, which no frame is.
    unsafe {
        core::ptr::copy_nonoverlapping(address(frame, offset), bytes.as_mut_ptr(), bytes.len())
    }
}

/// Copies bytes into a frame, starting `offset` bytes into it.
pub fn write(frame: Frame, offset: usize, bytes: &[u8]) {
    // SAFETY: as in `read`; `ram` checked the range.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), ram(frame, offset, bytes.len()), bytes.len())
    }
}

/// Fills part of a frame with zeros.
pub fn zero(frame: Frame, offset: usize, len: usize) {
    // SAFETY: `ram` checked the range.
    unsafe { core::ptr::write_bytes(ram(frame, offset, len), 0, len) }
}

/// Fills `count` whole frames from `frame` on with zeros.
pub fn zero_frames(frame: Frame, count: u64) {
    assert!(frame.is_ram() && count > 0 && frame.offset(count - 1).is_ram());
    // SAFETY: the frames are RAM and contiguous in the mapping.
    unsafe { core::ptr::write_bytes(address(frame, 0), 0, count as usize * PAGE) }
}

/// Copies `count` whole frames; source (RAM, read-only or of the window) and destination must not overlap.
pub fn copy_frames(from: Frame, to: Frame, count: u64) {
    assert!(count > 0 && to.is_ram() && to.offset(count - 1).is_ram());
    let last = from.offset(count - 1);
    assert!(
        (from.is_ram() && last.is_ram())
            || (from.is_rom() && last.is_rom())
            || (from.is_window() && last.is_window())
    );
    assert!(from.0.abs_diff(to.0) >= count, "frames overlap");
    // SAFETY: both ranges are mapped, contiguous and disjoint.
    unsafe {
        core::ptr::copy_nonoverlapping(address(from, 0), address(to, 0), count as usize * PAGE)
    }
}

/// Copies bytes of guest physical memory that may span frames (RAM or read-only) into `bytes`.
pub fn read_gpa(gpa: u64, bytes: &mut [u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let at = gpa + done as u64;
        let offset = (at % PAGE_SIZE) as usize;
        let len = (PAGE - offset).min(bytes.len() - done);
        read(Frame::containing(at), offset, &mut bytes[done..done + len]);
        done += len;
    }
}

/// Stores 8 bytes at once at an 8-byte aligned offset; used to patch code other vCPUs may be running.
pub fn store_u64(frame: Frame, offset: usize, value: u64) {
    cell(frame, offset).store(value, Ordering::Release);
}

/// Loads 8 bytes at once from an 8-byte aligned offset.
#[must_use]
pub fn load_u64(frame: Frame, offset: usize) -> u64 {
    cell(frame, offset).load(Ordering::Acquire)
}

/// Replaces 8 bytes at an 8-byte aligned offset and returns the old ones.
pub fn swap_u64(frame: Frame, offset: usize, value: u64) -> u64 {
    cell(frame, offset).swap(value, Ordering::AcqRel)
}

/// Loads 4 bytes at once from a 4-byte aligned offset.
#[must_use]
pub fn load_u32(frame: Frame, offset: usize) -> u32 {
    half_cell(frame, offset).load(Ordering::SeqCst)
}

/// Replaces 4 bytes at a 4-byte aligned offset and returns the old ones; loads that follow are not done before.
pub fn swap_u32(frame: Frame, offset: usize, value: u32) -> u32 {
    half_cell(frame, offset).swap(value, Ordering::SeqCst)
}

/// Loads a frame's 512 words, one by one, from `first` on: a page table.
pub fn load_words(frame: Frame, first: usize, words: &mut [u64]) {
    assert!(first <= 512 && words.len() <= 512 - first);
    let from = ram(frame, 0, PAGE).cast::<AtomicU64>();
    for (at, word) in words.iter_mut().enumerate() {
        // SAFETY: the index is below 512; mapped for ever, aligned, see `cell`.
        *word = unsafe { &*from.add(first + at) }.load(Ordering::Relaxed);
    }
}

/// Stores `words` from the 8-byte aligned offset on, one by one: for few, which a copy of bytes takes long for.
pub fn store_words(frame: Frame, offset: usize, words: &[u64]) {
    assert!(offset.is_multiple_of(8) && offset <= PAGE && words.len() <= (PAGE - offset) / 8);
    let to = ram(frame, offset, 0).cast::<AtomicU64>();
    for (at, word) in words.iter().enumerate() {
        // SAFETY: within the frame; mapped for ever, aligned, see `cell`.
        unsafe { &*to.add(at) }.store(*word, Ordering::Relaxed);
    }
}

fn cell(frame: Frame, offset: usize) -> &'static AtomicU64 {
    assert!(offset.is_multiple_of(8));
    let at = ram(frame, offset, 8).cast::<AtomicU64>();
    // SAFETY: mapped for ever, aligned, and only touched atomically or by byte copies that race benignly
    // with the process's own accesses.
    unsafe { &*at }
}

fn half_cell(frame: Frame, offset: usize) -> &'static AtomicU32 {
    assert!(offset.is_multiple_of(4));
    let at = ram(frame, offset, 4).cast::<AtomicU32>();
    // SAFETY: as in `cell`.
    unsafe { &*at }
}

/// Virtual address of a frame in the libOS (its direct map): for memory the kernel turns into Rust objects,
/// such as stacks and heap.
#[must_use]
pub fn direct_address(frame: Frame) -> usize {
    address(frame, 0) as usize
}

/// For host-side tests: makes `bytes` of zeroed heap memory, never given back, the physical memory.
///
/// # Panics
/// If the host gives no memory.
#[cfg(not(target_os = "none"))]
pub fn init_arena(bytes: usize) {
    // Not aligned by the allocator, which would then write every byte.
    let align = 2 << 20;
    let layout = alloc::alloc::Layout::from_size_align(bytes + align, 16).expect("a valid size");
    // SAFETY: the layout has a non-zero size.
    let base = unsafe { alloc::alloc::alloc_zeroed(layout) };
    assert!(!base.is_null(), "no memory for the test arena");
    // SAFETY: the allocation is leaked and used for nothing else.
    unsafe {
        init(
            (base as usize).next_multiple_of(align),
            bytes as u64,
            0..0,
            0..0,
        )
    };
}
