//! Ids: processes, groups, sessions (`credentials(7)`, `setpgid(2)`, `setsid(2)`).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Process, Thread};
use crate::{Errno, Result, SysResult};

/// `getpid(2)`.
///
/// # Errors
/// None.
pub fn getpid(t: &Thread) -> SysResult {
    Ok(t.process.pid as usize)
}

/// `gettid(2)`.
///
/// # Errors
/// None.
pub fn gettid(t: &Thread) -> SysResult {
    Ok(t.tid() as usize)
}

/// `getppid(2)`.
///
/// # Errors
/// None.
pub fn getppid(t: &Thread) -> SysResult {
    Ok(t.process.ppid() as usize)
}

/// `getpgrp(2)`.
///
/// # Errors
/// None.
pub fn getpgrp(t: &Thread) -> SysResult {
    Ok(t.process.pgid() as usize)
}

/// A process by id, 0 being the caller's.
fn process(t: &Thread, pid: i32) -> Result<Arc<Process>> {
    match u32::try_from(pid) {
        Ok(0) => Ok(t.process.clone()),
        Ok(pid) => t.kernel.tasks.process(pid).ok_or(Errno::ESRCH),
        Err(_) => Err(Errno::ESRCH),
    }
}

/// `getpgid(2)`.
///
/// # Errors
/// `ESRCH`.
pub fn getpgid(t: &Thread, pid: i32) -> SysResult {
    process(t, pid).map(|process| process.pgid() as usize)
}

/// `getsid(2)`.
///
/// # Errors
/// `ESRCH`.
pub fn getsid(t: &Thread, pid: i32) -> SysResult {
    process(t, pid).map(|process| process.sid() as usize)
}

/// `setpgid(2)`.
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EACCES`, `EPERM`.
pub fn setpgid(t: &Thread, pid: i32, pgid: i32) -> SysResult {
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let target = process(t, pid)?;
    let own = Arc::ptr_eq(&target, &t.process);
    let child = target
        .parent()
        .is_some_and(|parent| Arc::ptr_eq(&parent, &t.process));
    if !own && !child {
        return Err(Errno::ESRCH);
    }
    if child {
        if target.sid() != t.process.sid() {
            return Err(Errno::EPERM);
        }
        if target.has_execed.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    }
    if target.sid() == target.pid {
        return Err(Errno::EPERM);
    }
    let pgid = if pgid == 0 {
        target.pid
    } else {
        pgid.unsigned_abs()
    };
    if pgid != target.pid {
        let sid = t.process.sid();
        let exists = t
            .kernel
            .tasks
            .processes()
            .iter()
            .any(|other| other.pgid() == pgid && other.sid() == sid);
        if !exists {
            return Err(Errno::EPERM);
        }
    }
    target.pgid.store(pgid, Ordering::Relaxed);
    Ok(0)
}

/// `setsid(2)`.
///
/// # Errors
/// `EPERM` if the caller leads a group.
pub fn setsid(t: &Thread) -> SysResult {
    let process = &t.process;
    let taken = t
        .kernel
        .tasks
        .processes()
        .iter()
        .any(|other| other.pgid() == process.pid);
    if taken {
        return Err(Errno::EPERM);
    }
    process.sid.store(process.pid, Ordering::Relaxed);
    process.pgid.store(process.pid, Ordering::Relaxed);
    process.controlling.set(None);
    Ok(process.pid as usize)
}
