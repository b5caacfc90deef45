//! I/O priorities (`ioprio_set(2)`): kept and reported, not acted on, because the host schedules the I/O.

use husk_abi::linux::general::{CAP_SYS_ADMIN, CAP_SYS_NICE};

use super::syscalls::{group, may_change};
use crate::{Errno, Result, SysResult, Thread};

const CLASS_SHIFT: u32 = 13;
const CLASS_NONE: u32 = 0;
const CLASS_RT: u32 = 1;
const CLASS_BE: u32 = 2;
const CLASS_IDLE: u32 = 3;
/// Levels of a class.
const LEVELS: u32 = 8;

/// Checks that `t` may give such a priority.
fn check(t: &Thread, priority: u32) -> Result<()> {
    let level = priority & ((1 << CLASS_SHIFT) - 1);
    match priority >> CLASS_SHIFT {
        CLASS_RT if !t.is_capable(CAP_SYS_ADMIN) && !t.is_capable(CAP_SYS_NICE) => {
            Err(Errno::EPERM)
        }
        CLASS_RT | CLASS_BE if level < LEVELS => Ok(()),
        CLASS_NONE if level == 0 => Ok(()),
        CLASS_IDLE => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// `getpriority(2)`'s word for `IOPRIO_WHO_*`, which counts from 1.
fn plain(which: i32) -> Result<i32> {
    which.checked_sub(1).ok_or(Errno::EINVAL)
}

/// `ioprio_set(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ESRCH`.
pub fn ioprio_set(t: &Thread, which: i32, who: i32, ioprio: i32) -> SysResult {
    let priority = u32::try_from(ioprio).map_err(|_| Errno::EINVAL)?;
    check(t, priority)?;
    for thread in group(t, plain(which)?, who)? {
        if !may_change(t, &thread) {
            return Err(Errno::EPERM);
        }
        thread
            .sched
            .update_params(|params| params.io_priority = priority);
    }
    Ok(0)
}

/// `ioprio_get(2)`: the best of the threads meant.
///
/// # Errors
/// `EINVAL`, `ESRCH`.
pub fn ioprio_get(t: &Thread, which: i32, who: i32) -> SysResult {
    let threads = group(t, plain(which)?, who)?;
    let best = threads
        .iter()
        .map(|thread| thread.sched.params().io_priority)
        .min();
    Ok(best.unwrap_or(0) as usize)
}
