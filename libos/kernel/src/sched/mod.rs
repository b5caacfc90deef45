//! Scheduling: a run queue per vCPU, parking, preemption, timers.
//!
//! The libOS itself is not preempted: a thread gives up its vCPU where it parks, or on its way back to user
//! code. [`park`] and [`unpark`] work like a one-slot token, so a wake that comes before the sleep is kept.
//!
//! Locks: a thread's `state`, then its vCPU's queue, then the timers.

mod queue;
mod timers;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use husk_hal::{clock, cpu, thread::Context};

use crate::sync::SpinLock;
use crate::{Kernel, Thread};

pub use queue::{Cpu, Scheduler};
pub use timers::{TimerId, Timers};

/// How long a thread runs while others wait, in nanoseconds.
pub const SLICE_NS: u64 = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On a vCPU or in a run queue.
    Runnable,
    /// Waits for [`unpark`].
    Parked,
    /// Never runs again.
    Dead,
}

/// The scheduler's part of a thread.
#[derive(Debug)]
pub struct ThreadSched {
    state: SpinLock<State>,
    /// An [`unpark`] that found the thread running.
    token: AtomicBool,
    /// Nanoseconds on a vCPU, up to the last switch away.
    cpu_ns: AtomicU64,
    /// When it was last put on a vCPU.
    since_ns: AtomicU64,
}

impl ThreadSched {
    /// A thread that has not run yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: SpinLock::new(State::Runnable),
            token: AtomicBool::new(false),
            cpu_ns: AtomicU64::new(0),
            since_ns: AtomicU64::new(clock::now_ns()),
        }
    }

    /// Nanoseconds of vCPU time used, up to the last time it left the vCPU.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.cpu_ns.load(Ordering::Relaxed)
    }

    /// [`ThreadSched::cpu_ns`] of the running thread, up to now.
    #[must_use]
    pub fn live_cpu_ns(&self) -> u64 {
        self.cpu_ns() + clock::now_ns().saturating_sub(self.since_ns.load(Ordering::Relaxed))
    }

    /// Whether it neither runs nor waits to run.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        *self.state.lock() == State::Parked
    }
}

impl Default for ThreadSched {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts a new thread on a run queue.
pub fn start(thread: &Arc<Thread>) {
    thread.kernel.sched.enqueue(thread.clone());
}

/// Makes `thread` runnable; if it is not parked, its next [`park`] returns at once.
pub fn unpark(thread: &Arc<Thread>) {
    let mut state = thread.sched.state.lock();
    thread.sched.token.store(true, Ordering::Release);
    if *state == State::Parked {
        *state = State::Runnable;
        drop(state);
        thread.kernel.sched.enqueue(thread.clone());
    }
}

/// Sleeps until [`unpark`], or until `deadline` (ns of `CLOCK_MONOTONIC`). Returns at once if `ready()` holds
/// after the thread has announced that it sleeps. May return early: callers test their condition again.
pub fn park(thread: &Thread, deadline: Option<u64>, ready: impl FnOnce() -> bool) {
    let sched = &thread.sched;
    sched.token.store(false, Ordering::SeqCst);
    if ready() {
        return;
    }
    let timer = deadline.map(|deadline| thread.kernel.timers.wake_at(deadline, thread.weak()));
    {
        let mut state = sched.state.lock();
        if sched.token.swap(false, Ordering::AcqRel) {
            drop(state);
            if let Some(timer) = timer {
                thread.kernel.timers.cancel(timer);
            }
            return;
        }
        *state = State::Parked;
    }
    thread.kernel.sched.switch_away(thread);
    if let Some(timer) = timer {
        thread.kernel.timers.cancel(timer);
    }
}

/// Lets another runnable thread run first (`sched_yield(2)`).
pub fn yield_now(thread: &Thread) {
    let sched = &thread.kernel.sched;
    if sched.has_runnable() {
        sched.enqueue(thread.arc());
        sched.switch_away(thread);
    }
}

/// Ends the current thread: never returns.
pub fn exit_current(thread: &Thread) -> ! {
    *thread.sched.state.lock() = State::Dead;
    thread.kernel.sched.switch_away(thread);
    unreachable!("a dead thread ran");
}

/// What an interrupt, or waking from idling, may have been about: timers and the VMM's answers.
pub fn handle_events(kernel: &'static Kernel) {
    cpu::acknowledge_interrupt();
    kernel.host.poll();
    kernel.timers.run_due(clock::now_ns());
}

/// The part of the way back to user code that concerns the vCPU; signals come after it.
pub fn exit_work(thread: &Thread, work: u32) {
    if work & cpu::WORK_INTERRUPT != 0 {
        handle_events(thread.kernel);
    }
    let sched = &thread.kernel.sched;
    if work & (cpu::WORK_INTERRUPT | cpu::WORK_RESCHEDULE) != 0 && sched.slice_over() {
        yield_now(thread);
    }
    sched.arm_timer();
}

/// A vCPU's life when it has nothing to run; the code that booted it ends here.
pub fn idle(kernel: &'static Kernel) -> ! {
    loop {
        // Flags raised while no thread ran are served right here.
        let _ = cpu::take_work();
        handle_events(kernel);
        if kernel.sched.run_next_from_idle() {
            continue;
        }
        kernel.sched.wait_for_event();
    }
}

/// Called on a new stack when a thread runs for the first time, and after every switch.
pub fn finish_switch(kernel: &'static Kernel) {
    kernel.sched.finish_switch();
}

pub(crate) fn idle_context() -> Context {
    Context::idle()
}
