//! A file of any kind in a tmpfs.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use husk_abi::linux::general;
use husk_hal::phys::Frame;

use super::data::Data;
use super::directory::Directory;
use super::file::TmpFile;
use super::{ArchiveRange, PAGE, Shared, now_ns};
use crate::fs::pipe::Pipe;
use crate::fs::{
    Attributes, Create, DirEntry, DirFile, FileKind, FileOps, Inode, SetAttributes, devfs, pipe,
};
use crate::mm::{Mappable, rmap};
use crate::sync::SpinLock;
use crate::translate::TextImage;
use crate::{Errno, Result, Thread};

/// A file.
#[derive(Debug)]
pub struct Node {
    weak: Weak<Node>,
    pub(super) shared: Arc<Shared>,
    ino: u64,
    kind: FileKind,
    rdev: u64,
    pub(super) meta: SpinLock<Meta>,
    content: Content,
}

/// Attributes that change.
#[derive(Debug)]
pub(super) struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    /// A file that never had a name may get one (`O_TMPFILE`).
    pub linkable: bool,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// Contents changed.
    pub(super) fn touch(&mut self) {
        self.mtime_ns = now_ns();
        self.ctime_ns = self.mtime_ns;
    }
}

#[derive(Debug)]
enum Content {
    Regular(Data),
    Directory(SpinLock<Directory>),
    Symlink(Vec<u8>),
    Fifo(Arc<Pipe>),
    /// Device nodes and sockets have only attributes.
    Nothing,
}

impl Node {
    /// A root directory.
    pub(super) fn new_root(shared: &Arc<Shared>, mode: u32, uid: u32, gid: u32) -> Arc<Self> {
        let what = Create {
            kind: FileKind::Directory,
            mode,
            uid,
            gid,
            rdev: 0,
            target: &[],
        };
        let content = Content::Directory(SpinLock::new(Directory::new(Weak::new(), b"")));
        Self::with_content(shared, 1, &what, content, 2, now_ns())
    }

    fn with_content(
        shared: &Arc<Shared>,
        ino: u64,
        what: &Create<'_>,
        content: Content,
        nlink: u32,
        time_ns: i64,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak| Self {
            weak: weak.clone(),
            shared: shared.clone(),
            ino,
            kind: what.kind,
            rdev: what.rdev,
            meta: SpinLock::new(Meta {
                mode: what.mode & 0o7777,
                uid: what.uid,
                gid: what.gid,
                nlink,
                atime_ns: time_ns,
                mtime_ns: time_ns,
                ctime_ns: time_ns,
                linkable: false,
                xattrs: BTreeMap::new(),
            }),
            content,
        })
    }

    /// A regular file without a name; `unnamed` ones can be given a name and memory-file seals.
    pub(super) fn unnamed(shared: &Arc<Shared>, what: &Create<'_>) -> Result<Arc<Self>> {
        let ino = shared.charge_file()?;
        let content = Content::Regular(Data::new(None, general::F_SEAL_SEAL));
        Ok(Self::with_content(shared, ino, what, content, 0, now_ns()))
    }

    /// Makes `name` in this directory; a regular file's contents are what `archive` has.
    fn make(
        &self,
        name: &[u8],
        what: &Create<'_>,
        archive: Option<ArchiveRange>,
        time_ns: i64,
    ) -> Result<Arc<Self>> {
        let directory = self.directory()?;
        let content = match what.kind {
            FileKind::Regular => Content::Regular(Data::new(archive, general::F_SEAL_SEAL)),
            FileKind::Directory => {
                Content::Directory(SpinLock::new(Directory::new(self.weak.clone(), name)))
            }
            FileKind::Symlink => Content::Symlink(what.target.to_vec()),
            FileKind::Fifo => Content::Fifo(Arc::new(Pipe::new())),
            FileKind::CharDevice
            | FileKind::BlockDevice
            | FileKind::Socket
            | FileKind::Anonymous => Content::Nothing,
        };
        let is_directory = what.kind == FileKind::Directory;
        let nlink = if is_directory { 2 } else { 1 };
        let ino = self.shared.charge_file()?;
        let node = Self::with_content(&self.shared, ino, what, content, nlink, time_ns);
        let mut names = directory.lock();
        names.insert(name, node.clone())?;
        let mut meta = self.meta.lock();
        if is_directory {
            meta.nlink += 1;
        }
        meta.touch();
        Ok(node)
    }

    /// Makes a file that comes from an archive: `archive` has a regular file's bytes.
    ///
    /// # Errors
    /// As [`Inode::create`].
    pub fn add_archived(
        &self,
        name: &[u8],
        what: &Create<'_>,
        archive: Option<ArchiveRange>,
        time_ns: i64,
    ) -> Result<Arc<Self>> {
        self.make(name, what, archive, time_ns)
    }

    /// Gives a file of an archive its bytes, if a later of its names has them.
    pub fn set_archived(&self, archive: ArchiveRange) {
        if let Ok(data) = self.data() {
            data.set_archive(archive);
        }
    }

    /// The child `name`, as its own type.
    #[must_use]
    pub fn get_child(&self, name: &[u8]) -> Option<Arc<Self>> {
        self.directory().ok()?.lock().get(name).cloned()
    }

    /// The node behind an inode, if it is a tmpfs's.
    pub(super) fn of(inode: &Arc<dyn Inode>) -> Option<&Node> {
        inode.as_any().downcast_ref()
    }

    pub(super) fn arc(&self) -> Option<Arc<Node>> {
        self.weak.upgrade()
    }

    /// Inode number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Type.
    #[must_use]
    pub fn file_kind(&self) -> FileKind {
        self.kind
    }

    pub(super) fn directory(&self) -> Result<&SpinLock<Directory>> {
        match &self.content {
            Content::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn data(&self) -> Result<&Data> {
        match &self.content {
            Content::Regular(data) => Ok(data),
            Content::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// It was read: `relatime` rules, that is at most once a day unless it changed since.
    pub(super) fn accessed(&self) {
        const DAY_NS: i64 = 86_400_000_000_000;
        let now = now_ns();
        let mut meta = self.meta.lock();
        if meta.atime_ns <= meta.mtime_ns
            || meta.atime_ns <= meta.ctime_ns
            || now.saturating_sub(meta.atime_ns) >= DAY_NS
        {
            meta.atime_ns = now;
        }
    }

    /// Contents were written by a process with `keep_privileges` or without: drops set-id bits.
    pub(super) fn written(&self, keep_privileges: bool) {
        let mut meta = self.meta.lock();
        meta.touch();
        if !keep_privileges {
            meta.mode &= !crate::fs::permission::set_id_bits(meta.mode);
        }
    }

    /// The seals of a memory file (`fcntl(2)`, `F_GET_SEALS`).
    ///
    /// # Errors
    /// `EINVAL` if it is not a regular file.
    pub fn seals(&self) -> Result<u32> {
        let data = self.data().map_err(|_| Errno::EINVAL)?;
        Ok(data.seals.load(Ordering::Acquire))
    }

    /// Replaces the seals; a new file has `F_SEAL_SEAL`, so only `memfd_create(2)` makes files that can be
    /// sealed.
    ///
    /// # Errors
    /// `EINVAL` if it is not a regular file.
    pub fn set_seals(&self, seals: u32) -> Result<()> {
        let data = self.data().map_err(|_| Errno::EINVAL)?;
        let new = seals & !data.seals.load(Ordering::Acquire);
        if new & general::F_SEAL_WRITE != 0
            && rmap::is_mapped_writable(self.shared.kernel, (self.shared.dev, self.ino))
        {
            return Err(Errno::EBUSY);
        }
        data.seals.store(seals, Ordering::Release);
        Ok(())
    }

    /// One name of it is gone, or (`false`) added.
    pub(super) fn change_links(&self, removed: bool) {
        let mut meta = self.meta.lock();
        if removed {
            meta.nlink = meta.nlink.saturating_sub(1);
        } else {
            meta.nlink += 1;
            meta.linkable = false;
        }
        meta.ctime_ns = now_ns();
    }

    /// Marks an empty directory removed.
    pub(super) fn remove_directory(&self) -> Result<()> {
        let mut names = self.directory()?.lock();
        if !names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        names.removed = true;
        let mut meta = self.meta.lock();
        meta.nlink = 0;
        meta.ctime_ns = now_ns();
        Ok(())
    }
}

impl Inode for Node {
    fn attributes(&self) -> Attributes {
        let (size, blocks) = match &self.content {
            Content::Regular(data) => (data.size(), data.page_count() * (PAGE / 512)),
            Content::Directory(_) if self.shared.options.like_disk => (PAGE, PAGE / 512),
            // Linux's tmpfs counts 20 bytes a name, dots included.
            Content::Directory(names) => ((names.lock().len() as u64 + 2) * 20, 0),
            Content::Symlink(target) => (target.len() as u64, 0),
            Content::Fifo(_) | Content::Nothing => (0, 0),
        };
        let meta = self.meta.lock();
        Attributes {
            is_foreign: false,
            dev: self.shared.dev,
            ino: self.ino,
            kind: self.kind,
            mode: meta.mode,
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev: self.rdev,
            size,
            block_size: PAGE as u32,
            blocks,
            atime_ns: meta.atime_ns,
            mtime_ns: meta.mtime_ns,
            ctime_ns: meta.ctime_ns,
        }
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        if let Some(size) = change.size {
            let data = self.data()?;
            let _writing = data.writing.lock();
            let seals = data.seals.load(Ordering::Acquire);
            let old = data.size();
            if (size < old && seals & general::F_SEAL_SHRINK != 0)
                || (size > old && seals & general::F_SEAL_GROW != 0)
            {
                return Err(Errno::EPERM);
            }
            data.resize(&self.shared, size)?;
        }
        let mut meta = self.meta.lock();
        if change
            .mode
            .is_some_and(|mode| (mode ^ meta.mode) & 0o111 != 0)
            && self
                .data()
                .is_ok_and(|data| data.seals.load(Ordering::Acquire) & general::F_SEAL_EXEC != 0)
        {
            return Err(Errno::EPERM);
        }
        let now = now_ns();
        if change.size.is_some() {
            meta.mtime_ns = now;
        }
        meta.mode = change.mode.map_or(meta.mode, |mode| mode & 0o7777);
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        meta.atime_ns = change.atime_ns.unwrap_or(meta.atime_ns);
        meta.mtime_ns = change.mtime_ns.unwrap_or(meta.mtime_ns);
        meta.ctime_ns = change.ctime_ns.unwrap_or(now);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        match self.directory()?.lock().get(name) {
            Some(node) => Ok(node.clone()),
            None => Err(Errno::ENOENT),
        }
    }

    fn names_are_ours(&self) -> bool {
        true
    }

    fn create(&self, name: &[u8], what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        Ok(self.make(name, what, None, now_ns())?)
    }

    fn create_unnamed(&self, what: &Create<'_>, linkable: bool) -> Result<Arc<dyn Inode>> {
        if self.directory()?.lock().removed {
            return Err(Errno::ENOENT);
        }
        let node = Self::unnamed(&self.shared, what)?;
        node.meta.lock().linkable = linkable;
        Ok(node)
    }

    fn link(&self, name: &[u8], to: &Arc<dyn Inode>) -> Result<()> {
        let directory = self.directory()?;
        let node = Node::of(to)
            .filter(|node| Arc::ptr_eq(&node.shared, &self.shared))
            .and_then(Node::arc)
            .ok_or(Errno::EXDEV)?;
        if node.kind == FileKind::Directory {
            return Err(Errno::EPERM);
        }
        let mut names = directory.lock();
        {
            let meta = node.meta.lock();
            if meta.nlink == 0 && !meta.linkable {
                return Err(Errno::ENOENT);
            }
        }
        names.insert(name, node.clone())?;
        node.change_links(false);
        self.meta.lock().touch();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let mut names = self.directory()?.lock();
        if names.get(name).ok_or(Errno::ENOENT)?.kind == FileKind::Directory {
            return Err(Errno::EISDIR);
        }
        let node = names.remove(name);
        self.meta.lock().touch();
        drop(names);
        if let Some(node) = node {
            node.change_links(true);
        }
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let mut names = self.directory()?.lock();
        let node = names.get(name).ok_or(Errno::ENOENT)?;
        node.remove_directory()?;
        let node = names.remove(name);
        let mut meta = self.meta.lock();
        meta.nlink -= 1;
        meta.touch();
        drop(meta);
        drop(names);
        drop(node);
        Ok(())
    }

    fn rename(
        &self,
        from: &[u8],
        to_directory: &Arc<dyn Inode>,
        to: &[u8],
        flags: u32,
    ) -> Result<()> {
        let target = Node::of(to_directory)
            .filter(|node| Arc::ptr_eq(&node.shared, &self.shared))
            .ok_or(Errno::EXDEV)?;
        super::rename::rename(self, from, target, to, flags)
    }

    fn read_dir(&self, position: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        self.directory()?.lock().list(position, self.ino, sink);
        Ok(())
    }

    fn read_link(&self, _thread: &Thread) -> Result<Vec<u8>> {
        match &self.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        match &self.content {
            Content::Regular(_) => Ok(TmpFile::open(self, flags)?),
            Content::Directory(_) => Ok(DirFile::new(self)),
            Content::Symlink(_) => Err(Errno::ELOOP),
            Content::Fifo(pipe) => pipe::open_fifo(thread, pipe, flags),
            Content::Nothing if self.kind == FileKind::Socket => Err(Errno::ENXIO),
            Content::Nothing if self.kind == FileKind::CharDevice => {
                devfs::open_char(thread, self.rdev)
            }
            // There are no block devices.
            Content::Nothing => Err(Errno::ENXIO),
        }
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let data = self.data()?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let keep = mode & general::FALLOC_FL_KEEP_SIZE != 0;
        let punch = mode & general::FALLOC_FL_PUNCH_HOLE != 0;
        if mode & !(general::FALLOC_FL_KEEP_SIZE | general::FALLOC_FL_PUNCH_HOLE) != 0
            || (punch && !keep)
        {
            return Err(Errno::EOPNOTSUPP);
        }
        let _writing = data.writing.lock();
        let seals = data.seals.load(Ordering::Acquire);
        let no_write = general::F_SEAL_WRITE | general::F_SEAL_FUTURE_WRITE;
        let grows = !punch && !keep && end > data.size();
        if (punch && seals & no_write != 0) || (grows && seals & general::F_SEAL_GROW != 0) {
            return Err(Errno::EPERM);
        }
        if punch {
            data.punch(&self.shared, offset, end)?;
        } else {
            data.allocate(&self.shared, offset, end)?;
            if !keep {
                data.grow(end);
            }
        }
        self.meta.lock().touch();
        Ok(())
    }

    fn parent(&self) -> Option<Arc<dyn Inode>> {
        let parent = self.directory().ok()?.lock().parent.upgrade()?;
        Some(parent)
    }

    fn name(&self) -> Option<Vec<u8>> {
        let names = self.directory().ok()?.lock();
        (!names.removed).then(|| names.name.to_vec())
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let meta = self.meta.lock();
        meta.xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: u32) -> Result<()> {
        let mut meta = self.meta.lock();
        let exists = meta.xattrs.contains_key(name);
        match value {
            Some(_) if exists && flags & general::XATTR_CREATE != 0 => return Err(Errno::EEXIST),
            Some(_) if !exists && flags & general::XATTR_REPLACE != 0 => {
                return Err(Errno::ENODATA);
            }
            Some(value) => {
                meta.xattrs.insert(name.to_vec(), value.to_vec());
            }
            None if !exists => return Err(Errno::ENODATA),
            None => {
                meta.xattrs.remove(name);
            }
        }
        meta.ctime_ns = now_ns();
        Ok(())
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.meta.lock().xattrs.keys().cloned().collect())
    }

    fn mappable(self: Arc<Self>) -> Option<Arc<dyn Mappable>> {
        match &self.content {
            Content::Regular(_) => Some(self),
            _ => None,
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

impl Mappable for Node {
    fn page(&self, index: u64, shared_write: bool) -> Result<Frame> {
        let identity = self.identity();
        self.data()?
            .map_page(&self.shared, identity, index, shared_write)
    }

    fn version(&self) -> u64 {
        self.data().map_or(0, Data::version)
    }

    fn remove(&self, range: Range<u64>) -> Result<()> {
        let mode = general::FALLOC_FL_PUNCH_HOLE | general::FALLOC_FL_KEEP_SIZE;
        self.allocate(mode, range.start, range.end - range.start)
    }

    fn is_sealed(&self) -> bool {
        const WRITE: u32 = general::F_SEAL_WRITE | general::F_SEAL_FUTURE_WRITE;
        self.seals().is_ok_and(|seals| seals & WRITE != 0)
    }

    fn size_bytes(&self) -> u64 {
        self.data().map_or(0, Data::size)
    }

    fn identity(&self) -> (u64, u64) {
        (self.shared.dev, self.ino)
    }

    fn text(&self) -> Option<&TextImage> {
        self.data().ok().map(Data::text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.used_files.fetch_sub(1, Ordering::Relaxed);
        match &mut self.content {
            Content::Regular(data) => data.free(&self.shared),
            Content::Directory(names) => {
                // Depth-first without recursion: children of children join the list.
                let mut doomed: Vec<Arc<Node>> = names.get_mut().drain().collect();
                while let Some(node) = doomed.pop() {
                    if Arc::strong_count(&node) == 1
                        && let Content::Directory(names) = &node.content
                    {
                        doomed.extend(names.lock().drain());
                    }
                }
            }
            _ => {}
        }
    }
}
