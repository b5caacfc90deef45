//! Resource limits (`getrlimit(2)`).

use husk_abi::boundary::config::Rlimit;
use husk_abi::linux::general::{
    self, RLIM_NLIMITS, RLIMIT_CORE, RLIMIT_CPU, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE,
    RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RTPRIO, RLIMIT_SIGPENDING, RLIMIT_STACK, rlimit64,
};

use super::{Process, Thread};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult};

const INFINITY: u64 = u64::MAX;
const SECOND_NS: u64 = 1_000_000_000;
/// `fs.nr_open`: the most descriptors a process may be allowed.
const NR_OPEN: u64 = 1 << 20;

/// The limits a process starts with: Linux's defaults, but those that are `given`.
#[must_use]
pub(super) fn initial(given: &[Rlimit]) -> [rlimit64; RLIM_NLIMITS as usize] {
    let mut limits = [rlimit64 {
        rlim_cur: INFINITY,
        rlim_max: INFINITY,
    }; RLIM_NLIMITS as usize];
    let mut set = |resource: u32, soft: u64, hard: u64| {
        if let Some(limit) = limits.get_mut(resource as usize) {
            *limit = rlimit64 {
                rlim_cur: soft,
                rlim_max: hard,
            };
        }
    };
    set(RLIMIT_STACK, 8 << 20, INFINITY);
    set(RLIMIT_CORE, 0, INFINITY);
    set(RLIMIT_NOFILE, 1024, 4096);
    set(RLIMIT_MEMLOCK, 8 << 20, 8 << 20);
    set(RLIMIT_MSGQUEUE, 819_200, 819_200);
    set(RLIMIT_NICE, 0, 0);
    set(RLIMIT_RTPRIO, 0, 0);
    set(RLIMIT_NPROC, 32_768, 32_768);
    set(RLIMIT_SIGPENDING, 32_768, 32_768);
    for limit in given {
        set(limit.resource, limit.soft, limit.hard);
    }
    limits
}

fn change(t: &Thread, process: &Process, resource: u32, new: rlimit64) -> Result<()> {
    if new.rlim_cur > new.rlim_max {
        return Err(Errno::EINVAL);
    }
    if resource == RLIMIT_NOFILE && new.rlim_max > NR_OPEN {
        return Err(Errno::EPERM);
    }
    let mut limits = process.limits.lock();
    let limit = limits.get_mut(resource as usize).ok_or(Errno::EINVAL)?;
    if new.rlim_max > limit.rlim_max && !t.is_capable(general::CAP_SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    *limit = new;
    drop(limits);
    if resource == RLIMIT_CPU {
        crate::time::cpu_limit_changed(process);
    }
    Ok(())
}

/// What `RLIMIT_CPU` means for a process that has used some CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuLimit {
    /// The signal that is due.
    pub signal: Option<u32>,
    /// CPU time until the next one, in nanoseconds.
    pub left_ns: Option<u64>,
}

/// Looks at `limit` for a process that has used `used_ns`. Each time the soft limit is reached it moves on by a second,
/// as on Linux.
pub(crate) fn cpu_limit(limit: &mut rlimit64, used_ns: u64) -> CpuLimit {
    let ns = |seconds: u64| seconds.saturating_mul(SECOND_NS);
    let mut signal = None;
    if limit.rlim_cur == INFINITY {
        return CpuLimit {
            signal,
            left_ns: None,
        };
    }
    if limit.rlim_max != INFINITY && used_ns >= ns(limit.rlim_max) {
        return CpuLimit {
            signal: Some(general::SIGKILL),
            left_ns: None,
        };
    }
    if used_ns >= ns(limit.rlim_cur) {
        signal = Some(general::SIGXCPU);
        limit.rlim_cur += 1;
    }
    let next = ns(limit.rlim_cur).min(ns(limit.rlim_max));
    CpuLimit {
        signal,
        left_ns: Some(next.saturating_sub(used_ns)),
    }
}

fn resource(number: i32) -> Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|number| *number < RLIM_NLIMITS)
        .ok_or(Errno::EINVAL)
}

/// `getrlimit(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getrlimit(t: &Thread, number: i32, to: UserAddr) -> SysResult {
    to.write(&t.process.limit(resource(number)?)?)?;
    Ok(0)
}

/// `setrlimit(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EPERM`.
pub fn setrlimit(t: &Thread, number: i32, from: UserAddr) -> SysResult {
    let new: rlimit64 = from.read()?;
    change(t, &t.process, resource(number)?, new)?;
    Ok(0)
}

/// `prlimit(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EPERM`, `ESRCH`.
pub fn prlimit64(t: &Thread, pid: i32, number: i32, new: UserAddr, old: UserAddr) -> SysResult {
    let number = resource(number)?;
    let new: Option<rlimit64> = new.read_opt()?;
    let process = if pid == 0 {
        t.process.clone()
    } else {
        let pid = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        t.kernel
            .tasks
            .thread(pid)
            .ok_or(Errno::ESRCH)?
            .process
            .clone()
    };
    if process.pid != t.process.pid && !same_ids(t, &process) {
        return Err(Errno::EPERM);
    }
    let before = process.limit(number)?;
    if let Some(new) = new {
        change(t, &process, number, new)?;
    }
    old.write_opt(&before)?;
    Ok(0)
}

/// Whether the caller may change another process's limits: same ids all over, or `CAP_SYS_RESOURCE`.
fn same_ids(t: &Thread, process: &Process) -> bool {
    let own = t.credentials();
    let Some(other) = process.threads().first().map(|thread| thread.credentials()) else {
        return false;
    };
    own.has(general::CAP_SYS_RESOURCE)
        || ([other.uid, other.euid, other.suid]
            .iter()
            .all(|id| *id == own.uid)
            && [other.gid, other.egid, other.sgid]
                .iter()
                .all(|id| *id == own.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_limits() {
        let look = |soft, hard, used_ms: u64| {
            let mut limit = rlimit64 {
                rlim_cur: soft,
                rlim_max: hard,
            };
            let found = cpu_limit(&mut limit, used_ms * 1_000_000);
            (
                found.signal,
                found.left_ns.map(|ns| ns / 1_000_000),
                limit.rlim_cur,
            )
        };
        assert_eq!(look(INFINITY, INFINITY, 1 << 30), (None, None, INFINITY));
        assert_eq!(look(2, 5, 500), (None, Some(1500), 2));
        assert_eq!(look(2, 5, 2000), (Some(general::SIGXCPU), Some(1000), 3));
        assert_eq!(
            look(2, INFINITY, 2100),
            (Some(general::SIGXCPU), Some(900), 3)
        );
        assert_eq!(look(4, 4, 3999), (None, Some(1), 4));
        assert_eq!(look(4, 4, 4000), (Some(general::SIGKILL), None, 4));
        assert_eq!(
            look(0, INFINITY, 0),
            (Some(general::SIGXCPU), Some(1000), 1)
        );
    }
}
