//! Mounts: which file system stands where.
//!
//! A mount knows its parent and its children, so that a walk crosses into it by name and leaves it by
//! `..`. Mount points are found by (name, inode number) in the parent mount; a name alone filters almost
//! all components. Whatever mounts, unmounts or renames holds [`super::Vfs`]'s tree lock.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use husk_abi::linux::general;

use super::inotify::Watches;
use super::{FileSystem, Inode, Vfs, known};
use crate::sync::SpinLock;

/// A file as a path leads to it.
#[derive(Clone, Debug)]
pub struct Location {
    /// The mount it was reached through.
    pub mount: Arc<Mount>,
    /// The file.
    pub inode: Arc<dyn Inode>,
    /// Absolute path from the container's root, as walked (symbolic links resolved).
    pub path: Vec<u8>,
}

impl Location {
    /// Whether both are the same file reached through the same mount.
    #[must_use]
    pub fn is_same(&self, other: &Location) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && same_inode(&self.inode, &other.inode)
    }

    /// Whether it is the root of its mount.
    #[must_use]
    pub fn is_mount_root(&self) -> bool {
        same_inode(&self.mount.root, &self.inode)
    }
}

/// Whether both are the same file. File systems may make inode objects on the fly, so identity is (device,
/// number).
#[must_use]
pub fn same_inode(a: &Arc<dyn Inode>, b: &Arc<dyn Inode>) -> bool {
    if core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)) {
        return true;
    }
    let (a, b) = (a.attributes(), b.attributes());
    a.dev == b.dev && a.ino == b.ino
}

/// A mounted file system, or a part of one (bind mounts).
#[derive(Debug)]
pub struct Mount {
    /// Number, as `/proc/*/mountinfo` shows it.
    pub id: u32,
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// What appears at the mount point.
    pub root: Arc<dyn Inode>,
    /// Path of that in the file system: `/`, except for bind mounts.
    pub root_path: Vec<u8>,
    /// What was mounted, as `/proc/mounts` shows it.
    pub source: Vec<u8>,
    /// Where it is mounted; `None` for the root and for mounts outside the tree.
    pub point: Option<Location>,
    /// `MS_*` bits that belong to the mount.
    flags: AtomicU32,
    children: SpinLock<Vec<Child>>,
    child_count: AtomicUsize,
    /// Who watches files, in whatever mount.
    pub(super) watches: Arc<Watches>,
}

#[derive(Debug)]
struct Child {
    /// Last component of the mount point; empty for a mount over this mount's own root.
    name: Vec<u8>,
    mount: Arc<Mount>,
}

/// Last component of an absolute path.
pub(super) fn last_component(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

impl Mount {
    pub(super) fn new(
        vfs: &Vfs,
        fs: Arc<dyn FileSystem>,
        root: Arc<dyn Inode>,
        root_path: Vec<u8>,
        source: &[u8],
        point: Option<Location>,
        flags: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: vfs.mount_id(),
            fs,
            root,
            root_path,
            source: source.to_vec(),
            point,
            flags: AtomicU32::new(flags),
            children: SpinLock::new(Vec::new()),
            child_count: AtomicUsize::new(0),
            watches: vfs.watches.clone(),
        })
    }

    /// `MS_*` bits.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the `MS_*` bits (remount).
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
        known::outdate();
    }

    /// Whether nothing may be changed through it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags() & general::MS_RDONLY != 0
    }

    /// Absolute path of the mount point.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.point
            .as_ref()
            .map_or(b"/", |point| point.path.as_slice())
    }

    /// The topmost mount at `inode`, reached in this mount as `name`.
    pub(super) fn mounted_at(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Option<Arc<Mount>> {
        if self.child_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut found = self.child(name, inode)?;
        // A mount over a mount's root is its child with the empty name.
        while let Some(over) = found.child(b"", &found.root) {
            found = over;
        }
        Some(found)
    }

    fn child(&self, name: &[u8], inode: &Arc<dyn Inode>) -> Option<Arc<Mount>> {
        let candidate = self
            .children
            .lock()
            .iter()
            .rev()
            .filter(|child| child.name == name)
            .map(|child| child.mount.clone())
            .collect::<Vec<_>>();
        candidate.into_iter().find(|mount| {
            mount
                .point
                .as_ref()
                .is_some_and(|point| same_inode(&point.inode, inode))
        })
    }

    /// Whether something is mounted on a file below this mount's root, or over it.
    #[must_use]
    pub fn has_children(&self) -> bool {
        self.child_count.load(Ordering::Acquire) != 0
    }

    /// The mounts in this one, in the order they were made.
    #[must_use]
    pub fn children(&self) -> Vec<Arc<Mount>> {
        self.children
            .lock()
            .iter()
            .map(|child| child.mount.clone())
            .collect()
    }

    pub(super) fn add_child(&self, mount: Arc<Mount>) {
        let Some(point) = &mount.point else { return };
        let name = if same_inode(&point.inode, &self.root) {
            Vec::new()
        } else {
            last_component(&point.path).to_vec()
        };
        let mut children = self.children.lock();
        children.push(Child { name, mount });
        self.child_count.store(children.len(), Ordering::Release);
        known::outdate();
    }

    pub(super) fn remove_child(&self, mount: &Arc<Mount>) {
        let mut children = self.children.lock();
        if let Some(index) = children
            .iter()
            .position(|child| Arc::ptr_eq(&child.mount, mount))
        {
            let child = children.remove(index);
            self.child_count.store(children.len(), Ordering::Release);
            known::outdate();
            drop(children);
            drop(child);
        }
    }
}
