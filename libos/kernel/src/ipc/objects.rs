//! Keys, numbers and permissions of System V objects.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use husk_abi::linux::general;

use super::now;
use super::wire::NewPerm;
use crate::process::Credentials;
use crate::sync::SpinLock;
use crate::{Errno, Result};

/// `IPC_PRIVATE`.
const PRIVATE: i32 = 0;
/// `IPC_CREAT`, `IPC_EXCL`, `IPC_NOWAIT`.
const CREATE: u64 = 0o1000;
const EXCLUSIVE: u64 = 0o2000;
pub const NOWAIT: u64 = 0o4000;

/// Bits of an object's number that are its place in the table; those above count how often places were used again.
const PLACE_BITS: u32 = 15;
const MAX_SEQUENCE: u32 = u16::MAX as u32;
/// Places that are gone through before the first is used again.
const MIN_CYCLE: u32 = 64;

/// Read and write permission, for owner, group and others at once.
pub const READ: u32 = 0o444;
pub const WRITE: u32 = 0o222;

/// `struct ipc_perm`.
#[derive(Clone, Copy, Debug)]
pub struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    /// When it was last changed, in seconds.
    pub changed: i64,
}

/// What every object has.
#[derive(Debug)]
pub struct Common {
    /// Its number.
    pub id: i32,
    pub perm: SpinLock<Perm>,
    removed: AtomicBool,
}

impl Common {
    /// `EIDRM` once it was removed.
    pub fn check_alive(&self) -> Result<()> {
        if self.removed.load(Ordering::Acquire) {
            Err(Errno::EIDRM)
        } else {
            Ok(())
        }
    }

    /// It is in the table no more.
    pub fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Checks the `wanted` permission bits, for anybody.
    ///
    /// # Errors
    /// `EACCES`.
    pub fn check(&self, credentials: &Credentials, wanted: u32) -> Result<()> {
        let perm = *self.perm.lock();
        let wanted = wanted >> 6 | wanted >> 3 | wanted;
        let granted = if credentials.euid == perm.cuid || credentials.euid == perm.uid {
            perm.mode >> 6
        } else if credentials.in_group(perm.cgid) || credentials.in_group(perm.gid) {
            perm.mode >> 3
        } else {
            perm.mode
        };
        if wanted & !granted & 7 == 0 || credentials.has(general::CAP_IPC_OWNER) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Checks that the caller may change or remove it.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn check_owner(&self, credentials: &Credentials) -> Result<()> {
        let perm = *self.perm.lock();
        if credentials.euid == perm.cuid
            || credentials.euid == perm.uid
            || credentials.has(general::CAP_SYS_ADMIN)
        {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// `IPC_SET`. Bits of the mode above the permissions stay.
    ///
    /// # Errors
    /// `EINVAL` for ids that are none.
    pub fn change(&self, new: NewPerm) -> Result<()> {
        if new.uid == u32::MAX || new.gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        let mut perm = self.perm.lock();
        (perm.uid, perm.gid) = (new.uid, new.gid);
        perm.mode = perm.mode & !0o777 | new.mode & 0o777;
        perm.changed = now();
        Ok(())
    }
}

/// An object of one of the three kinds.
pub trait Object {
    fn common(&self) -> &Common;
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Table<T> {
    entries: BTreeMap<u32, Arc<T>>,
    last: Option<u32>,
    sequence: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            last: None,
            sequence: 0,
        }
    }
}

impl<T: Object> Table<T> {
    /// The object numbered `id`.
    ///
    /// # Errors
    /// `EINVAL` if there is none; `EIDRM` if its place has another now.
    pub fn get(&self, id: i32) -> Result<Arc<T>> {
        let id = u32::try_from(id).map_err(|_| Errno::EINVAL)?;
        let place = id & ((1 << PLACE_BITS) - 1);
        let found = self.entries.get(&place).ok_or(Errno::EINVAL)?;
        if found.common().id.cast_unsigned() != id {
            return Err(Errno::EIDRM);
        }
        Ok(found.clone())
    }

    /// The object at a place of the table (`MSG_STAT` and the like).
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn at(&self, place: i32) -> Result<Arc<T>> {
        let place = u32::try_from(place).map_err(|_| Errno::EINVAL)?;
        let place = place & ((1 << PLACE_BITS) - 1);
        self.entries.get(&place).cloned().ok_or(Errno::EINVAL)
    }

    /// The highest place in use, 0 if none is.
    pub fn highest(&self) -> usize {
        self.entries
            .keys()
            .next_back()
            .map_or(0, |place| *place as usize)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.entries.values()
    }

    /// The object of `key` for the `get` calls, checked by `fits`, or a new one that `make` makes of what all have;
    /// at most `limit` of them.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `ENOSPC`, and those of `fits` and `make`.
    pub fn find_or_make(
        &mut self,
        credentials: &Credentials,
        key: i32,
        flags: u64,
        limit: usize,
        fits: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(Common) -> Result<T>,
    ) -> Result<i32> {
        let same = |object: &&Arc<T>| object.common().perm.lock().key == key;
        if key != PRIVATE
            && let Some(found) = self.entries.values().find(same)
        {
            if flags & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE {
                return Err(Errno::EEXIST);
            }
            fits(found)?;
            found.common().check(credentials, (flags & 0o777) as u32)?;
            return Ok(found.common().id);
        }
        if key != PRIVATE && flags & CREATE == 0 {
            return Err(Errno::ENOENT);
        }
        if self.entries.len() >= limit {
            return Err(Errno::ENOSPC);
        }
        // Round and round, over more places the more there are objects.
        let places = (self.entries.len() as u32 * 3 / 2).clamp(MIN_CYCLE, 1 << PLACE_BITS);
        let next = self.last.map_or(0, |last| last + 1);
        let place = (next..places)
            .chain(0..places)
            .find(|place| !self.entries.contains_key(place))
            .ok_or(Errno::ENOSPC)?;
        let sequence = match self.last {
            Some(last) if place <= last && self.sequence >= MAX_SEQUENCE => 0,
            Some(last) if place <= last => self.sequence + 1,
            _ => self.sequence,
        };
        let id = (sequence << PLACE_BITS | place).cast_signed();
        let object = make(Common {
            id,
            perm: SpinLock::new(Perm {
                key,
                uid: credentials.euid,
                gid: credentials.egid,
                cuid: credentials.euid,
                cgid: credentials.egid,
                mode: (flags & 0o777) as u32,
                changed: now(),
            }),
            removed: AtomicBool::new(false),
        })?;
        (self.last, self.sequence) = (Some(place), sequence);
        self.entries.insert(place, Arc::new(object));
        Ok(id)
    }

    /// Takes an object out; waiting for it is the caller's business.
    pub fn remove(&mut self, object: &T) -> Option<Arc<T>> {
        object.common().set_removed();
        let place = object.common().id.cast_unsigned() & ((1 << PLACE_BITS) - 1);
        self.entries.remove(&place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    struct Thing(Common);

    impl Object for Thing {
        fn common(&self) -> &Common {
            &self.0
        }
    }

    fn user(uid: u32) -> Credentials {
        Credentials {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid: uid,
            egid: uid,
            sgid: uid,
            fsgid: uid,
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

    fn get(table: &mut Table<Thing>, uid: u32, key: i32, flags: u64) -> Result<i32> {
        table.find_or_make(
            &user(uid),
            key,
            flags,
            3,
            |_| Ok(()),
            |common| Ok(Thing(common)),
        )
    }

    #[test]
    fn numbers_are_not_used_again() {
        let mut table = Table::default();
        assert_eq!(get(&mut table, 1, 0, 0o600), Ok(0));
        assert_eq!(get(&mut table, 1, 0, 0o600), Ok(1));
        let first = table.get(0).unwrap();
        table.remove(&first);
        assert_eq!(first.common().check_alive(), Err(Errno::EIDRM));
        for id in 2..64 {
            assert_eq!(get(&mut table, 1, 0, 0o600), Ok(id));
            let thing = table.get(id).unwrap();
            table.remove(&thing);
        }
        assert_eq!(get(&mut table, 1, 0, 0o600), Ok(1 << 15));
        assert!(matches!(table.get(0), Err(Errno::EIDRM)));
        assert!(matches!(table.get(7), Err(Errno::EINVAL)));
        assert!(matches!(table.get(-1), Err(Errno::EINVAL)));
        assert_eq!(get(&mut table, 1, 0, 0o600), Ok(1 << 15 | 2));
        assert_eq!(get(&mut table, 1, 0, 0o600), Err(Errno::ENOSPC));
        assert_eq!(table.highest(), 2);
    }

    #[test]
    fn keys_and_permissions() {
        let mut table = Table::default();
        assert_eq!(get(&mut table, 1, 5, 0o640), Err(Errno::ENOENT));
        assert_eq!(get(&mut table, 1, 5, CREATE | 0o640), Ok(0));
        assert_eq!(
            get(&mut table, 1, 5, CREATE | EXCLUSIVE | 0o640),
            Err(Errno::EEXIST)
        );
        assert_eq!(get(&mut table, 1, 5, 0o600), Ok(0));
        assert_eq!(get(&mut table, 2, 5, 0o400), Err(Errno::EACCES));
        let mut member = user(2);
        member.groups.push(1);
        let thing = table.get(0).unwrap();
        assert_eq!(thing.common().check(&member, READ), Ok(()));
        assert_eq!(thing.common().check(&member, WRITE), Err(Errno::EACCES));
        assert_eq!(thing.common().check_owner(&member), Err(Errno::EPERM));
        let new = NewPerm {
            uid: 2,
            gid: 9,
            mode: 0o7777,
        };
        thing.common().change(new).unwrap();
        assert_eq!(thing.common().check_owner(&member), Ok(()));
        assert_eq!(thing.common().perm.lock().mode, 0o777);
    }
}
