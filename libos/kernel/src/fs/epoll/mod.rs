//! Event polling (`epoll(7)`).
//!
//! An [`Epoll`] has an entry for each (descriptor number, open file) it watches. The entry listens at the
//! file's wait queues; a wake-up puts it on the ready list, and waiting takes entries off that list and asks
//! each file what is really the case. A file's end is noticed there too: entries hold files weakly.
//!
//! Locks: the table of entries (sleeping) before an entry's `interest`; the ready list is innermost and never
//! held while a file is asked.

mod calls;
mod entry;
mod nesting;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use husk_abi::linux::general;

use super::poll::PollTable;
use super::{File, FileKind, FileOps, FileRef, PollEvents};
use crate::fs::devfs::MemoryDevice;
use crate::sync::{Mutex, SpinLock, WaitQueue};
use crate::{Errno, Result, SysResult, Thread};

pub use calls::{epoll_create, epoll_create1, epoll_ctl, epoll_pwait, epoll_pwait2, epoll_wait};
use entry::{Entry, Interest};

/// The most events one wait may ask for (`EP_MAX_EVENTS`).
const MAX_EVENTS: usize = i32::MAX as usize / size_of::<general::epoll_event>();

/// Bits of `epoll_event::events` that change how an entry behaves.
const ONESHOT: u32 = general::EPOLLONESHOT;
const EDGE: u32 = general::EPOLLET;
const EXCLUSIVE: u32 = general::EPOLLEXCLUSIVE;
/// Has no effect here: the guest does not suspend.
const WAKEUP: u32 = general::EPOLLWAKEUP;
/// What an entry is told whether it asked or not.
const ALWAYS: u32 = general::EPOLLERR | general::EPOLLHUP;
/// What may stand beside `EPOLLEXCLUSIVE`.
const EXCLUSIVE_OK: u32 = general::EPOLLIN | general::EPOLLOUT | ALWAYS | WAKEUP | EDGE | EXCLUSIVE;

/// What identifies an entry: the number and the open file it stood for when it was added.
type Key = (i32, usize);

#[derive(Debug, Default)]
struct Entries {
    map: BTreeMap<Key, Arc<Entry>>,
    /// Entries of closed files are swept out when the map reaches this size.
    sweep_at: usize,
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    weak: Weak<Epoll>,
    entries: Mutex<Entries>,
    ready: SpinLock<VecDeque<Arc<Entry>>>,
    queue: Arc<WaitQueue>,
    /// The instances that watch this one.
    watchers: SpinLock<Vec<Weak<Epoll>>>,
}

fn key(fd: i32, file: &FileRef) -> Key {
    (fd, FileRef::as_ptr(file) as usize)
}

/// Whether `file` can be waited for: what Linux gives a `poll` method.
fn is_pollable(file: &File) -> bool {
    match file.ops.as_any().downcast_ref::<MemoryDevice>() {
        Some(device) => device.is_pollable(),
        None => !matches!(
            file.inode.attributes().kind,
            FileKind::Regular | FileKind::Directory
        ),
    }
}

impl Epoll {
    /// An instance that watches nothing.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|weak| Self {
            weak: weak.clone(),
            entries: Mutex::new(Entries::default()),
            ready: SpinLock::new(VecDeque::new()),
            queue: Arc::new(WaitQueue::new()),
            watchers: SpinLock::new(Vec::new()),
        })
    }

    /// Puts `entry` on the ready list, unless it is there, and wakes waiters.
    fn enqueue(&self, entry: &Arc<Entry>) {
        {
            let mut ready = self.ready.lock();
            if entry.queued.swap(true, Ordering::AcqRel) {
                return;
            }
            ready.push_back(entry.clone());
        }
        self.queue.wake_all();
    }

    /// Takes the first entry off the ready list. Whatever happens to its file from now on enqueues it again.
    fn dequeue(&self) -> Option<Arc<Entry>> {
        let mut ready = self.ready.lock();
        let entry = ready.pop_front()?;
        entry.queued.store(false, Ordering::Release);
        Some(entry)
    }

    fn has_ready(&self) -> bool {
        !self.ready.lock().is_empty()
    }

    /// `EPOLL_CTL_ADD`.
    fn add(&self, t: &Thread, fd: i32, file: &FileRef, interest: Interest) -> Result<()> {
        let mut entries = self.entries.lock();
        if entries.map.len() >= entries.sweep_at {
            entries.map.retain(|_, entry| entry.is_alive());
            entries.sweep_at = (entries.map.len() * 2).max(64);
        }
        if entries.map.contains_key(&key(fd, file)) {
            return Err(Errno::EEXIST);
        }
        let entry = Entry::new(&self.weak, file, interest);
        entries.map.insert(key(fd, file), entry.clone());
        let mut table = PollTable::new(entry.waiter());
        let events = file.ops.poll(t, file, Some(&mut table));
        entry.listen_at(table.keep());
        drop(entries);
        if let Some(inner) = of_file(file) {
            inner.watchers.lock().push(self.weak.clone());
        }
        if entry.wants(events) != 0 {
            self.enqueue(&entry);
        }
        Ok(())
    }

    /// `EPOLL_CTL_MOD`.
    fn modify(&self, t: &Thread, fd: i32, file: &FileRef, interest: Interest) -> Result<()> {
        let entry = self
            .entries
            .lock()
            .map
            .get(&key(fd, file))
            .cloned()
            .ok_or(Errno::ENOENT)?;
        if (interest.events | entry.interest().events) & EXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        entry.set_interest(interest);
        if entry.wants(file.ops.poll(t, file, None)) != 0 {
            self.enqueue(&entry);
        }
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    fn delete(&self, fd: i32, file: &FileRef) -> Result<()> {
        let removed = self.entries.lock().map.remove(&key(fd, file));
        let entry = removed.ok_or(Errno::ENOENT)?;
        // It may be on the ready list still; there it is skipped.
        entry.retire();
        if let Some(inner) = of_file(file) {
            let mut watchers = inner.watchers.lock();
            watchers.retain(|watcher| watcher.strong_count() > 0);
            if let Some(index) = watchers.iter().position(|other| other.ptr_eq(&self.weak)) {
                watchers.remove(index);
            }
        }
        Ok(())
    }

    /// Hands up to `max` events to `give` (data, events), which may refuse one; returns how many it took.
    fn collect(
        &self,
        t: &Thread,
        max: usize,
        mut give: impl FnMut(u64, u32) -> Result<()>,
    ) -> SysResult {
        let mut given = 0;
        let mut again = Vec::new();
        let mut result = Ok(());
        // Each entry is looked at once, however often its file changes meanwhile.
        let mut left = self.ready.lock().len();
        while given < max && left > 0 {
            left -= 1;
            let Some(entry) = self.dequeue() else { break };
            let Some(file) = entry.file() else {
                entry.retire();
                continue;
            };
            let interest = entry.interest();
            let events = interest.matches(file.ops.poll(t, &file, None));
            if events == 0 {
                continue;
            }
            if let Err(error) = give(interest.data, events) {
                again.push(entry);
                result = Err(error);
                break;
            }
            given += 1;
            if interest.events & ONESHOT != 0 {
                entry.disarm();
            } else if interest.events & EDGE == 0 {
                again.push(entry);
            }
        }
        // Level-triggered entries stay ready, behind those that were not looked at.
        for entry in &again {
            self.enqueue(entry);
        }
        if given == 0 {
            result.map(|()| 0)
        } else {
            Ok(given)
        }
    }

    /// Whether an entry is ready, for those who poll the instance itself.
    fn any_ready(&self, t: &Thread) -> bool {
        let ready: Vec<_> = self.ready.lock().iter().cloned().collect();
        ready.iter().any(|entry| {
            entry
                .file()
                .is_some_and(|file| entry.wants(file.ops.poll(t, &file, None)) != 0)
        })
    }

    /// The epoll instances this one watches.
    fn watched(&self) -> Vec<FileRef> {
        let entries = self.entries.lock();
        let files = entries.map.values().filter_map(|entry| entry.file());
        files.filter(|file| of_file(file).is_some()).collect()
    }

    /// The lines `/proc/*/fdinfo` adds.
    #[must_use]
    pub fn fdinfo(&self) -> alloc::string::String {
        use core::fmt::Write;
        let mut lines = alloc::string::String::new();
        for ((fd, _), entry) in &self.entries.lock().map {
            let (Some(file), interest) = (entry.file(), entry.interest()) else {
                continue;
            };
            let attributes = file.inode.attributes();
            // Writing to a string does not fail.
            let _ = writeln!(
                lines,
                "tfd: {fd:8} events: {:8x} data: {:16x}  pos:{} ino:{:x} sdev:{:x}",
                interest.events,
                interest.data,
                *file.position.lock(),
                attributes.ino,
                attributes.dev
            );
        }
        lines
    }
}

/// The epoll instance behind `file`, or `None` if it is none.
fn of_file(file: &File) -> Option<&Epoll> {
    file.ops.as_any().downcast_ref::<Epoll>()
}

impl FileOps for Epoll {
    fn poll(&self, t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.queue);
        }
        if self.any_ready(t) {
            PollEvents::IN | PollEvents::RDNORM
        } else {
            PollEvents::empty()
        }
    }

    fn released(&self) {
        let entries = core::mem::take(&mut self.entries.lock().map);
        for entry in entries.values() {
            entry.retire();
        }
        let ready = core::mem::take(&mut *self.ready.lock());
        drop(ready);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
