//! Syscall records: the filter, and what is written about a call (`husk_abi::boundary::record`).
//!
//! A call nobody asked for costs [`Recorder::wants`]: a load and a bit test. Everything else happens in
//! [`recorded`], around the call.

mod payload;
pub mod report;
mod ring;
mod select;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use husk_abi::boundary::boot::BootInfo;
use husk_abi::boundary::record::{RECORD_NO_RETURN, RecordHeader};
use husk_abi::boundary::record_filter::{
    FILTER_DROP, FILTER_PAYLOADS, FILTER_WORDS, FilterRule, RecordFilter, filter_bit,
};
use husk_abi::linux::syscalls::{Syscall, lookup};
use husk_hal::phys::Frame;
use husk_hal::{clock, cpu, phys};

use crate::sync::SpinLock;
use crate::{Kernel, SysResult, Thread};
use ring::Ring;

/// Numbers with a counter of their own in [`Recorder::count_missing`]; the last is shared by all above.
const COUNTED: usize = FILTER_WORDS * 64;

/// `exit(2)` and `exit_group(2)`: recorded before they run.
const NEVER_RETURN: [u64; 2] = [60, 231];

/// In [`Recorder::flags`], beside the page's: rules have conditions beyond which calls.
const HAS_CONDITIONS: u32 = 1 << 31;

/// Writes records.
#[derive(Debug)]
pub struct Recorder {
    /// What the hot test looks at: the calls some rule names, or ones if all are counted.
    calls: [AtomicU64; FILTER_WORDS],
    /// The calls some rule names.
    filter: [AtomicU64; FILTER_WORDS],
    /// Calls so far, if they are counted, and those that trapped.
    counts: Option<[AtomicU64; 2]>,
    flags: AtomicU32,
    filter_gpa: u64,
    /// The page's, when it was taken over.
    generation: AtomicU64,
    /// The filter page, which is shared with the VMM, as it was then.
    rules: SpinLock<Arc<[FilterRule]>>,
    /// By vCPU.
    rings: Vec<Ring>,
    missing: [AtomicU32; COUNTED],
}

impl Recorder {
    /// The rings and the filter are where the boot info says; the filter is loaded. `count_calls`: count calls, recorded
    /// or not.
    #[must_use]
    pub fn new(boot: &BootInfo, count_calls: bool) -> Self {
        let recorder = Self {
            calls: [const { AtomicU64::new(0) }; FILTER_WORDS],
            filter: [const { AtomicU64::new(0) }; FILTER_WORDS],
            counts: count_calls.then(Default::default),
            flags: AtomicU32::new(0),
            filter_gpa: boot.record_filter_gpa,
            generation: AtomicU64::new(0),
            rules: SpinLock::new(Arc::new([])),
            rings: boot
                .vcpus
                .iter()
                .take(boot.vcpu_count as usize)
                .map(|vcpu| Ring::new(vcpu.records))
                .collect(),
            missing: [const { AtomicU32::new(0) }; COUNTED],
        };
        recorder.load_filter();
        recorder
    }

    /// The number of the filter page's present contents.
    fn generation(&self) -> u64 {
        let at = self.filter_gpa + offset_of!(RecordFilter, generation) as u64;
        phys::load_u64(Frame::containing(at), (at % 4096) as usize)
    }

    /// Looks whether the VMM has changed the filter, and takes it over then.
    pub fn poll_filter(&self, kernel: &Kernel) {
        if self.filter_gpa == 0 || self.generation() == self.generation.load(Ordering::Relaxed) {
            return;
        }
        if self.load_filter() {
            let rules = self.rules.lock().clone();
            select::mark_all(&rules, &kernel.tasks.processes());
        }
    }

    /// Takes over what stands in the filter page; a page that holds no filter records nothing. False if the VMM is
    /// just changing it: it will tell when it is done.
    fn load_filter(&self) -> bool {
        let mut filter = RecordFilter::new(0);
        if self.filter_gpa != 0 {
            let generation = self.generation();
            let mut bytes = [0; size_of::<RecordFilter>()];
            phys::read_gpa(self.filter_gpa, &mut bytes);
            if !generation.is_multiple_of(2) || self.generation() != generation {
                return false;
            }
            filter = RecordFilter::from_bytes(&bytes).unwrap_or(filter);
            self.generation.store(generation, Ordering::Relaxed);
        }
        let rules = filter.rules();
        let has_conditions = rules
            .iter()
            .any(|rule| rule.results != 0 || rule.has_paths() || rule.has_processes());
        let conditions = if has_conditions { HAS_CONDITIONS } else { 0 };
        *self.rules.lock() = rules.into();
        self.flags.store(
            filter.flags & !HAS_CONDITIONS | conditions,
            Ordering::Relaxed,
        );
        let all = if self.counts.is_some() { u64::MAX } else { 0 };
        for (index, (hot, cached)) in self.calls.iter().zip(&self.filter).enumerate() {
            let word = rules.iter().fold(0, |word, rule| word | rule.calls[index]);
            cached.store(word, Ordering::Relaxed);
            hot.store(word | all, Ordering::Relaxed);
        }
        true
    }

    /// In which rules' process trees the new process `pid` is; `parent` is what this gave for the one that made it.
    #[must_use]
    pub fn marks(&self, parent: u32, pid: u32) -> u32 {
        if self.flags.load(Ordering::Relaxed) & HAS_CONDITIONS == 0 {
            return 0;
        }
        let rules = self.rules.lock().clone();
        select::marks(&rules, parent, pid)
    }

    /// Whether anything is to be done about a call of number `nr`: see [`Recorder::count`], [`Recorder::records`].
    #[inline]
    #[must_use]
    pub fn wants(&self, nr: u64) -> bool {
        let (word, bit) = filter_bit(nr);
        self.calls[word].load(Ordering::Relaxed) & bit != 0
    }

    /// Whether the filter asks for calls of number `nr`.
    #[must_use]
    pub fn records(&self, nr: u64) -> bool {
        let (word, bit) = filter_bit(nr);
        self.filter[word].load(Ordering::Relaxed) & bit != 0
    }

    /// Counts a call, if calls are counted.
    pub fn count(&self, trapped: bool) {
        if let Some([calls, traps]) = &self.counts {
            calls.fetch_add(1, Ordering::Relaxed);
            traps.fetch_add(u64::from(trapped), Ordering::Relaxed);
        }
    }

    /// Calls so far, and how many of them trapped; zeros unless calls are counted.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.counts.as_ref().map_or((0, 0), |[calls, traps]| {
            (calls.load(Ordering::Relaxed), traps.load(Ordering::Relaxed))
        })
    }

    /// Writes one record to the ring of the vCPU this runs on.
    fn write(&self, header: &mut RecordHeader, args: &[u64], payload: &[u8], flags: u32) {
        let vcpu = cpu::index();
        if let Some(ring) = self.rings.get(vcpu) {
            header.vcpu = vcpu as u16;
            ring.write(header, args, payload, flags & FILTER_DROP != 0);
        }
    }

    /// Counts a call the libOS does not have; true the first time.
    pub fn count_missing(&self, nr: u64) -> bool {
        let index = usize::try_from(nr).unwrap_or(COUNTED).min(COUNTED - 1);
        self.missing[index].fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Numbers of calls the libOS does not have, with how often each was made.
    pub fn missing(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0u32..)
            .zip(&self.missing)
            .map(|(nr, count)| (nr, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }
}

/// Runs `call` and records it.
///
/// A call that never returns is recorded before it runs; one during which its thread is killed, when it ends. A successful `execve` returns here like any
/// other call, so it is recorded once, with result 0.
pub fn recorded(
    thread: &Thread,
    nr: u64,
    args: &[u64; 6],
    call: impl FnOnce() -> SysResult,
) -> SysResult {
    // Nothing here is moved once it is made: a copy of more than a few words is a slow string instruction.
    let mut pending = Pending::default();
    if !pending.begin(thread, nr, args) {
        return call();
    }
    if NEVER_RETURN.contains(&nr) {
        pending.never_returns(thread, args);
        drop(pending);
        return call();
    }
    let result = call();
    if thread.signals.is_killed() {
        // Whatever it was about to return, the program does not see it.
        pending.never_returns(thread, args);
    } else {
        pending.returned(thread, args, result);
    }
    result
}

/// Records a call that ends its thread or process instead of being served, if it is to be recorded.
pub fn ended(thread: &Thread, nr: u64, args: &[u64; 6]) {
    let mut pending = Pending::default();
    if thread.kernel.trace.records(nr) && pending.begin(thread, nr, args) {
        pending.never_returns(thread, args);
    }
}

/// A record of a call that is under way.
#[derive(Default)]
struct Pending {
    header: RecordHeader,
    row: Option<&'static Syscall>,
    payload: Vec<u8>,
    entered: u64,
    flags: u32,
    /// The rules that may select it, if they have conditions.
    selected: Option<(Arc<[FilterRule]>, select::RuleSet)>,
}

impl Pending {
    /// False if no rule selects the call.
    #[inline]
    fn begin(&mut self, thread: &Thread, nr: u64, args: &[u64; 6]) -> bool {
        let recorder = &thread.kernel.trace;
        self.flags = recorder.flags.load(Ordering::Relaxed);
        self.row = lookup(nr);
        if self.flags & HAS_CONDITIONS != 0 {
            let rules = recorder.rules.lock().clone();
            let selected = select::before(&rules, thread, nr, self.row, args);
            if selected == 0 {
                return false;
            }
            self.selected = Some((rules, selected));
        }
        // Before the call: it may change or unmap what the arguments point to.
        if self.flags & FILTER_PAYLOADS != 0
            && let Some(row) = self.row
        {
            payload::before(row, args, &mut self.payload);
        }
        let header = &mut self.header;
        header.nr = u32::try_from(nr).unwrap_or(u32::MAX);
        header.pid = thread.process.pid;
        header.tid = thread.tid();
        header.name = thread.name_field();
        self.entered = clock::now_ns();
        header.time_ns = self.entered.wrapping_add_signed(clock::wall_offset_ns());
        true
    }

    fn wants(&self, rax: Option<i64>) -> bool {
        self.selected
            .as_ref()
            .is_none_or(|(rules, selected)| select::after(rules, *selected, rax))
    }

    fn never_returns(&mut self, thread: &Thread, args: &[u64; 6]) {
        if self.wants(None) {
            self.header.flags = RECORD_NO_RETURN;
            self.write(thread, args);
        }
    }

    #[inline]
    fn returned(&mut self, thread: &Thread, args: &[u64; 6], result: SysResult) {
        let rax = match result {
            Ok(value) => value as i64,
            Err(errno) => i64::from(-errno.code()),
        };
        self.header.duration_ns = clock::now_ns().saturating_sub(self.entered);
        self.header.result = rax.cast_unsigned();
        if !self.wants(Some(rax)) {
            return;
        }
        if let (Ok(value), Some(row)) = (result, self.row)
            && self.flags & FILTER_PAYLOADS != 0
        {
            payload::after(row, args, value, &mut self.payload);
        }
        self.write(thread, args);
    }

    fn write(&mut self, thread: &Thread, args: &[u64; 6]) {
        let taken = match self.row {
            Some(row) if row.implemented => row.args.len(),
            _ => args.len(),
        };
        let recorder = &thread.kernel.trace;
        recorder.write(&mut self.header, &args[..taken], &self.payload, self.flags);
    }
}
