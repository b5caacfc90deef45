//! Running out of memory: choosing a process, killing it, taking its memory at once (`mm/oom_kill.c`).
//!
//! Whoever needs a frame and finds none calls [`relieve`] and tries again. The victim's private memory is taken before it has
//! even noticed that it was killed, so nobody waits for it, whatever locks it sleeps on; its own accesses from then on
//! fail.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::linux::general::SIGKILL;

use super::counts::{self, Event};
use super::pte::Entry;
use super::space::AddressSpace;
use crate::process::{Life, begin_group_exit};
use crate::{Errno, Kernel, Process, Result, Thread};

/// `oom_score_adj` of a process that is never chosen.
pub const ADJ_NEVER: i32 = -1000;
/// The largest `oom_score_adj`.
pub const ADJ_MAX: i32 = 1000;

/// How much a process asks to be chosen, in pages: what it uses, and its `oom_score_adj` in thousandths of the limit.
/// `None` for one that is not to be chosen.
fn badness(process: &Process, limit_pages: i64) -> Option<i64> {
    let adj = process.oom_score_adj.load(Ordering::Relaxed);
    if adj == ADJ_NEVER || process.life() != Life::Alive || process.is_exiting() {
        return None;
    }
    let totals = memory_of(process)?.totals();
    let pages = ((totals.resident + totals.page_tables) / PAGE_SIZE).cast_signed();
    Some(pages + i64::from(adj) * limit_pages / 1000)
}

fn memory_of(process: &Process) -> Option<Arc<AddressSpace>> {
    process.threads().iter().find_map(|thread| thread.mm_opt())
}

/// `/proc/PID/oom_score`.
#[must_use]
pub fn score(process: &Process) -> i64 {
    let limit_pages = limit_pages(process.kernel);
    badness(process, limit_pages).map_or(0, |points| (1000 + points * 1000 / limit_pages) * 2 / 3)
}

fn limit_pages(kernel: &Kernel) -> i64 {
    (kernel.frames.usage().limit_bytes / PAGE_SIZE)
        .max(1)
        .cast_signed()
}

/// Frees memory by ending the process that is worst; `false` if there is none left to end, or if it is the caller's own:
/// then that is to give up what it was about.
pub fn relieve(t: &Thread) -> bool {
    let limit = limit_pages(t.kernel);
    let processes = t.kernel.tasks.processes();
    let worst = processes
        .iter()
        .filter_map(|process| Some((badness(process, limit)?, process)))
        .max_by_key(|(points, _)| *points);
    let Some((_, victim)) = worst else {
        return false;
    };
    let Some(mm) = memory_of(victim) else {
        return false;
    };
    let totals = mm.totals();
    crate::log!(
        Warn,
        "mm",
        "out of memory: killed process {} ({}), {} kB of {} kB: anonymous {} kB, files {} kB, page tables {} kB, oom_score_adj {}",
        victim.pid,
        victim.executable().escape_ascii(),
        totals.resident >> 10,
        t.kernel.frames.usage().limit_bytes >> 10,
        totals.resident_anonymous >> 10,
        totals.resident_file >> 10,
        totals.page_tables >> 10,
        victim.oom_score_adj.load(Ordering::Relaxed)
    );
    counts::count(Event::OomKill);
    t.kernel.host.count_oom_kill();
    // Whoever shares the memory would keep it.
    let sharers: Vec<_> = processes
        .iter()
        .filter(|process| memory_of(process).is_some_and(|other| Arc::ptr_eq(&other, &mm)))
        .collect();
    let is_own = t.mm_opt().is_some_and(|own| Arc::ptr_eq(&own, &mm));
    for process in sharers {
        begin_group_exit(process, SIGKILL.cast_signed());
    }
    if !is_own {
        mm.reap();
    }
    !is_own
}

/// Calls `allocate` until it does not fail for want of memory, ending processes for it.
///
/// # Errors
/// `allocate`'s.
pub fn insist<R>(allocate: impl Fn() -> Result<R>) -> Result<R> {
    loop {
        match allocate() {
            Err(Errno::ENOMEM) if relieve_current() => {}
            result => return result,
        }
    }
}

/// [`relieve`] for the running thread; `false` where there is none.
pub fn relieve_current() -> bool {
    husk_hal::cpu::with_current(relieve).unwrap_or(false)
}

impl AddressSpace {
    /// Takes all private memory away; whoever still runs on it was killed.
    fn reap(&self) {
        self.with(|state| {
            state.reaped = true;
            state.table.update_all(|_, entry| {
                if entry.is_anonymous() {
                    Entry::EMPTY
                } else {
                    entry
                }
            });
        });
    }
}
