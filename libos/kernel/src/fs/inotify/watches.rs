//! Which files are watched, and by whom.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Event, Events, Inotify, MAX_INSTANCES, MAX_WATCHES};
use crate::fs::Inode;
use crate::sync::SpinLock;
use crate::{Errno, Result};

/// What identifies a file: device and inode number. File systems may make inode objects on the fly.
pub(super) type InodeId = (u64, u64);

/// The identity of `inode`.
pub(super) fn id(inode: &dyn Inode) -> InodeId {
    let attributes = inode.attributes();
    (attributes.dev, attributes.ino)
}

/// One file watched by one instance.
#[derive(Debug)]
pub(super) struct Watch {
    /// Its descriptor in the instance.
    pub wd: i32,
    pub id: InodeId,
    mask: AtomicU32,
    instance: Weak<Inotify>,
    /// Keeps the number from being given to another file.
    _inode: Arc<dyn Inode>,
}

impl Watch {
    pub fn new(wd: i32, mask: Events, instance: Weak<Inotify>, inode: Arc<dyn Inode>) -> Arc<Self> {
        Arc::new(Self {
            wd,
            id: id(&*inode),
            mask: AtomicU32::new(mask.bits()),
            instance,
            _inode: inode,
        })
    }

    /// What it waits for, and how.
    pub fn mask(&self) -> Events {
        Events::from_bits_retain(self.mask.load(Ordering::Relaxed))
    }

    fn queue(&self, mask: Events, cookie: u32, name: &[u8]) {
        if let Some(instance) = self.instance.upgrade() {
            instance.queue(Event {
                wd: self.wd,
                mask,
                cookie,
                name: name.to_vec(),
            });
        }
    }

    /// Tells its instance that it is gone.
    fn ignored(&self) {
        if let Some(instance) = self.instance.upgrade() {
            instance.ignored(self.wd);
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    by_inode: BTreeMap<InodeId, Vec<Arc<Watch>>>,
    count: usize,
    /// Files without names, with the number of open files that keep them.
    doomed: BTreeMap<InodeId, usize>,
    /// Instances by user.
    instances: BTreeMap<u32, usize>,
}

impl Table {
    /// All that some watch waits for.
    fn interest(&self) -> u32 {
        let watches = self.by_inode.values().flatten();
        watches.fold(0, |all, watch| all | watch.mask().bits())
    }
}

/// The watches of all instances.
#[derive(Debug, Default)]
pub struct Watches {
    /// What some watch waits for: looked at by every file call.
    interest: AtomicU32,
    cookie: AtomicU32,
    table: SpinLock<Table>,
}

impl Watches {
    /// Whether some watch waits for one of `events`.
    #[inline]
    pub(super) fn wants(&self, events: Events) -> bool {
        self.interest.load(Ordering::Relaxed) & events.bits() != 0
    }

    /// Whether there are watches at all.
    pub(super) fn any(&self) -> bool {
        self.interest.load(Ordering::Relaxed) != 0
    }

    /// A number that joins the halves of a rename.
    pub(super) fn next_cookie(&self) -> u32 {
        self.cookie.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts an instance of user `uid`.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(super) fn instance(&self, uid: u32) -> Result<()> {
        let mut table = self.table.lock();
        let count = table.instances.entry(uid).or_default();
        if *count >= MAX_INSTANCES {
            return Err(Errno::EMFILE);
        }
        *count += 1;
        Ok(())
    }

    pub(super) fn instance_gone(&self, uid: u32) {
        let mut table = self.table.lock();
        if let Some(count) = table.instances.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                table.instances.remove(&uid);
            }
        }
    }

    /// # Errors
    /// `ENOSPC` if there are too many.
    pub(super) fn add(&self, watch: Arc<Watch>) -> Result<()> {
        let mut table = self.table.lock();
        if table.count >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        table.count += 1;
        // An entry at all shows that there are watches, whatever they wait for.
        let mask = watch.mask() | Events::IGNORED;
        self.interest.fetch_or(mask.bits(), Ordering::Relaxed);
        table.by_inode.entry(watch.id).or_default().push(watch);
        Ok(())
    }

    /// Changes what a watch waits for.
    pub(super) fn change(&self, watch: &Watch, mask: Events) {
        let table = self.table.lock();
        watch.mask.store(mask.bits(), Ordering::Relaxed);
        let interest = table.interest() | Events::IGNORED.bits();
        self.interest.store(interest, Ordering::Relaxed);
    }

    /// Takes a watch out. False if it was out already.
    pub(super) fn remove(&self, watch: &Arc<Watch>) -> bool {
        let mut table = self.table.lock();
        let Some(watches) = table.by_inode.get_mut(&watch.id) else {
            return false;
        };
        let before = watches.len();
        watches.retain(|other| !Arc::ptr_eq(other, watch));
        let removed = before - watches.len();
        if watches.is_empty() {
            table.by_inode.remove(&watch.id);
            table.doomed.remove(&watch.id);
        }
        table.count -= removed;
        let exists = if table.count == 0 {
            0
        } else {
            Events::IGNORED.bits()
        };
        self.interest
            .store(table.interest() | exists, Ordering::Relaxed);
        removed > 0
    }

    fn of(&self, id: InodeId) -> Vec<Arc<Watch>> {
        let table = self.table.lock();
        table.by_inode.get(&id).cloned().unwrap_or_default()
    }

    pub(super) fn is_watched(&self, id: InodeId) -> bool {
        self.table.lock().by_inode.contains_key(&id)
    }

    /// Tells the watches of file `id` of one event. `name` is empty if it happened to the file itself, else the name
    /// in the directory `id` of what it happened to; `unlinked` if that has no name any more.
    pub(super) fn emit(
        &self,
        id: InodeId,
        event: Events,
        cookie: u32,
        name: &[u8],
        unlinked: bool,
    ) {
        for watch in self.of(id) {
            let mask = watch.mask();
            if !mask.intersects(event & Events::ALL)
                || (unlinked && mask.contains(Events::EXCL_UNLINK))
            {
                continue;
            }
            watch.queue(event, cookie, name);
            if mask.contains(Events::ONESHOT) && self.remove(&watch) {
                watch.ignored();
            }
        }
    }

    /// The file `id` is gone for good, or its file system is: `event` says which. Its watches go, too.
    pub(super) fn gone(&self, id: InodeId, event: Events) {
        for watch in self.of(id) {
            // A file system that goes is told to all.
            if watch.mask().intersects(event) || event == Events::UNMOUNT {
                watch.queue(event, 0, b"");
            }
            if self.remove(&watch) {
                watch.ignored();
            }
        }
    }

    /// The file system with device number `device` is gone.
    pub(in crate::fs) fn unmounted(&self, device: u64) {
        let ids: Vec<InodeId> = {
            let table = self.table.lock();
            let range = (device, 0)..=(device, u64::MAX);
            table.by_inode.range(range).map(|(id, _)| *id).collect()
        };
        for id in ids {
            self.gone(id, Events::UNMOUNT);
        }
    }

    /// File `id` has no name any more; `open` open files keep it alive.
    pub(super) fn doom(&self, id: InodeId, open: usize) {
        if open == 0 {
            self.gone(id, Events::DELETE_SELF);
        } else {
            self.table.lock().doomed.insert(id, open);
        }
    }

    /// An open file of `id` is closed for good.
    pub(super) fn closed(&self, id: InodeId) {
        let last = {
            let mut table = self.table.lock();
            let Some(open) = table.doomed.get_mut(&id) else {
                return;
            };
            *open -= 1;
            *open == 0
        };
        if last {
            self.gone(id, Events::DELETE_SELF);
        }
    }
}
