//! Programs send signals: `kill(2)`, `tkill(2)`, `sigqueue(3)`.

use alloc::sync::Arc;

use husk_abi::linux::general;

use crate::process::{Credentials, Life};
use crate::user::UserAddr;
use crate::{Errno, Process, Result, SysResult, Thread};

use super::info::{Info, SI_USER};
use super::send::{send_process, send_thread};
use super::set::{SIGCONT, is_valid};

/// Whether a sender with credentials `from` may signal a thread with credentials `to`.
fn is_permitted(from: &Credentials, to: &Credentials) -> bool {
    from.has(general::CAP_KILL)
        || [from.uid, from.euid]
            .iter()
            .any(|uid| *uid == to.uid || *uid == to.suid)
}

/// Whether `t` may send `signo` to the process of `target`.
fn check(t: &Thread, target: &Thread, signo: i32) -> Result<()> {
    if signo != 0 && !is_valid(signo) {
        return Err(Errno::EINVAL);
    }
    let same_process = Arc::ptr_eq(&t.process, &target.process);
    let may_continue = signo == SIGCONT && t.process.sid() == target.process.sid();
    if same_process || may_continue || is_permitted(&t.credentials(), &target.credentials()) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Sends `info`, or only checks permission for signal 0.
fn signal_process(t: &Thread, process: &Arc<Process>, signo: i32, info: &Info) -> Result<()> {
    let representative = process
        .kernel
        .tasks
        .thread(process.pid)
        .or_else(|| process.threads().into_iter().next());
    match representative {
        Some(target) => check(t, &target, signo)?,
        // A zombie: nothing to protect.
        None if signo != 0 && !is_valid(signo) => return Err(Errno::EINVAL),
        None => return Ok(()),
    }
    if signo == 0 {
        return Ok(());
    }
    send_process(process, info)
}

/// The process with a thread of id `pid`, as `kill(2)` finds it.
fn find_process(t: &Thread, pid: i32) -> Result<Arc<Process>> {
    let id = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let tasks = &t.kernel.tasks;
    tasks
        .process(id)
        .or_else(|| tasks.thread(id).map(|thread| thread.process.clone()))
        .ok_or(Errno::ESRCH)
}

/// Signals all processes of group `pgid`: succeeds if one got it.
fn signal_group(t: &Thread, pgid: u32, signo: i32, info: &Info) -> Result<()> {
    let mut result = Err(Errno::ESRCH);
    for process in t.kernel.tasks.processes() {
        if process.pgid() == pgid {
            let sent = signal_process(t, &process, signo, info);
            result = if result.is_ok() { result } else { sent };
        }
    }
    result
}

/// Signals all processes but init and the caller's own.
fn signal_all(t: &Thread, signo: i32, info: &Info) -> Result<()> {
    let mut result = Err(Errno::ESRCH);
    for process in t.kernel.tasks.processes() {
        if process.pid > 1 && !Arc::ptr_eq(&process, &t.process) {
            match signal_process(t, &process, signo, info) {
                // Linux: that one is not permitted is no failure of the whole.
                Err(Errno::EPERM) if result != Err(Errno::ESRCH) => {}
                Err(Errno::EPERM) => result = Ok(()),
                sent => result = sent,
            }
        }
    }
    result
}

/// `kill(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ESRCH`.
pub fn kill(t: &Thread, pid: i32, sig: i32) -> SysResult {
    let info = Info::kill(sig, t.process.pid, t.credentials().uid);
    match pid {
        i32::MIN => Err(Errno::ESRCH),
        -1 => signal_all(t, sig, &info),
        0 => signal_group(t, t.process.pgid(), sig, &info),
        1.. => signal_process(t, &find_process(t, pid)?, sig, &info),
        _ => signal_group(t, pid.unsigned_abs(), sig, &info),
    }?;
    Ok(0)
}

/// Signals one thread; of process `tgid`, if given.
fn signal_thread(t: &Thread, tgid: Option<i32>, tid: i32, info: &Info) -> SysResult {
    let target = u32::try_from(tid)
        .ok()
        .and_then(|tid| t.kernel.tasks.thread(tid))
        .filter(|target| tgid.is_none_or(|tgid| tgid.cast_unsigned() == target.process.pid))
        .ok_or(Errno::ESRCH)?;
    check(t, &target, info.signo)?;
    if info.signo != 0 {
        send_thread(&target, info)?;
    }
    Ok(0)
}

/// `tkill(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ESRCH`, `EAGAIN`.
pub fn tkill(t: &Thread, tid: i32, sig: i32) -> SysResult {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = Info::tkill(sig, t.process.pid, t.credentials().uid);
    signal_thread(t, None, tid, &info)
}

/// `tgkill(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`, `ESRCH`, `EAGAIN`.
pub fn tgkill(t: &Thread, tgid: i32, tid: i32, sig: i32) -> SysResult {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = Info::tkill(sig, t.process.pid, t.credentials().uid);
    signal_thread(t, Some(tgid), tid, &info)
}

/// Nobody pretends to be the kernel or `kill(2)`, except towards himself.
fn check_code(t: &Thread, info: &Info, to: i32) -> Result<()> {
    let reserved = info.code >= SI_USER || info.code == general::SI_TKILL;
    if reserved && t.tid().cast_signed() != to {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Sends `sig` to `process`, or to its group, with the `siginfo_t` at `info` if there is one (`pidfd_send_signal(2)`).
///
/// # Errors
/// As [`rt_sigqueueinfo`]; `EINVAL` if `info` is about another signal; `ESRCH` if the process has been waited for.
pub fn send_to(
    t: &Thread,
    process: &Arc<Process>,
    sig: i32,
    info: UserAddr,
    to_group: bool,
) -> Result<()> {
    let info = if info.is_null() {
        Info::kill(sig, t.process.pid, t.credentials().uid)
    } else {
        if info.read::<i32>()? != sig {
            return Err(Errno::EINVAL);
        }
        let info = Info::read(sig, info)?;
        check_code(t, &info, process.pid.cast_signed())?;
        info
    };
    if process.life() == Life::Reaped {
        return Err(Errno::ESRCH);
    }
    if to_group {
        signal_group(t, process.pgid(), sig, &info)
    } else {
        signal_process(t, process, sig, &info)
    }
}

/// `rt_sigqueueinfo(2)`.
///
/// # Errors
/// `EFAULT`, `E2BIG`, `EPERM`, `EINVAL`, `ESRCH`, `EAGAIN`.
pub fn rt_sigqueueinfo(t: &Thread, tgid: i32, sig: i32, info: UserAddr) -> SysResult {
    let info = Info::read(sig, info)?;
    check_code(t, &info, tgid)?;
    signal_process(t, &find_process(t, tgid)?, sig, &info)?;
    Ok(0)
}

/// `rt_tgsigqueueinfo(2)`.
///
/// # Errors
/// As [`rt_sigqueueinfo`].
pub fn rt_tgsigqueueinfo(t: &Thread, tgid: i32, tid: i32, sig: i32, info: UserAddr) -> SysResult {
    let info = Info::read(sig, info)?;
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    check_code(t, &info, tid)?;
    signal_thread(t, Some(tgid), tid, &info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, euid: u32, suid: u32) -> Credentials {
        Credentials {
            uid,
            euid,
            suid,
            fsuid: euid,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Vec::new(),
            cap_bounding: 0,
            cap_effective: 0,
            cap_inheritable: 0,
            cap_permitted: 0,
            cap_ambient: 0,
            no_new_privileges: false,
            securebits: 0,
        }
    }

    #[test]
    fn permissions() {
        assert!(is_permitted(&user(1, 1, 1), &user(1, 1, 1)));
        assert!(!is_permitted(&user(1, 1, 1), &user(2, 2, 2)));
        // A set-user-id program may be signalled by who started it, also after it has dropped privileges.
        assert!(is_permitted(&user(1, 1, 1), &user(1, 0, 0)));
        assert!(is_permitted(&user(1, 1, 1), &user(2, 2, 1)));
        assert!(!is_permitted(&user(1, 1, 1), &user(2, 1, 2)));
        assert!(is_permitted(&user(1, 2, 1), &user(2, 3, 3)));
        let mut capable = user(1, 1, 1);
        capable.cap_effective = 1 << general::CAP_KILL;
        assert!(is_permitted(&capable, &user(0, 0, 0)));
    }
}
