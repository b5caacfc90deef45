//! What the VFS and mappings ask of a node.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use husk_abi::boundary::fuse::{FSYNC_DATA, FSYNC_START, LockIn, LockOut, SetattrIn, fattr};
use husk_abi::linux::general;
use husk_hal::phys::Frame;

use super::{Content, Node};
use crate::fs::fuse::PAGE;
use crate::fs::fuse::calls;
use crate::fs::fuse::channel;
use crate::fs::fuse::data::Data;
use crate::fs::fuse::file::FuseFile;
use crate::fs::fuse::names::Answer;
use crate::fs::{
    Attributes, Create, DirEntry, DirFile, FileKind, FileOps, Inode, SetAttributes, devfs, pipe,
};
use crate::mm::Mappable;
use crate::translate::TextImage;
use crate::{Errno, Result, Thread};

impl Inode for Node {
    fn attributes(&self) -> Attributes {
        self.flush_quietly();
        self.settle();
        self.refresh();
        self.rights()
    }

    fn rights(&self) -> Attributes {
        if !self.is_exclusive() {
            self.refresh();
        }
        let meta = self.meta.lock();
        let mut attributes = meta.attributes;
        if let Some(accessed) = meta.accessed_ns {
            attributes.atime_ns = accessed;
        }
        attributes
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        let writing = match (&self.content, change.size) {
            (Content::Regular(data), Some(_)) => Some(data.writing.lock()),
            (_, Some(_)) => return Err(self.data().err().unwrap_or(Errno::EINVAL)),
            (_, None) => None,
        };
        if change.size.is_some() {
            self.drop_buffer();
        }
        let mut message = SetattrIn::default();
        let mut set = |bit: u32| message.valid |= bit;
        change.mode.inspect(|_| set(fattr::MODE));
        change.uid.inspect(|_| set(fattr::UID));
        change.gid.inspect(|_| set(fattr::GID));
        change.size.inspect(|_| set(fattr::SIZE));
        change.atime_ns.inspect(|_| set(fattr::ATIME));
        change.mtime_ns.inspect(|_| set(fattr::MTIME));
        message.mode = change.mode.unwrap_or(0);
        message.uid = change.uid.unwrap_or(0);
        message.gid = change.gid.unwrap_or(0);
        message.size = change.size.unwrap_or(0);
        let split = |time: Option<i64>| {
            let time = time.unwrap_or(0);
            let nanoseconds = time.rem_euclid(1_000_000_000);
            (time.div_euclid(1_000_000_000), nanoseconds as u32)
        };
        (message.atime, message.atimensec) = split(change.atime_ns);
        (message.mtime, message.mtimensec) = split(change.mtime_ns);
        if change.size.is_none() {
            self.post_flush();
            if self.post_attributes(change, &message) {
                return Ok(());
            }
            self.flush_quietly();
        }
        let attr = calls::setattr(self.kernel(), self.id, &message)?;
        if change.size.is_some() {
            self.drop_buffer();
        }
        if change.atime_ns.is_some() {
            self.meta.lock().accessed_ns = None;
        }
        if let (Some(size), Content::Regular(data)) = (change.size, &self.content) {
            let old = data.size();
            self.learned(&attr);
            if size < old {
                self.pages_gone(data, size.div_ceil(PAGE)..u64::MAX, true);
            }
        } else {
            self.learned(&attr);
        }
        drop(writing);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let directory = self.directory()?;
        match directory.names.lock().get(name) {
            Answer::File(node) => return Ok(node),
            Answer::Nothing => return Err(Errno::ENOENT),
            Answer::Unknown => {}
        }
        let _changing = directory.changing.lock();
        Ok(self.lookup_locked(directory, name)?)
    }

    fn names_are_ours(&self) -> bool {
        self.is_exclusive()
    }

    fn create(&self, name: &[u8], what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        let directory = self.directory()?;
        let _changing = directory.changing.lock();
        let (entry, attr) = calls::create(self.kernel(), self.id, name, what)?;
        let node = self.made(directory, name, &entry, &attr);
        node.is_ours();
        Ok(node)
    }

    fn create_unnamed(&self, what: &Create<'_>, linkable: bool) -> Result<Arc<dyn Inode>> {
        self.directory()?;
        let entry = calls::tmpfile(self.kernel(), self.id, what)?;
        let node = Self::intern(&self.shared, &entry);
        node.unlinkable.store(!linkable, Ordering::Release);
        node.is_ours();
        Ok(node)
    }

    fn link(&self, name: &[u8], to: &Arc<dyn Inode>) -> Result<()> {
        let directory = self.directory()?;
        let node = Node::of(to, &self.shared)?;
        if node.kind == FileKind::Directory {
            return Err(Errno::EPERM);
        }
        if node.unlinkable.load(Ordering::Acquire) {
            return Err(Errno::ENOENT);
        }
        let _changing = directory.changing.lock();
        let (entry, attr) = calls::link(self.kernel(), self.id, name, node.id)?;
        self.made(directory, name, &entry, &attr);
        node.learned(&entry.attr);
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.remove(name, false)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove(name, true)
    }

    fn rename(
        &self,
        from: &[u8],
        to_directory: &Arc<dyn Inode>,
        to: &[u8],
        flags: u32,
    ) -> Result<()> {
        let exchange = flags & general::RENAME_EXCHANGE != 0;
        if flags & !(general::RENAME_EXCHANGE | general::RENAME_NOREPLACE) != 0
            || flags & (general::RENAME_EXCHANGE | general::RENAME_NOREPLACE)
                == general::RENAME_EXCHANGE | general::RENAME_NOREPLACE
        {
            return Err(Errno::EINVAL);
        }
        let target = Node::of(to_directory, &self.shared)?;
        let (source_names, target_names) = (self.directory()?, target.directory()?);
        let same = core::ptr::eq(self, target);
        let (first, second) = if self.id <= target.id {
            (source_names, target_names)
        } else {
            (target_names, source_names)
        };
        let _first = first.changing.lock();
        let _second = (!same).then(|| second.changing.lock());
        let moved = self.lookup_locked(source_names, from)?;
        let replaced = match target.lookup_locked(target_names, to) {
            Ok(node) => Some(node),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if replaced
            .as_ref()
            .is_some_and(|other| Arc::ptr_eq(other, &moved))
            && !exchange
        {
            // Two names of one file: both stay, unless that is forbidden.
            return if flags & general::RENAME_NOREPLACE != 0 {
                Err(Errno::EEXIST)
            } else {
                Ok(())
            };
        }
        let (source_attr, target_attr) =
            calls::rename(self.kernel(), self.id, from, target.id, to, flags)?;
        source_names.names.lock().changed();
        target_names.names.lock().changed();
        let back = if exchange { replaced.clone() } else { None };
        self.know(source_names, from, back.clone());
        target.know(target_names, to, Some(moved.clone()));
        target.arc().place(&moved, to);
        moved.outdate();
        if let Some(back) = &back {
            self.arc().place(back, from);
            back.outdate();
        } else {
            self.unnamed(replaced.as_ref());
        }
        self.learned(&source_attr);
        target.learned(&target_attr);
        Ok(())
    }

    fn read_dir(&self, position: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        let directory = self.directory()?;
        let listing = directory.names.lock().listing();
        let entries = match listing {
            Some(entries) => entries,
            None => self.fetch_listing(directory)?,
        };
        let start = if position == 0 {
            Some(0)
        } else {
            let at = entries.iter().position(|entry| entry.next == position);
            at.map(|at| at + 1)
        };
        let give = |entry: &DirEntry, sink: &mut dyn FnMut(DirEntry) -> bool| {
            let mut entry = entry.clone();
            if entry.name == b".." {
                entry.ino = self.parent_ino();
            }
            sink(entry)
        };
        if let Some(start) = start {
            for entry in &entries[start..] {
                if !give(entry, sink) {
                    break;
                }
            }
            return Ok(());
        }
        // The entry it stopped at is gone: the server knows what comes next.
        let mut position = position;
        loop {
            let (part, is_end) = calls::list(self.kernel(), self.id, position)?;
            position = part.last().map_or(position, |last| last.next);
            for listed in part {
                if let Some(entry) = &listed.entry {
                    // Told of once more; not kept.
                    drop(Self::intern(&self.shared, entry));
                }
                let entry = DirEntry {
                    next: listed.next,
                    ino: listed.ino,
                    kind: listed.kind,
                    name: listed.name,
                };
                if !give(&entry, sink) {
                    return Ok(());
                }
            }
            if is_end {
                return Ok(());
            }
        }
    }

    fn read_link(&self, _thread: &Thread) -> Result<Vec<u8>> {
        let Content::Symlink(target) = &self.content else {
            return Err(Errno::EINVAL);
        };
        if let Some(target) = target.get() {
            return Ok(target.clone());
        }
        let read = calls::readlink(self.kernel(), self.id)?;
        Ok(target.call_once(|| read).clone())
    }

    fn open(self: Arc<Self>, thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        match &self.content {
            Content::Regular(_) => Ok(FuseFile::open(self, flags)?),
            Content::Directory(_) => Ok(DirFile::new(self)),
            Content::Symlink(_) => Err(Errno::ELOOP),
            Content::Fifo(_) if !self.is_exclusive() => channel::open_fifo(thread, &self, flags),
            Content::Fifo(pipe) => pipe::open_fifo(thread, pipe, flags),
            Content::Nothing if self.kind == FileKind::CharDevice => {
                devfs::open_char(thread, self.meta.lock().attributes.rdev)
            }
            // Sockets are connected to, and there are no block devices.
            Content::Nothing => Err(Errno::ENXIO),
        }
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let data = self.data()?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let _writing = data.writing.lock();
        self.drop_buffer();
        let attr = calls::fallocate(self.kernel(), self.id, mode, offset, len)?;
        self.drop_buffer();
        self.learned(&attr);
        self.text_changed(data, offset..end);
        Ok(())
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.flush()?;
        calls::fsync(self.kernel(), self.id, u32::from(data_only) * FSYNC_DATA)
    }

    fn start_sync(&self) -> Result<()> {
        self.flush()?;
        calls::fsync(self.kernel(), self.id, FSYNC_START)
    }

    fn parent(&self) -> Option<Arc<dyn Inode>> {
        let parent = self.directory().ok()?.names.lock().parent.clone()?;
        Some(parent)
    }

    fn name(&self) -> Option<Vec<u8>> {
        let names = self.directory().ok()?.names.lock();
        (!names.removed).then(|| names.name.clone())
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        // Most files have none, and `ls -l` asks each for several.
        if self.is_exclusive() && self.xattr_names()?.is_empty() {
            return Err(Errno::ENODATA);
        }
        calls::getxattr(self.kernel(), self.id, name)
    }

    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: u32) -> Result<()> {
        self.flush_quietly();
        self.plain.store(false, Ordering::Release);
        let attr = calls::setxattr(self.kernel(), self.id, name, value, flags)?;
        self.learned(&attr);
        Ok(())
    }

    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        if self.plain.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let names = calls::listxattr(self.kernel(), self.id)?;
        let is_plain = names.is_empty() && self.is_exclusive();
        self.plain.store(is_plain, Ordering::Release);
        Ok(names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }

    fn is_locked_outside(&self) -> bool {
        !self.is_exclusive() && matches!(self.content, Content::Regular(_))
    }

    fn lock_outside(&self, lock: &LockIn) -> Result<Option<LockOut>> {
        calls::lock(self.kernel(), self.id, lock)
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
        self.map_page(index, shared_write)
    }

    fn size_bytes(&self) -> u64 {
        self.data().map_or(0, Data::size)
    }

    fn identity(&self) -> (u64, u64) {
        let meta = self.meta.lock();
        (meta.attributes.dev, meta.attributes.ino)
    }

    fn version(&self) -> u64 {
        self.data().map_or(0, Data::version)
    }

    fn remove(&self, range: Range<u64>) -> Result<()> {
        let mode = general::FALLOC_FL_PUNCH_HOLE | general::FALLOC_FL_KEEP_SIZE;
        self.allocate(mode, range.start, range.end - range.start)
    }

    fn text(&self) -> Option<&TextImage> {
        self.data().ok().map(Data::text)
    }
}
