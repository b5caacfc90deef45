//! The tree of mounts and what all file systems share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use husk_abi::boundary::boot::GuestRange;
use spin::Once;

use super::inotify::Watches;
use super::locks::LockTable;
use super::mount::{Location, Mount, last_component};
use super::{FileKind, FileSystem, Inode, fuse, known};
use crate::sync::Mutex;
use crate::{Errno, Result};

/// Mounts.
#[derive(Debug)]
pub struct Vfs {
    /// The archive the root file system is filled from.
    pub root_archive: GuestRange,
    /// Where the contents of host files can be seen.
    pub window: fuse::Window,
    /// What waits to be written to host files.
    pub behind: fuse::WriteBehind,
    /// FIFOs and sockets of the host that are open.
    pub channels: fuse::Channels,
    /// Advisory locks.
    pub locks: LockTable,
    /// Watched files.
    pub watches: Arc<Watches>,
    /// Held by whoever renames, mounts or unmounts: while it is held no directory moves.
    pub tree: Mutex<()>,
    root: Once<Arc<Mount>>,
    /// Carries what lies in no mounted file system: pipes, anonymous inodes.
    internal: Once<Arc<Mount>>,
    /// How long what the host told of trees that others visit is good, and until when that is; 0 and for ever without such.
    trust_ns: AtomicU64,
    trusted_until: AtomicU64,
    next_mount: AtomicU32,
    next_device: AtomicU64,
}

impl Vfs {
    /// Nothing mounted yet.
    #[must_use]
    pub fn new(root_archive: GuestRange, window: fuse::Window) -> Self {
        Self {
            root_archive,
            window,
            behind: fuse::WriteBehind::default(),
            channels: fuse::Channels::default(),
            locks: LockTable::new(),
            watches: Arc::default(),
            tree: Mutex::new(()),
            root: Once::new(),
            internal: Once::new(),
            trust_ns: AtomicU64::new(0),
            trusted_until: AtomicU64::new(u64::MAX),
            next_mount: AtomicU32::new(1),
            next_device: AtomicU64::new(FIRST_DEVICE),
        }
    }

    /// A device number for a file system without a device (`st_dev`): major 0, as Linux's anonymous devices.
    #[must_use]
    pub fn new_device(&self) -> u64 {
        self.next_device.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn mount_id(&self) -> u32 {
        self.next_mount.fetch_add(1, Ordering::Relaxed)
    }

    /// Mounts the root; once.
    pub fn mount_root(&self, fs: Arc<dyn FileSystem>, source: &[u8], flags: u32) {
        self.root.call_once(|| {
            let root = fs.root();
            Mount::new(self, fs, root, b"/".to_vec(), source, None, flags)
        });
    }

    /// The container's root directory.
    ///
    /// # Errors
    /// `ENOENT` before it is mounted.
    pub fn root(&self) -> Result<Location> {
        let mount = self.root.get().ok_or(Errno::ENOENT)?.clone();
        Ok(Location {
            inode: mount.root.clone(),
            mount,
            path: b"/".to_vec(),
        })
    }

    /// The mount of files that lie in no mounted file system. `fs` says what it is when asked first.
    pub fn internal_mount(&self, fs: impl FnOnce() -> Arc<dyn FileSystem>) -> Arc<Mount> {
        self.internal
            .call_once(|| {
                let fs = fs();
                let root = fs.root();
                Mount::new(self, fs, root, b"/".to_vec(), b"none", None, 0)
            })
            .clone()
    }

    /// Mounts `fs` at `point`; `flags` are `MS_*`. `root` is what shows there, the file system's own root
    /// except for bind mounts.
    ///
    /// # Errors
    /// `ENOTDIR` if one is a directory and the other is not.
    pub fn mount_at(
        &self,
        point: Location,
        fs: Arc<dyn FileSystem>,
        root: Arc<dyn Inode>,
        source: &[u8],
        flags: u32,
    ) -> Result<Arc<Mount>> {
        self.mount_part(point, fs, root, b"/", source, flags)
    }

    /// Mounts what `of` shows at `point` too: a bind mount.
    ///
    /// # Errors
    /// `ENOTDIR` if one is a directory and the other is not.
    pub fn bind_at(
        &self,
        point: Location,
        of: &Location,
        source: &[u8],
        flags: u32,
    ) -> Result<Arc<Mount>> {
        let below = of.path.strip_prefix(of.mount.path()).unwrap_or_default();
        let mut root_path = of.mount.root_path.clone();
        for name in below
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            join(&mut root_path, name);
        }
        self.mount_part(
            point,
            of.mount.fs.clone(),
            of.inode.clone(),
            &root_path,
            source,
            flags,
        )
    }

    /// Mounts `root`, which is `root_path` in `fs`, at `point`.
    ///
    /// # Errors
    /// `ENOTDIR` if one is a directory and the other is not.
    pub fn mount_part(
        &self,
        point: Location,
        fs: Arc<dyn FileSystem>,
        root: Arc<dyn Inode>,
        root_path: &[u8],
        source: &[u8],
        flags: u32,
    ) -> Result<Arc<Mount>> {
        let is_directory = |inode: &Arc<dyn Inode>| inode.attributes().kind == FileKind::Directory;
        if is_directory(&point.inode) != is_directory(&root) {
            return Err(Errno::ENOTDIR);
        }
        let _tree = self.tree.lock();
        let parent = point.mount.clone();
        let mount = Mount::new(
            self,
            fs,
            root,
            root_path.to_vec(),
            source,
            Some(point),
            flags,
        );
        parent.add_child(mount.clone());
        Ok(mount)
    }

    /// Mounts `fs` on the directory `path` of the container's root, following no links; for the kernel's own
    /// use at boot.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn mount(
        &self,
        path: &[u8],
        fs: Arc<dyn FileSystem>,
        source: &[u8],
        flags: u32,
    ) -> Result<Arc<Mount>> {
        let point = self.find(path)?;
        let root = fs.root();
        self.mount_at(point, fs, root, source, flags)
    }

    /// Finds `path` from the container's root, following no links and checking no permissions.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn find(&self, path: &[u8]) -> Result<Location> {
        let mut at = self.root()?;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            at = at.child(name)?;
        }
        Ok(at)
    }

    /// Takes `mount` out of the tree. Open files keep it alive.
    ///
    /// # Errors
    /// `EINVAL` for the root; `EBUSY` if something is mounted in it and `detach` is not set.
    pub fn unmount(&self, mount: &Arc<Mount>, detach: bool) -> Result<()> {
        let _tree = self.tree.lock();
        let point = mount.point.as_ref().ok_or(Errno::EINVAL)?;
        if mount.has_children() && !detach {
            return Err(Errno::EBUSY);
        }
        point.mount.remove_child(mount);
        // What is mounted in it goes too, each from the other: a mount knows what it is mounted on.
        let mut gone = Vec::from([mount.clone()]);
        let mut next = 0;
        while let Some(mount) = gone.get(next).cloned() {
            let children = mount.children();
            for child in &children {
                mount.remove_child(child);
            }
            gone.extend(children);
            next += 1;
        }
        let left = self.mounts();
        for mount in gone {
            if !left.iter().any(|other| Arc::ptr_eq(&other.fs, &mount.fs)) {
                self.watches.unmounted(mount.root.attributes().dev);
            }
        }
        Ok(())
    }

    /// Others may change what the host serves; what is known of it is good for `good_ns` nanoseconds.
    pub fn is_visited(&self, good_ns: u64) {
        self.trust_ns.store(good_ns, Ordering::Relaxed);
        self.trust();
    }

    fn trust(&self) {
        let until = match self.trust_ns.load(Ordering::Relaxed) {
            0 => u64::MAX,
            good => husk_hal::clock::now_ns().saturating_add(good),
        };
        self.trusted_until.store(until, Ordering::Relaxed);
    }

    /// The host may have changed what it serves: all that is known of trees that others visit is asked for again when it is
    /// next used.
    pub fn distrust(&self) {
        self.trust();
        for mount in self.mounts() {
            mount.fs.distrust();
        }
        known::outdate();
    }

    /// [`Vfs::distrust`], if it is time. Called when the guest was idle or interrupted.
    pub fn poll_trust(&self) {
        if husk_hal::clock::now_ns() > self.trusted_until.load(Ordering::Relaxed) {
            self.distrust();
        }
    }

    /// All mounts, parents before their children (`/proc/mounts`).
    #[must_use]
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let mut all = Vec::new();
        all.extend(self.root.get().cloned());
        let mut next = 0;
        while let Some(mount) = all.get(next).cloned() {
            all.extend(mount.children());
            next += 1;
        }
        all
    }
}

/// The first number [`Vfs::new_device`] gives: minor 32, past those a small Linux system uses for its own.
const FIRST_DEVICE: u64 = 32;

impl Location {
    /// The child `name` of this directory, mounts crossed; no links followed, no permissions checked.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn child(&self, name: &[u8]) -> Result<Location> {
        let inode = self.inode.lookup(name)?;
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        join(&mut path, name);
        Ok(match self.mount.mounted_at(name, &inode) {
            Some(mount) => Location {
                inode: mount.root.clone(),
                mount,
                path,
            },
            None => Location {
                mount: self.mount.clone(),
                inode,
                path,
            },
        })
    }

    /// The parent directory as `..` names it, mounts crossed; the root is its own parent.
    ///
    /// # Errors
    /// `ENOENT` if the directory was removed.
    pub fn parent(&self) -> Result<Location> {
        let mut at = self.clone();
        while at.is_mount_root() {
            match &at.mount.point {
                Some(point) => at = point.clone(),
                None => return Ok(at),
            }
        }
        let mut path = at.path.clone();
        pop(&mut path);
        let inode = match at.inode.parent() {
            Some(parent) => parent,
            None => descend(&at.mount, &path)?,
        };
        Ok(Location {
            mount: at.mount,
            inode,
            path,
        })
    }

    /// Absolute path of a directory, renames of its ancestors included; `None` if it is not reachable from the
    /// container's root any more.
    #[must_use]
    pub fn current_path(&self) -> Option<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = self.clone();
        loop {
            while at.is_mount_root() {
                match &at.mount.point {
                    Some(point) => at = point.clone(),
                    None => {
                        let mut path = Vec::new();
                        for name in names.iter().rev() {
                            path.push(b'/');
                            path.extend_from_slice(name);
                        }
                        if path.is_empty() {
                            path.push(b'/');
                        }
                        return Some(path);
                    }
                }
            }
            if let Some(parent) = at.inode.parent() {
                names.push(at.inode.name()?);
                at.inode = parent;
                pop(&mut at.path);
            } else {
                // A file system that does not keep track: its directories do not move.
                descend(&at.mount, &at.path).ok()?;
                let last = last_component(&at.path);
                if last.is_empty() {
                    return None;
                }
                names.push(last.to_vec());
                pop(&mut at.path);
                at.inode = descend(&at.mount, &at.path).ok()?;
            }
        }
    }
}

/// The file at absolute `path` of `mount`, names looked up in that mount only.
fn descend(mount: &Arc<Mount>, path: &[u8]) -> Result<Arc<dyn Inode>> {
    let prefix = mount.path();
    let rest = if prefix == b"/" {
        path
    } else {
        path.strip_prefix(prefix).ok_or(Errno::ENOENT)?
    };
    let mut inode = mount.root.clone();
    for name in rest
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
    {
        inode = inode.lookup(name)?;
    }
    Ok(inode)
}

/// Appends a component to an absolute path.
pub(super) fn join(path: &mut Vec<u8>, name: &[u8]) {
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Removes the last component of an absolute path; the root stays.
pub(super) fn pop(path: &mut Vec<u8>) {
    let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.truncate(cut.max(1));
}
