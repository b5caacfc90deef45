//! Advisory locks: record locks of processes and of open files (`fcntl_locking(2)`), and `flock(2)`.
//!
//! A file's locks are found by (device, inode number) and live as long as somebody holds or waits for one.
//! Record locks belong to a descriptor table, whose every `close` of the file drops them, or to an open file;
//! `flock` locks to an open file. Lock order: one file's locks, then the graph of waiters.
//!
//! A file that others use outside of the guest is locked there, too: what the guest's owners hold together is what the guest
//! holds outside ([`Inode::lock_outside`]). `told` is held while both are changed. Nobody outside says when a lock is free
//! again, so who waits for one asks again and again, more and more slowly.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use husk_abi::linux::general::{self, flock as Flock};

use husk_abi::boundary::fuse::{LOCK_ASK, LOCK_END, LOCK_WHOLE, LockIn};

use super::fuse::Pauses;
use super::{FdTable, File, FileRef, Inode};
use crate::sync::{Interruptible, Mutex, SpinLock, WaitError, WaitQueue};
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
    /// What the owners hold together of `range`: first and last byte, and 0, 1 or 2 for nothing, shared, exclusive.
    fn together(&self, range: &RangeInclusive<u64>) -> Vec<(u64, u64, u32)> {
        let (start, end) = (*range.start(), *range.end());
        let mut edges = alloc::vec![start];
        for record in &self.records {
            edges.extend([record.start, record.end.saturating_add(1)]);
        }
        edges.retain(|edge| range.contains(edge));
        edges.sort_unstable();
        edges.dedup();
        let mut parts: Vec<(u64, u64, u32)> = Vec::with_capacity(edges.len());
        for (at, from) in edges.iter().enumerate() {
            let to = edges.get(at + 1).map_or(end, |next| next - 1);
            let here = self
                .records
                .iter()
                .filter(|r| r.start <= *from && to <= r.end);
            let kind = here.map(|r| 1 + u32::from(r.exclusive)).max().unwrap_or(0);
            match parts.last_mut() {
                Some(last) if last.2 == kind => last.1 = to,
                _ => parts.push((*from, to, kind)),
            }
        }
        parts
    }

    /// What the owners hold together of the whole file.
    fn whole_together(&self) -> u32 {
        let kinds = self
            .whole
            .iter()
            .map(|(_, exclusive)| 1 + u32::from(*exclusive));
        kinds.max().unwrap_or(0)
    }

    /// The records of `owner`.
    fn of(&self, owner: Owner) -> Vec<Record> {
        let own = self.records.iter().filter(|record| record.owner == owner);
        own.copied().collect()
    }

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
    /// The file, if it is locked outside as well.
    outside: Option<Arc<dyn Inode>>,
    told: Mutex<()>,
}

/// All bytes of a file.
const ALL: RangeInclusive<u64> = 0..=i64::MAX as u64;

impl InodeLocks {
    /// Makes what is locked in `range` outside what the owners here hold together.
    ///
    /// # Errors
    /// `EAGAIN` if somebody outside is in the way; `ENOLCK`, and what locking the host's file gives.
    fn tell_records(&self, range: &RangeInclusive<u64>) -> Result<()> {
        let Some(inode) = &self.outside else {
            return Ok(());
        };
        let parts = self.held.lock().together(range);
        for (start, end, kind) in parts {
            tell(inode, start..=end, kind, 0)?;
        }
        Ok(())
    }

    /// As [`InodeLocks::tell_records`] for the lock of the whole file.
    ///
    /// # Errors
    /// The same.
    fn tell_whole(&self) -> Result<()> {
        let Some(inode) = &self.outside else {
            return Ok(());
        };
        let kind = self.held.lock().whole_together();
        tell(inode, ALL, kind, LOCK_WHOLE)
    }

    /// Sets `new` in place of what its owner holds of `range`, here and outside.
    ///
    /// # Errors
    /// As [`InodeLocks::tell_records`]; nothing has changed then.
    fn set(&self, owner: Owner, range: &RangeInclusive<u64>, new: Option<Record>) -> Result<()> {
        let before = {
            let mut held = self.held.lock();
            let before = held.of(owner);
            held.set(owner, range.clone(), new);
            before
        };
        let told = self.tell_records(range);
        if told.is_err() {
            let mut held = self.held.lock();
            held.records.retain(|record| record.owner != owner);
            held.records.extend(before);
            drop(held);
            // Back to less than was asked for: that cannot fail.
            let _ = self.tell_records(range);
        }
        told
    }

    /// Runs `attempt`, which gives nothing while somebody is in the way, until it gives something.
    fn wait<T>(&self, t: &Thread, mut attempt: impl FnMut() -> Option<Result<T>>) -> Result<T> {
        let mut pauses = Pauses::new();
        loop {
            let pause = |ns| husk_hal::clock::now_ns().saturating_add(ns);
            let deadline = self.outside.is_some().then(|| pause(pauses.next_ns()));
            let result = self.queue.wait(t, Interruptible::Yes, deadline, || {
                let _told = self.outside.is_some().then(|| self.told.lock());
                attempt()
            });
            match result {
                Err(WaitError::TimedOut) => {}
                other => return other.map_err(|error| error.errno(Errno::ERESTARTSYS))?,
            }
        }
    }

    /// The owner's lock of the whole file is free again.
    fn give_up_whole(&self, owner: Owner) -> Result<()> {
        {
            let _told = self.outside.is_some().then(|| self.told.lock());
            let mut held = self.held.lock();
            let count = held.whole.len();
            held.whole.retain(|(holder, _)| *holder != owner);
            let has_lost = held.whole.len() < count;
            drop(held);
            if has_lost {
                self.tell_whole()?;
            }
        }
        self.queue.wake_all();
        Ok(())
    }

    fn release(&self, owner: Owner) {
        let _told = self.outside.is_some().then(|| self.told.lock());
        let mut held = self.held.lock();
        let records = held.records.len();
        held.records.retain(|record| record.owner != owner);
        let has_lost_records = held.records.len() < records;
        held.whole.retain(|(holder, _)| *holder != owner);
        let is_empty = held.records.is_empty() && held.whole.is_empty();
        drop(held);
        // Less than before: that cannot fail, and nobody could be told.
        if is_empty && let Some(inode) = &self.outside {
            let _ = tell(inode, ALL, 0, LOCK_END);
        } else {
            if has_lost_records {
                let _ = self.tell_records(&ALL);
            }
            let _ = self.tell_whole();
        }
        self.queue.wake_all();
    }

    /// Drops what the open file holds; it is being closed for good.
    pub(super) fn release_file(&self, file: &File) {
        self.release(Owner::file(file));
    }
}

/// Tells who else uses the file what the guest holds of it now.
fn tell(inode: &Arc<dyn Inode>, range: RangeInclusive<u64>, kind: u32, flags: u32) -> Result<()> {
    let lock = LockIn {
        start: *range.start(),
        end: *range.end(),
        kind,
        flags,
    };
    inode
        .lock_outside(&lock)
        .map(drop)
        .map_err(|errno| match errno {
            Errno::EACCES => Errno::EAGAIN,
            other => other,
        })
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
            outside: file.inode.is_locked_outside().then(|| file.inode.clone()),
            told: Mutex::new(()),
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
    let found = match found {
        None if file.inode.is_locked_outside() => ask_outside(file, &wanted)?,
        found => found,
    };
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

/// A lock outside that is in the way of `wanted`.
fn ask_outside(file: &File, wanted: &Record) -> Result<Option<Record>> {
    let ask = LockIn {
        start: wanted.start,
        end: wanted.end,
        kind: 1 + u32::from(wanted.exclusive),
        flags: LOCK_ASK,
    };
    let found = file.inode.lock_outside(&ask)?;
    Ok(found.filter(|found| found.kind != 0).map(|found| Record {
        owner: Owner::File(0),
        start: found.start,
        end: found.end,
        exclusive: found.kind == 2,
        pid: found.pid.cast_signed(),
    }))
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
            {
                let _told = locks.outside.is_some().then(|| locks.told.lock());
                locks.set(owner, &range, None)?;
            }
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
        let conflict = locks.held.lock().record_conflict(&wanted);
        match conflict {
            None => {
                table.stop_waiting(owner);
                match locks.set(owner, &range, Some(wanted)) {
                    // Somebody outside.
                    Err(Errno::EAGAIN) if waits => None,
                    other => Some(other),
                }
            }
            Some(_) if !waits => Some(Err(Errno::EAGAIN)),
            Some(held) => (!table.wait_for(owner, held.owner)).then_some(Err(Errno::EDEADLK)),
        }
    };
    let result = locks.wait(t, attempt);
    table.stop_waiting(owner);
    result?;
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
            locks.give_up_whole(owner)?;
        }
        return Ok(0);
    };
    let locks = table.find_or_make(&file);
    if locks.held.lock().whole.contains(&(owner, exclusive)) {
        return Ok(0);
    }
    // Changing a lock's kind gives the old one up first, as on Linux.
    locks.give_up_whole(owner)?;
    locks.wait(t, || {
        let taken = {
            let mut held = locks.held.lock();
            let taken = held.whole.iter().any(|(_, other)| exclusive || *other);
            if !taken {
                held.whole.push((owner, exclusive));
            }
            taken
        };
        if taken {
            return (!waits).then_some(Err(Errno::EAGAIN));
        }
        let told = locks.tell_whole();
        if told.is_err() {
            locks
                .held
                .lock()
                .whole
                .retain(|(holder, _)| *holder != owner);
            let _ = locks.tell_whole();
        }
        match told {
            // Somebody outside.
            Err(Errno::EAGAIN) if waits => None,
            other => Some(other),
        }
    })?;
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
    fn what_all_hold_together() {
        let mut held = Held::default();
        held.set(Owner::Table(1), 0..=9, Some(record(1, 0, 9, false)));
        held.set(Owner::Table(2), 5..=20, Some(record(2, 5, 20, false)));
        held.set(Owner::Table(3), 30..=39, Some(record(3, 30, 39, true)));
        let all = [(0, 20, 1), (21, 29, 0), (30, 39, 2)];
        assert_eq!(held.together(&(0..=39)), all);
        assert_eq!(
            held.together(&(3..=31)),
            [(3, 20, 1), (21, 29, 0), (30, 31, 2)]
        );
        let end = i64::MAX as u64;
        assert_eq!(held.together(&(40..=end)), [(40, end, 0)]);
        held.set(Owner::Table(1), 0..=9, None);
        assert_eq!(held.together(&(0..=9)), [(0, 4, 0), (5, 9, 1)]);
        held.whole
            .extend([(Owner::File(1), false), (Owner::File(2), false)]);
        assert_eq!(held.whole_together(), 1);
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
