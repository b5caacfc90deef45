//! User and group ids: `setuid(2)`, `setresuid(2)`, `setgroups(2)` and their kin.
//!
//! As on Linux each call changes the calling thread only; the C library broadcasts to the others.

use husk_abi::linux::general::{CAP_SETGID, CAP_SETUID, NGROUPS_MAX};

use super::capabilities::after_id_change;
use super::{Credentials, Thread};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult};

/// "Leave as is" for the setre* and setres* calls.
const KEEP: u32 = u32::MAX;

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident = $field:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// None.
            pub fn $name(t: &Thread) -> SysResult {
                Ok(t.credentials().$field as usize)
            }
        )*
    };
}

getters! {
    /// `getuid(2)`.
    getuid = uid;
    /// `geteuid(2)`.
    geteuid = euid;
    /// `getgid(2)`.
    getgid = gid;
    /// `getegid(2)`.
    getegid = egid;
}

/// Checks that those of `uids` that are to be set are users.
fn check_users(t: &Thread, uids: &[u32]) -> Result<()> {
    let mut set = uids.iter().filter(|uid| **uid != KEEP);
    set.try_for_each(|uid| t.kernel.check_uid(*uid))
}

/// Checks that those of `gids` that are to be set are groups.
fn check_groups(t: &Thread, gids: &[u32]) -> Result<()> {
    let mut set = gids.iter().filter(|gid| **gid != KEEP);
    set.try_for_each(|gid| t.kernel.check_gid(*gid))
}

/// Applies `change` to a copy of the credentials and adjusts capabilities.
fn change_users(
    t: &Thread,
    change: impl FnOnce(&Credentials, &mut Credentials) -> Result<()>,
) -> SysResult {
    let old = t.credentials();
    let mut new = (*old).clone();
    change(&old, &mut new)?;
    after_id_change(&old, &mut new);
    t.set_credentials(new);
    Ok(0)
}

/// `setuid(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn setuid(t: &Thread, uid: u32) -> SysResult {
    t.kernel.check_uid(uid)?;
    change_users(t, |old, new| {
        if old.has(CAP_SETUID) {
            new.uid = uid;
            new.suid = uid;
        } else if uid != old.uid && uid != old.suid {
            return Err(Errno::EPERM);
        }
        new.euid = uid;
        new.fsuid = uid;
        Ok(())
    })
}

/// `setgid(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn setgid(t: &Thread, gid: u32) -> SysResult {
    t.kernel.check_gid(gid)?;
    change_users(t, |old, new| {
        if old.has(CAP_SETGID) {
            new.gid = gid;
            new.sgid = gid;
        } else if gid != old.gid && gid != old.sgid {
            return Err(Errno::EPERM);
        }
        new.egid = gid;
        new.fsgid = gid;
        Ok(())
    })
}

/// `setreuid(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn setreuid(t: &Thread, ruid: u32, euid: u32) -> SysResult {
    check_users(t, &[ruid, euid])?;
    change_users(t, |old, new| {
        let privileged = old.has(CAP_SETUID);
        if ruid != KEEP {
            if !privileged && ![old.uid, old.euid].contains(&ruid) {
                return Err(Errno::EPERM);
            }
            new.uid = ruid;
        }
        if euid != KEEP {
            if !privileged && ![old.uid, old.euid, old.suid].contains(&euid) {
                return Err(Errno::EPERM);
            }
            new.euid = euid;
        }
        if ruid != KEEP || (euid != KEEP && euid != old.uid) {
            new.suid = new.euid;
        }
        new.fsuid = new.euid;
        Ok(())
    })
}

/// `setregid(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn setregid(t: &Thread, rgid: u32, egid: u32) -> SysResult {
    check_groups(t, &[rgid, egid])?;
    change_users(t, |old, new| {
        let privileged = old.has(CAP_SETGID);
        if rgid != KEEP {
            if !privileged && ![old.gid, old.egid].contains(&rgid) {
                return Err(Errno::EPERM);
            }
            new.gid = rgid;
        }
        if egid != KEEP {
            if !privileged && ![old.gid, old.egid, old.sgid].contains(&egid) {
                return Err(Errno::EPERM);
            }
            new.egid = egid;
        }
        if rgid != KEEP || (egid != KEEP && egid != old.gid) {
            new.sgid = new.egid;
        }
        new.fsgid = new.egid;
        Ok(())
    })
}

/// The three ids a setres* call leaves, each of `wanted` unless [`KEEP`].
fn three(old: [u32; 3], wanted: [u32; 3], privileged: bool) -> Result<[u32; 3]> {
    let mut new = old;
    for (slot, id) in new.iter_mut().zip(wanted) {
        if id != KEEP {
            if !privileged && !old.contains(&id) {
                return Err(Errno::EPERM);
            }
            *slot = id;
        }
    }
    Ok(new)
}

/// `setresuid(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn setresuid(t: &Thread, ruid: u32, euid: u32, suid: u32) -> SysResult {
    check_users(t, &[ruid, euid, suid])?;
    change_users(t, |old, new| {
        let ids = three(
            [old.uid, old.euid, old.suid],
            [ruid, euid, suid],
            old.has(CAP_SETUID),
        )?;
        [new.uid, new.euid, new.suid] = ids;
        new.fsuid = new.euid;
        Ok(())
    })
}

/// `setresgid(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn setresgid(t: &Thread, rgid: u32, egid: u32, sgid: u32) -> SysResult {
    check_groups(t, &[rgid, egid, sgid])?;
    change_users(t, |old, new| {
        let ids = three(
            [old.gid, old.egid, old.sgid],
            [rgid, egid, sgid],
            old.has(CAP_SETGID),
        )?;
        [new.gid, new.egid, new.sgid] = ids;
        new.fsgid = new.egid;
        Ok(())
    })
}

/// `getresuid(2)`.
///
/// # Errors
/// `EFAULT`.
pub fn getresuid(t: &Thread, ruid: UserAddr, euid: UserAddr, suid: UserAddr) -> SysResult {
    let credentials = t.credentials();
    ruid.write(&credentials.uid)?;
    euid.write(&credentials.euid)?;
    suid.write(&credentials.suid)?;
    Ok(0)
}

/// `getresgid(2)`.
///
/// # Errors
/// `EFAULT`.
pub fn getresgid(t: &Thread, rgid: UserAddr, egid: UserAddr, sgid: UserAddr) -> SysResult {
    let credentials = t.credentials();
    rgid.write(&credentials.gid)?;
    egid.write(&credentials.egid)?;
    sgid.write(&credentials.sgid)?;
    Ok(0)
}

/// `setfsuid(2)`: returns the previous id, whether or not it was changed.
///
/// # Errors
/// None.
pub fn setfsuid(t: &Thread, uid: u32) -> SysResult {
    let old = t.credentials();
    let allowed = [old.uid, old.euid, old.suid, old.fsuid].contains(&uid) || old.has(CAP_SETUID);
    if allowed && t.kernel.check_uid(uid).is_ok() {
        t.set_credentials(Credentials {
            fsuid: uid,
            ..(*old).clone()
        });
    }
    Ok(old.fsuid as usize)
}

/// `setfsgid(2)`: returns the previous id, whether or not it was changed.
///
/// # Errors
/// None.
pub fn setfsgid(t: &Thread, gid: u32) -> SysResult {
    let old = t.credentials();
    let allowed = [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid) || old.has(CAP_SETGID);
    if allowed && t.kernel.check_gid(gid).is_ok() {
        t.set_credentials(Credentials {
            fsgid: gid,
            ..(*old).clone()
        });
    }
    Ok(old.fsgid as usize)
}

/// `getgroups(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn getgroups(t: &Thread, size: i32, list: UserAddr) -> SysResult {
    let credentials = t.credentials();
    let count = credentials.groups.len();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size == 0 {
        return Ok(count);
    }
    if size < count {
        return Err(Errno::EINVAL);
    }
    for (index, gid) in (0u64..).zip(&credentials.groups) {
        list.add(index * 4).write(gid)?;
    }
    Ok(count)
}

/// `setgroups(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EPERM`.
pub fn setgroups(t: &Thread, size: usize, list: UserAddr) -> SysResult {
    let old = t.credentials();
    if !old.has(CAP_SETGID) || !t.kernel.may_setgroups() {
        return Err(Errno::EPERM);
    }
    if size > NGROUPS_MAX as usize {
        return Err(Errno::EINVAL);
    }
    let mut groups = list.read_array::<u32>(size)?;
    for group in &groups {
        t.kernel.check_gid(*group)?;
    }
    groups.sort_unstable();
    t.set_credentials(Credentials {
        groups,
        ..(*old).clone()
    });
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{KEEP, three};
    use crate::Errno;

    #[test]
    fn setres_rules() {
        assert_eq!(three([1, 2, 3], [KEEP, 3, 1], false), Ok([1, 3, 1]));
        assert_eq!(three([1, 2, 3], [KEEP, 4, KEEP], false), Err(Errno::EPERM));
        assert_eq!(three([1, 2, 3], [4, 5, 6], true), Ok([4, 5, 6]));
    }
}
