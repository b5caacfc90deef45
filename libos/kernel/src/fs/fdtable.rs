//! Descriptors: small integers for open files (`open(2)`, `dup(2)`, `close(2)`).
//!
//! Threads share a table (`CLONE_FILES`) or have a copy of it. A file dropped from the table is released
//! after the table's lock: releasing may wake others, flush, or free memory.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use husk_abi::linux::general;

use super::FileRef;
use super::locks::{self, TableLocks};
use crate::sync::SpinLock;
use crate::{Errno, Result, Thread};

/// One open descriptor.
#[derive(Clone, Debug)]
struct Slot {
    file: FileRef,
    /// `FD_CLOEXEC`.
    close_on_exec: bool,
}

#[derive(Clone, Debug, Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    /// No descriptor below this is free.
    lowest_free: usize,
}

impl Slots {
    fn get(&self, fd: i32) -> Result<&Slot> {
        usize::try_from(fd)
            .ok()
            .and_then(|index| self.slots.get(index))
            .and_then(Option::as_ref)
            .ok_or(Errno::EBADF)
    }

    fn get_mut(&mut self, fd: i32) -> Result<&mut Slot> {
        usize::try_from(fd)
            .ok()
            .and_then(|index| self.slots.get_mut(index))
            .and_then(Option::as_mut)
            .ok_or(Errno::EBADF)
    }

    /// The lowest free descriptor from `min` on.
    fn free_from(&mut self, min: usize) -> usize {
        let from = min.max(self.lowest_free);
        let index = (from..self.slots.len())
            .find(|index| self.slots[*index].is_none())
            .unwrap_or(self.slots.len().max(from));
        if min <= self.lowest_free {
            self.lowest_free = index;
        }
        index
    }

    fn put(&mut self, index: usize, slot: Slot) -> Option<FileRef> {
        if index >= self.slots.len() {
            self.slots.resize(index + 1, None);
        }
        self.slots[index].replace(slot).map(|old| old.file)
    }

    fn take(&mut self, index: usize) -> Option<FileRef> {
        let slot = self.slots.get_mut(index)?.take()?;
        self.lowest_free = self.lowest_free.min(index);
        Some(slot.file)
    }
}

/// A table of descriptors.
#[derive(Debug, Default)]
pub struct FdTable {
    slots: SpinLock<Slots>,
    /// Files whose record locks its process holds; closing any descriptor of such a file drops them.
    locks: SpinLock<TableLocks>,
    has_locks: AtomicBool,
}

/// How many descriptors `t` may have (`RLIMIT_NOFILE`).
fn limit(t: &Thread) -> usize {
    // Descriptors are C ints whatever the limit says; `fs.nr_open`'s default is the hard bound.
    const NR_OPEN: u64 = 1 << 20;
    t.process
        .limit(general::RLIMIT_NOFILE)
        .map_or(0, |limit| limit.rlim_cur.min(NR_OPEN) as usize)
}

impl FdTable {
    /// A table without descriptors.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A copy of the table, sharing the open files (fork).
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        Arc::new(Self {
            slots: SpinLock::new(self.slots.lock().clone()),
            locks: SpinLock::default(),
            has_locks: AtomicBool::new(false),
        })
    }

    /// The open file of `fd`.
    ///
    /// # Errors
    /// `EBADF` if it is not open, or was opened with `O_PATH`.
    pub fn get(&self, fd: i32) -> Result<FileRef> {
        let file = self.get_any(fd)?;
        if file.is_path() {
            return Err(Errno::EBADF);
        }
        Ok(file)
    }

    /// The open file of `fd`, `O_PATH` files included.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get_any(&self, fd: i32) -> Result<FileRef> {
        Ok(self.slots.lock().get(fd)?.file.clone())
    }

    /// Checks that a descriptor is free, before something is done that must not be done in vain.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn check_room(&self, t: &Thread) -> Result<()> {
        if self.slots.lock().free_from(0) < limit(t) {
            Ok(())
        } else {
            Err(Errno::EMFILE)
        }
    }

    /// Gives `file` the lowest free descriptor.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn alloc(&self, t: &Thread, file: FileRef, close_on_exec: bool) -> Result<i32> {
        self.alloc_from(t, 0, file, close_on_exec)
    }

    /// Gives `file` the lowest free descriptor that is at least `min`.
    ///
    /// # Errors
    /// `EMFILE`; `EINVAL` if `min` is not below `RLIMIT_NOFILE`.
    pub fn alloc_from(
        &self,
        t: &Thread,
        min: usize,
        file: FileRef,
        close_on_exec: bool,
    ) -> Result<i32> {
        let limit = limit(t);
        if min > 0 && min >= limit {
            return Err(Errno::EINVAL);
        }
        let mut slots = self.slots.lock();
        let index = slots.free_from(min);
        if index >= limit {
            return Err(Errno::EMFILE);
        }
        slots.put(
            index,
            Slot {
                file,
                close_on_exec,
            },
        );
        i32::try_from(index).map_err(|_| Errno::EMFILE)
    }

    /// Makes `fd` refer to `file`, closing what it referred to (`dup2(2)`, and the standard streams at boot).
    ///
    /// # Errors
    /// `EBADF` if `fd` is negative or not below `RLIMIT_NOFILE`.
    pub fn replace(&self, t: &Thread, fd: i32, file: FileRef, close_on_exec: bool) -> Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index >= limit(t) {
            return Err(Errno::EBADF);
        }
        let old = self.slots.lock().put(
            index,
            Slot {
                file,
                close_on_exec,
            },
        );
        if let Some(old) = old {
            self.closed(old);
        }
        Ok(())
    }

    /// Closes `fd`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&self, fd: i32) -> Result<()> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let file = self.slots.lock().take(index).ok_or(Errno::EBADF)?;
        self.closed(file);
        Ok(())
    }

    /// Closes the open descriptors in `first..=last`.
    pub fn close_range(&self, first: u32, last: u32) {
        self.close_where(first as usize, last as usize, |_| true);
    }

    /// Sets `FD_CLOEXEC` on the open descriptors in `first..=last`.
    pub fn close_on_exec_range(&self, first: u32, last: u32) {
        let mut slots = self.slots.lock();
        let end = slots.slots.len().min((last as usize).saturating_add(1));
        for slot in slots
            .slots
            .get_mut(first as usize..end)
            .into_iter()
            .flatten()
            .flatten()
        {
            slot.close_on_exec = true;
        }
    }

    /// Closes what is marked `FD_CLOEXEC`; for exec.
    pub fn close_on_exec(&self) {
        self.close_where(0, usize::MAX, |slot| slot.close_on_exec);
    }

    /// Closes everything; for a process that ends.
    pub fn close_all(&self) {
        let slots = core::mem::take(&mut *self.slots.lock());
        for slot in slots.slots.into_iter().flatten() {
            self.closed(slot.file);
        }
    }

    fn close_where(&self, first: usize, last: usize, matches: impl Fn(&Slot) -> bool) {
        let mut next = first;
        loop {
            let file = {
                let mut slots = self.slots.lock();
                let end = slots.slots.len().min(last.saturating_add(1));
                let found =
                    (next..end).find(|index| slots.slots[*index].as_ref().is_some_and(&matches));
                let Some(index) = found else { return };
                next = index + 1;
                slots.take(index)
            };
            if let Some(file) = file {
                self.closed(file);
            }
        }
    }

    /// A descriptor of `file` is gone from this table.
    fn closed(&self, file: FileRef) {
        if self.has_locks.load(Ordering::Acquire) {
            let locks = self.with_locks(|held| held.take(&file));
            if let Some(locks) = locks {
                locks::release_table(&locks, self);
            }
        }
        if FileRef::strong_count(&file) > 1 {
            let ops = file.ops.clone();
            drop(file);
            ops.descriptor_closed();
        }
    }

    /// Looks at or changes the list of files whose record locks the table's process holds.
    pub(super) fn with_locks<T>(&self, change: impl FnOnce(&mut TableLocks) -> T) -> T {
        let mut locks = self.locks.lock();
        let value = change(&mut locks);
        self.has_locks.store(!locks.is_empty(), Ordering::Release);
        value
    }

    /// Whether `fd` has `FD_CLOEXEC`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn is_close_on_exec(&self, fd: i32) -> Result<bool> {
        Ok(self.slots.lock().get(fd)?.close_on_exec)
    }

    /// Sets or clears `FD_CLOEXEC`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<()> {
        self.slots.lock().get_mut(fd)?.close_on_exec = on;
        Ok(())
    }

    /// The open descriptors in order (`/proc/*/fd`).
    #[must_use]
    pub fn open_fds(&self) -> Vec<i32> {
        let slots = self.slots.lock();
        (0i32..)
            .zip(&slots.slots)
            .filter_map(|(fd, slot)| slot.as_ref().map(|_| fd))
            .collect()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        self.close_all();
    }
}
