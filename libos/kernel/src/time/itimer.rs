//! Interval timers (`setitimer(2)`, `alarm(2)`).

use alloc::sync::Arc;

use husk_abi::linux::general::{
    __kernel_old_itimerval, __kernel_old_timeval, ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, SIGALRM,
};
use husk_hal::clock::now_ns;

use super::units::{SECOND, TIME_MAX, timeval_ns, timeval_of};
use super::{Schedule, cputime};
use crate::sched::TimerId;
use crate::signal::{self, Info};
use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Errno, Kernel, Process, Result, SysResult, Thread};

/// While `SIGALRM` is pending or ignored the timer is looked at this often at most, in nanoseconds.
const MOOT_PAUSE_NS: u64 = 10_000_000;

/// `ITIMER_REAL` of a process.
#[derive(Debug, Default)]
pub(super) struct IntervalTimers(SpinLock<Real>);

#[derive(Debug, Default)]
struct Real {
    schedule: Schedule,
    timer: Option<TimerId>,
}

impl IntervalTimers {
    pub fn cancel(&self, kernel: &Kernel) {
        let mut real = self.0.lock();
        real.schedule = Schedule::default();
        if let Some(timer) = real.timer.take() {
            kernel.timers.cancel(timer);
        }
    }
}

impl Real {
    /// Has [`expire`] called when the next expiration is due, but not before `earliest`.
    fn arm(&mut self, process: &Arc<Process>, earliest: u64) {
        let timers = &process.kernel.timers;
        if let Some(old) = self.timer.take() {
            timers.cancel(old);
        }
        self.timer = self.schedule.next().map(|at| {
            let process = Arc::downgrade(process);
            timers.call_at(at.max(earliest), move || {
                if let Some(process) = process.upgrade() {
                    expire(&process);
                }
            })
        });
    }
}

/// The timer's callback; may come late or twice, so it looks whether an expiration is due.
fn expire(process: &Arc<Process>) {
    let signo = SIGALRM.cast_signed();
    // While the signal would change nothing, a short interval must not keep the vCPU busy.
    let is_moot =
        process.signals.pending().contains(signo) || process.handlers().ignored().contains(signo);
    let expired = {
        let now = now_ns();
        let mut real = process.timers.intervals.0.lock();
        let expired = real.schedule.expire(now);
        real.arm(process, if is_moot { now + MOOT_PAUSE_NS } else { 0 });
        expired
    };
    if expired > 0 {
        // A signal of the kernel's own is never refused.
        let _ = signal::send_process(process, &Info::kernel(signo));
    }
}

/// Which of the timers `which` names.
enum Which {
    Real,
    Cpu(cputime::Interval),
}

impl Which {
    fn decode(which: i32) -> Result<Self> {
        match which.cast_unsigned() {
            ITIMER_REAL => Ok(Self::Real),
            ITIMER_VIRTUAL => Ok(Self::Cpu(cputime::Interval::Virtual)),
            ITIMER_PROF => Ok(Self::Cpu(cputime::Interval::Prof)),
            _ => Err(Errno::EINVAL),
        }
    }

    fn get(&self, process: &Arc<Process>) -> (Schedule, u64) {
        match self {
            Self::Real => (process.timers.intervals.0.lock().schedule, now_ns()),
            Self::Cpu(interval) => cputime::interval(process, *interval),
        }
    }

    /// Sets the timer to `value` from now; returns what it was, and at what time.
    fn set(&self, process: &Arc<Process>, value: u64, interval_ns: u64) -> (Schedule, u64) {
        let make = |now: u64| {
            if value == 0 {
                Schedule::disarmed(interval_ns)
            } else {
                Schedule::at(now.saturating_add(value).min(TIME_MAX), interval_ns)
            }
        };
        match self {
            Self::Real => {
                let now = now_ns();
                let mut real = process.timers.intervals.0.lock();
                let old = core::mem::replace(&mut real.schedule, make(now));
                real.arm(process, 0);
                (old, now)
            }
            Self::Cpu(interval) => cputime::set_interval(process, *interval, make),
        }
    }
}

fn itimerval_of((schedule, now): (Schedule, u64)) -> __kernel_old_itimerval {
    // An armed timer has at least a microsecond to go, or it would look disarmed.
    let remaining = match schedule.remaining(now) {
        0 => 0,
        ns => ns.max(1000),
    };
    __kernel_old_itimerval {
        it_interval: timeval_of(schedule.interval_ns()),
        it_value: timeval_of(remaining),
    }
}

/// `getitimer(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getitimer(t: &Thread, which: i32, value: UserAddr) -> SysResult {
    let timer = Which::decode(which)?.get(&t.process);
    value.write(&itimerval_of(timer))?;
    Ok(0)
}

/// `setitimer(2)`. As on Linux a NULL new value disarms.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn setitimer(t: &Thread, which: i32, new_value: UserAddr, old_value: UserAddr) -> SysResult {
    const NEVER: __kernel_old_timeval = __kernel_old_timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let new = new_value
        .read_opt::<__kernel_old_itimerval>()?
        .unwrap_or(__kernel_old_itimerval {
            it_interval: NEVER,
            it_value: NEVER,
        });
    let (value, interval) = (timeval_ns(&new.it_value)?, timeval_ns(&new.it_interval)?);
    let old = Which::decode(which)?.set(&t.process, value, interval);
    old_value.write_opt(&itimerval_of(old))?;
    Ok(0)
}

/// `alarm(2)`.
///
/// # Errors
/// None.
pub fn alarm(t: &Thread, seconds: u32) -> SysResult {
    let (old, now) = Which::Real.set(&t.process, u64::from(seconds) * SECOND, 0);
    Ok(alarm_seconds(old.remaining(now)) as usize)
}

/// Seconds left as `alarm(2)` reports them: rounded, but never 0 for an armed timer.
fn alarm_seconds(remaining_ns: u64) -> u64 {
    let (seconds, fraction) = (remaining_ns / SECOND, remaining_ns % SECOND);
    let up = (seconds == 0 && fraction > 0) || fraction >= SECOND / 2;
    seconds + u64::from(up)
}

#[cfg(test)]
mod tests {
    use super::{Schedule, alarm_seconds, itimerval_of};

    #[test]
    fn alarm_rounds() {
        assert_eq!(alarm_seconds(0), 0);
        assert_eq!(alarm_seconds(1), 1);
        assert_eq!(alarm_seconds(1_400_000_000), 1);
        assert_eq!(alarm_seconds(1_500_000_000), 2);
    }

    #[test]
    fn an_armed_timer_never_looks_disarmed() {
        let value = itimerval_of((Schedule::at(100, 2_000_000_000), 100));
        assert_eq!((value.it_value.tv_sec, value.it_value.tv_usec), (0, 1));
        assert_eq!(value.it_interval.tv_sec, 2);
        let value = itimerval_of((Schedule::default(), 100));
        assert_eq!((value.it_value.tv_sec, value.it_value.tv_usec), (0, 0));
    }
}
