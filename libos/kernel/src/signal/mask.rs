//! What a thread blocks: `rt_sigprocmask(2)`, and masks for the time of one call.

use husk_abi::linux::general;
use husk_hal::cpu;

use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

use super::set::SigSet;
use super::state::{PENDING, RESTORE_MASK, recalculate};

/// Changes what the calling thread blocks.
pub(super) fn set_mask(t: &Thread, mask: SigSet) {
    let signals = &t.signals;
    let old = signals.mask();
    if mask == old {
        return;
    }
    signals.store_mask(mask);
    let process = &t.process.signals;
    if (signals.pending() | process.pending()).is_empty() && signals.flags() & PENDING == 0 {
        return;
    }
    let blocked_now = mask.without(old) & process.pending();
    if !blocked_now.is_empty() {
        super::send::retarget(t, blocked_now);
    }
    let group = process.group.lock();
    if recalculate(t) {
        cpu::raise(cpu::WORK_THREAD);
    }
    drop(group);
}

/// Blocks `mask` instead of the thread's own mask until the system call is over: for `sigsuspend`, `ppoll`,
/// `pselect`, `epoll_pwait`. If a handler runs, the old mask comes back when it returns; if not, on the way out
/// or by [`restore_mask_unless`].
pub fn set_temporary_mask(t: &Thread, mask: SigSet) {
    t.signals.save_mask(t.signals.mask());
    t.signals.raise(RESTORE_MASK);
    // The way out has to restore the mask even if nothing is delivered.
    cpu::raise(cpu::WORK_THREAD);
    set_mask(t, mask.without(SigSet::UNBLOCKABLE));
}

/// Brings the mask from before [`set_temporary_mask`] back, unless the call was `interrupted` by a signal, which
/// is then delivered under the temporary mask.
pub fn restore_mask_unless(t: &Thread, interrupted: bool) {
    if !interrupted && t.signals.take(RESTORE_MASK) {
        set_mask(t, t.signals.saved_mask());
    }
}

/// As [`set_temporary_mask`] with the mask a program passed; NULL leaves the mask alone.
///
/// # Errors
/// `EINVAL` for a bad size, `EFAULT`.
pub fn set_user_mask(t: &Thread, mask: UserAddr, size: usize) -> Result<()> {
    if mask.is_null() {
        return Ok(());
    }
    if size != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    set_temporary_mask(t, SigSet(mask.read()?));
    Ok(())
}

/// The mask that `rt_sigprocmask(how, set)` makes of `old`.
fn changed(how: i32, old: SigSet, set: SigSet) -> Result<SigSet> {
    let set = set.without(SigSet::UNBLOCKABLE);
    match how.cast_unsigned() {
        general::SIG_BLOCK => Ok(old | set),
        general::SIG_UNBLOCK => Ok(old.without(set)),
        general::SIG_SETMASK => Ok(set),
        _ => Err(Errno::EINVAL),
    }
}

/// `rt_sigprocmask(2)`.
///
/// # Errors
/// `EINVAL` for a bad set size or `how`, `EFAULT`.
pub fn rt_sigprocmask(
    t: &Thread,
    how: i32,
    set: UserAddr,
    oldset: UserAddr,
    sigsetsize: usize,
) -> SysResult {
    if sigsetsize != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let old = t.signals.mask();
    if let Some(set) = set.read_opt()? {
        set_mask(t, changed(how, old, SigSet(set))?);
    }
    oldset.write_opt(&old.0)?;
    Ok(0)
}

/// `rt_sigpending(2)`: what is pending and blocked.
///
/// # Errors
/// `EINVAL` for too large a set, `EFAULT`.
pub fn rt_sigpending(t: &Thread, set: UserAddr, sigsetsize: usize) -> SysResult {
    if sigsetsize > size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let pending = (t.signals.pending() | t.process.signals.pending()) & t.signals.mask();
    set.write_bytes(&pending.0.to_le_bytes()[..sigsetsize])?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::super::set::*;
    use super::*;

    #[test]
    fn masks() {
        let old = SigSet::of(SIGHUP).with(SIGINT);
        let set = SigSet::of(SIGINT).with(SIGTERM).with(SIGKILL).with(SIGSTOP);
        assert_eq!(
            changed(0, old, set),
            Ok(SigSet::of(SIGHUP).with(SIGINT).with(SIGTERM))
        );
        assert_eq!(changed(1, old, set), Ok(SigSet::of(SIGHUP)));
        assert_eq!(changed(2, old, set), Ok(SigSet::of(SIGINT).with(SIGTERM)));
        assert_eq!(changed(3, old, set), Err(Errno::EINVAL));
        assert_eq!(changed(-1, old, set), Err(Errno::EINVAL));
    }
}
