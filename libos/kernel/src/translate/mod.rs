//! Syscall translation: patching `syscall` sites into jumps.
//!
//! A `syscall` traps (1 us and more on PVM) until its site is patched; then it is a jump to a thunk, and the
//! thunk's jump into the libOS (5 ns). The first trap of a site leads here ([`consider`]); whether the
//! site may be patched is `decode`'s proof, what is written `thunk`'s, where it is kept `image`'s.
//!
//! - Patches belong to the file, not to the process: fork, threads and the next exec find them. A process keeps
//!   nothing but which copies its page tables show, and those it gets by faulting or by trapping once.
//! - The `syscall` bytes stay in place (pattern 1): a jump straight to them, and a restart after a signal, trap and
//!   are served.
//! - Nobody outside sees thunk addresses: [`original_rip`].
//! - The thunk is entered and left with nothing on the user's stack, so a clone child may return on another.
//!
//! Locks: an image's is a leaf above the frame allocator; the memory room may hold an address space's lock when it
//! asks an image for a page.

pub mod decode;
mod engine;
mod image;
mod stats;
mod table;
#[cfg(test)]
mod testing;
pub mod thunk;

use husk_abi::boundary::stats::{SITE_BYTES, TranslationReport, TrapReason};
use husk_hal::phys::Frame;
use husk_hal::trap::EXIT_FULL;
use husk_hal::{boot, user};

#[cfg(test)]
pub(crate) use image::Site;
pub use image::{FrameSource, TextImage};

use crate::mm::{AddressSpace, CodeRegion, Frames};
use crate::{Kernel, Thread};
use decode::Registers;
use engine::{CodeSpace, Region, Trap};
use stats::{SiteText, Stats};

/// Counters over all executables' translation; patches themselves are in each file's [`TextImage`].
#[derive(Debug)]
pub struct Translator {
    stats: Stats,
}

impl Translator {
    /// `count_sites`: keep counters of each site that traps.
    #[must_use]
    pub fn new(count_sites: bool) -> Self {
        decode::warm_up();
        Self {
            stats: Stats::new(count_sites),
        }
    }

    /// The numbers for `--stats`.
    #[must_use]
    pub fn report(&self) -> TranslationReport {
        self.stats.report()
    }
}

/// The current process, for the engine.
struct ProcessSpace<'a> {
    kernel: &'static Kernel,
    mm: &'a AddressSpace,
}

fn region(code: CodeRegion) -> Region {
    Region {
        file: code.mappable,
        start: code.start,
        end: code.end,
        file_offset: code.file_offset,
        thunk_base: code.thunk_base,
    }
}

impl FrameSource for Frames {
    fn take(&self) -> Option<Frame> {
        self.alloc_zeroed().ok()
    }

    fn give_back(&self, frame: Frame) {
        self.put(frame);
    }
}

impl CodeSpace for ProcessSpace<'_> {
    fn region(&self, address: u64) -> Option<Region> {
        self.mm.code_region(address).map(region)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        user::copy_in(bytes, address) == bytes.len()
    }

    fn refresh(&self, address: u64) {
        self.mm.refresh_code_page(address);
    }

    fn map_thunk(&self, address: u64) {
        self.mm.map_thunk_page(address);
    }

    fn put(&self, frame: Frame) {
        self.kernel.frames.put(frame);
    }

    fn frames(&self) -> &'static dyn FrameSource {
        &self.kernel.frames
    }

    fn alone(&self) -> bool {
        self.kernel.sched.cpu_count() == 1
    }
}

/// The system call `nr` trapped, was served and will return to `return_address`: patch its site if that is
/// sound. `thread` is the current one, its frame still the trap's.
pub fn consider(thread: &Thread, return_address: u64, nr: u64) {
    let Some(mm) = thread.mm_opt() else { return };
    let trap = Trap {
        syscall: return_address.wrapping_sub(decode::SYSCALL_LEN as u64),
        registers: Registers {
            rax: nr,
            r8: thread.frame().args()[4],
        },
        slot: boot::fast_entry_slot(),
    };
    let space = ProcessSpace {
        kernel: thread.kernel,
        mm: &mm,
    };
    let verdict = engine::consider(&space, &trap);
    if verdict.reason == TrapReason::FirstUse {
        // Code was written through another address: iretq serializes, a jump back does not.
        thread.frame().update(|frame| frame.code |= EXIT_FULL);
    }
    let stats = &thread.kernel.translator.stats;
    stats.count(verdict.reason);
    if stats.counts_sites() {
        let key = match &verdict.region {
            Some(region) => (
                Some(region.file.identity()),
                trap.syscall - region.start + region.file_offset,
            ),
            None => (None, trap.syscall),
        };
        stats.count_site(key, nr, verdict.reason, || site_text(thread, &trap));
    }
}

/// What `--stats` shows of a site.
fn site_text(thread: &Thread, trap: &Trap) -> SiteText {
    let read = |address: u64| {
        let mut bytes = [0; SITE_BYTES];
        let len = user::copy_in(&mut bytes, address);
        bytes[..len].to_vec()
    };
    SiteText {
        program: thread.process.executable(),
        before: read(trap.syscall.wrapping_sub(SITE_BYTES as u64)),
        after: read(trap.syscall),
    }
}

/// The program's own address for an instruction pointer that may lie in a thunk: what signal frames, fault
/// addresses and the like show.
#[must_use]
pub fn original_rip(thread: &Thread, rip: u64) -> u64 {
    if thread.kernel.translator.stats.translated() == 0 {
        return rip;
    }
    thread
        .mm_opt()
        .and_then(|mm| mm.thunk_region(rip))
        .and_then(|code| engine::original(&region(code), rip))
        .unwrap_or(rip)
}
