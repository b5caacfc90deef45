//! `prctl(2)`, `arch_prctl(2)`, `personality(2)`.

use core::sync::atomic::Ordering;

use husk_abi::boundary::layout::USER_END;
use husk_abi::linux::general::CAP_SETPCAP;
use husk_abi::linux::prctl as pr;
use husk_hal::thread as hal_thread;

use super::capabilities::LAST_CAP;
use super::credentials::securebits;
use super::{Credentials, Thread};
use crate::syscall::filters;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, signal};

pub(super) const ARCH_SET_GS: u64 = 0x1001;
pub(super) const ARCH_SET_FS: u64 = 0x1002;
pub(super) const ARCH_GET_FS: u64 = 0x1003;
pub(super) const ARCH_GET_GS: u64 = 0x1004;

/// `arch_prctl(2)`.
///
/// # Errors
/// `EINVAL` for codes that are not about FS and GS, `EPERM` for addresses outside user space, `EFAULT`.
pub fn arch_prctl(_t: &Thread, code: u64, address: u64) -> SysResult {
    match code {
        ARCH_SET_FS | ARCH_SET_GS if address >= USER_END => return Err(Errno::EPERM),
        ARCH_SET_FS => hal_thread::set_live_fs_base(address),
        ARCH_SET_GS => hal_thread::set_live_gs_base(address),
        ARCH_GET_FS => UserAddr(address).write(&hal_thread::live_fs_base())?,
        ARCH_GET_GS => UserAddr(address).write(&hal_thread::live_gs_base())?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn capability(value: u64) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|cap| *cap <= LAST_CAP)
        .ok_or(Errno::EINVAL)
}

fn flag(value: u64) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::EINVAL),
    }
}

/// `prctl(2)`.
///
/// # Errors
/// As the man page lists them; `EINVAL` for options the libOS does not have.
pub fn prctl(t: &Thread, option: i32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) -> SysResult {
    let process = &t.process;
    let unused = |args: &[u64]| {
        args.iter()
            .all(|arg| *arg == 0)
            .then_some(())
            .ok_or(Errno::EINVAL)
    };
    match option.unsigned_abs() {
        pr::PR_SET_NAME => {
            let mut name = [0u8; 16];
            for (index, byte) in name.iter_mut().enumerate().take(15) {
                *byte = UserAddr(arg2).add(index as u64).read()?;
                if *byte == 0 {
                    break;
                }
            }
            t.set_name(name.split(|byte| *byte == 0).next().unwrap_or(&name));
        }
        pr::PR_GET_NAME => UserAddr(arg2).write(&*t.name.lock())?,
        pr::PR_SET_PDEATHSIG => signal::set_parent_death_signal(t, arg2)?,
        pr::PR_GET_PDEATHSIG => {
            UserAddr(arg2).write(&signal::parent_death_signal(process).unwrap_or(0))?;
        }
        pr::PR_SET_DUMPABLE => process.dumpable.store(flag(arg2)?, Ordering::Relaxed),
        pr::PR_GET_DUMPABLE => return Ok(process.dumpable.load(Ordering::Relaxed).into()),
        pr::PR_SET_CHILD_SUBREAPER => process.child_subreaper.store(arg2 != 0, Ordering::Relaxed),
        pr::PR_GET_CHILD_SUBREAPER => {
            UserAddr(arg2).write(&i32::from(process.child_subreaper.load(Ordering::Relaxed)))?;
        }
        pr::PR_SET_NO_NEW_PRIVS => {
            unused(&[arg3, arg4, arg5])?;
            if arg2 != 1 {
                return Err(Errno::EINVAL);
            }
            t.set_credentials(Credentials {
                no_new_privileges: true,
                ..(*t.credentials()).clone()
            });
        }
        pr::PR_GET_NO_NEW_PRIVS => {
            unused(&[arg2, arg3, arg4, arg5])?;
            return Ok(t.credentials().no_new_privileges.into());
        }
        pr::PR_SET_KEEPCAPS => set_keep_caps(t, flag(arg2)?)?,
        pr::PR_GET_KEEPCAPS => {
            return Ok(t.credentials().has_securebit(securebits::KEEP_CAPS).into());
        }
        pr::PR_SET_SECUREBITS => set_securebits(t, arg2)?,
        pr::PR_GET_SECUREBITS => return Ok(t.credentials().securebits as usize),
        pr::PR_CAPBSET_READ => {
            return Ok((t.credentials().cap_bounding >> capability(arg2)? & 1) as usize);
        }
        pr::PR_CAPBSET_DROP => {
            let cap = capability(arg2)?;
            let old = t.credentials();
            if !old.has(CAP_SETPCAP) {
                return Err(Errno::EPERM);
            }
            let cap_bounding = old.cap_bounding & !(1 << cap);
            t.set_credentials(Credentials {
                cap_bounding,
                ..(*old).clone()
            });
        }
        pr::PR_CAP_AMBIENT => return ambient(t, arg2, arg3, arg4 | arg5),
        pr::PR_SET_TIMERSLACK => t.sched.set_slack_ns(arg2),
        pr::PR_GET_TIMERSLACK => return Ok(t.sched.slack_ns() as usize),
        pr::PR_GET_SECCOMP => return Ok(filters::mode(t) as usize),
        pr::PR_SET_SECCOMP => return filters::set_mode(t, arg2, arg3),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// `PR_SET_KEEPCAPS`.
fn set_keep_caps(t: &Thread, keep: bool) -> Result<()> {
    let mut new = (*t.credentials()).clone();
    if new.has_securebit(securebits::KEEP_CAPS_LOCKED) {
        return Err(Errno::EPERM);
    }
    new.securebits &= !securebits::KEEP_CAPS;
    if keep {
        new.securebits |= securebits::KEEP_CAPS;
    }
    t.set_credentials(new);
    Ok(())
}

/// `PR_SET_SECUREBITS`: locked bits stay as they are, locks stay locked.
fn set_securebits(t: &Thread, bits: u64) -> Result<()> {
    let old = t.credentials();
    let locks = old.securebits & securebits::ALL_LOCKS;
    let known = u64::from(securebits::ALL_BITS | securebits::ALL_LOCKS);
    let new = bits as u32;
    if bits & !known != 0
        || (locks >> 1) & (old.securebits ^ new) != 0
        || locks & !new != 0
        || !old.has(CAP_SETPCAP)
    {
        return Err(Errno::EPERM);
    }
    t.set_credentials(Credentials {
        securebits: new,
        ..(*old).clone()
    });
    Ok(())
}

/// `PR_CAP_AMBIENT`.
fn ambient(t: &Thread, operation: u64, cap: u64, rest: u64) -> SysResult {
    if rest != 0 {
        return Err(Errno::EINVAL);
    }
    let old = t.credentials();
    let mut new = (*old).clone();
    let operation = u32::try_from(operation).map_err(|_| Errno::EINVAL)?;
    if operation == pr::PR_CAP_AMBIENT_CLEAR_ALL {
        if cap != 0 {
            return Err(Errno::EINVAL);
        }
        new.cap_ambient = 0;
        t.set_credentials(new);
        return Ok(0);
    }
    let bit = 1u64 << capability(cap)?;
    match operation {
        pr::PR_CAP_AMBIENT_IS_SET => return Ok((old.cap_ambient & bit != 0).into()),
        pr::PR_CAP_AMBIENT_RAISE
            if old.cap_permitted & old.cap_inheritable & bit == 0
                || old.has_securebit(securebits::NO_CAP_AMBIENT_RAISE) =>
        {
            return Err(Errno::EPERM);
        }
        pr::PR_CAP_AMBIENT_RAISE => new.cap_ambient |= bit,
        pr::PR_CAP_AMBIENT_LOWER => new.cap_ambient &= !bit,
        _ => return Err(Errno::EINVAL),
    }
    t.set_credentials(new);
    Ok(0)
}

/// Of `personality(2)`: addresses are the same in every run.
pub const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;
/// Asks for the personality only.
const ASK: u32 = u32::MAX;

/// `personality(2)`: the plain Linux personality, with or without random addresses.
///
/// # Errors
/// `EINVAL` for others.
pub fn personality(t: &Thread, persona: u64) -> SysResult {
    let old = t.personality();
    match persona as u32 {
        ASK => {}
        new if new & !ADDR_NO_RANDOMIZE == 0 => {
            t.personality
                .store(new, core::sync::atomic::Ordering::Relaxed);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(old as usize)
}
