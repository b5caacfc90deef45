//! A process's address space: its areas, its page tables, and where its parts lie.
//!
//! One sleeping lock guards it all. It is never held while an object is asked for a page (which may take file
//! locks, which are held over user copies, which fault), nor while an object is let go of: [`AddressSpace::with`]
//! drops what was unmapped after unlocking. Every change ends with the TLB flush it needs, before the lock is given up.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::layout::{PAGE_SIZE, USER_END};
use husk_abi::linux::general;
use husk_hal::phys::Frame;

use super::code::CodeRegion;
use super::frames::Frames;
use super::layout::Layout;
use super::pagetable::PageTable;
use super::shelf::Shelf;
use super::tlb::Roots;
use super::vma::{Prot, Vma, VmaSet};
use crate::fs::FileRef;
use crate::sync::Mutex;
use crate::{Errno, Kernel, Process, Result};

/// What a stack keeps free below it, in bytes (`stack_guard_gap`).
pub const STACK_GAP_BYTES: u64 = 256 * PAGE_SIZE;
/// The most areas a process may have (`vm.max_map_count`).
pub const MAX_AREAS: usize = 65_530;

/// A process's memory; shared by its threads, and by `CLONE_VM` relatives.
#[derive(Debug)]
pub struct AddressSpace {
    pub(super) frames: &'static Frames,
    pub(super) cpus: usize,
    /// Where its page tables go in the end, and its children's come from.
    pub(super) shelf: Arc<Shelf>,
    roots: Arc<Roots>,
    state: Mutex<State>,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub vmas: VmaSet,
    pub table: PageTable,
    pub places: Places,
    /// Where the program's parts were put; `None` before the first.
    pub layout: Option<Arc<Layout>>,
    /// Its private memory was taken away ([`super::oom`]).
    pub reaped: bool,
    /// Largest `VmSize` and `VmRSS` so far, bytes and pages.
    pub peak_total_bytes: u64,
    pub peak_resident: u64,
    /// The running program, kept open as long as it runs.
    pub executable: Option<FileRef>,
    /// Areas that were taken out, to be dropped without the lock.
    pub trash: Vec<Vma>,
    /// Code whose thunks were taken out: threads may be in them.
    pub left: Vec<CodeRegion>,
    /// Nothing is to be translated any more.
    pub untranslated: bool,
}

/// Where the parts of a program lie (`/proc/pid/stat`, `PR_SET_MM`'s terms). All are addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "proc_pid_stat(5)'s terms")]
pub struct Places {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    /// Mappings are placed below this.
    pub mmap_base: u64,
    /// Start of the vDSO, 0 if there is none.
    pub vdso: u64,
    /// Bytes of the auxiliary vector, at `auxv_start`.
    pub auxv_start: u64,
    pub auxv_bytes: u64,
}

/// The resource limits that concern memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
}

impl Limits {
    /// What Linux starts with: everything but an 8 MiB stack.
    pub const DEFAULT: Self = Self {
        address_space: u64::MAX,
        data: u64::MAX,
        stack: 8 << 20,
    };

    /// A process's soft limits.
    #[must_use]
    pub fn of(process: &Process) -> Self {
        let soft = |resource| process.limit(resource).map_or(u64::MAX, |l| l.rlim_cur);
        Self {
            address_space: soft(general::RLIMIT_AS),
            data: soft(general::RLIMIT_DATA),
            stack: soft(general::RLIMIT_STACK),
        }
    }
}

/// Totals for `/proc/pid/status` and `statm`, in bytes unless named otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "proc_pid_status(5)'s terms")]
pub struct Totals {
    pub size: u64,
    pub peak: u64,
    pub resident: u64,
    pub resident_peak: u64,
    pub resident_anonymous: u64,
    pub resident_file: u64,
    pub data: u64,
    pub stack: u64,
    pub text: u64,
    pub page_tables: u64,
    pub locked: u64,
}

impl AddressSpace {
    /// An empty address space.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(kernel: &'static Kernel) -> Result<Arc<Self>> {
        Self::with_frames(&kernel.frames, kernel.sched.cpu_count())
    }

    /// An empty address space for `cpus` vCPUs with memory from `frames`.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn with_frames(frames: &'static Frames, cpus: usize) -> Result<Arc<Self>> {
        Self::beside(frames, cpus, Arc::new(Shelf::new()), None)
    }

    /// An empty address space that shares `shelf`, with `kept` page tables or new ones. Kept ones still map what they
    /// did: they must be adopted before anything is done with them.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn beside(
        frames: &'static Frames,
        cpus: usize,
        shelf: Arc<Shelf>,
        kept: Option<PageTable>,
    ) -> Result<Arc<Self>> {
        let table = match kept {
            Some(table) => table,
            None => PageTable::new(frames, cpus)?,
        };
        Ok(Arc::new(Self {
            frames,
            cpus,
            shelf,
            roots: table.roots().clone(),
            state: Mutex::new(State {
                vmas: VmaSet::default(),
                table,
                places: Places {
                    mmap_base: USER_END - (1 << 30),
                    ..Places::default()
                },
                layout: None,
                reaped: false,
                peak_total_bytes: 0,
                peak_resident: 0,
                executable: None,
                trash: Vec::new(),
                left: Vec::new(),
                untranslated: false,
            }),
        }))
    }

    /// Makes it the vCPU's. Costs nothing if it is and nothing stale can be left in the TLB.
    pub fn activate(&self) {
        self.roots.activate();
    }

    /// Its PML4 on vCPU `cpu`.
    #[must_use]
    pub fn root(&self, cpu: usize) -> Frame {
        self.roots.frames()[cpu]
    }

    /// Runs `f` on the locked state, then flushes, unlocks, and lets go of what was unmapped.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let (result, trash, left) = {
            let mut state = self.state.lock();
            let result = f(&mut state);
            state.table.finish();
            state.note_peaks();
            let trash = core::mem::take(&mut state.trash);
            (result, trash, core::mem::take(&mut state.left))
        };
        if !left.is_empty() {
            crate::translate::leave_thunks(self, left);
        }
        drop(trash);
        result
    }

    /// Where the program's parts lie.
    #[must_use]
    pub fn places(&self) -> Places {
        self.with(|state| state.places)
    }

    /// Changes where the program's parts lie (program loading, `PR_SET_MM`).
    pub fn update_places(&self, change: impl FnOnce(&mut Places)) {
        self.with(|state| change(&mut state.places));
    }

    /// The file of the running program (`/proc/pid/exe`); `None` before the first exec.
    #[must_use]
    pub fn executable(&self) -> Option<FileRef> {
        self.with(|state| state.executable.clone())
    }

    pub(super) fn set_executable(&self, file: FileRef) {
        let old = self.with(|state| state.executable.replace(file));
        drop(old);
    }

    /// Totals for `/proc`.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.with(|state| state.totals())
    }
}

impl State {
    fn note_peaks(&mut self) {
        self.peak_total_bytes = self.peak_total_bytes.max(self.vmas.total_bytes());
        self.peak_resident = self.peak_resident.max(self.table.resident_pages());
    }

    fn totals(&self) -> Totals {
        let resident = self.table.resident();
        let mut totals = Totals {
            size: self.vmas.total_bytes(),
            peak: self.peak_total_bytes,
            resident: self.table.resident_pages() * PAGE_SIZE,
            resident_peak: self.peak_resident * PAGE_SIZE,
            resident_anonymous: resident.anonymous * PAGE_SIZE,
            resident_file: resident.object * PAGE_SIZE,
            data: self.vmas.data_bytes(),
            page_tables: self.table.table_bytes(),
            ..Totals::default()
        };
        totals.text = page_up(self.places.end_code)
            .unwrap_or(0)
            .saturating_sub(page_down(self.places.start_code));
        for vma in self.vmas.iter() {
            if vma.flags.contains(super::vma::Flags::GROWSDOWN) {
                totals.stack += vma.len_bytes();
            }
            if vma.flags.contains(super::vma::Flags::LOCKED) {
                totals.locked += vma.len_bytes();
            }
        }
        totals
    }

    /// Takes the process's areas and pages out of `range`.
    ///
    /// # Errors
    /// `ENOMEM`, and nothing has changed.
    pub fn remove(&mut self, range: core::ops::Range<u64>) -> Result<()> {
        if self.vmas.is_free(range.clone()) {
            return Ok(());
        }
        let cuts = [range.start, range.end]
            .into_iter()
            .filter(|edge| {
                self.vmas
                    .find(*edge)
                    .is_some_and(|vma| vma.start < *edge && !vma.is_hidden())
            })
            .count();
        if self.vmas.len() + cuts > MAX_AREAS + 1 {
            return Err(Errno::ENOMEM);
        }
        // Thunks that lie in the range stay mapped: they are not the process's to unmap.
        let pieces: Vec<_> = self
            .vmas
            .overlapping(range.clone())
            .filter(|vma| !vma.is_hidden())
            .map(|vma| vma.start.max(range.start)..vma.end.min(range.end))
            .collect();
        self.table.split_edges(&range)?;
        for piece in pieces {
            self.table.unmap(piece)?;
        }
        let trash = &mut self.trash;
        let before = trash.len();
        self.vmas.cut(range, |vma| trash.push(vma));
        for at in before..self.trash.len() {
            let base = self.trash[at].object().and_then(|object| object.thunk_base);
            if let Some(base) = base {
                self.release_thunks(base);
            }
        }
        Ok(())
    }

    /// Whether `bytes` more of address space, of which `data` bytes are data, would break a limit.
    pub fn check_limits(&self, limits: &Limits, bytes: u64, data: u64) -> Result<()> {
        let over = |used: u64, more: u64, limit: u64| {
            more > 0 && used.checked_add(more).is_none_or(|sum| sum > limit)
        };
        if over(self.vmas.total_bytes(), bytes, limits.address_space)
            || over(self.vmas.data_bytes(), data, limits.data)
        {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        self.roots.leave();
        let state = self.state.get_mut();
        if let Some(layout) = state.layout.take() {
            let hollow = PageTable::hollow(self.frames);
            let table = core::mem::replace(&mut state.table, hollow);
            let vmas = &state.vmas;
            self.shelf.put(table, layout, |address| {
                vmas.find(address)
                    .is_some_and(|vma| !vma.prot.contains(Prot::WRITE))
            });
        }
    }
}

/// Rounds up to a page, or `None` beyond the end of the address range.
#[must_use]
pub fn page_up(value: u64) -> Option<u64> {
    value.checked_next_multiple_of(PAGE_SIZE)
}

/// Rounds down to a page.
#[must_use]
pub fn page_down(value: u64) -> u64 {
    value & !(PAGE_SIZE - 1)
}
