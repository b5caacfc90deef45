//! Calls that wait for signals: `pause(2)`, `sigsuspend(2)`, `sigtimedwait(2)`.

use husk_hal::clock;

use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

use super::info::Info;
use super::mask::set_temporary_mask;
use super::send::retarget;
use super::set::SigSet;
use super::state::recalculate;

const SECOND_NS: u64 = 1_000_000_000;

/// Sleeps until a signal is pending or `deadline` (ns of `CLOCK_MONOTONIC`) has passed; whether a signal is.
fn sleep(t: &Thread, deadline: Option<u64>) -> bool {
    loop {
        if t.signals.is_pending() {
            return true;
        }
        if deadline.is_some_and(|deadline| clock::now_ns() >= deadline) {
            return false;
        }
        crate::sched::park(t, deadline, || t.signals.is_pending());
    }
}

/// `pause(2)`.
///
/// # Errors
/// Always: `ERESTARTNOHAND`, which is `EINTR` once a handler has run.
pub fn pause(t: &Thread) -> SysResult {
    sleep(t, None);
    Err(Errno::ERESTARTNOHAND)
}

/// `rt_sigsuspend(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`; else as [`pause`].
pub fn rt_sigsuspend(t: &Thread, mask: UserAddr, sigsetsize: usize) -> SysResult {
    if sigsetsize != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    set_temporary_mask(t, SigSet(mask.read()?));
    sleep(t, None);
    Err(Errno::ERESTARTNOHAND)
}

/// A relative `struct timespec` in nanoseconds.
fn timeout_ns([seconds, nanoseconds]: [i64; 2]) -> Result<u64> {
    let valid = (0..SECOND_NS.cast_signed()).contains(&nanoseconds);
    match u64::try_from(seconds) {
        Ok(seconds) if valid => Ok(seconds
            .saturating_mul(SECOND_NS)
            .saturating_add(nanoseconds.cast_unsigned())),
        _ => Err(Errno::EINVAL),
    }
}

/// `rt_sigtimedwait(2)`: takes a signal without delivering it.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAGAIN` after the timeout, `EINTR` if another signal came.
pub fn rt_sigtimedwait(
    t: &Thread,
    set: UserAddr,
    info: UserAddr,
    timeout: UserAddr,
    sigsetsize: usize,
) -> SysResult {
    if sigsetsize != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let wanted = SigSet(set.read()?).without(SigSet::UNBLOCKABLE);
    let timeout = timeout
        .read_opt::<[i64; 2]>()?
        .map(timeout_ns)
        .transpose()?;
    let taken = take_or_wait(t, wanted, timeout)?.taken_by(&t.process);
    info.write_opt(&taken.to_bytes())?;
    Ok(taken.signo.cast_unsigned() as usize)
}

/// Takes a pending signal of `wanted` without delivering it, blocked or not (`signalfd(2)`).
#[must_use]
pub fn take_pending(t: &Thread, wanted: SigSet) -> Option<Info> {
    let process = &t.process.signals;
    let taken = {
        let _group = process.group.lock();
        let taken = t
            .signals
            .pending
            .take_first(!wanted)
            .or_else(|| process.pending.take_first(!wanted));
        recalculate(t);
        taken
    };
    taken.map(|info| info.taken_by(&t.process))
}

fn take_or_wait(t: &Thread, wanted: SigSet, timeout_ns: Option<u64>) -> Result<Info> {
    let signals = &t.signals;
    let process = &t.process.signals;
    // Under the signal lock.
    let take = || {
        let taken = signals
            .pending
            .take_first(!wanted)
            .or_else(|| process.pending.take_first(!wanted));
        recalculate(t);
        taken
    };

    let mask = signals.mask();
    {
        let _group = process.group.lock();
        if let Some(taken) = take() {
            return Ok(taken);
        }
        if timeout_ns == Some(0) {
            return Err(Errno::EAGAIN);
        }
        // Unblocked while it sleeps, so that they wake it; `awaited` keeps them from ending the process.
        signals.set_awaited(mask & wanted);
        signals.store_mask(mask.without(wanted));
        recalculate(t);
    }
    let deadline = timeout_ns.map(|timeout| clock::now_ns().saturating_add(timeout));
    let interrupted = sleep(t, deadline);
    let taken = {
        let _group = process.group.lock();
        signals.store_mask(mask);
        signals.set_awaited(SigSet::EMPTY);
        take()
    };
    // What came for the process while it was unblocked here, and is still there, is for others.
    let left = mask & wanted & process.pending();
    if !left.is_empty() {
        retarget(t, left);
    }
    if signals.is_pending() {
        husk_hal::cpu::raise(husk_hal::cpu::WORK_THREAD);
    }
    match taken {
        Some(taken) => Ok(taken),
        None if interrupted => Err(Errno::EINTR),
        None => Err(Errno::EAGAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        assert_eq!(timeout_ns([1, 5]), Ok(1_000_000_005));
        assert_eq!(timeout_ns([i64::MAX, 0]), Ok(u64::MAX));
        for bad in [[-1, 0], [0, -1], [0, 1_000_000_000]] {
            assert_eq!(timeout_ns(bad), Err(Errno::EINVAL));
        }
    }
}
