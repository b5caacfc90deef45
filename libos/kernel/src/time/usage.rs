//! Resource usage (`getrusage(2)`, `times(2)`).

use husk_abi::linux::general::{RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD, rusage};
use husk_hal::clock::now_ns;

use super::timeval_of;
use crate::sched::CpuTimes;
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

/// Nanoseconds of a `clock_t` (`USER_HZ` is 100).
const CLOCK_TICK_NS: u64 = 10_000_000;

/// A usage record. System time is what `ThreadSched::in_libos` counts: exec, fork, page faults, waits for the host's files. A
/// translated call shares the program's privilege level and is not told apart by the clock: it counts as user time.
#[must_use]
pub fn rusage_of(times: CpuTimes, max_rss_kib: u64) -> rusage {
    rusage {
        ru_utime: timeval_of(times.user_ns()),
        ru_stime: timeval_of(times.system_ns),
        ru_maxrss: max_rss_kib.cast_signed(),
        ru_ixrss: 0,
        ru_idrss: 0,
        ru_isrss: 0,
        ru_minflt: 0,
        ru_majflt: 0,
        ru_nswap: 0,
        ru_inblock: 0,
        ru_oublock: 0,
        ru_msgsnd: 0,
        ru_msgrcv: 0,
        ru_nsignals: 0,
        ru_nvcsw: 0,
        ru_nivcsw: 0,
    }
}

/// `getrusage(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getrusage(t: &Thread, who: i32, usage: UserAddr) -> SysResult {
    const SELF: i32 = RUSAGE_SELF.cast_signed();
    const THREAD: i32 = RUSAGE_THREAD.cast_signed();
    let times = match who {
        SELF => t.process.times(),
        RUSAGE_CHILDREN => t.process.children_times(),
        THREAD => t.sched.times(),
        _ => return Err(Errno::EINVAL),
    };
    let max_rss_kib = match who {
        RUSAGE_CHILDREN => 0,
        _ => t.mm_opt().map_or(0, |mm| mm.totals().resident_peak / 1024),
    };
    usage.write(&rusage_of(times, max_rss_kib))?;
    Ok(0)
}

/// `times(2)`: `struct tms` is user and system time of the process and of its children, in ticks.
///
/// # Errors
/// `EFAULT`.
pub fn times(t: &Thread, buf: UserAddr) -> SysResult {
    let ticks = |ns: u64| ns / CLOCK_TICK_NS;
    let (own, children) = (t.process.times(), t.process.children_times());
    let tms = [
        ticks(own.user_ns()),
        ticks(own.system_ns),
        ticks(children.user_ns()),
        ticks(children.system_ns),
    ];
    buf.write_opt(&tms)?;
    Ok(ticks(now_ns()) as usize)
}
