//! The clock's discipline (`adjtimex(2)`): the host keeps it, a container may look.

use husk_abi::linux::general::CLOCK_REALTIME;
use husk_abi::linux::timex::{STA_UNSYNC, TIME_ERROR, Timex};

use super::{ClockId, realtime_ns, timeval_of};
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

/// The clock runs at its nominal rate: 1 s a second, in the units of `timex` (10 ms ticks in microseconds).
const TICK_US: i64 = 10_000;
/// Tolerance, maximum and estimated error of a clock nobody disciplines, as Linux reports them at boot.
const TOLERANCE: i64 = 32_768_000;
const MAX_ERROR_US: i64 = 16_000_000;

/// `adjtimex(2)`.
///
/// # Errors
/// `EFAULT`; `EPERM` for any change.
pub fn adjtimex(_t: &Thread, buf: UserAddr) -> SysResult {
    let mut timex: Timex = buf.read()?;
    if timex.modes != 0 {
        return Err(Errno::EPERM);
    }
    timex = Timex {
        status: STA_UNSYNC,
        maxerror: MAX_ERROR_US,
        esterror: MAX_ERROR_US,
        constant: 2,
        precision: 1,
        tolerance: TOLERANCE,
        time: timeval_of(realtime_ns()),
        tick: TICK_US,
        ..Timex::zero()
    };
    buf.write(&timex)?;
    Ok(TIME_ERROR)
}

/// `clock_adjtime(2)`.
///
/// # Errors
/// As [`adjtimex`]; `EINVAL` for an unknown clock, `EOPNOTSUPP` for one that cannot be adjusted.
pub fn clock_adjtime(t: &Thread, clockid: i32, buf: UserAddr) -> SysResult {
    match ClockId::decode(clockid)? {
        ClockId::Realtime if clockid.cast_unsigned() == CLOCK_REALTIME => adjtimex(t, buf),
        _ => {
            buf.read::<Timex>()?;
            Err(Errno::EOPNOTSUPP)
        }
    }
}
