//! Patching syscall sites into jumps.

pub mod decode;

use husk_hal::phys::Frame;

use crate::Thread;

/// Patched code of all executables.
#[derive(Debug)]
pub struct Translator;

impl Translator {
    /// `count_sites`: keep counters of each site that traps.
    #[must_use]
    pub fn new(_count_sites: bool) -> Self {
        Self
    }
}

/// One executable file's patched pages and thunks, shared by all processes that map it.
///
/// Thunks lie at `mapping address of file offset 0 + delta` in every address space, in an area hidden from
/// `/proc/*/maps` that the memory room reserves when it maps the file executable and privately. If the
/// area is taken, that mapping stays untranslated.
#[derive(Debug, Default)]
pub struct TextImage {
    /// Distance from (mapping start - file offset) to the thunk area; set by the first mapping.
    pub delta: spin::Once<i64>,
}

impl TextImage {
    /// Bytes of the thunk area of a file of `size_bytes`; page aligned.
    #[must_use]
    pub fn thunk_area_bytes(size_bytes: u64) -> u64 {
        (size_bytes / 16)
            .clamp(64 << 10, 4 << 20)
            .next_multiple_of(4096)
    }

    /// The patched copy of page `index` of the file, if any site in it is patched. Owned by the image.
    #[must_use]
    pub fn patched_page(&self, _index: u64) -> Option<Frame> {
        None
    }

    /// Page `index` of the thunk area, if it holds thunks. Owned by the image.
    #[must_use]
    pub fn thunk_page(&self, _index: u64) -> Option<Frame> {
        None
    }
}

/// The system call `nr` trapped and will return to `return_address`: patch its site if that is sound.
pub fn consider(_thread: &Thread, _return_address: u64, _nr: u64) {}

/// The program's own address for an instruction pointer that may lie in a thunk.
#[must_use]
pub fn original_rip(_thread: &Thread, rip: u64) -> u64 {
    rip
}
