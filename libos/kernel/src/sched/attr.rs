//! `sched_setattr(2)` and `sched_getattr(2)`.

use husk_abi::linux::general::{
    SCHED_BATCH, SCHED_DEADLINE, SCHED_FLAG_DL_OVERRUN, SCHED_FLAG_KEEP_PARAMS,
    SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_RECLAIM, SCHED_FLAG_RESET_ON_FORK, SCHED_FLAG_UTIL_CLAMP,
    SCHED_NORMAL,
};

use super::syscalls::{NICE_RANGE, change, may_set_nice, target};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Bytes of `struct sched_attr` in its first form, and in that with utilization clamps.
const FIRST: usize = 48;
const BYTES: usize = 56;
/// Most bytes a caller may say it has.
const MOST: usize = 4096;

/// The parts of `struct sched_attr` that fair policies use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attr {
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
}

impl Attr {
    fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            policy: word(4),
            flags: u64::from(word(8)) | u64::from(word(12)) << 32,
            nice: word(16).cast_signed(),
            priority: word(20),
        }
    }

    fn to_bytes(self, size: u32) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.policy.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.nice.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.priority.to_le_bytes());
        bytes
    }
}

/// Takes a caller's struct, which may be longer than ours if the rest is zeros.
fn read(from: UserAddr) -> Result<Attr> {
    let size: u32 = from.read()?;
    let size = match size as usize {
        0 => FIRST,
        size => size,
    };
    let too_large = || {
        // The caller learns which size there is.
        from.write(&(BYTES as u32))
            .map_or_else(|errno| errno, |()| Errno::E2BIG)
    };
    if !(FIRST..=MOST).contains(&size) {
        return Err(too_large());
    }
    let mut bytes = alloc::vec![0; size.max(BYTES)];
    from.read_bytes(&mut bytes[..size])?;
    match bytes.split_first_chunk() {
        Some((known, rest)) if rest.iter().all(|byte| *byte == 0) => Ok(Attr::from_bytes(known)),
        _ => Err(too_large()),
    }
}

/// `sched_setattr(2)`. Policies with guarantees are refused as by `sched_setscheduler(2)`.
///
/// # Errors
/// As the man page; `EOPNOTSUPP` for utilization clamps, as Linux without them.
pub fn sched_setattr(t: &Thread, pid: i32, attr: UserAddr, flags: u32) -> SysResult {
    const KNOWN: u32 = SCHED_FLAG_RESET_ON_FORK
        | SCHED_FLAG_RECLAIM
        | SCHED_FLAG_DL_OVERRUN
        | SCHED_FLAG_KEEP_POLICY
        | SCHED_FLAG_KEEP_PARAMS
        | SCHED_FLAG_UTIL_CLAMP;
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let attr = read(attr)?;
    if attr.policy.cast_signed() < 0 || attr.flags & !u64::from(KNOWN) != 0 {
        return Err(Errno::EINVAL);
    }
    let has = |flag: u32| attr.flags & u64::from(flag) != 0;
    if has(SCHED_FLAG_UTIL_CLAMP) {
        return Err(Errno::EOPNOTSUPP);
    }
    let other = target(t, pid)?;
    let current = other.sched.params();
    let reset = if has(SCHED_FLAG_RESET_ON_FORK) {
        husk_abi::linux::general::SCHED_RESET_ON_FORK
    } else {
        0
    };
    let policy = if has(SCHED_FLAG_KEEP_POLICY) {
        current.policy
    } else {
        attr.policy
    };
    let nice = attr.nice.clamp(*NICE_RANGE.start(), *NICE_RANGE.end());
    if policy == SCHED_DEADLINE {
        // As real-time policies: there is no budget for it.
        return Err(Errno::EPERM);
    }
    let takes_nice = matches!(policy, SCHED_NORMAL | SCHED_BATCH) && !has(SCHED_FLAG_KEEP_PARAMS);
    if takes_nice && nice < current.nice && !may_set_nice(t, &other, nice) {
        return Err(Errno::EPERM);
    }
    change(t, &other, policy | reset, attr.priority.cast_signed())?;
    if takes_nice {
        other.sched.update_params(|params| params.nice = nice);
    }
    Ok(0)
}

/// `sched_getattr(2)`.
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EFAULT`.
pub fn sched_getattr(t: &Thread, pid: i32, attr: UserAddr, size: u32, flags: u32) -> SysResult {
    let bytes = size as usize;
    if attr.is_null() || pid < 0 || flags != 0 || !(FIRST..=MOST).contains(&bytes) {
        return Err(Errno::EINVAL);
    }
    let params = target(t, pid)?.sched.params();
    let known = bytes.min(BYTES);
    let answer = Attr {
        policy: params.policy,
        flags: if params.reset_on_fork {
            u64::from(SCHED_FLAG_RESET_ON_FORK)
        } else {
            0
        },
        nice: params.nice,
        priority: 0,
    };
    attr.write_bytes(&answer.to_bytes(known as u32)[..known])?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let attr = Attr {
            policy: 3,
            flags: 1,
            nice: -5,
            priority: 0,
        };
        let bytes = attr.to_bytes(56);
        assert_eq!(Attr::from_bytes(&bytes), attr);
        assert_eq!((bytes[0], bytes[4], bytes[16]), (56, 3, 0xfb));
    }
}
