//! Capabilities and what exec makes of credentials (`capabilities(7)`, "Transformation of capabilities during
//! execve").

use alloc::vec::Vec;

use husk_abi::linux::general::{self, S_ISGID, S_ISUID};

use super::credentials::securebits;
use super::{Credentials, Thread};
use crate::fs::File;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult};

/// The highest capability, `CAP_CHECKPOINT_RESTORE`.
pub const LAST_CAP: u32 = 40;
/// All capabilities there are.
pub const ALL: u64 = (1 << (LAST_CAP + 1)) - 1;

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// Credentials of a program about to run.
#[derive(Debug)]
pub struct ExecCredentials {
    /// What it runs with.
    pub new: Credentials,
    /// Whether it gained identity or capabilities: `AT_SECURE`.
    pub secure: bool,
    /// Whether its ids differ from the caller's.
    pub changed_ids: bool,
}

/// What `file` runs with when the calling thread executes it.
///
/// # Errors
/// `EINVAL` if the file's capabilities are malformed; `EPERM` if it cannot have all it says it needs.
pub fn after_exec(t: &Thread, file: &File) -> Result<ExecCredentials> {
    let old = t.credentials();
    let mut new = (*old).clone();
    let attributes = file.inode.attributes();
    if !old.no_new_privileges && file.allows_setuid() {
        if attributes.mode & S_ISUID != 0 {
            new.euid = attributes.uid;
        }
        // Setgid without group execute marks mandatory locking.
        if attributes.mode & S_ISGID != 0 && attributes.mode & 0o010 != 0 {
            new.egid = attributes.gid;
        }
    }
    let changed_ids = new.euid != old.euid || new.egid != old.egid;
    let of_file = if file.allows_setuid() {
        FileCapabilities::of(file)?
    } else {
        None
    };
    transform(&mut new, changed_ids, of_file.as_ref())?;
    if old.no_new_privileges {
        new.cap_permitted &= old.cap_permitted;
        new.cap_effective &= new.cap_permitted;
    }
    if is_held_back(t) {
        hold_back(&old, &mut new);
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    let changed_ids = new.euid != old.euid || new.egid != old.egid;
    let gained = new.euid != new.uid || new.egid != new.gid;
    let secure = gained || (old.uid != 0 && new.cap_permitted & !old.cap_ambient != 0);
    new.securebits &= !securebits::KEEP_CAPS;
    Ok(ExecCredentials {
        new,
        secure,
        changed_ids,
    })
}

/// Whether a tracer watches who must not get hold of what the program would gain.
fn is_held_back(t: &Thread) -> bool {
    t.trace
        .tracer()
        .is_some_and(|tracer| !tracer.credentials().has(general::CAP_SYS_PTRACE))
}

/// Takes back what `new` would gain over `old` (`execve(2)` on set-user-ID programs that are traced).
fn hold_back(old: &Credentials, new: &mut Credentials) {
    let sets_ids = new.euid != new.uid || new.egid != new.gid;
    let gains = new.cap_permitted & !old.cap_permitted != 0;
    if !sets_ids && !gains {
        return;
    }
    if !old.has(general::CAP_SETUID) {
        new.euid = new.uid;
        new.egid = new.gid;
    }
    new.cap_permitted &= old.cap_permitted;
    new.cap_effective &= new.cap_permitted;
}

/// Capabilities of a file (capabilities(7), "File capability extended attribute versioning").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileCapabilities {
    permitted: u64,
    inheritable: u64,
    /// They become effective at once: the program knows nothing of capabilities.
    effective: bool,
}

impl FileCapabilities {
    /// The attribute.
    const NAME: &[u8] = b"security.capability";
    const REVISION: u32 = 0xff00_0000;
    const EFFECTIVE: u32 = 1;

    fn of(file: &File) -> Result<Option<Self>> {
        match file.inode.xattr(Self::NAME) {
            Ok(value) => Self::parse(&value),
            // The file system has no attributes, or the host cannot tell.
            Err(_) => Ok(None),
        }
    }

    /// From the attribute's value; nothing if they are for another user namespace's root.
    fn parse(value: &[u8]) -> Result<Option<Self>> {
        let words: Vec<u32> = value
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect();
        let (low, high, root) = match (
            words.first().map(|magic| magic & Self::REVISION),
            value.len(),
        ) {
            (Some(0x0100_0000), 12) => ([words[1], words[2]], [0, 0], 0),
            (Some(0x0200_0000), 20) => ([words[1], words[2]], [words[3], words[4]], 0),
            (Some(0x0300_0000), 24) => ([words[1], words[2]], [words[3], words[4]], words[5]),
            _ => return Err(Errno::EINVAL),
        };
        let set = |index: usize| (u64::from(high[index]) << 32 | u64::from(low[index])) & ALL;
        Ok((root == 0).then(|| Self {
            permitted: set(0),
            inheritable: set(1),
            effective: words[0] & Self::EFFECTIVE != 0,
        }))
    }
}

/// P'(...) of capabilities(7) for a file with or without capabilities of its own.
fn transform(
    new: &mut Credentials,
    changed_ids: bool,
    of_file: Option<&FileCapabilities>,
) -> Result<()> {
    if changed_ids || of_file.is_some() {
        new.cap_ambient = 0;
    }
    let root = (new.uid == 0 || new.euid == 0) && !new.has_securebit(securebits::NOROOT);
    // A set-user-ID program with capabilities of its own gets only those.
    let by_set_id = new.euid == 0 && new.uid != 0;
    let file = match of_file {
        Some(of_file) if !root || by_set_id => *of_file,
        _ if root => FileCapabilities {
            permitted: ALL,
            inheritable: ALL,
            effective: new.euid == 0,
        },
        _ => FileCapabilities {
            permitted: 0,
            inheritable: 0,
            effective: false,
        },
    };
    new.cap_permitted =
        (new.cap_inheritable & file.inheritable) | (file.permitted & new.cap_bounding);
    if of_file
        .is_some_and(|of_file| of_file.effective && of_file.permitted & !new.cap_permitted != 0)
    {
        return Err(Errno::EPERM);
    }
    new.cap_permitted |= new.cap_ambient;
    new.cap_effective = if file.effective {
        new.cap_permitted
    } else {
        new.cap_ambient
    };
    Ok(())
}

/// What a change of user ids does to capabilities (capabilities(7), "Effect of user ID changes").
pub(super) fn after_id_change(old: &Credentials, new: &mut Credentials) {
    if old.has_securebit(securebits::NO_SETUID_FIXUP) {
        return;
    }
    let had_root = [old.uid, old.euid, old.suid].contains(&0);
    let has_root = [new.uid, new.euid, new.suid].contains(&0);
    if had_root && !has_root {
        if !new.has_securebit(securebits::KEEP_CAPS) {
            new.cap_permitted = 0;
            new.cap_effective = 0;
        }
        new.cap_ambient = 0;
    }
    if old.euid == 0 && new.euid != 0 {
        new.cap_effective = 0;
    }
    if old.euid != 0 && new.euid == 0 {
        new.cap_effective = new.cap_permitted;
    }
}

/// Reads the header of capget/capset: how many 32-bit words a set has, and whose sets are meant.
fn header(t: &Thread, header: UserAddr) -> Result<(usize, u32)> {
    let version: u32 = header.read()?;
    let pid: i32 = header.add(4).read()?;
    let words = match version {
        VERSION_1 => 1,
        VERSION_2 | VERSION_3 => 2,
        _ => {
            header.write(&VERSION_3)?;
            return Err(Errno::EINVAL);
        }
    };
    let pid = u32::try_from(pid).map_err(|_| Errno::EINVAL)?;
    Ok((words, if pid == 0 { t.tid() } else { pid }))
}

/// `capget(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`.
pub fn capget(t: &Thread, hdrp: UserAddr, datap: UserAddr) -> SysResult {
    let (words, tid) = match header(t, hdrp) {
        // A NULL data pointer asks for the version only.
        Err(Errno::EINVAL) if datap.is_null() => return Ok(0),
        other => other?,
    };
    let credentials = t
        .kernel
        .tasks
        .thread(tid)
        .ok_or(Errno::ESRCH)?
        .credentials();
    if datap.is_null() {
        return Ok(0);
    }
    for word in 0..words as u64 {
        let part = |set: u64| (set >> (32 * word)) as u32;
        datap.add(word * 12).write(&[
            part(credentials.cap_effective),
            part(credentials.cap_permitted),
            part(credentials.cap_inheritable),
        ])?;
    }
    Ok(0)
}

/// `capset(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EPERM`.
pub fn capset(t: &Thread, hdrp: UserAddr, datap: UserAddr) -> SysResult {
    let (words, tid) = header(t, hdrp)?;
    if tid != t.tid() {
        return Err(Errno::EPERM);
    }
    let [mut effective, mut permitted, mut inheritable] = [0u64; 3];
    for word in 0..words as u64 {
        let [e, p, i]: [u32; 3] = datap.add(word * 12).read()?;
        effective |= u64::from(e) << (32 * word);
        permitted |= u64::from(p) << (32 * word);
        inheritable |= u64::from(i) << (32 * word);
    }
    let [effective, permitted, inheritable] = [effective & ALL, permitted & ALL, inheritable & ALL];
    let old = t.credentials();
    let may_set = old.has(general::CAP_SETPCAP);
    let inheritable_ok = inheritable & !(old.cap_inheritable | old.cap_permitted) == 0 || may_set;
    let bounding_ok = inheritable & !(old.cap_inheritable | old.cap_bounding) == 0;
    if permitted & !old.cap_permitted != 0
        || effective & !permitted != 0
        || !inheritable_ok
        || !bounding_ok
    {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.cap_effective = effective;
    new.cap_permitted = permitted;
    new.cap_inheritable = inheritable;
    new.cap_ambient &= permitted & inheritable;
    t.set_credentials(new);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::user_credentials;
    use super::*;

    #[test]
    fn a_traced_program_gains_nothing() {
        let old = user_credentials(1000, 0);
        let mut new = old.clone();
        new.euid = 0;
        new.cap_permitted = ALL;
        new.cap_effective = ALL;
        hold_back(&old, &mut new);
        assert_eq!(
            (new.euid, new.cap_permitted, new.cap_effective),
            (1000, 0, 0)
        );

        let old = user_credentials(1000, 1 << general::CAP_SETUID);
        let mut new = old.clone();
        new.euid = 0;
        new.cap_permitted = ALL;
        hold_back(&old, &mut new);
        assert_eq!((new.euid, new.cap_permitted), (0, 1 << general::CAP_SETUID));
    }
}
