//! Clocks, sleeping, timers.
//!
//! | module | what |
//! | --- | --- |
//! | `units` | `timespec` and `timeval` to nanoseconds and back |
//! | `clock` | the clocks and their system calls |
//! | `wait` | deadlines on steppable clocks, `nanosleep(2)` |
//! | `schedule` | arithmetic of periodic timers |
//! | `itimer` | `setitimer(2)`, `alarm(2)` |
//! | `posix` | `timer_create(2)` |
//! | `cputime` | timers against CPU time |
//! | `usage` | `getrusage(2)`, `times(2)` |
//! | `adjust` | `adjtimex(2)` |
//! | `vdso` | the image every process maps |
//!
//! Wall-clock time is `CLOCK_MONOTONIC` plus an offset the VMM keeps. When the offset steps, [`Clocks::check_wall`]
//! wakes who sleeps until a wall-clock time, and re-arms wall-clock timers.
//!
//! # Locks
//! Timer state is behind spin locks, taken after the signal locks and before the scheduler's; a timer lets go of
//! its own before it sends its signal. Timer callbacks run in any thread or in none, so they take only spin locks.

mod adjust;
mod clock;
mod cputime;
mod itimer;
mod posix;
mod schedule;
mod units;
mod usage;
mod vdso;
mod wait;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use husk_hal::clock as hal_clock;

use crate::mm::Mappable;
use crate::sync::{SpinLock, WaitQueue};

pub use adjust::{adjtimex, clock_adjtime};
pub use clock::{
    ClockId, Timeline, clock_getres, clock_gettime, clock_settime, gettimeofday, realtime_ns,
    settimeofday, time,
};
pub use cputime::{account_tick, cpu_limit_changed};
pub use itimer::{alarm, getitimer, setitimer};
pub use posix::{
    signal_taken, signals_discarded, timer_create, timer_delete, timer_getoverrun, timer_gettime,
    timer_settime,
};
pub use schedule::Schedule;
pub use units::{itimerspec_ns, itimerspec_of, timespec_ns, timespec_of, timeval_ns, timeval_of};
pub use usage::{getrusage, rusage_of, times};
pub use wait::{Deadline, clock_nanosleep, nanosleep, wait_deadline};

use itimer::IntervalTimers;
use posix::PosixTimers;

/// Changes of the wall clock's offset below this are drift, not steps: sleepers notice when they wake.
const STEP_NS: u64 = 1_000_000;

/// Something with timers on the wall clock.
pub trait OnWallStep: Send + Sync {
    /// The wall clock has stepped: deadlines are to be worked out again.
    fn wall_stepped(self: Arc<Self>);
}

/// Clocks and the vDSO.
pub struct Clocks {
    vdso: vdso::Image,
    /// Wall-clock offset at the last step.
    offset_ns: AtomicI64,
    /// Number of steps.
    steps: AtomicU64,
    /// Sleepers until a wall-clock time.
    stepped: WaitQueue,
    timers: SpinLock<Vec<Weak<dyn OnWallStep>>>,
}

impl core::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Clocks")
            .field("offset_ns", &self.offset_ns)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Clocks {
    /// `vdso` is the vDSO's ELF image.
    #[must_use]
    pub fn new(vdso: &'static [u8]) -> Self {
        Self {
            vdso: vdso::Image::new(vdso),
            offset_ns: AtomicI64::new(hal_clock::wall_offset_ns()),
            steps: AtomicU64::new(0),
            stepped: WaitQueue::new(),
            timers: SpinLock::new(Vec::new()),
        }
    }

    /// Gives the vDSO its frames.
    pub(crate) fn attach(&self, kernel: &'static crate::Kernel) {
        self.vdso.load(&kernel.frames);
    }

    /// The vDSO, or `None` if there was no memory for it: programs then make system calls.
    #[must_use]
    pub fn vdso(&self) -> Option<Arc<dyn Mappable>> {
        self.vdso.mappable()
    }

    /// Looks whether the wall clock has stepped, and tells everybody who waits for a wall-clock time. Cheap; to
    /// be called whenever the VMM has interrupted or woken the vCPU.
    pub fn check_wall(&self) {
        let now = hal_clock::wall_offset_ns();
        let before = self.offset_ns.load(Ordering::Relaxed);
        if now.abs_diff(before) < STEP_NS {
            return;
        }
        let won = self
            .offset_ns
            .compare_exchange(before, now, Ordering::AcqRel, Ordering::Relaxed);
        if won.is_err() {
            return;
        }
        self.steps.fetch_add(1, Ordering::Release);
        self.stepped.wake_all();
        let timers = self.timers.lock().clone();
        for timer in timers {
            if let Some(timer) = timer.upgrade() {
                timer.wall_stepped();
            }
        }
    }

    /// Enters something whose timers follow the wall clock; forgotten when it is dropped.
    pub fn register(&self, timer: Weak<dyn OnWallStep>) {
        let mut timers = self.timers.lock();
        // Amortized: the dead are swept when the list would grow.
        if timers.len() == timers.capacity() {
            timers.retain(|timer| timer.strong_count() > 0);
        }
        timers.push(timer);
    }
}

/// A process's timers.
#[derive(Debug, Default)]
pub struct ProcessTimers {
    intervals: IntervalTimers,
    posix: PosixTimers,
    cpu: cputime::CpuTimers,
}

impl ProcessTimers {
    /// exec: POSIX timers go, interval timers stay.
    pub fn on_exec(&self, kernel: &crate::Kernel) {
        self.posix.delete_all(kernel);
    }

    /// The process ends: nothing fires any more.
    pub fn on_exit(&self, kernel: &crate::Kernel) {
        self.posix.delete_all(kernel);
        self.intervals.cancel(kernel);
        self.cpu.cancel(kernel);
    }
}

#[cfg(test)]
mod tests;
