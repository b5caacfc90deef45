//! Inodes without a name: pipes, event descriptors and the like.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_hal::clock;

use super::{Attributes, FileKind, FileOps, Inode, SetAttributes};
use crate::sync::SpinLock;
use crate::{Errno, Result, Thread};

/// Device number of all anonymous inodes (an unnamed device, as Linux's pipefs and anon_inodefs have).
const ANON_DEV: u64 = 0xf;

static NEXT_INO: AtomicU64 = AtomicU64::new(1024);

/// A number no other anonymous inode of this guest has.
#[must_use]
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// Nanoseconds since the epoch.
#[must_use]
pub fn wall_ns() -> i64 {
    clock::now_ns() as i64 + clock::wall_offset_ns()
}

/// The part all anonymous inodes share: attributes that live in memory.
#[derive(Debug)]
pub struct AnonInode {
    attributes: SpinLock<Attributes>,
}

impl AnonInode {
    /// An inode of the calling thread's user.
    #[must_use]
    pub fn new(t: &Thread, kind: FileKind, mode: u32) -> Self {
        let credentials = t.credentials();
        Self::owned_by(credentials.fsuid, credentials.fsgid, kind, mode)
    }

    /// An inode of user `uid` and group `gid`.
    #[must_use]
    pub fn owned_by(uid: u32, gid: u32, kind: FileKind, mode: u32) -> Self {
        let now = wall_ns();
        Self {
            attributes: SpinLock::new(Attributes {
                is_foreign: false,
                dev: ANON_DEV,
                ino: next_ino(),
                kind,
                mode,
                nlink: 1,
                uid,
                gid,
                rdev: 0,
                size: 0,
                block_size: 4096,
                blocks: 0,
                atime_ns: now,
                mtime_ns: now,
                ctime_ns: now,
            }),
        }
    }

    /// Inode number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.attributes.lock().ino
    }

    /// Attributes.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        *self.attributes.lock()
    }

    /// Edits the attributes in place, for what an owner of the inode sets up.
    pub fn edit(&self, edit: impl FnOnce(&mut Attributes)) {
        edit(&mut self.attributes.lock());
    }

    /// As [`super::Inode::set_attributes`].
    ///
    /// # Errors
    /// `EINVAL` for a size: anonymous inodes cannot be truncated.
    pub fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut attributes = self.attributes.lock();
        apply_change(&mut attributes, change);
        Ok(())
    }

    /// `prefix:[ino]`, what `/proc/*/fd` shows.
    #[must_use]
    pub fn link_name(&self, prefix: &str) -> Vec<u8> {
        alloc::format!("{prefix}:[{}]", self.ino()).into_bytes()
    }
}

/// Applies everything of `change` but the size; `ctime` becomes now unless given.
pub fn apply_change(attributes: &mut Attributes, change: &SetAttributes) {
    attributes.mode = change.mode.unwrap_or(attributes.mode);
    attributes.uid = change.uid.unwrap_or(attributes.uid);
    attributes.gid = change.gid.unwrap_or(attributes.gid);
    attributes.atime_ns = change.atime_ns.unwrap_or(attributes.atime_ns);
    attributes.mtime_ns = change.mtime_ns.unwrap_or(attributes.mtime_ns);
    attributes.ctime_ns = change.ctime_ns.unwrap_or_else(wall_ns);
}

/// The inode behind `anon_inode:[...]` descriptors: no type bits, mode 0600.
#[derive(Debug)]
pub struct PlainAnonInode {
    anon: AnonInode,
}

impl Inode for PlainAnonInode {
    fn attributes(&self) -> Attributes {
        self.anon.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.anon.set_attributes(change)
    }

    /// `/proc/self/fd/N` of an event descriptor leads to nothing that can be opened anew.
    fn open(self: Arc<Self>, _thread: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

impl PlainAnonInode {
    /// A new one, owned by the calling thread's user.
    #[must_use]
    pub fn new(t: &Thread) -> Arc<Self> {
        Arc::new(Self {
            anon: AnonInode::new(t, FileKind::Anonymous, 0o600),
        })
    }
}
