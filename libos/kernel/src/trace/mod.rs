//! Syscall records: the filter, and what is written about a call (`husk_abi::boundary::record`).
//!
//! A call nobody asked for costs [`Recorder::wants`]: a load and a bit test. Everything else happens in
//! [`recorded`], around the call.

mod payload;
pub mod report;
mod ring;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use husk_abi::boundary::boot::BootInfo;
use husk_abi::boundary::record::{
    FILTER_DROP, FILTER_FAILURES, FILTER_PAYLOADS, FILTER_WORDS, RECORD_NO_RETURN, RecordFilter,
    RecordHeader, filter_bit,
};
use husk_hal::{clock, cpu, phys};

use crate::{SysResult, Thread};
use ring::Ring;

/// Numbers with a counter of their own in [`Recorder::count_missing`]; the last is shared by all above.
const COUNTED: usize = FILTER_WORDS * 64;

/// `exit(2)` and `exit_group(2)`: recorded before they run.
const NEVER_RETURN: [u64; 2] = [60, 231];

/// Writes records.
#[derive(Debug)]
pub struct Recorder {
    /// What the hot test looks at: a copy of the filter page, which is shared with the VMM, or ones if all are counted.
    calls: [AtomicU64; FILTER_WORDS],
    /// A copy of the filter page.
    filter: [AtomicU64; FILTER_WORDS],
    /// Calls so far, if they are counted, and those that trapped.
    counts: Option<[AtomicU64; 2]>,
    flags: AtomicU32,
    pid: AtomicU32,
    filter_gpa: u64,
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
            pid: AtomicU32::new(0),
            filter_gpa: boot.record_filter_gpa,
            rings: boot
                .vcpus
                .iter()
                .take(boot.vcpu_count as usize)
                .map(|vcpu| Ring::new(vcpu.records))
                .collect(),
            missing: [const { AtomicU32::new(0) }; COUNTED],
        };
        recorder.reload_filter();
        recorder
    }

    /// Takes over what stands in the filter page; a page that holds no filter records nothing.
    pub fn reload_filter(&self) {
        let mut bytes = [0; size_of::<RecordFilter>()];
        if self.filter_gpa != 0 {
            phys::read_gpa(self.filter_gpa, &mut bytes);
        }
        let filter = RecordFilter::from_bytes(&bytes).unwrap_or_default();
        self.flags.store(filter.flags, Ordering::Relaxed);
        self.pid.store(filter.pid, Ordering::Relaxed);
        let all = if self.counts.is_some() { u64::MAX } else { 0 };
        for ((hot, cached), word) in self.calls.iter().zip(&self.filter).zip(filter.calls) {
            cached.store(word, Ordering::Relaxed);
            hot.store(word | all, Ordering::Relaxed);
        }
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

    fn wants_process(&self, pid: u32) -> bool {
        let only = self.pid.load(Ordering::Relaxed);
        only == 0 || only == pid
    }

    fn has_flag(&self, flag: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Writes one record to the ring of the vCPU this runs on.
    fn write(&self, header: RecordHeader, args: &[u64; 6], payload: &[u8]) {
        let vcpu = cpu::index();
        if let Some(ring) = self.rings.get(vcpu) {
            let header = RecordHeader {
                vcpu: vcpu as u32,
                ..header
            };
            ring.write(header, args, payload, self.has_flag(FILTER_DROP));
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
/// A call that never returns is recorded before it runs. A successful `execve` returns here like any
/// other call, so it is recorded once, with result 0.
pub fn recorded(
    thread: &Thread,
    nr: u64,
    args: [u64; 6],
    call: impl FnOnce() -> SysResult,
) -> SysResult {
    let recorder = &thread.kernel.trace;
    if !recorder.wants_process(thread.process.pid) {
        return call();
    }
    // Before the call: it may change or unmap what the arguments point to.
    let payload = if recorder.has_flag(FILTER_PAYLOADS) {
        payload::capture(nr, &args)
    } else {
        Vec::new()
    };
    let entered = clock::now_ns();
    let header = RecordHeader {
        time_ns: entered.wrapping_add_signed(clock::wall_offset_ns()),
        nr: u32::try_from(nr).unwrap_or(u32::MAX),
        pid: thread.process.pid,
        tid: thread.tid(),
        ..RecordHeader::default()
    };
    if NEVER_RETURN.contains(&nr) {
        let header = RecordHeader {
            flags: RECORD_NO_RETURN,
            ..header
        };
        recorder.write(header, &args, &payload);
        drop(payload);
        return call();
    }
    let result = call();
    if result.is_ok() && recorder.has_flag(FILTER_FAILURES) {
        return result;
    }
    let header = RecordHeader {
        duration_ns: clock::now_ns().saturating_sub(entered),
        result: match result {
            Ok(value) => value as u64,
            Err(errno) => i64::from(-errno.code()).cast_unsigned(),
        },
        ..header
    };
    recorder.write(header, &args, &payload);
    result
}
