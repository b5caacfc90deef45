//! Timeouts of the polling calls: relative times in, deadlines of `CLOCK_MONOTONIC` inside, the rest back out.

use husk_abi::linux::general::{__kernel_timespec, timeval};
use husk_hal::clock;

use crate::user::UserAddr;
use crate::{Errno, Result};

const NS_PER_SEC: u64 = 1_000_000_000;
const NS_PER_US: i64 = 1000;

/// When a call gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Not at all.
    Never,
    /// Without waiting.
    Now,
    /// At this time, ns of `CLOCK_MONOTONIC`.
    At(u64),
}

impl Deadline {
    /// `ns` nanoseconds from now.
    #[must_use]
    pub fn after_ns(ns: u64) -> Self {
        if ns == 0 {
            Deadline::Now
        } else {
            Deadline::At(clock::now_ns().saturating_add(ns))
        }
    }

    /// `ms` milliseconds from now; never if negative.
    #[must_use]
    pub fn after_ms(ms: i32) -> Self {
        u64::try_from(ms).map_or(Deadline::Never, |ms| Self::after_ns(ms * 1_000_000))
    }

    /// A relative `timespec` of the program; NULL is never.
    ///
    /// # Errors
    /// `EFAULT`; `EINVAL` if it is negative or not normalized.
    pub fn from_timespec(address: UserAddr) -> Result<Self> {
        let Some(time) = address.read_opt::<__kernel_timespec>()? else {
            return Ok(Deadline::Never);
        };
        Self::relative(time.tv_sec, time.tv_nsec)
    }

    /// A relative `timeval` of the program; NULL is never. More than a second's worth of microseconds counts.
    ///
    /// # Errors
    /// `EFAULT`; `EINVAL` if it is negative.
    pub fn from_timeval(address: UserAddr) -> Result<Self> {
        let Some(time) = address.read_opt::<timeval>()? else {
            return Ok(Deadline::Never);
        };
        let seconds = time.tv_sec.saturating_add(time.tv_usec / 1_000_000);
        Self::relative(seconds, time.tv_usec % 1_000_000 * NS_PER_US)
    }

    fn relative(seconds: i64, nanoseconds: i64) -> Result<Self> {
        let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
        let nanoseconds = u64::try_from(nanoseconds).map_err(|_| Errno::EINVAL)?;
        if nanoseconds >= NS_PER_SEC {
            return Err(Errno::EINVAL);
        }
        Ok(Self::after_ns(
            seconds
                .saturating_mul(NS_PER_SEC)
                .saturating_add(nanoseconds),
        ))
    }

    /// The deadline as [`crate::sync::park_until`] takes it. [`Deadline::Now`] must not wait at all.
    #[must_use]
    pub fn wait_until(self) -> Option<u64> {
        match self {
            Deadline::Never => None,
            Deadline::Now => Some(0),
            Deadline::At(at) => Some(at),
        }
    }

    fn left_ns(self) -> Option<u64> {
        match self {
            Deadline::At(at) => Some(at.saturating_sub(clock::now_ns())),
            Deadline::Never | Deadline::Now => None,
        }
    }

    /// Writes what is left to the program's `timespec`, as Linux does after select(2) and ppoll(2).
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_timespec(self, address: UserAddr) -> Result<()> {
        let Some(left) = self.left_ns() else {
            return Ok(());
        };
        address.write(&__kernel_timespec {
            tv_sec: (left / NS_PER_SEC) as i64,
            tv_nsec: (left % NS_PER_SEC) as i64,
        })
    }

    /// [`Deadline::write_timespec`] for a `timeval`.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_timeval(self, address: UserAddr) -> Result<()> {
        let Some(left) = self.left_ns() else {
            return Ok(());
        };
        address.write(&timeval {
            tv_sec: (left / NS_PER_SEC) as i64,
            tv_usec: (left % NS_PER_SEC) as i64 / NS_PER_US,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Deadline;
    use crate::Errno;
    use crate::user::UserAddr;
    use husk_abi::linux::general::{__kernel_timespec, timeval};

    fn address<T>(value: &T) -> UserAddr {
        UserAddr(core::ptr::from_ref(value) as u64)
    }

    #[test]
    fn reads_what_programs_pass() {
        let spec = |tv_sec, tv_nsec| {
            let time = __kernel_timespec { tv_sec, tv_nsec };
            Deadline::from_timespec(address(&time))
        };
        assert_eq!(spec(0, 0), Ok(Deadline::Now));
        assert!(matches!(spec(1, 5), Ok(Deadline::At(_))));
        assert_eq!(spec(i64::MAX, 0), Ok(Deadline::At(u64::MAX)));
        assert_eq!(spec(-1, 0), Err(Errno::EINVAL));
        assert_eq!(spec(0, 1_000_000_000), Err(Errno::EINVAL));
        assert_eq!(Deadline::from_timespec(UserAddr(0)), Ok(Deadline::Never));
        assert_eq!(Deadline::from_timespec(UserAddr(8)), Err(Errno::EFAULT));
        let val = |tv_sec, tv_usec| {
            let time = timeval { tv_sec, tv_usec };
            Deadline::from_timeval(address(&time))
        };
        assert_eq!(val(0, -1), Err(Errno::EINVAL));
        assert!(matches!(val(0, 5_000_000), Ok(Deadline::At(_))));
        assert_eq!(Deadline::after_ms(-5), Deadline::Never);
        assert_eq!(Deadline::after_ms(0), Deadline::Now);
    }
}
