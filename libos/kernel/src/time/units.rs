//! The units of Linux's time interfaces.

use husk_abi::linux::general::{__kernel_itimerspec, __kernel_old_timeval, __kernel_timespec};

use super::Schedule;
use crate::{Errno, Result};

/// Nanoseconds in a second.
pub(super) const SECOND: u64 = 1_000_000_000;
/// The longest time the kernel counts with (`KTIME_MAX`), about 292 years.
pub(super) const TIME_MAX: u64 = i64::MAX as u64;

/// Nanoseconds of a time or duration that must not be negative; cut to 292 years as Linux does.
///
/// # Errors
/// `EINVAL` for a negative time or a fraction that is not one.
pub fn timespec_ns(time: &__kernel_timespec) -> Result<u64> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno::EINVAL)?;
    let fraction = u64::try_from(time.tv_nsec).map_err(|_| Errno::EINVAL)?;
    if fraction >= SECOND {
        return Err(Errno::EINVAL);
    }
    Ok(seconds
        .saturating_mul(SECOND)
        .saturating_add(fraction)
        .min(TIME_MAX))
}

/// A time of `ns` nanoseconds.
#[must_use]
pub fn timespec_of(ns: u64) -> __kernel_timespec {
    __kernel_timespec {
        tv_sec: (ns / SECOND).cast_signed(),
        tv_nsec: (ns % SECOND).cast_signed(),
    }
}

/// Nanoseconds of a time or duration that must not be negative.
///
/// # Errors
/// As [`timespec_ns`].
pub fn timeval_ns(time: &__kernel_old_timeval) -> Result<u64> {
    let fraction = u64::try_from(time.tv_usec).map_err(|_| Errno::EINVAL)?;
    if fraction >= SECOND / 1000 {
        return Err(Errno::EINVAL);
    }
    timespec_ns(&__kernel_timespec {
        tv_sec: time.tv_sec,
        tv_nsec: (fraction * 1000).cast_signed(),
    })
}

/// A time of `ns` nanoseconds, cut to microseconds.
#[must_use]
pub fn timeval_of(ns: u64) -> __kernel_old_timeval {
    __kernel_old_timeval {
        tv_sec: (ns / SECOND).cast_signed(),
        tv_usec: (ns % SECOND / 1000).cast_signed(),
    }
}

/// First expiration and interval of a timer setting, in nanoseconds.
///
/// # Errors
/// As [`timespec_ns`].
pub fn itimerspec_ns(setting: &__kernel_itimerspec) -> Result<(u64, u64)> {
    let interval = timespec_ns(&setting.it_interval)?;
    Ok((timespec_ns(&setting.it_value)?, interval))
}

/// What `timer_gettime(2)` says of a timer at `now` of its clock.
#[must_use]
pub fn itimerspec_of(schedule: &Schedule, now: u64) -> __kernel_itimerspec {
    __kernel_itimerspec {
        it_interval: timespec_of(schedule.interval_ns()),
        it_value: timespec_of(schedule.remaining(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::{TIME_MAX, timespec_ns, timespec_of, timeval_ns, timeval_of};
    use crate::Errno;
    use husk_abi::linux::general::{__kernel_old_timeval, __kernel_timespec};

    fn timespec(tv_sec: i64, tv_nsec: i64) -> crate::Result<u64> {
        timespec_ns(&__kernel_timespec { tv_sec, tv_nsec })
    }

    #[test]
    fn bounds() {
        assert_eq!(timespec(1, 5), Ok(1_000_000_005));
        assert_eq!(timespec(-1, 0), Err(Errno::EINVAL));
        assert_eq!(timespec(0, -1), Err(Errno::EINVAL));
        assert_eq!(timespec(0, 1_000_000_000), Err(Errno::EINVAL));
        assert_eq!(timespec(i64::MAX, 999_999_999), Ok(TIME_MAX));
        let timeval = |tv_sec, tv_usec| timeval_ns(&__kernel_old_timeval { tv_sec, tv_usec });
        assert_eq!(timeval(2, 999_999), Ok(2_999_999_000));
        assert_eq!(timeval(2, 1_000_000), Err(Errno::EINVAL));
        assert_eq!(timeval(0, -1), Err(Errno::EINVAL));
    }

    #[test]
    fn back() {
        let time = timespec_of(3_000_000_007);
        assert_eq!((time.tv_sec, time.tv_nsec), (3, 7));
        let time = timeval_of(3_000_007_999);
        assert_eq!((time.tv_sec, time.tv_usec), (3, 7));
    }
}
