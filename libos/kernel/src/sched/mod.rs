//! Scheduling: a run queue per vCPU, parking, preemption, timers.
//!
//! The libOS itself is not preempted: a thread gives up its vCPU where it parks, or on its way back to user
//! code. [`park`] and [`unpark`] work like a one-slot token, so a wake that comes before the sleep is kept.
//!
//! Locks: a thread's `state`, then its vCPU's queue, then the timers.

pub mod attr;
pub mod ioprio;
mod params;
mod queue;
pub mod rseq;
mod syscalls;
mod timers;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use husk_abi::boundary::inspect;
use husk_hal::{clock, cpu, thread::Context};

use crate::sync::SpinLock;
use crate::{Kernel, Thread};

pub use params::SchedParams;
pub use queue::{Cpu, Scheduler};
pub use rseq::rseq;
pub use syscalls::*;
pub use timers::{TimerId, Timers};

/// How long a thread runs while others wait, in nanoseconds.
pub const SLICE_NS: u64 = 10_000_000;

/// How much less of a vCPU than the running thread a woken one must have had to run at once: switching for
/// less would cost more than it brings.
const WAKE_GRANULARITY_NS: u64 = 1_000_000;
/// How far behind the others a thread that slept may come back: enough to run soon, not to make up for hours.
const SLEEPER_CREDIT_NS: u64 = 3_000_000;

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
    /// vCPU time in nanoseconds; while it is on a vCPU, [`ON_CPU`] and the time of `CLOCK_MONOTONIC` at which
    /// it would have started had it run ever since. One word, so that others can read it at any time.
    clock: AtomicU64,
    /// What to add to the vCPU time for its fair time: the share it gave away by sleeping.
    slept_ns: AtomicU64,
    params: SpinLock<SchedParams>,
    /// How late its timers may be (`PR_SET_TIMERSLACK`), in nanoseconds. They never are: the number is only kept.
    slack_ns: AtomicU64,
    /// Of the vCPU time, what the libOS is known to have used for it; see `ThreadSched::in_libos`.
    system_ns: AtomicU64,
    /// Its vCPU time is being counted as the libOS's.
    in_libos: AtomicBool,
}

/// vCPU time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// All of it.
    pub all_ns: u64,
    /// What the libOS is known to have used of it.
    pub system_ns: u64,
}

impl CpuTimes {
    /// What the program used.
    #[must_use]
    pub fn user_ns(self) -> u64 {
        self.all_ns.saturating_sub(self.system_ns)
    }
}

impl core::ops::Add for CpuTimes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            all_ns: self.all_ns + other.all_ns,
            system_ns: self.system_ns + other.system_ns,
        }
    }
}

/// The timer slack of the first process, in nanoseconds.
const DEFAULT_SLACK_NS: u64 = 50_000;

/// In `ThreadSched::clock`: the thread is on a vCPU.
const ON_CPU: u64 = 1 << 63;

impl ThreadSched {
    /// A thread that has not run yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: SpinLock::new(State::Runnable),
            token: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            slept_ns: AtomicU64::new(0),
            params: SpinLock::new(SchedParams::new()),
            slack_ns: AtomicU64::new(DEFAULT_SLACK_NS),
            system_ns: AtomicU64::new(0),
            in_libos: AtomicBool::new(false),
        }
    }

    /// Counts the running thread's vCPU time as the libOS's while `work` runs. For what takes long enough that two looks at the
    /// clock do not matter; a translated call is not told from the program that makes it.
    pub fn in_libos<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.in_libos.swap(true, Ordering::Relaxed) {
            return work();
        }
        let since_ns = self.cpu_ns();
        let result = work();
        let used = self.cpu_ns().saturating_sub(since_ns);
        self.system_ns.fetch_add(used, Ordering::Relaxed);
        self.in_libos.store(false, Ordering::Relaxed);
        result
    }

    /// vCPU time, and how much of it the libOS is known to have used.
    #[must_use]
    pub fn times(&self) -> CpuTimes {
        let all_ns = self.cpu_ns();
        CpuTimes {
            all_ns,
            system_ns: self.system_ns.load(Ordering::Relaxed).min(all_ns),
        }
    }

    /// A thread made by one with these parameters.
    #[must_use]
    pub fn of_child(parent: &SchedParams) -> Self {
        Self {
            params: SpinLock::new(parent.of_child()),
            ..Self::new()
        }
    }

    /// Nanoseconds of vCPU time used, up to now, whether it runs or not.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        let clock = self.clock.load(Ordering::Relaxed);
        if clock & ON_CPU == 0 {
            clock
        } else {
            husk_hal::clock::now_ns().saturating_sub(clock & !ON_CPU)
        }
    }

    /// Fair time: the thread with the least runs next. Advances as it runs, and jumps forward when it slept.
    fn fair_ns(&self) -> u64 {
        self.cpu_ns() + self.slept_ns.load(Ordering::Relaxed)
    }

    /// It comes to a run queue where fair time has reached `floor`; returns its own from here on.
    fn place(&self, floor: u64) -> u64 {
        let own = self.fair_ns();
        if own < floor {
            self.slept_ns.fetch_add(floor - own, Ordering::Relaxed);
        }
        own.max(floor)
    }

    /// It is put on a vCPU at `now`.
    fn on_cpu(&self, now: u64) {
        let used = self.clock.load(Ordering::Relaxed);
        self.clock
            .store(ON_CPU | now.saturating_sub(used), Ordering::Relaxed);
    }

    /// It leaves its vCPU at `now`.
    fn off_cpu(&self, now: u64) {
        let started = self.clock.load(Ordering::Relaxed) & !ON_CPU;
        self.clock
            .store(now.saturating_sub(started), Ordering::Relaxed);
    }

    /// Its scheduling parameters.
    #[must_use]
    pub fn params(&self) -> SchedParams {
        *self.params.lock()
    }

    /// Changes its scheduling parameters.
    pub fn update_params(&self, change: impl FnOnce(&mut SchedParams)) {
        change(&mut self.params.lock());
    }

    /// Its timer slack, in nanoseconds.
    #[must_use]
    pub fn slack_ns(&self) -> u64 {
        self.slack_ns.load(Ordering::Relaxed)
    }

    /// Sets its timer slack; 0 is the default.
    pub fn set_slack_ns(&self, slack: u64) {
        let slack = if slack == 0 { DEFAULT_SLACK_NS } else { slack };
        self.slack_ns.store(slack, Ordering::Relaxed);
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

/// Shows a thread's state to debuggers.
fn record_state(thread: &Thread, state: u32) {
    let record = thread.context.record();
    record.state.store(state, Ordering::Relaxed);
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
        record_state(thread, inspect::RUNNABLE);
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
        record_state(thread, inspect::PARKED);
    }
    thread.kernel.sched.switch_away(thread);
    if let Some(timer) = timer {
        thread.kernel.timers.cancel(timer);
    }
}

/// Lets another runnable thread run first (`sched_yield(2)`).
pub fn yield_now(thread: &Thread) {
    thread.kernel.sched.yield_to_others(thread);
}

/// Ends the current thread: never returns.
pub fn exit_current(thread: &Thread) -> ! {
    *thread.sched.state.lock() = State::Dead;
    record_state(thread, inspect::DEAD);
    thread.kernel.sched.switch_away(thread);
    unreachable!("a dead thread ran");
}

/// What an interrupt, or waking from idling, may have been about: timers and the VMM's answers.
pub fn handle_events(kernel: &'static Kernel) {
    cpu::acknowledge_interrupt();
    kernel.host.poll();
    kernel.time.check_wall();
    kernel.timers.run_due(clock::now_ns());
}

/// The part of the way back to user code that concerns the vCPU; signals come after it.
pub fn exit_work(thread: &Thread, work: u32) {
    if work & cpu::WORK_INTERRUPT != 0 {
        handle_events(thread.kernel);
        thread.kernel.net.host.flush_late(thread.kernel);
    }
    crate::time::account_tick(thread);
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
        kernel.fs.behind.flush(kernel);
        kernel.net.host.flush(kernel);
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
