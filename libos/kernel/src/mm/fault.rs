//! Page faults.
//!
//! A fault costs 10 to 15 us, clearing or copying a page 0.3 us: so each fault maps a whole neighbourhood, and
//! 2 MiB at once where an anonymous area allows it.

use alloc::sync::Arc;
use core::ops::Range;

use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PAGE_SIZE, USER_END};
use husk_abi::linux::general;
use husk_hal::phys::{self, Frame};

use super::code;
use super::counts::{self, Event};
use super::frames::LARGE_FRAMES;
use super::oom;
use super::pagetable::entry_in;
use super::pte::{Entry, Owner};
use super::space::{AddressSpace, Limits, State, page_down};
use super::vma::{Backing, Flags, Object, Prot, Vma};
use crate::{Errno, Result, Thread};

/// Bits of the CPU's page-fault error code.
const ERROR_WRITE: u64 = 1 << 1;
const ERROR_FETCH: u64 = 1 << 4;

/// Pages mapped around a fault: zeros, objects' pages to be read, pages to be copied. Powers of two.
const AROUND_ZERO: u64 = 32;
const AROUND_READ: u64 = 64;
const AROUND_COPY: u64 = 16;
/// Further 2 MiB pages mapped at a fault in an area that is gone through from below.
const AHEAD_LARGE: u64 = 3;

/// The signal a fault ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSignal {
    /// `SIGSEGV`, `SIGBUS`, or `SIGKILL` when there is no memory.
    pub signo: i32,
    /// `si_code`.
    pub code: i32,
}

impl FaultSignal {
    const MAPERR: Self = Self::new(general::SIGSEGV, general::SEGV_MAPERR);
    const ACCERR: Self = Self::new(general::SIGSEGV, general::SEGV_ACCERR);
    const BUS: Self = Self::new(general::SIGBUS, general::BUS_ADRERR);
    const NO_MEMORY: Self = Self::new(general::SIGKILL, 0);
    /// The process was killed already.
    const KILLED: Self = Self::new(general::SIGKILL, 1);

    const fn new(signo: u32, code: u32) -> Self {
        Self {
            signo: signo as i32,
            code: code as i32,
        }
    }

    /// What a failure to provide a page means.
    fn from_errno(errno: Errno) -> Self {
        if errno == Errno::ENOMEM {
            Self::NO_MEMORY
        } else {
            Self::BUS
        }
    }
}

/// What a fault wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To load.
    Read,
    /// To store.
    Write,
    /// To fetch an instruction.
    Execute,
}

/// What a fault needs.
enum Step {
    Done,
    Signal(FaultSignal),
    /// The page is a thunk's.
    Thunk,
    /// Pages of an object.
    Fetch(Fetch),
}

/// Pages of an object, to be asked for without the lock.
struct Fetch {
    object: Object,
    /// The pages: `first` is the lowest address, bit n of `wanted` is the n-th page from there.
    first: u64,
    wanted: u64,
    /// The page that must come.
    page: u64,
    /// Index in the object of the page at `first`.
    index: u64,
    /// The object's version when the fetch was planned.
    version: u64,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Map them for reading.
    Read,
    /// Map them for reading, as code.
    Code,
    /// Map them for writing to the object.
    Shared,
    /// Copy them.
    Copy,
}

impl AddressSpace {
    /// Serves a page fault at `address` with the CPU's error code.
    ///
    /// # Errors
    /// The signal the thread gets.
    pub fn fault(&self, address: u64, error_code: u64) -> Result<(), FaultSignal> {
        let access = if error_code & ERROR_FETCH != 0 {
            Access::Execute
        } else if error_code & ERROR_WRITE != 0 {
            Access::Write
        } else {
            Access::Read
        };
        self.access(address, access)
    }

    /// Makes `address` accessible.
    ///
    /// # Errors
    /// The signal for a thread that tried.
    pub fn access(&self, address: u64, access: Access) -> Result<(), FaultSignal> {
        let page = page_down(address);
        loop {
            match self.with(|state| state.fault(page, access)) {
                Step::Done => return Ok(()),
                Step::Signal(FaultSignal::NO_MEMORY) if self.relieve() => {}
                Step::Signal(signal) => {
                    counts::count(Event::FaultSignal);
                    return Err(self.report(signal));
                }
                Step::Thunk => {
                    counts::count(Event::FaultRead);
                    return match self.map_thunk(page) {
                        Ok(true) => Ok(()),
                        Ok(false) => Err(FaultSignal::MAPERR),
                        Err(errno) => Err(self.report(FaultSignal::from_errno(errno))),
                    };
                }
                Step::Fetch(fetch) => {
                    counts::count(match fetch.how {
                        How::Read | How::Code => Event::FaultRead,
                        How::Shared => Event::FaultShared,
                        How::Copy => Event::FaultCopy,
                    });
                    match self.fetch(&fetch) {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(FaultSignal::NO_MEMORY) if self.relieve() => {}
                        Err(signal) => return Err(self.report(signal)),
                    }
                }
            }
        }
    }

    /// Whether there may be memory now where there was none.
    fn relieve(&self) -> bool {
        self.shelf.clear() || oom::relieve_current()
    }

    /// Running out of memory is worth a line in the log, whoever it hits.
    fn report(&self, signal: FaultSignal) -> FaultSignal {
        if signal == FaultSignal::NO_MEMORY {
            let usage = self.frames.usage();
            crate::log!(
                Warn,
                "mm",
                "out of memory: {} of {} KiB in use, {} KiB by the process that faulted",
                usage.used_bytes >> 10,
                usage.limit_bytes >> 10,
                self.totals().resident >> 10
            );
        }
        signal
    }

    /// Gets the pages and maps them; false if the area changed meanwhile and the fault must be looked at again.
    fn fetch(&self, fetch: &Fetch) -> Result<bool, FaultSignal> {
        let mut got = [(Frame::new(0), Owner::Object); 64];
        let mut have = 0u64;
        let mut failed = None;
        let needed = (fetch.page - fetch.first) / PAGE_SIZE;
        // First the page that must come.
        let others = (0..64).filter(|at| *at != needed && fetch.wanted >> at & 1 == 1);
        for at in core::iter::once(needed).chain(others) {
            let index = fetch.index + at;
            let patched = if fetch.how == How::Code {
                code::code_page(&fetch.object, index)
            } else {
                None
            };
            let page = match patched {
                Some(frame) => Ok((frame, Owner::Borrowed)),
                None => fetch
                    .object
                    .mappable
                    .page(index, fetch.how == How::Shared)
                    .map(|frame| (frame, Owner::Object)),
            };
            match page {
                Ok(page) => {
                    got[at as usize] = page;
                    have |= 1 << at;
                }
                Err(errno) => {
                    if at == needed {
                        failed = Some(errno);
                    }
                    break;
                }
            }
        }
        if let Some(errno) = failed {
            return Err(FaultSignal::from_errno(errno));
        }
        let mut left = have;
        let result = self.with(|state| state.install(fetch, &got, &mut left));
        for (at, (frame, owner)) in got.iter().enumerate() {
            if left >> at & 1 == 1 && *owner == Owner::Object {
                self.frames.put(*frame);
            }
        }
        result.map_err(FaultSignal::from_errno)
    }

    /// Faults in all of `range` for `access` (`MAP_POPULATE`, `MADV_POPULATE_*`).
    ///
    /// # Errors
    /// The first fault's signal.
    pub fn populate(&self, range: Range<u64>, access: Access) -> Result<(), FaultSignal> {
        let mut page = range.start;
        while page < range.end {
            let entry = self.with(|state| state.table.get(page));
            let ready = entry.is_present() && (access != Access::Write || entry.is_writable());
            if !ready {
                self.access(page, access)?;
            }
            page = if entry.is_large() {
                (page | (LARGE_PAGE_SIZE - 1)) + 1
            } else {
                page + PAGE_SIZE
            };
        }
        Ok(())
    }
}

/// The aligned neighbourhood of `pages` pages of `page` within the area.
fn around(vma: &Vma, page: u64, pages: u64) -> Range<u64> {
    let bytes = pages * PAGE_SIZE;
    let start = page & !(bytes - 1);
    start.max(vma.start)..(start + bytes).min(vma.end)
}

impl State {
    fn fault(&mut self, page: u64, access: Access) -> Step {
        if page >= USER_END {
            return Step::Signal(FaultSignal::MAPERR);
        }
        if self.reaped {
            return Step::Signal(FaultSignal::KILLED);
        }
        if self.vmas.find(page).is_none() {
            let limits = husk_hal::cpu::with_current(|t: &Thread| Limits::of(&t.process))
                .unwrap_or(Limits::DEFAULT);
            if self.grow_stack(page, &limits).is_err() {
                return Step::Signal(FaultSignal::MAPERR);
            }
        }
        let Some(vma) = self.vmas.find(page) else {
            return Step::Signal(FaultSignal::MAPERR);
        };
        if vma.is_hidden() {
            return if access == Access::Write {
                Step::Signal(FaultSignal::ACCERR)
            } else {
                Step::Thunk
            };
        }
        let allowed = match access {
            Access::Read => !vma.prot.is_empty(),
            Access::Write => vma.prot.contains(Prot::WRITE),
            Access::Execute => vma.prot.contains(Prot::EXEC),
        };
        if !allowed {
            return Step::Signal(FaultSignal::ACCERR);
        }
        let entry = self.table.get(page);
        let permits = entry.is_present()
            && (access != Access::Write || entry.is_writable())
            && (access != Access::Execute || entry.is_executable());
        if permits {
            // Rights were added since the TLB saw the page, or another thread was here first.
            counts::count(Event::FaultStale);
            self.table.forget(page);
            return Step::Done;
        }
        let vma = vma.clone();
        let result = if entry.is_empty() {
            match &vma.backing {
                Backing::Object(object) => {
                    return Step::Fetch(self.plan_fetch(&vma, object, page, access));
                }
                _ => {
                    counts::count(Event::FaultZero);
                    self.fill_zero(&vma, page)
                }
            }
        } else if access == Access::Write {
            match &vma.backing {
                // The object must know that it is written, or has the bytes before patching.
                Backing::Object(object) if vma.is_shared() || entry.owner() == Owner::Borrowed => {
                    return Step::Fetch(self.plan_fetch(&vma, object, page, access));
                }
                _ => {
                    counts::count(Event::FaultFork);
                    self.copy_on_write(&vma, page, entry)
                }
            }
        } else {
            // Resident, but without rights the area has: give it what the area has, short of writing.
            counts::count(Event::FaultStale);
            self.table.update(page..page + PAGE_SIZE, |_, entry| {
                entry.with_access(vma.prot, false)
            })
        };
        match result {
            Ok(()) => Step::Done,
            Err(errno) => Step::Signal(FaultSignal::from_errno(errno)),
        }
    }

    /// Which pages of the object to get for a fault at `page`.
    fn plan_fetch(&self, vma: &Vma, object: &Object, page: u64, access: Access) -> Fetch {
        let (how, pages) = match (access, vma.is_shared()) {
            (Access::Write, true) => (How::Shared, AROUND_COPY),
            // A copy no longer shows what happens to the file: ahead of need only for a program's or library's data.
            (Access::Write, false) if !self.is_program_data(vma) => (How::Copy, 1),
            (Access::Write, false) => (How::Copy, AROUND_COPY),
            _ if vma.is_code() => (How::Code, AROUND_READ),
            _ => (How::Read, AROUND_READ),
        };
        let eager = !vma.flags.contains(Flags::RANDOM) && !self.table.frames().is_short();
        let window = around(vma, page, if eager { pages } else { 1 });
        let size_pages = object.mappable.size_bytes().div_ceil(PAGE_SIZE);
        let mut wanted = 0;
        for (at, address) in window.clone().step_by(PAGE_SIZE as usize).enumerate() {
            let in_object = vma.page_index(address) < size_pages;
            if address == page || in_object && self.table.get(address).is_empty() {
                wanted |= 1 << at;
            }
        }
        Fetch {
            object: object.clone(),
            first: window.start,
            wanted,
            page,
            index: vma.page_index(window.start),
            version: object.mappable.version(),
            how,
        }
    }

    /// Whether the area lies behind code of the same file: what a loader maps.
    fn is_program_data(&self, vma: &Vma) -> bool {
        /// Segments between a program's code and its data.
        const SEGMENTS: usize = 4;
        let Some(object) = vma.object() else {
            return false;
        };
        let mut start = vma.start;
        for _ in 0..SEGMENTS {
            let below = self.vmas.find_below(start);
            let Some(below) = below.filter(|below| {
                below
                    .object()
                    .is_some_and(|other| Arc::ptr_eq(&other.mappable, &object.mappable))
            }) else {
                return false;
            };
            if below.is_code() {
                return true;
            }
            start = below.start;
        }
        false
    }

    /// Maps what was fetched: `have` has a bit for each page in `got`, and keeps those whose reference was not
    /// used. False if the area is not what it was.
    fn install(
        &mut self,
        fetch: &Fetch,
        got: &[(Frame, Owner); 64],
        have: &mut u64,
    ) -> Result<bool> {
        let Some(vma) = self.vmas.find(fetch.page) else {
            return Ok(false);
        };
        let same = vma.object().is_some_and(|object| {
            Arc::ptr_eq(&object.mappable, &fetch.object.mappable)
                && object.thunk_base == fetch.object.thunk_base
                && object.mappable.version() == fetch.version
        });
        let allowed = match fetch.how {
            How::Read => !vma.prot.is_empty(),
            How::Code => vma.is_code(),
            How::Shared => vma.is_shared() && vma.prot.contains(Prot::WRITE),
            How::Copy => !vma.is_shared() && vma.prot.contains(Prot::WRITE),
        };
        if !same
            || !allowed
            || fetch.first < vma.start
            || vma.page_index(fetch.first) != fetch.index
        {
            return Ok(false);
        }
        let (prot, end) = (vma.prot, vma.end);
        let table = self.table.leaf_table(fetch.page)?;
        for at in 0..64 {
            let address = fetch.first + at * PAGE_SIZE;
            if *have >> at & 1 == 0 || address >= end {
                continue;
            }
            let old = entry_in(table, address);
            let (frame, owner) = got[at as usize];
            let needed = address == fetch.page;
            // The page that faulted may be there without the rights it needs; neighbours only fill holes.
            let replace = old.is_empty()
                || needed && matches!(fetch.how, How::Shared | How::Copy) && !old.is_writable();
            if !replace {
                continue;
            }
            match fetch.how {
                How::Read | How::Code => {
                    let entry = Entry::page(frame, owner, prot, false);
                    self.table.replace_in(table, address, entry);
                    *have &= !(1 << at);
                }
                How::Shared => {
                    // The same frame read-only already holds a reference; this one is then spare.
                    let spare = !old.is_empty() && old.frame() == frame;
                    let entry = Entry::page(frame, owner, prot, true);
                    self.table.replace_in(table, address, entry);
                    if !spare {
                        *have &= !(1 << at);
                    }
                }
                How::Copy if old.is_anonymous() => {}
                How::Copy => match self.table.frames().alloc() {
                    Ok(copy) => {
                        phys::copy_frames(frame, copy, 1);
                        let entry = Entry::page(copy, Owner::Anonymous, prot, true);
                        self.table.replace_in(table, address, entry);
                    }
                    Err(errno) if needed => return Err(errno),
                    Err(_) => break,
                },
            }
        }
        Ok(true)
    }

    /// Maps zeros in an area that is about to be used, which saves the faults; at most [`AROUND_ZERO`] pages, and none when
    /// memory is short.
    pub(super) fn fill_ahead(&mut self, range: Range<u64>) {
        let frames = self.table.frames();
        let Some(vma) = self.vmas.find(range.start) else {
            return;
        };
        let prot = vma.prot;
        let end = range.end.min(range.start + AROUND_ZERO * PAGE_SIZE);
        for page in (range.start..end).step_by(PAGE_SIZE as usize) {
            if frames.is_short() || !self.table.get(page).is_empty() {
                return;
            }
            let Ok(frame) = frames.alloc_zeroed() else {
                return;
            };
            let entry = Entry::page(frame, Owner::Anonymous, prot, prot.contains(Prot::WRITE));
            if self.table.set(page, entry).is_err() {
                frames.put(frame);
                return;
            }
        }
    }

    /// The program goes through an area from below: maps some more of what comes next. Only where there is plenty.
    fn fill_large_ahead(&mut self, vma: &Vma, large: u64) {
        let frames = self.table.frames();
        let goes_up = large
            .checked_sub(LARGE_PAGE_SIZE)
            .is_some_and(|below| below >= vma.start && self.table.get(below).is_large());
        if !goes_up || vma.flags.contains(Flags::RANDOM) {
            return;
        }
        for step in 1..=AHEAD_LARGE {
            let at = large + step * LARGE_PAGE_SIZE;
            let is_plenty = frames.usage().free_bytes() > frames.usage().limit_bytes / 2;
            if !is_plenty || vma.end - LARGE_PAGE_SIZE < at || !self.table.is_large_free(at) {
                return;
            }
            let Ok(frame) = frames.alloc_large_zeroed() else {
                return;
            };
            let writable = vma.prot.contains(Prot::WRITE);
            let entry = Entry::page(frame, Owner::Anonymous, vma.prot, writable);
            if self.table.set_large(at, entry).is_err() {
                frames.put_large(frame);
                return;
            }
        }
    }

    /// Maps zeros at and around `page`.
    fn fill_zero(&mut self, vma: &Vma, page: u64) -> Result<()> {
        let frames = self.table.frames();
        let writable = vma.prot.contains(Prot::WRITE);
        let short = frames.is_short();
        let large = page & !(LARGE_PAGE_SIZE - 1);
        if !short
            && vma.start <= large
            && vma.end - large >= LARGE_PAGE_SIZE
            && !vma.flags.intersects(Flags::SMALL_PAGES | Flags::GROWSDOWN)
            && self.table.is_large_free(page)
            && let Ok(frame) = frames.alloc_large_zeroed()
        {
            let entry = Entry::page(frame, Owner::Anonymous, vma.prot, writable);
            self.table
                .set_large(large, entry)
                .inspect_err(|_| frames.put_large(frame))?;
            self.fill_large_ahead(vma, large);
            return Ok(());
        }
        let table = self.table.leaf_table(page)?;
        let eager = !short && !vma.flags.contains(Flags::RANDOM);
        let window = around(vma, page, if eager { AROUND_ZERO } else { 1 });
        let others = window
            .step_by(PAGE_SIZE as usize)
            .filter(|address| *address != page);
        for address in core::iter::once(page).chain(others) {
            if !entry_in(table, address).is_empty() {
                continue;
            }
            match frames.alloc_zeroed() {
                Ok(frame) => {
                    let entry = Entry::page(frame, Owner::Anonymous, vma.prot, writable);
                    self.table.replace_in(table, address, entry);
                }
                Err(errno) if address == page => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Makes a private page and those around it writable: in place if nobody else has them, else as copies.
    fn copy_on_write(&mut self, vma: &Vma, page: u64, entry: Entry) -> Result<()> {
        let frames = self.table.frames();
        if entry.is_large() && frames.is_large_unshared(entry.frame()) {
            let large = page & !(LARGE_PAGE_SIZE - 1);
            return self
                .table
                .update(large..large + LARGE_PAGE_SIZE, |_, entry| {
                    entry.with_access(vma.prot, true)
                });
        }
        let table = self.table.leaf_table(page)?;
        let eager = !vma.flags.contains(Flags::RANDOM) && !frames.is_short();
        let window = around(vma, page, if eager { AROUND_COPY } else { 1 });
        let copies_objects = self.is_program_data(vma);
        let others = window
            .step_by(PAGE_SIZE as usize)
            .filter(|address| *address != page);
        for address in core::iter::once(page).chain(others) {
            let old = entry_in(table, address);
            if old.is_empty() || old.is_writable() || old.owner() == Owner::Borrowed {
                continue;
            }
            if address != page && old.owner() == Owner::Object && !copies_objects {
                continue;
            }
            if old.is_anonymous() && frames.count(old.frame()) == 1 {
                let entry = old.with_access(vma.prot, true).hot();
                self.table.replace_in(table, address, entry);
                continue;
            }
            match frames.alloc() {
                Ok(copy) => {
                    phys::copy_frames(old.frame(), copy, 1);
                    let entry = Entry::page(copy, Owner::Anonymous, vma.prot, true).hot();
                    self.table.replace_in(table, address, entry);
                }
                Err(errno) if address == page => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

const _: () = assert!(LARGE_FRAMES * PAGE_SIZE == LARGE_PAGE_SIZE);
