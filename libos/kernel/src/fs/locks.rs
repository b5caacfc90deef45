//! Advisory locks: record locks of processes and of open files (`fcntl_locking(2)`), and `flock(2)`.
//!
//! A file's locks are found by (device, inode number) and live as long as somebody holds or waits for one.
//! Record locks belong to a descriptor table, whose every `close` of the file drops them, or to an open file;
//! `flock` locks to an open file. Lock order: one file's locks, then the graph of waiters.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use husk_abi::linux::general::{self, flock as Flock};

use super::{FdTable, File, FileRef};
use crate::sync::{Interruptible, SpinLock, WaitQueue};
use crate::syscall::{Fd, Int};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Who holds a lock: a descriptor table or an open file, by its address, which is its own while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Table(usize),
    File(usize),
}

impl Owner {
    fn table(table: &FdTable) -> Self {
        Owner::Table(core::ptr::from_ref(table) as usize)
    }

    fn file(file: &File) -> Self {
        Owner::File(core::ptr::from_ref(file) as usize)
    }
}

/// A lock on bytes `start..=end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    owner: Owner,
    start: u64,
    end: u64,
    exclusive: bool,
    /// Who asked for it, for `F_GETLK`; -1 for locks of open files.
    pid: i32,
}

impl Record {
    fn conflicts(&self, other: &Record) -> bool {
        self.owner != other.owner
            && self.start <= other.end
            && other.start <= self.end
            && (self.exclusive || other.exclusive)
    }
}

#[derive(Debug, Default)]
struct Held {
    records: Vec<Record>,
    /// Whole-file locks: owner and whether it is exclusive.
    whole: Vec<(Owner, bool)>,
}

impl Held {
    fn record_conflict(&self, wanted: &Record) -> Option<Record> {
        self.records
            .iter()
            .find(|held| held.conflicts(wanted))
            .copied()
    }

    /// Sets `new` (or, for `None`, nothing) in place of what `owner` holds in `range`.
    fn set(&mut self, owner: Owner, range: RangeInclusive<u64>, new: Option<Record>) {
        let (start, end) = (*range.start(), *range.end());
        let mut kept = Vec::with_capacity(self.records.len() + 2);
        let mut new = new;
        for held in self.records.drain(..) {
            if held.owner != owner {
                kept.push(held);
                continue;
            }
            // Locks of one kind that touch become one.
            if let Some(new) = &mut new
                && held.exclusive == new.exclusive
                && held.start <= new.end.saturating_add(1)
                && new.start <= held.end.saturating_add(1)
            {
                new.start = new.start.min(held.start);
                new.end = new.end.max(held.end);
                continue;
            }
            if held.end < start || held.start > end {
                kept.push(held);
                continue;
            }
            if held.start < start {
                kept.push(Record {
                    end: start - 1,
                    ..held
                });
            }
            if held.end > end {
                kept.push(Record {
                    start: end + 1,
                    ..held
                });
            }
        }
        kept.extend(new);
        self.records = kept;
    }
}

/// The locks of one file.
#[derive(Debug)]
pub(super) struct InodeLocks {
    key: (u64, u64),
    held: SpinLock<Held>,
    queue: WaitQueue,
}

impl InodeLocks {
    fn release(&self, owner: Owner) {
        let mut held = self.held.lock();
        held.records.retain(|record| record.owner != owner);
        held.whole.retain(|(holder, _)| *holder != owner);
        drop(held);
        self.queue.wake_all();
    }

    /// Drops what the open file holds; it is being closed for good.
    pub(super) fn release_file(&self, file: &File) {
        self.release(Owner::file(file));
    }
}

/// The files whose locks a descriptor table's process holds.
#[derive(Debug, Default)]
pub(super) struct TableLocks(Vec<Arc<InodeLocks>>);

impl TableLocks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, locks: &Arc<InodeLocks>) {
        if !self.0.iter().any(|known| Arc::ptr_eq(known, locks)) {
            self.0.push(locks.clone());
        }
    }

    /// Takes out the locks of `file`.
    pub(super) fn take(&mut self, file: &File) -> Option<Arc<InodeLocks>> {
        let key = key_of(file);
        let index = self.0.iter().position(|locks| locks.key == key)?;
        Some(self.0.swap_remove(index))
    }
}

/// Drops the record locks of the process with descriptor table `table`; it closed a descriptor of the file.
pub(super) fn release_table(locks: &InodeLocks, table: &FdTable) {
    locks.release(Owner::table(table));
}

fn key_of(file: &File) -> (u64, u64) {
    let attributes = file.inode.attributes();
    (attributes.dev, attributes.ino)
}

/// The locks of all files.
#[derive(Debug, Default)]
pub struct LockTable {
    files: SpinLock<BTreeMap<(u64, u64), Weak<InodeLocks>>>,
    /// Who waits for whom, to find circles.
    waiting: SpinLock<BTreeMap<Owner, Owner>>,
}

impl LockTable {
    /// No locks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The locks of `file`, if anybody holds or waits for one.
    fn find(&self, file: &File) -> Option<Arc<InodeLocks>> {
        self.files.lock().get(&key_of(file)).and_then(Weak::upgrade)
    }

    fn find_or_make(&self, file: &File) -> Arc<InodeLocks> {
        let key = key_of(file);
        let mut files = self.files.lock();
        if let Some(locks) = files.get(&key).and_then(Weak::upgrade) {
            return locks;
        }
        files.retain(|_, locks| locks.strong_count() > 0);
        let locks = Arc::new(InodeLocks {
            key,
            held: SpinLock::new(Held::default()),
            queue: WaitQueue::new(),
        });
        files.insert(key, Arc::downgrade(&locks));
        locks
    }

    /// Notes that `owner` waits for `holder`; false if that closes a circle.
    fn wait_for(&self, owner: Owner, holder: Owner) -> bool {
        let mut waiting = self.waiting.lock();
        let mut at = holder;
        while let Some(next) = waiting.get(&at) {
            if *next == owner {
                return false;
            }
            at = *next;
        }
        waiting.insert(owner, holder);
        true
    }

    fn stop_waiting(&self, owner: Owner) {
        self.waiting.lock().remove(&owner);
    }
}

/// The bytes a `struct flock` means.
fn range(file: &File, lock: &Flock) -> Result<RangeInclusive<u64>> {
    let base = match u32::try_from(lock.l_whence) {
        Ok(general::SEEK_SET) => 0,
        Ok(general::SEEK_CUR) => *file.position.lock() as i64,
        Ok(general::SEEK_END) => file.ops.size() as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(lock.l_start).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match lock.l_len {
        0 => (start, i64::MAX),
        len if len > 0 => {
            if start < 0 {
                return Err(Errno::EINVAL);
            }
            (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?)
        }
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let end = u64::try_from(end).map_err(|_| Errno::EINVAL)?;
    Ok(start..=end)
}

/// `None` to unlock, or whether the lock is exclusive.
fn kind(lock: &Flock) -> Result<Option<bool>> {
    match u32::try_from(lock.l_type) {
        Ok(general::F_RDLCK) => Ok(Some(false)),
        Ok(general::F_WRLCK) => Ok(Some(true)),
        Ok(general::F_UNLCK) => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

/// `F_GETLK`, and with `of_file` `F_OFD_GETLK`: tells of a lock that would be in the way.
pub(super) fn get_posix(t: &Thread, file: &FileRef, arg: UserAddr, of_file: bool) -> SysResult {
    let mut lock: Flock = arg.read()?;
    let exclusive = kind(&lock)?.ok_or(Errno::EINVAL)?;
    if of_file && lock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let range = range(file, &lock)?;
    let owner = if of_file {
        Owner::file(file)
    } else {
        Owner::table(&t.files())
    };
    let wanted = Record {
        owner,
        start: *range.start(),
        end: *range.end(),
        exclusive,
        pid: 0,
    };
    let found = t
        .kernel
        .fs
        .locks
        .find(file)
        .and_then(|locks| locks.held.lock().record_conflict(&wanted));
    match found {
        None => lock.l_type = general::F_UNLCK as i16,
        Some(held) => {
            lock.l_type = if held.exclusive {
                general::F_WRLCK as i16
            } else {
                general::F_RDLCK as i16
            };
            lock.l_whence = general::SEEK_SET as i16;
            lock.l_start = held.start as i64;
            lock.l_len = if held.end == i64::MAX as u64 {
                0
            } else {
                (held.end - held.start + 1) as i64
            };
            lock.l_pid = held.pid;
        }
    }
    arg.write(&lock)?;
    Ok(0)
}

/// `F_SETLK` and, if it `waits`, `F_SETLKW`.
pub(super) fn set_posix(
    t: &Thread,
    files: &Arc<FdTable>,
    file: &FileRef,
    arg: UserAddr,
    waits: bool,
) -> SysResult {
    let lock: Flock = arg.read()?;
    let pid = t.process.pid as i32;
    let locks = set_record(t, file, Owner::table(files), &lock, pid, waits)?;
    if let Some(locks) = locks {
        files.with_locks(|held| held.add(&locks));
    }
    Ok(0)
}

/// `F_OFD_SETLK` and, if it `waits`, `F_OFD_SETLKW`.
pub(super) fn set_ofd(t: &Thread, file: &FileRef, arg: UserAddr, waits: bool) -> SysResult {
    let lock: Flock = arg.read()?;
    if lock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let locks = set_record(t, file, Owner::file(file), &lock, -1, waits)?;
    if let Some(locks) = locks {
        file.locks.call_once(|| locks);
    }
    Ok(0)
}

/// Sets or clears a record lock; gives the file's locks if there is now one to hold on to.
fn set_record(
    t: &Thread,
    file: &FileRef,
    owner: Owner,
    lock: &Flock,
    pid: i32,
    waits: bool,
) -> Result<Option<Arc<InodeLocks>>> {
    let kind = kind(lock)?;
    let range = range(file, lock)?;
    let table = &t.kernel.fs.locks;
    let Some(exclusive) = kind else {
        if let Some(locks) = table.find(file) {
            locks.held.lock().set(owner, range, None);
            locks.queue.wake_all();
        }
        return Ok(None);
    };
    let allowed = if exclusive {
        file.is_writable()
    } else {
        file.is_readable()
    };
    if !allowed {
        return Err(Errno::EBADF);
    }
    let locks = table.find_or_make(file);
    let wanted = Record {
        owner,
        start: *range.start(),
        end: *range.end(),
        exclusive,
        pid,
    };
    let attempt = || -> Option<Result<()>> {
        let mut held = locks.held.lock();
        let conflict = held.record_conflict(&wanted);
        match conflict {
            None => {
                held.set(owner, range.clone(), Some(wanted));
                Some(Ok(()))
            }
            Some(_) if !waits => Some(Err(Errno::EAGAIN)),
            Some(held) => (!table.wait_for(owner, held.owner)).then_some(Err(Errno::EDEADLK)),
        }
    };
    let result = locks.queue.wait(t, Interruptible::Yes, None, attempt);
    table.stop_waiting(owner);
    result.map_err(|error| error.errno(Errno::ERESTARTSYS))??;
    // What was exclusive may now be shared.
    locks.queue.wake_all();
    Ok(Some(locks))
}

/// `flock(2)`.
pub fn flock(t: &Thread, fd: Fd, operation: Int) -> SysResult {
    let file = t.file(fd)?;
    let operation = operation as u32;
    let waits = operation & general::LOCK_NB == 0;
    let exclusive = match operation & !general::LOCK_NB {
        general::LOCK_SH => Some(false),
        general::LOCK_EX => Some(true),
        general::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let owner = Owner::file(&file);
    let table = &t.kernel.fs.locks;
    let Some(exclusive) = exclusive else {
        if let Some(locks) = table.find(&file) {
            locks
                .held
                .lock()
                .whole
                .retain(|(holder, _)| *holder != owner);
            locks.queue.wake_all();
        }
        return Ok(0);
    };
    let locks = table.find_or_make(&file);
    {
        // Changing a lock's kind gives the old one up first, as on Linux.
        let mut held = locks.held.lock();
        if held.whole.contains(&(owner, exclusive)) {
            return Ok(0);
        }
        held.whole.retain(|(holder, _)| *holder != owner);
    }
    locks.queue.wake_all();
    let attempt = || {
        let mut held = locks.held.lock();
        let taken = held.whole.iter().any(|(_, other)| exclusive || *other);
        if !taken {
            held.whole.push((owner, exclusive));
            return Some(Ok(()));
        }
        (!waits).then_some(Err(Errno::EAGAIN))
    };
    locks
        .queue
        .wait(t, Interruptible::Yes, None, attempt)
        .map_err(|error| error.errno(Errno::ERESTARTSYS))??;
    file.locks.call_once(|| locks.clone());
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(owner: usize, start: u64, end: u64, exclusive: bool) -> Record {
        Record {
            owner: Owner::Table(owner),
            start,
            end,
            exclusive,
            pid: 0,
        }
    }

    /// What `owner` holds byte by byte: 0 nothing, 1 shared, 2 exclusive.
    fn bytes(held: &Held, owner: usize) -> [u8; 32] {
        core::array::from_fn(|at| {
            let found: Vec<_> = held
                .records
                .iter()
                .filter(|r| r.owner == Owner::Table(owner))
                .filter(|r| (r.start..=r.end).contains(&(at as u64)))
                .collect();
            assert!(found.len() <= 1, "one lock a byte");
            found.first().map_or(0, |r| 1 + u8::from(r.exclusive))
        })
    }

    /// Random sets and clears against an array of bytes.
    #[test]
    fn splitting_and_merging() {
        let mut seed = 12345u64;
        let mut random = move |bound: u64| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % bound
        };
        let mut held = Held::default();
        let mut model = [[0u8; 32]; 2];
        for _ in 0..20_000 {
            let owner = random(2) as usize;
            let (a, b) = (random(32), random(32));
            let (start, end) = (a.min(b), a.max(b));
            let kind = random(3) as u8;
            let new = (kind > 0).then(|| record(owner, start, end, kind == 2));
            held.set(Owner::Table(owner), start..=end, new);
            model[owner][start as usize..=end as usize].fill(kind);
            assert_eq!(bytes(&held, owner), model[owner]);
            assert_eq!(bytes(&held, 1 - owner), model[1 - owner]);
        }
        // Neighbours of one kind are one lock.
        held.set(Owner::Table(0), 0..=31, Some(record(0, 0, 31, true)));
        held.set(Owner::Table(0), 0..=9, None);
        held.set(Owner::Table(0), 0..=9, Some(record(0, 0, 9, true)));
        let own = held.records.iter().filter(|r| r.owner == Owner::Table(0));
        assert_eq!(own.count(), 1);
    }

    #[test]
    fn conflicts() {
        let mut held = Held::default();
        held.set(Owner::Table(1), 0..=9, Some(record(1, 0, 9, false)));
        assert!(held.record_conflict(&record(2, 5, 6, false)).is_none());
        assert!(held.record_conflict(&record(2, 9, 9, true)).is_some());
        assert!(held.record_conflict(&record(2, 10, 20, true)).is_none());
        assert!(held.record_conflict(&record(1, 0, 9, true)).is_none());
    }

    #[test]
    fn circles() {
        let table = LockTable::new();
        let owner = Owner::Table;
        assert!(table.wait_for(owner(1), owner(2)));
        assert!(table.wait_for(owner(2), owner(3)));
        assert!(!table.wait_for(owner(3), owner(1)));
        table.stop_waiting(owner(2));
        assert!(table.wait_for(owner(3), owner(1)));
    }
}
