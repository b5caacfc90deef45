//! Syscall translation: patching `syscall` sites into jumps.
//!
//! A `syscall` traps (1 us and more on PVM) until its site is patched; then it is a jump to a thunk, and the
//! thunk's jump into the libOS (5 ns). The first trap of a site leads here ([`consider`]); whether the
//! site may be patched is `decode`'s proof, what is written `thunk`'s, where it is kept `image`'s.
//!
//! - Patches belong to the file, not to the process: fork, threads and the next exec find them. A process keeps
//!   nothing but which copies its page tables show, and those it gets by faulting or by trapping once.
//! - A jump straight to the `syscall`, and a restart after a signal, work: its bytes stay in place and trap, or the jump to
//!   the thunk is there.
//! - A jump to an instruction that was displaced into a thunk faults, and goes on there: [`enter`].
//! - Nobody outside sees thunk addresses: [`original_rip`], [`settle`].
//! - The thunk is entered and left with nothing on the user's stack, so a clone child may return on another.
//!
//! Locks: an image's is a leaf above a file's page map and the frame allocator; the memory room may hold an address
//! space's lock when it asks an image for a page.

mod area;
pub mod decode;
mod engine;
mod image;
mod stats;
mod symbols;
mod table;
#[cfg(test)]
mod testing;
pub mod thunk;

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::stats::{SITE_BYTES, TranslationReport, TrapReason};
use husk_abi::linux::general;
use husk_hal::phys::Frame;
use husk_hal::trap::{ENTRY_TRANSLATED, EXIT_FULL, TrapFrame};
use husk_hal::{boot, cpu, user};

pub use image::{FrameSource, TextImage};
#[cfg(test)]
pub(crate) use image::{Kind, Site};

use crate::mm::{AddressSpace, CodeRegion, Frames};
use crate::{Kernel, Thread};
use decode::Registers;
use engine::{CodeSpace, Region, Trap};
use stats::{SiteKey, SiteText, Stats};
use table::Place;
use thunk::Call;

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
}

/// The numbers for `--stats`, when nothing is counted any more.
#[must_use]
pub fn report(kernel: &Kernel) -> TranslationReport {
    let (calls, calls_trapped) = kernel.trace.counts();
    TranslationReport {
        calls,
        calls_trapped,
        ..kernel
            .translator
            .stats
            .report(&|frame| kernel.frames.put(frame))
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

/// Whether call `nr` does not come back to where it was made if all goes well, so that its site is to be considered
/// before it is served.
#[must_use]
pub fn departs(nr: u64) -> bool {
    const DEPART: [u32; 5] = [
        general::__NR_rt_sigreturn,
        general::__NR_execve,
        general::__NR_exit,
        general::__NR_exit_group,
        general::__NR_execveat,
    ];
    DEPART.into_iter().map(u64::from).any(|number| number == nr)
}

/// The system call `nr` trapped, was served (unless it [`departs`]) and will return to `return_address`: patch its site if
/// that is sound. `thread` is the current one, its frame still the trap's.
pub fn consider(thread: &Thread, return_address: u64, nr: u64) {
    let stats = &thread.kernel.translator.stats;
    if decode::is_restorer(nr) && !stats.counts_sites() {
        // Nothing will come of it, and signals are not made slower for that.
        stats.count(TrapReason::Restorer);
        return;
    }
    let Some(mm) = thread.mm_opt() else { return };
    let trap = Trap {
        call: Call::Syscall,
        syscall: return_address.wrapping_sub(decode::SYSCALL_LEN as u64),
        registers: Registers {
            rax: nr,
            r8: thread.frame().args()[4],
        },
        returns: !departs(nr),
        slot: boot::fast_entry_slot(),
    };
    let space = ProcessSpace {
        kernel: thread.kernel,
        mm: &mm,
    };
    let verdict = engine::consider(&space, &trap);
    if verdict.reason == TrapReason::FirstUse || verdict.resume.is_some() {
        thread.frame().update(|frame| {
            // Code was written through another address: iretq serializes, a jump back does not. And rcx stays what
            // `syscall` made it.
            frame.code |= EXIT_FULL;
            frame.rip = verdict.resume.unwrap_or(frame.rip);
        });
    }
    stats.count(verdict.reason);
    if stats.counts_sites() {
        let key = site_key(verdict.region.as_ref(), trap.syscall);
        stats.count_site(key, nr, verdict.reason, || site_text(thread, trap.syscall));
    }
}

fn site_key(region: Option<&Region>, syscall: u64) -> SiteKey {
    match region {
        Some(region) => (
            Some(region.file.identity()),
            syscall - region.start + region.file_offset,
        ),
        None => (None, syscall),
    }
}

/// The `cpuid` at `address` faulted, was answered and has been gone past: patches its site if that is sound.
pub fn consider_cpuid(thread: &Thread, address: u64) {
    let Some(mm) = thread.mm_opt() else { return };
    let trap = Trap {
        call: Call::Cpuid,
        syscall: address,
        registers: Registers::default(),
        returns: true,
        slot: boot::cpuid_entry_slot(),
    };
    let space = ProcessSpace {
        kernel: thread.kernel,
        mm: &mm,
    };
    let verdict = engine::consider(&space, &trap);
    if verdict.reason == TrapReason::FirstUse {
        thread.kernel.translator.stats.count_translated();
    }
    if let Some(rip) = verdict.resume {
        thread.frame().update(|frame| frame.rip = rip);
    }
}

/// What `--stats` shows of a site.
fn site_text(thread: &Thread, syscall: u64) -> SiteText {
    let mm = thread.mm_opt();
    let read = |address: u64| {
        let mut bytes = [0; SITE_BYTES];
        let read = mm.as_ref().map(|mm| mm.read_bytes(address, &mut bytes));
        bytes[..read.and_then(Result::ok).unwrap_or(0)].to_vec()
    };
    let code = mm.as_ref().and_then(|mm| mm.code_region(syscall));
    SiteText {
        before: read(syscall.wrapping_sub(SITE_BYTES as u64)),
        after: read(syscall),
        path: match &code {
            Some(code) => code.path.to_vec(),
            None => thread.process.executable(),
        },
        file: code.map(|code| code.mappable),
    }
}

/// Where the program is whose instruction pointer is `rip`, if that is in a thunk.
fn place(thread: &Thread, rip: u64) -> Option<Place> {
    if thread.kernel.translator.stats.translated() == 0 {
        return None;
    }
    let code = thread.mm_opt()?.thunk_region(rip)?;
    engine::place(&region(code), rip)
}

/// The program's own address for an instruction pointer that may lie in a thunk: what signal frames, fault
/// addresses and the like show.
#[must_use]
pub fn original_rip(thread: &Thread, rip: u64) -> u64 {
    place(thread, rip).map_or(rip, Place::address)
}

/// Makes `frame`, where the program was interrupted, one without thunks: instruction pointer and registers are what they
/// would be if nothing were translated.
pub fn settle(thread: &Thread, frame: &mut TrapFrame) {
    if let Some(place) = place(thread, frame.rip) {
        put_at(frame, place);
    }
}

fn put_at(frame: &mut TrapFrame, place: Place) {
    frame.rip = place.address();
    if let Place::Returned(address) = place {
        frame.rcx = address;
    }
}

/// The thunks of `left` are no longer mapped in `space`: threads that are in them, or will return to them from a system
/// call, go on where they would be without. No other vCPU runs threads of `space` meanwhile.
pub fn leave_thunks(space: &AddressSpace, left: Vec<CodeRegion>) {
    let left: Vec<_> = left.into_iter().map(region).collect();
    cpu::with_current(|current: &Thread| {
        for thread in current.kernel.tasks.threads() {
            let is_of_space = thread
                .mm_opt()
                .is_some_and(|mm| core::ptr::eq(Arc::as_ptr(&mm), space));
            if !is_of_space {
                continue;
            }
            let live = thread.frame();
            let rip = live.rip();
            if let Some(place) = left.iter().find_map(|code| engine::place(code, rip)) {
                live.update(|frame| put_at(frame, place));
            }
        }
    });
}

/// If the running thread was interrupted just before a thunk's jump into the libOS, makes the system call now: rcx is
/// lost already, so there is no way back. As if the interrupt had come an instruction later.
pub fn finish_entry(thread: &Thread) {
    let live = thread.frame();
    if live.nr() != u64::MAX {
        return;
    }
    if let Some(Place::Entering(_)) = place(thread, live.rip()) {
        live.update(|frame| {
            frame.orig_rax = frame.rax;
            frame.rip = frame.rcx;
            frame.r11 = frame.rflags;
            frame.code = ENTRY_TRANSLATED | EXIT_FULL;
        });
        crate::syscall::dispatch(thread, live);
    }
}

/// If the running thread is about to go on at an instruction that was displaced, lets it go on in the thunk that has it
/// now. Spares the fault for those who return there by other ways than a thunk.
pub fn resume(thread: &Thread) {
    go_on(thread, |_, code, rip| engine::resume(code, rip));
}

/// The running thread has met an invalid opcode: if that is because it has jumped between displaced instructions, lets it
/// go on in the thunk; whether it is so.
pub fn enter(thread: &Thread) -> bool {
    go_on(thread, |space, code, rip| engine::enter(space, code, rip))
}

/// Lets the running thread go on at what `find` makes of its instruction pointer, if that is in code.
fn go_on(
    thread: &Thread,
    find: impl FnOnce(&ProcessSpace<'_>, &Region, u64) -> Option<u64>,
) -> bool {
    if thread.kernel.translator.stats.translated() == 0 {
        return false;
    }
    let live = thread.frame();
    let rip = live.rip();
    let found = thread.mm_opt().and_then(|mm| {
        let code = region(mm.code_region(rip)?);
        let space = ProcessSpace {
            kernel: thread.kernel,
            mm: &mm,
        };
        find(&space, &code, rip)
    });
    if let Some(rip) = found {
        live.update(|frame| {
            frame.rip = rip;
            frame.code |= EXIT_FULL;
        });
    }
    found.is_some()
}

/// Whether the running thread, which single-steps, has made a step that is none of its program's.
#[must_use]
pub fn is_extra_step(thread: &Thread) -> bool {
    let rip = thread.frame().rip();
    thread
        .mm_opt()
        .and_then(|mm| mm.thunk_region(rip))
        .is_some_and(|code| engine::is_extra_step(&region(code), rip))
}
