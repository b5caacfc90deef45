//! The clocks (`clock_getres(2)`).

use alloc::sync::Arc;

use husk_abi::linux::general::{
    __kernel_old_timeval, __kernel_timespec, CAP_SYS_TIME, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME, CLOCK_REALTIME_ALARM, CLOCK_REALTIME_COARSE, CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID, timezone,
};
use husk_hal::clock::{now_ns, wall_offset_ns};

use super::units::{SECOND, TIME_MAX, timespec_ns, timespec_of, timeval_ns, timeval_of};
use crate::user::UserAddr;
use crate::{Errno, Process, Result, SysResult, Thread};

/// Nanoseconds since the epoch; 0 if the host's clock is before it.
#[must_use]
pub fn realtime_ns() -> u64 {
    now_ns().saturating_add_signed(wall_offset_ns())
}

/// The time of `CLOCK_MONOTONIC` at which `CLOCK_REALTIME` is `ns`, as far as is known now.
pub(super) fn monotonic_of_realtime(ns: u64) -> u64 {
    ns.saturating_add_signed(wall_offset_ns().saturating_neg())
}

/// What a timer's schedule is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeline {
    /// Time of `CLOCK_MONOTONIC`; relative settings are, whatever the clock.
    #[default]
    Monotonic,
    /// Time of `CLOCK_REALTIME`.
    Wall,
}

impl Timeline {
    /// Nanoseconds on it.
    #[must_use]
    pub fn now(self) -> u64 {
        match self {
            Self::Monotonic => now_ns(),
            Self::Wall => realtime_ns(),
        }
    }

    /// The time of `CLOCK_MONOTONIC` at which it shows `at`, as far as is known now.
    #[must_use]
    pub fn monotonic(self, at: u64) -> u64 {
        match self {
            Self::Monotonic => at,
            Self::Wall => monotonic_of_realtime(at),
        }
    }
}

/// What a clock id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockId {
    /// `CLOCK_REALTIME`, and `CLOCK_TAI`, whose offset nobody has set.
    Realtime,
    /// `CLOCK_REALTIME_COARSE`: can be read, not slept on.
    RealtimeCoarse,
    /// `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`: the guest does not suspend.
    Monotonic,
    /// `CLOCK_MONOTONIC_RAW`, `CLOCK_MONOTONIC_COARSE`: can be read, not slept on.
    MonotonicRaw,
    /// `CLOCK_REALTIME_ALARM`, `CLOCK_BOOTTIME_ALARM`: can be read; there is no clock to wake the machine by.
    Alarm {
        /// Whether it follows the wall clock.
        realtime: bool,
    },
    /// CPU time of a process; 0 is the caller's.
    ProcessCpu(u32),
    /// CPU time of a thread; 0 is the caller.
    ThreadCpu(u32),
}

impl ClockId {
    /// Decodes a clock id.
    ///
    /// # Errors
    /// `EINVAL` for an unknown clock, clocks of devices included.
    pub fn decode(id: i32) -> Result<Self> {
        if id < 0 {
            // Bits 3 and up are the complement of a pid; bit 2 says thread; bits 0 and 1 what is counted:
            // both of user and system time, user time or all time on a CPU. 3 is a device's clock.
            let pid = (!(id >> 3)).cast_unsigned();
            return match (id & 3, id & 4 != 0) {
                (3, _) => Err(Errno::EINVAL),
                (_, true) => Ok(Self::ThreadCpu(pid)),
                (_, false) => Ok(Self::ProcessCpu(pid)),
            };
        }
        match id.cast_unsigned() {
            CLOCK_REALTIME | CLOCK_TAI => Ok(Self::Realtime),
            CLOCK_REALTIME_COARSE => Ok(Self::RealtimeCoarse),
            CLOCK_MONOTONIC | CLOCK_BOOTTIME => Ok(Self::Monotonic),
            CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE => Ok(Self::MonotonicRaw),
            CLOCK_REALTIME_ALARM => Ok(Self::Alarm { realtime: true }),
            CLOCK_BOOTTIME_ALARM => Ok(Self::Alarm { realtime: false }),
            CLOCK_PROCESS_CPUTIME_ID => Ok(Self::ProcessCpu(0)),
            CLOCK_THREAD_CPUTIME_ID => Ok(Self::ThreadCpu(0)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether it follows the wall clock.
    #[must_use]
    pub fn is_realtime(self) -> bool {
        matches!(
            self,
            Self::Realtime | Self::RealtimeCoarse | Self::Alarm { realtime: true }
        )
    }

    /// Nanoseconds on the clock.
    ///
    /// # Errors
    /// `EINVAL` for CPU time of a process or thread that is not there or not the caller's to see.
    pub fn read(self, t: &Thread) -> Result<u64> {
        Ok(match self {
            Self::Realtime | Self::RealtimeCoarse | Self::Alarm { realtime: true } => realtime_ns(),
            Self::Monotonic | Self::MonotonicRaw | Self::Alarm { realtime: false } => now_ns(),
            Self::ProcessCpu(_) => self.process(t)?.cpu_ns(),
            Self::ThreadCpu(0) => t.sched.cpu_ns(),
            Self::ThreadCpu(_) => self.thread(t)?.sched.cpu_ns(),
        })
    }

    /// The process whose CPU time it is.
    ///
    /// # Errors
    /// `EINVAL` if there is none.
    pub(super) fn process(self, t: &Thread) -> Result<Arc<Process>> {
        match self {
            Self::ProcessCpu(0) => Ok(t.process.clone()),
            Self::ProcessCpu(pid) => t.kernel.tasks.process(pid).ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The thread of the caller's process whose CPU time it is.
    ///
    /// # Errors
    /// `EINVAL` if there is none.
    pub(super) fn thread(self, t: &Thread) -> Result<Arc<Thread>> {
        match self {
            Self::ThreadCpu(0) => Ok(t.arc()),
            Self::ThreadCpu(tid) => t
                .kernel
                .tasks
                .thread(tid)
                .filter(|other| Arc::ptr_eq(&other.process, &t.process))
                .ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// `clock_gettime(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn clock_gettime(t: &Thread, clockid: i32, tp: UserAddr) -> SysResult {
    let now = ClockId::decode(clockid)?.read(t)?;
    tp.write(&timespec_of(now))?;
    Ok(0)
}

/// `clock_getres(2)`: every clock counts nanoseconds.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn clock_getres(t: &Thread, clockid: i32, res: UserAddr) -> SysResult {
    match ClockId::decode(clockid)? {
        ClockId::Alarm { .. } => return Err(Errno::EINVAL),
        clock @ (ClockId::ProcessCpu(_) | ClockId::ThreadCpu(_)) => drop(clock.read(t)?),
        _ => {}
    }
    res.write_opt(&timespec_of(1))?;
    Ok(0)
}

/// Setting the time is the host's business: refused once the arguments are in order.
fn refuse_to_set(t: &Thread, ns: u64) -> SysResult {
    // Linux keeps 30 years between any settable time and the end of time.
    if ns > TIME_MAX - 30 * 365 * 24 * 3600 * SECOND {
        return Err(Errno::EINVAL);
    }
    if t.is_capable(CAP_SYS_TIME) {
        crate::log!(
            Info,
            "time",
            "pid {} may not set the host's clock",
            t.process.pid
        );
    }
    Err(Errno::EPERM)
}

/// `clock_settime(2)`.
///
/// # Errors
/// `EINVAL` for clocks that cannot be set, `EFAULT`, `EPERM`.
pub fn clock_settime(t: &Thread, clockid: i32, tp: UserAddr) -> SysResult {
    match ClockId::decode(clockid)? {
        ClockId::Realtime if clockid.cast_unsigned() == CLOCK_REALTIME => {
            refuse_to_set(t, timespec_ns(&tp.read::<__kernel_timespec>()?)?)
        }
        clock @ (ClockId::ProcessCpu(_) | ClockId::ThreadCpu(_)) => {
            tp.read::<__kernel_timespec>()?;
            clock.read(t)?;
            Err(Errno::EPERM)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `gettimeofday(2)`.
///
/// # Errors
/// `EFAULT`.
pub fn gettimeofday(_t: &Thread, tv: UserAddr, tz: UserAddr) -> SysResult {
    tv.write_opt(&timeval_of(realtime_ns()))?;
    tz.write_opt(&timezone {
        tz_minuteswest: 0,
        tz_dsttime: 0,
    })?;
    Ok(0)
}

/// `settimeofday(2)`.
///
/// # Errors
/// `EFAULT`, `EINVAL`, `EPERM`.
pub fn settimeofday(t: &Thread, tv: UserAddr, tz: UserAddr) -> SysResult {
    let time = match tv.read_opt::<__kernel_old_timeval>()? {
        Some(time) => timeval_ns(&time)?,
        None => 0,
    };
    tz.read_opt::<timezone>()?;
    refuse_to_set(t, time)
}

/// `time(2)`.
///
/// # Errors
/// `EFAULT`.
pub fn time(_t: &Thread, tloc: UserAddr) -> SysResult {
    let seconds = realtime_ns() / SECOND;
    tloc.write_opt(&seconds)?;
    Ok(seconds as usize)
}

#[cfg(test)]
mod tests {
    use super::{ClockId, monotonic_of_realtime, realtime_ns};
    use crate::Errno;

    #[test]
    fn ids() {
        assert_eq!(ClockId::decode(0), Ok(ClockId::Realtime));
        assert_eq!(ClockId::decode(7), Ok(ClockId::Monotonic));
        assert_eq!(ClockId::decode(2), Ok(ClockId::ProcessCpu(0)));
        assert_eq!(ClockId::decode(10), Err(Errno::EINVAL));
        assert_eq!(ClockId::decode(12), Err(Errno::EINVAL));
        // As glibc's clock_getcpuclockid and pthread_getcpuclockid make them.
        let process = |pid: i32| (!pid << 3) | 2;
        let thread = |tid: i32| (!tid << 3) | 6;
        assert_eq!(
            ClockId::decode(process(1234)),
            Ok(ClockId::ProcessCpu(1234))
        );
        assert_eq!(ClockId::decode(thread(77)), Ok(ClockId::ThreadCpu(77)));
        assert_eq!(ClockId::decode(process(0)), Ok(ClockId::ProcessCpu(0)));
        assert_eq!(ClockId::decode((!5 << 3) | 3), Err(Errno::EINVAL));
    }

    #[test]
    fn wall_and_monotonic_agree() {
        let wall = realtime_ns();
        assert_eq!(monotonic_of_realtime(wall), husk_hal::clock::now_ns());
        assert_eq!(monotonic_of_realtime(5), 0);
    }
}
