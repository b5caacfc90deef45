//! `sched(7)`: policies, nice values, affinity.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general::{
    __kernel_timespec, CAP_SYS_NICE, PRIO_PGRP, PRIO_PROCESS, PRIO_USER, RLIMIT_NICE, SCHED_BATCH,
    SCHED_DEADLINE, SCHED_EXT, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL, SCHED_RESET_ON_FORK, SCHED_RR,
};

use super::{SLICE_NS, params};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Highest and lowest nice value.
pub(super) const NICE_RANGE: core::ops::RangeInclusive<i32> = -20..=19;

/// The thread `pid` names; 0 is the caller.
pub(super) fn target(t: &Thread, pid: i32) -> Result<Arc<Thread>> {
    match u32::try_from(pid).map_err(|_| Errno::EINVAL)? {
        0 => Ok(t.arc()),
        tid => t.kernel.tasks.thread(tid).ok_or(Errno::ESRCH),
    }
}

/// Whether `t` may change how `other` is scheduled.
pub(super) fn may_change(t: &Thread, other: &Thread) -> bool {
    let (mine, theirs) = (t.credentials(), other.credentials());
    mine.euid == theirs.euid || mine.euid == theirs.uid || mine.has(CAP_SYS_NICE)
}

/// Whether `t` may give `other` the nice value `nice`, even if that is better than it has (`RLIMIT_NICE`).
pub(super) fn may_set_nice(t: &Thread, other: &Thread, nice: i32) -> bool {
    // The limit counts from 1 (nice 19) to 40 (nice -20).
    let wanted = u64::try_from(20 - nice).unwrap_or(0);
    let limit = other.process.limit(RLIMIT_NICE);
    t.is_capable(CAP_SYS_NICE) || limit.is_ok_and(|limit| wanted <= limit.rlim_cur)
}

/// `sched_yield(2)`.
///
/// # Errors
/// None.
pub fn sched_yield(t: &Thread) -> SysResult {
    super::yield_now(t);
    Ok(0)
}

/// `sched_setaffinity(2)`. A mask shorter than the kernel's is filled up with zeros.
///
/// # Errors
/// As the man page.
pub fn sched_setaffinity(t: &Thread, pid: i32, len: usize, mask: UserAddr) -> SysResult {
    let mut bytes = [0; 8];
    let len = len.min(bytes.len());
    mask.read_bytes(&mut bytes[..len])?;
    let other = target(t, pid).map_err(|_| Errno::ESRCH)?;
    if !may_change(t, &other) {
        return Err(Errno::EPERM);
    }
    let affinity = u64::from_le_bytes(bytes) & params::cpu_mask(t.kernel.sched.cpu_count());
    if affinity == 0 {
        return Err(Errno::EINVAL);
    }
    other
        .sched
        .update_params(|params| params.affinity = affinity);
    Ok(0)
}

/// `sched_getaffinity(2)`; returns the bytes written, as the system call does.
///
/// # Errors
/// As the man page.
pub fn sched_getaffinity(t: &Thread, pid: i32, len: usize, mask: UserAddr) -> SysResult {
    let cpus = t.kernel.sched.cpu_count();
    if len.saturating_mul(8) < cpus || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let other = target(t, pid).map_err(|_| Errno::ESRCH)?;
    let affinity = other.sched.params().affinity & params::cpu_mask(cpus);
    mask.write(&affinity)?;
    Ok(size_of_val(&affinity))
}

/// Whether `policy` is one of `sched(7)`.
fn is_policy(policy: u32) -> bool {
    is_fair(policy) || matches!(policy, SCHED_FIFO | SCHED_RR | SCHED_DEADLINE)
}

fn is_fair(policy: u32) -> bool {
    matches!(policy, SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE)
}

/// Sets policy and priority with Linux's order of checks.
fn set_scheduler(t: &Thread, pid: i32, policy: Option<i32>, param: UserAddr) -> SysResult {
    if pid < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = param.read()?;
    let other = target(t, pid)?;
    let policy = match policy {
        Some(policy) => policy.cast_unsigned(),
        None => policy_and_flag(&other),
    };
    change(t, &other, policy, priority)
}

/// A thread's policy, with `SCHED_RESET_ON_FORK` if that is set.
fn policy_and_flag(thread: &Thread) -> u32 {
    let params = thread.sched.params();
    let flag = if params.reset_on_fork {
        SCHED_RESET_ON_FORK
    } else {
        0
    };
    params.policy | flag
}

/// Gives `other` this policy, with or without `SCHED_RESET_ON_FORK`, and priority.
pub(super) fn change(t: &Thread, other: &Thread, policy: u32, priority: i32) -> SysResult {
    let current = other.sched.params();
    let reset_on_fork = policy & SCHED_RESET_ON_FORK != 0;
    let policy = policy & !SCHED_RESET_ON_FORK;
    if !is_policy(policy) || policy == SCHED_DEADLINE {
        return Err(Errno::EINVAL);
    }
    // Real-time policies have priorities 1 to 99, the others only 0.
    let is_realtime = matches!(policy, SCHED_FIFO | SCHED_RR);
    if !(0..=99).contains(&priority) || is_realtime != (priority != 0) {
        return Err(Errno::EINVAL);
    }
    // A container's root has no real-time budget here, whatever its capabilities.
    if is_realtime || !may_change(t, other) {
        return Err(Errno::EPERM);
    }
    let privileged = t.is_capable(CAP_SYS_NICE);
    if !privileged {
        let leaves_idle = current.policy == SCHED_IDLE && policy != SCHED_IDLE;
        if leaves_idle && !may_set_nice(t, other, current.nice) {
            return Err(Errno::EPERM);
        }
        if current.reset_on_fork && !reset_on_fork {
            return Err(Errno::EPERM);
        }
    }
    other.sched.update_params(|params| {
        params.policy = policy;
        params.reset_on_fork = reset_on_fork;
    });
    Ok(0)
}

/// `sched_setscheduler(2)`. `SCHED_FIFO`, `SCHED_RR` and `SCHED_DEADLINE` are refused.
///
/// # Errors
/// As the man page.
pub fn sched_setscheduler(t: &Thread, pid: i32, policy: i32, param: UserAddr) -> SysResult {
    if policy < 0 {
        return Err(Errno::EINVAL);
    }
    set_scheduler(t, pid, Some(policy), param)
}

/// `sched_setparam(2)`.
///
/// # Errors
/// As the man page.
pub fn sched_setparam(t: &Thread, pid: i32, param: UserAddr) -> SysResult {
    set_scheduler(t, pid, None, param)
}

/// `sched_getscheduler(2)`.
///
/// # Errors
/// `EINVAL`, `ESRCH`.
pub fn sched_getscheduler(t: &Thread, pid: i32) -> SysResult {
    let thread = target(t, pid)?;
    Ok(policy_and_flag(&thread) as usize)
}

/// `sched_getparam(2)`: the priority of a thread without real-time policy is 0.
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EFAULT`.
pub fn sched_getparam(t: &Thread, pid: i32, param: UserAddr) -> SysResult {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    target(t, pid)?;
    param.write(&0i32)?;
    Ok(0)
}

/// `sched_get_priority_max(2)`.
///
/// # Errors
/// `EINVAL` for an unknown policy.
pub fn sched_get_priority_max(_t: &Thread, policy: i32) -> SysResult {
    priority_bound(policy, 99)
}

/// `sched_get_priority_min(2)`.
///
/// # Errors
/// `EINVAL` for an unknown policy.
pub fn sched_get_priority_min(_t: &Thread, policy: i32) -> SysResult {
    priority_bound(policy, 1)
}

fn priority_bound(policy: i32, realtime: usize) -> SysResult {
    match policy.cast_unsigned() {
        SCHED_FIFO | SCHED_RR => Ok(realtime),
        SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE | SCHED_EXT => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// `sched_rr_get_interval(2)`: the slice every thread gets.
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EFAULT`.
pub fn sched_rr_get_interval(t: &Thread, pid: i32, interval: UserAddr) -> SysResult {
    target(t, pid)?;
    interval.write(&__kernel_timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(SLICE_NS).unwrap_or(i64::MAX),
    })?;
    Ok(0)
}

/// `getcpu(2)`: there is one NUMA node.
///
/// # Errors
/// `EFAULT`.
pub fn getcpu(_t: &Thread, cpu: UserAddr, node: UserAddr, _cache: UserAddr) -> SysResult {
    let index = u32::try_from(husk_hal::cpu::index()).unwrap_or(0);
    cpu.write_opt(&index)?;
    node.write_opt(&0u32)?;
    Ok(0)
}

/// The threads `which` and `who` name (`getpriority(2)`); a process stands for its first thread as on Linux.
pub(super) fn group(t: &Thread, which: i32, who: i32) -> Result<Vec<Arc<Thread>>> {
    let which = u32::try_from(which).map_err(|_| Errno::EINVAL)?;
    let id = who.cast_unsigned();
    let of_processes = |keep: &dyn Fn(&Thread) -> bool| {
        let processes = t.kernel.tasks.processes();
        let threads = processes.iter().flat_map(|process| process.threads());
        threads.filter(|thread| keep(thread)).collect()
    };
    let threads: Vec<_> = match which {
        PRIO_PROCESS if who == 0 => alloc::vec![t.arc()],
        PRIO_PROCESS => t.kernel.tasks.thread(id).into_iter().collect(),
        PRIO_PGRP => {
            let pgid = if who == 0 { t.process.pgid() } else { id };
            of_processes(&|thread| thread.process.pgid() == pgid)
        }
        PRIO_USER => {
            let uid = if who == 0 { t.credentials().uid } else { id };
            of_processes(&|thread| thread.credentials().uid == uid)
        }
        _ => return Err(Errno::EINVAL),
    };
    if threads.is_empty() {
        return Err(Errno::ESRCH);
    }
    Ok(threads)
}

/// `getpriority(2)`: the system call returns 20 - nice, so that the result is positive.
///
/// # Errors
/// `EINVAL`, `ESRCH`.
pub fn getpriority(t: &Thread, which: i32, who: i32) -> SysResult {
    let threads = group(t, which, who)?;
    let best = threads.iter().map(|thread| thread.sched.params().nice);
    let best = best.min().unwrap_or(0);
    Ok(usize::try_from(20 - best).unwrap_or(0))
}

/// `setpriority(2)`: values out of range are cut.
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM` (another user's thread), `EACCES` (a better value than allowed).
pub fn setpriority(t: &Thread, which: i32, who: i32, prio: i32) -> SysResult {
    let nice = prio.clamp(*NICE_RANGE.start(), *NICE_RANGE.end());
    let mut result = Ok(0);
    for thread in group(t, which, who)? {
        if !may_change(t, &thread) {
            result = Err(Errno::EPERM);
        } else if nice < thread.sched.params().nice && !may_set_nice(t, &thread, nice) {
            result = Err(Errno::EACCES);
        } else {
            thread.sched.update_params(|params| params.nice = nice);
        }
    }
    result
}
