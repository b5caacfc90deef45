//! Timers against CPU time: `ITIMER_VIRTUAL`, `ITIMER_PROF`, POSIX timers on CPU clocks; `RLIMIT_CPU`.
//!
//! CPU time only grows while a thread runs, at most one second a second on each vCPU. So the earliest moment such
//! a timer can expire is known, and a *tick* is set for it, which looks again. When the process has used no CPU
//! time since the last look, it sleeps, and no tick is set: [`account_tick`] does that when a thread of the process
//! next runs.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use husk_abi::linux::general::{SIGPROF, SIGVTALRM};
use husk_hal::clock::now_ns;
use husk_hal::cpu;

use super::Schedule;
use crate::sched::TimerId;
use crate::signal::{self, Info};
use crate::sync::SpinLock;
use crate::{Kernel, Process, Thread};

/// Ticks come at most this often, in nanoseconds: Linux's own resolution for CPU timers.
const MIN_TICK_NS: u64 = 4_000_000;

/// An interval timer against CPU time. They count the same here (`usage::rusage_of` says why).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interval {
    /// `ITIMER_VIRTUAL`.
    Virtual,
    /// `ITIMER_PROF`.
    Prof,
}

const INTERVAL_SIGNALS: [i32; 2] = [SIGVTALRM.cast_signed(), SIGPROF.cast_signed()];

/// A process's timers against CPU time.
#[derive(Debug, Default)]
pub(super) struct CpuTimers {
    /// Whether any is armed, so that the way back to user code costs one load.
    armed: AtomicBool,
    state: SpinLock<State>,
}

#[derive(Debug, Default)]
struct State {
    intervals: [Schedule; 2],
    tick: Option<TimerId>,
    /// CPU time at the last look.
    seen_ns: u64,
}

impl CpuTimers {
    /// A timer is to be looked at when a thread of the process next runs: for callers that hold locks.
    pub fn rearm(&self) {
        self.armed.store(true, Ordering::Release);
    }

    pub fn cancel(&self, kernel: &Kernel) {
        self.armed.store(false, Ordering::Release);
        let mut state = self.state.lock();
        state.intervals = [Schedule::default(); 2];
        if let Some(tick) = state.tick.take() {
            kernel.timers.cancel(tick);
        }
    }
}

/// To be called on the way back to user code when there is work: keeps the CPU-time timers of the thread's
/// process going. Costs one load for processes without any.
pub fn account_tick(t: &Thread) {
    let timers = &t.process.timers.cpu;
    if timers.armed.load(Ordering::Acquire) && timers.state.lock().tick.is_none() {
        check(&t.process);
    }
}

/// A limit of CPU time (`RLIMIT_CPU`) was set, by the process or for it.
pub fn cpu_limit_changed(process: &Process) {
    process.timers.cpu.armed.store(true, Ordering::Release);
    // A tick that is set is for another moment: it looks again when it comes, and that may be too late.
    let tick = process.timers.cpu.state.lock().tick.take();
    if let Some(tick) = tick {
        process.kernel.timers.cancel(tick);
    }
    cpu::raise(cpu::WORK_RESCHEDULE);
}

/// An interval timer and the CPU time now.
pub(super) fn interval(process: &Arc<Process>, which: Interval) -> (Schedule, u64) {
    let now = process.cpu_ns();
    let mut schedule = process.timers.cpu.state.lock().intervals[which as usize];
    schedule.expire(now);
    (schedule, now)
}

/// Sets an interval timer to what `make` gives for the CPU time now; returns the old setting and that time.
pub(super) fn set_interval(
    process: &Arc<Process>,
    which: Interval,
    make: impl FnOnce(u64) -> Schedule,
) -> (Schedule, u64) {
    let now = process.cpu_ns();
    let new = make(now);
    let old = {
        let mut state = process.timers.cpu.state.lock();
        core::mem::replace(&mut state.intervals[which as usize], new)
    };
    check(process);
    (old, now)
}

/// Sends what is due and sets the next tick. To be called after every change.
pub(super) fn check(process: &Arc<Process>) {
    let timers = &process.timers.cpu;
    let now = process.cpu_ns();
    let mut due = [false; 2];
    let mut wait: Option<u64> = None;
    {
        let mut state = timers.state.lock();
        state.seen_ns = now;
        for (schedule, due) in state.intervals.iter_mut().zip(&mut due) {
            *due = schedule.expire(now) > 0;
            if schedule.next().is_some() {
                wait = Some(schedule.remaining(now).min(wait.unwrap_or(u64::MAX)));
            }
        }
    }
    for (due, signo) in due.into_iter().zip(INTERVAL_SIGNALS) {
        if due {
            // A signal of the kernel's own is never refused.
            let _ = signal::send_process(process, &Info::kernel(signo));
        }
    }
    let limit = process.check_cpu_limit(now);
    if let Some(signo) = limit.signal {
        let _ = signal::send_process(process, &Info::kernel(signo.cast_signed()));
    }
    let posix = process.timers.posix.check_cpu();
    let wait = [wait, posix, limit.left_ns].into_iter().flatten().min();
    timers.armed.store(wait.is_some(), Ordering::Release);
    let kernel = process.kernel;
    let mut state = timers.state.lock();
    if let Some(old) = state.tick.take() {
        kernel.timers.cancel(old);
    }
    state.tick = wait.map(|wait| {
        let process = Arc::downgrade(process);
        let nap = (wait / kernel.sched.cpu_count().max(1) as u64).max(MIN_TICK_NS);
        kernel
            .timers
            .call_at(now_ns().saturating_add(nap), move || {
                if let Some(process) = process.upgrade() {
                    tick(&process);
                }
            })
    });
}

fn tick(process: &Arc<Process>) {
    let used = process.cpu_ns();
    let is_idle = {
        let mut state = process.timers.cpu.state.lock();
        state.tick = None;
        state.seen_ns == used && !process.timers.posix.watches_others()
    };
    if !is_idle {
        check(process);
    }
}
