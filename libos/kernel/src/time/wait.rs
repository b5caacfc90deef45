//! Sleeping until a time (`nanosleep(2)`, `clock_nanosleep(2)`).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use husk_abi::linux::general::{__kernel_timespec, CLOCK_MONOTONIC, TIMER_ABSTIME};
use husk_hal::clock::now_ns;

use super::clock::monotonic_of_realtime;
use super::units::TIME_MAX;
use super::{ClockId, realtime_ns, timespec_ns, timespec_of};
use crate::signal::restart_with;
use crate::sync::{Interruptible, WaitError, Waiter, park_until};
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

/// Sleeps against CPU time look at it this often at most: Linux's own resolution there.
const CPU_POLL_NS: u64 = 4_000_000;

/// When a wait ends at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this time of `CLOCK_MONOTONIC`, in nanoseconds.
    Monotonic(u64),
    /// When `CLOCK_REALTIME` says this, whether it gets there by going or by being set.
    Realtime(u64),
}

impl Deadline {
    /// `ns` nanoseconds from now.
    #[must_use]
    pub fn after(ns: u64) -> Self {
        Self::Monotonic(now_ns().saturating_add(ns).min(TIME_MAX))
    }
}

/// Sleeps until `condition` gives a value; as [`park_until`], for deadlines on either clock.
///
/// # Errors
/// [`WaitError`] if a signal or the deadline came first.
pub fn wait_deadline<T>(
    t: &Thread,
    waiter: &Arc<Waiter>,
    interruptible: Interruptible,
    deadline: Option<Deadline>,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, WaitError> {
    let wall = match deadline {
        None => return park_until(t, waiter, interruptible, None, condition),
        Some(Deadline::Monotonic(at)) => {
            return park_until(t, waiter, interruptible, Some(at), condition);
        }
        Some(Deadline::Realtime(wall)) => wall,
    };
    let clocks = &t.kernel.time;
    clocks.stepped.register(waiter);
    let result = loop {
        let steps = clocks.steps.load(Ordering::Acquire);
        let at = monotonic_of_realtime(wall);
        let woken = park_until(t, waiter, interruptible, Some(at), || match condition() {
            Some(value) => Some(Some(value)),
            None => (clocks.steps.load(Ordering::Acquire) != steps).then_some(None),
        });
        match woken {
            Ok(Some(value)) => break Ok(value),
            // The clock stepped, or was slowed down: the time is at another place now.
            Ok(None) => {}
            Err(WaitError::TimedOut) if realtime_ns() < wall => {}
            Err(error) => break Err(error),
        }
    };
    clocks.stepped.unregister(waiter);
    result
}

/// Sleeps; true if a signal came before the deadline.
fn sleep_is_interrupted(t: &Thread, deadline: Deadline) -> bool {
    let passed = match deadline {
        Deadline::Monotonic(at) => at <= now_ns(),
        Deadline::Realtime(at) => at <= realtime_ns(),
    };
    if passed {
        return false;
    }
    let waiter = Waiter::new(t);
    let never = || None::<()>;
    wait_deadline(t, &waiter, Interruptible::Yes, Some(deadline), never)
        == Err(WaitError::Interrupted)
}

/// A relative sleep that ends at `at` of `CLOCK_MONOTONIC`, and goes on after a signal without a handler.
fn sleep_until(t: &Thread, at: u64, remaining: UserAddr) -> SysResult {
    if !sleep_is_interrupted(t, Deadline::Monotonic(at)) {
        return Ok(0);
    }
    let left = at.saturating_sub(now_ns());
    if left == 0 {
        return Ok(0);
    }
    remaining.write_opt(&timespec_of(left))?;
    Err(restart_with(t, move |t| sleep_until(t, at, remaining)))
}

/// `nanosleep(2)`.
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EINTR`.
pub fn nanosleep(t: &Thread, rqtp: UserAddr, rmtp: UserAddr) -> SysResult {
    clock_nanosleep(t, CLOCK_MONOTONIC.cast_signed(), 0, rqtp, rmtp)
}

/// `clock_nanosleep(2)`.
///
/// # Errors
/// As the man page; `EOPNOTSUPP` for clocks nobody can sleep on.
pub fn clock_nanosleep(
    t: &Thread,
    clockid: i32,
    flags: u64,
    rqtp: UserAddr,
    rmtp: UserAddr,
) -> SysResult {
    let clock = ClockId::decode(clockid)?;
    match clock {
        ClockId::Realtime | ClockId::Monotonic | ClockId::ProcessCpu(_) => {}
        // Threads cannot sleep on their own CPU time; through a made-up id that is EINVAL.
        ClockId::ThreadCpu(_) if clockid >= 0 => return Err(Errno::EOPNOTSUPP),
        ClockId::ThreadCpu(tid) if tid == 0 || tid == t.tid() => return Err(Errno::EINVAL),
        ClockId::ThreadCpu(_) => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    let request = timespec_ns(&rqtp.read::<__kernel_timespec>()?)?;
    let is_absolute = flags & u64::from(TIMER_ABSTIME) != 0;
    if matches!(clock, ClockId::ProcessCpu(_) | ClockId::ThreadCpu(_)) {
        let target = if is_absolute {
            request
        } else {
            clock.read(t)?.saturating_add(request)
        };
        return sleep_for_cpu_time(t, clock, target, is_absolute, rmtp);
    }
    if is_absolute {
        let deadline = if clock.is_realtime() {
            Deadline::Realtime(request)
        } else {
            Deadline::Monotonic(request)
        };
        if sleep_is_interrupted(t, deadline) {
            return Err(Errno::ERESTARTNOHAND);
        }
        return Ok(0);
    }
    // A relative sleep does not care how the wall clock is set meanwhile.
    sleep_until(t, now_ns().saturating_add(request).min(TIME_MAX), rmtp)
}

/// Sleeps until `clock`, a CPU-time clock, shows `target`.
fn sleep_for_cpu_time(
    t: &Thread,
    clock: ClockId,
    target: u64,
    is_absolute: bool,
    remaining: UserAddr,
) -> SysResult {
    let cpus = t.kernel.sched.cpu_count() as u64;
    loop {
        let left = target.saturating_sub(clock.read(t)?);
        if left == 0 {
            return Ok(0);
        }
        // The process gains at most one second a second on each vCPU.
        let nap = (left / cpus).max(CPU_POLL_NS);
        if !sleep_is_interrupted(t, Deadline::after(nap)) {
            continue;
        }
        if is_absolute {
            return Err(Errno::ERESTARTNOHAND);
        }
        remaining.write_opt(&timespec_of(left))?;
        return Err(restart_with(t, move |t| {
            sleep_for_cpu_time(t, clock, target, is_absolute, remaining)
        }));
    }
}
