//! A file of a tree of the host.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use husk_abi::boundary::fuse::{Attr, SetattrIn, fattr};
use husk_abi::linux::general;
use husk_hal::phys::Frame;
use spin::Once;

use super::calls::{self, Entry};
use super::data::Data;
use super::file::FuseFile;
use super::names::{Answer, Names};
use super::{PAGE, Shared};
use crate::fs::pipe::Pipe;
use crate::fs::{
    Attributes, Create, DirEntry, DirFile, FileKind, FileOps, Inode, SetAttributes, devfs,
    permission, pipe,
};
use crate::mm::Mappable;
use crate::process::Credentials;
use crate::sync::{Mutex, SpinLock};
use crate::translate::TextImage;
use crate::{Errno, Kernel, Result, Thread};

/// A file.
#[derive(Debug)]
pub(super) struct Node {
    weak: Weak<Node>,
    shared: Arc<Shared>,
    id: u64,
    kind: FileKind,
    /// How often the server told us of it.
    lookups: AtomicU64,
    meta: SpinLock<Meta>,
    content: Content,
    /// It is known to have no extended attributes.
    plain: AtomicBool,
    /// Made by this guest, so that nothing forbids changing it.
    ours: AtomicBool,
    /// Requests about it under way that nobody waits for.
    posted: AtomicU32,
    /// Made without a name, to be given none (`O_TMPFILE | O_EXCL`).
    unlinkable: AtomicBool,
}

/// Attributes as they were told last.
#[derive(Debug)]
struct Meta {
    attributes: Attributes,
    /// Good until then, in nanoseconds of the monotonic clock.
    until: u64,
    /// Time of an access that only we know of.
    accessed_ns: Option<i64>,
}

#[derive(Debug)]
enum Content {
    Regular(Data),
    Directory(Directory),
    Symlink(Once<Vec<u8>>),
    Fifo(Arc<Pipe>),
    /// Device nodes and sockets have only attributes.
    Nothing,
}

#[derive(Debug, Default)]
struct Directory {
    /// Held over requests about its names.
    changing: Mutex<()>,
    names: SpinLock<Names>,
}

fn now_ns() -> i64 {
    let monotonic = i64::try_from(husk_hal::clock::now_ns()).unwrap_or(i64::MAX);
    monotonic.saturating_add(husk_hal::clock::wall_offset_ns())
}

impl Node {
    /// The root of a tree: the server never forgets it.
    pub(super) fn root(shared: &Arc<Shared>, id: u64, attr: &Attr) -> Arc<Self> {
        let node = Self::new(shared, id, attr);
        shared.nodes.lock().insert(id, Arc::downgrade(&node));
        node
    }

    fn new(shared: &Arc<Shared>, id: u64, attr: &Attr) -> Arc<Self> {
        let attributes = shared.attributes(attr);
        let kind = attributes.kind;
        let content = match kind {
            FileKind::Regular => Content::Regular(Data::new(attributes.size, false)),
            FileKind::Directory => Content::Directory(Directory::default()),
            FileKind::Symlink => Content::Symlink(Once::new()),
            FileKind::Fifo => Content::Fifo(Arc::new(Pipe::new())),
            FileKind::CharDevice
            | FileKind::BlockDevice
            | FileKind::Socket
            | FileKind::Anonymous => Content::Nothing,
        };
        Arc::new_cyclic(|weak| Self {
            weak: weak.clone(),
            shared: shared.clone(),
            id,
            kind,
            lookups: AtomicU64::new(0),
            meta: SpinLock::new(Meta {
                attributes,
                until: shared.good_until(),
                accessed_ns: None,
            }),
            content,
            plain: AtomicBool::new(false),
            ours: AtomicBool::new(false),
            posted: AtomicU32::new(0),
            unlinkable: AtomicBool::new(false),
        })
    }

    /// The node of what the server told us of, once more or for the first time.
    fn intern(shared: &Arc<Shared>, entry: &Entry) -> Arc<Self> {
        let known = {
            let nodes = shared.nodes.lock();
            nodes.get(&entry.node).and_then(Weak::upgrade)
        };
        let node = match known {
            Some(node) => {
                // Of a tree that is ours alone nothing is news.
                if !shared.is_exclusive() {
                    node.learned(&entry.attr);
                }
                node
            }
            None => {
                let new = Self::new(shared, entry.node, &entry.attr);
                let mut nodes = shared.nodes.lock();
                let other = nodes.get(&entry.node).and_then(Weak::upgrade);
                let node = match other {
                    // Another thread was faster; ours was never told of.
                    Some(other) => other,
                    None => {
                        nodes.insert(entry.node, Arc::downgrade(&new));
                        new.clone()
                    }
                };
                drop(nodes);
                node
            }
        };
        node.lookups.fetch_add(1, Ordering::AcqRel);
        node
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether nobody else changes it.
    pub(super) fn is_exclusive(&self) -> bool {
        self.shared.is_exclusive()
    }

    pub(super) fn kernel(&self) -> &'static Kernel {
        self.shared.kernel
    }

    pub(super) fn weak(&self) -> Weak<Node> {
        self.weak.clone()
    }

    pub(super) fn arc(&self) -> Arc<Node> {
        self.weak.upgrade().expect("borrowed from an Arc")
    }

    /// The node behind an inode, if it is one of `shared`'s tree.
    fn of<'i>(inode: &'i Arc<dyn Inode>, shared: &Arc<Shared>) -> Result<&'i Node> {
        inode
            .as_any()
            .downcast_ref::<Node>()
            .filter(|node| Arc::ptr_eq(&node.shared, shared))
            .ok_or(Errno::EXDEV)
    }

    pub(super) fn data(&self) -> Result<&Data> {
        match &self.content {
            Content::Regular(data) => Ok(data),
            Content::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn directory(&self) -> Result<&Directory> {
        match &self.content {
            Content::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The server told its attributes.
    pub(super) fn learned(&self, attr: &Attr) {
        let attributes = self.shared.attributes(attr);
        let until = self.shared.good_until();
        let mut attributes = attributes;
        if let Content::Regular(data) = &self.content {
            // What waits to be written back counts.
            attributes.size = attributes.size.max(data.buffered.dirty_end());
            let (size, old) = (attributes.size, data.set_size(attributes.size));
            if size != old {
                self.text_changed(data, size.min(old)..size.max(old), false);
            }
        }
        let mut meta = self.meta.lock();
        if attributes.atime_ns >= meta.accessed_ns.unwrap_or(i64::MAX) {
            meta.accessed_ns = None;
        }
        meta.attributes = attributes;
        meta.until = until;
    }

    /// Asks for its attributes again if they may have changed.
    fn refresh(&self) {
        if self.shared.is_exclusive() && self.meta.lock().until == u64::MAX {
            return;
        }
        if self.meta.lock().until > husk_hal::clock::now_ns() {
            return;
        }
        // A file that cannot be asked about is what it was last.
        if let Ok((attr, _)) = calls::getattr(self.kernel(), self.id) {
            self.learned(&attr);
        }
    }

    /// Its size, where others may have changed it.
    pub(super) fn refresh_size(&self) {
        if !self.shared.is_exclusive() {
            self.refresh();
        }
    }

    /// Its attributes are not what they were.
    pub(super) fn outdate(&self) {
        self.meta.lock().until = 0;
    }

    /// It was read: `relatime` rules. Only we keep the time: the host's is set by `utimensat(2)` alone.
    pub(super) fn accessed(&self) {
        const DAY_NS: i64 = 86_400_000_000_000;
        let now = now_ns();
        let mut meta = self.meta.lock();
        let attributes = &meta.attributes;
        let atime = meta.accessed_ns.unwrap_or(attributes.atime_ns);
        if atime <= attributes.mtime_ns
            || atime <= attributes.ctime_ns
            || now.saturating_sub(atime) >= DAY_NS
        {
            meta.accessed_ns = Some(now);
        }
    }

    /// Its contents were written by somebody with `credentials`: drops set-id bits if they may not stay.
    pub(super) fn written(&self, credentials: &Credentials) -> Result<()> {
        let mode = self.meta.lock().attributes.mode;
        let dropped = permission::set_id_bits(mode);
        if dropped == 0 || credentials.has(general::CAP_FSETID) {
            return Ok(());
        }
        self.set_attributes(&SetAttributes {
            mode: Some(mode & !dropped),
            ..SetAttributes::default()
        })
    }

    /// The window shows chunk `index` no longer in `slot`.
    pub(super) fn lost_chunk(&self, index: u64, slot: usize) {
        if let Ok(data) = self.data() {
            data.lost(index, slot);
        }
    }

    /// The file became shorter under chunk `index`: no page of it stays mapped.
    pub(super) fn chunk_truncated(&self, index: u64, slot: usize) {
        self.lost_chunk(index, slot);
        self.outdate();
        if let Ok(data) = self.data() {
            let first = index * super::CHUNK_PAGES;
            self.pages_gone(data, first..first + super::CHUNK_PAGES, false);
        }
    }

    /// Adds what the server told of `name` to what is known.
    fn know(&self, directory: &Directory, name: &[u8], node: Option<Arc<Node>>) {
        let until = self.shared.good_until();
        let (new, old) = directory.names.lock().set(name, node, until);
        drop(old);
        if let Some(new) = new {
            self.shared.keep(&self.arc(), &new);
        }
    }

    /// A directory is now `name` here.
    fn place(self: &Arc<Self>, child: &Arc<Node>, name: &[u8]) {
        if let Content::Directory(directory) = &child.content
            && !Arc::ptr_eq(self, child)
        {
            let mut names = directory.names.lock();
            if names.name != name {
                names.name = name.to_vec();
            }
            let old = names.parent.replace(self.clone());
            drop(names);
            drop(old);
        }
    }

    /// Whether changes of its attributes can be made later.
    pub(super) fn may_post(&self) -> bool {
        self.is_exclusive() && self.ours.load(Ordering::Acquire)
    }

    /// A request nobody waits for is about to be posted.
    pub(super) fn posting(&self) {
        self.posted.fetch_add(1, Ordering::AcqRel);
    }

    /// It is served, or was not posted after all.
    pub(super) fn posted_done(&self) {
        self.posted.fetch_sub(1, Ordering::AcqRel);
    }

    /// Waits until what was posted is served.
    pub(super) fn settle(&self) {
        let files = &self.kernel().host.files;
        files.settle(|| self.posted.load(Ordering::Acquire) == 0);
    }

    /// A posted change failed.
    pub(super) fn post_failed(&self, errno: Errno) {
        if let Ok(data) = self.data() {
            data.buffered.failed(errno);
        }
        self.outdate();
    }

    /// A change was posted: this is what its attributes will be, but for the time of the change.
    pub(super) fn foresee(&self, change: &SetAttributes) {
        let mut meta = self.meta.lock();
        if change.atime_ns.is_some() {
            meta.accessed_ns = None;
        }
        let attributes = &mut meta.attributes;
        attributes.mode = change.mode.unwrap_or(attributes.mode);
        attributes.uid = change.uid.unwrap_or(attributes.uid);
        attributes.gid = change.gid.unwrap_or(attributes.gid);
        attributes.atime_ns = change.atime_ns.unwrap_or(attributes.atime_ns);
        attributes.mtime_ns = change.mtime_ns.unwrap_or(attributes.mtime_ns);
    }

    /// Whether the host's disk has room for `len` bytes more, so that writing them can wait.
    pub(super) fn has_room_for(&self, len: usize) -> bool {
        self.shared.has_room_for(self.id, len)
    }

    /// It was made just now.
    fn is_ours(&self) {
        self.ours.store(true, Ordering::Release);
        match &self.content {
            Content::Regular(data) => data.can_write.store(true, Ordering::Release),
            Content::Directory(directory) if self.is_exclusive() => {
                directory.names.lock().nothing_is_there();
            }
            _ => {}
        }
    }

    /// Forgets a name unless its file is in use; whether it did.
    pub(super) fn forget_name(&self, name: &[u8]) -> bool {
        let Ok(directory) = self.directory() else {
            return true;
        };
        let forgotten = directory.names.lock().forget(name);
        forgotten.is_some()
    }

    /// Forgets all names, and where it is.
    pub(super) fn forget_names(&self) {
        if let Ok(directory) = self.directory() {
            let all = directory.names.lock().take_all();
            drop(all);
        }
    }

    /// Looks `name` up; the caller holds `changing`.
    fn lookup_locked(&self, directory: &Directory, name: &[u8]) -> Result<Arc<Node>> {
        match directory.names.lock().get(name) {
            Answer::File(node) => return Ok(node),
            Answer::Nothing => return Err(Errno::ENOENT),
            Answer::Unknown => {}
        }
        match calls::lookup(self.kernel(), self.id, name) {
            Ok(entry) => {
                let node = Self::intern(&self.shared, &entry);
                self.know(directory, name, Some(node.clone()));
                self.arc().place(&node, name);
                Ok(node)
            }
            Err(Errno::ENOENT) => {
                self.know(directory, name, None);
                Err(Errno::ENOENT)
            }
            Err(errno) => Err(errno),
        }
    }

    /// A name was made: the server told of it and of this directory.
    fn made(&self, directory: &Directory, name: &[u8], entry: &Entry, attr: &Attr) -> Arc<Node> {
        let node = Self::intern(&self.shared, entry);
        directory.names.lock().changed();
        self.know(directory, name, Some(node.clone()));
        self.arc().place(&node, name);
        self.learned(attr);
        node
    }

    /// `name` was taken away, or given to another file.
    fn unnamed(&self, node: Option<&Arc<Node>>) {
        let Some(node) = node else { return };
        let mut meta = node.meta.lock();
        meta.attributes.nlink =
            if self.kind == FileKind::Directory && node.kind == FileKind::Directory {
                0
            } else {
                meta.attributes.nlink.saturating_sub(1)
            };
        meta.until = 0;
        drop(meta);
        if let Content::Directory(directory) = &node.content {
            directory.names.lock().removed = true;
        }
    }

    fn remove(&self, name: &[u8], is_directory: bool) -> Result<()> {
        let directory = self.directory()?;
        let _changing = directory.changing.lock();
        let attr = calls::unlink(self.kernel(), self.id, name, is_directory)?;
        let node = {
            let mut names = directory.names.lock();
            names.changed();
            names.last_known(name).cloned()
        };
        self.know(directory, name, None);
        self.learned(&attr);
        self.unnamed(node.as_ref());
        Ok(())
    }

    /// The entries from the start, as the server lists them now, and known from here on.
    fn fetch_listing(&self, directory: &Directory) -> Result<Arc<Vec<DirEntry>>> {
        let _changing = directory.changing.lock();
        if let Some(listing) = directory.names.lock().listing() {
            return Ok(listing);
        }
        let mut entries = Vec::new();
        let mut position = 0;
        let mut complete = self.shared.is_exclusive();
        loop {
            let (part, is_end) = calls::list(self.kernel(), self.id, position)?;
            position = part.last().map_or(position, |last| last.next);
            for listed in part {
                let dots = matches!(listed.name.as_slice(), b"." | b"..");
                match &listed.entry {
                    Some(entry) => {
                        let node = Self::intern(&self.shared, entry);
                        self.know(directory, &listed.name, Some(node.clone()));
                        self.arc().place(&node, &listed.name);
                    }
                    None => complete &= dots,
                }
                entries.push(DirEntry {
                    next: listed.next,
                    ino: listed.ino,
                    kind: listed.kind,
                    name: listed.name,
                });
            }
            if is_end {
                break;
            }
        }
        let entries = Arc::new(entries);
        // If names were forgotten meanwhile the directory is too large to be known.
        let complete = complete && entries.len() < super::MAX_NAMES / 4;
        let mut names = directory.names.lock();
        names.set_listing(entries.clone(), self.shared.good_until(), complete);
        Ok(entries)
    }

    /// Where `..` leads, for listings: the server's root shows its own number.
    fn parent_ino(&self) -> u64 {
        self.parent()
            .map_or_else(|| self.attributes().ino, |parent| parent.attributes().ino)
    }
}

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
        self.text_changed(data, offset..end, true);
        Ok(())
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.flush()?;
        calls::fsync(self.kernel(), self.id, data_only)
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

impl Drop for Node {
    fn drop(&mut self) {
        {
            let mut nodes = self.shared.nodes.lock();
            // Another may have taken its place meanwhile.
            if nodes
                .get(&self.id)
                .is_some_and(|weak| weak.strong_count() == 0)
            {
                nodes.remove(&self.id);
            }
        }
        let lookups = *self.lookups.get_mut();
        let kernel = self.shared.kernel;
        match &self.content {
            Content::Regular(data) => {
                let slots = data.take_slots();
                kernel.fs.window.node_gone(kernel, self.id, lookups, slots);
            }
            _ if lookups > 0 => kernel.host.files.forget(self.id, lookups),
            _ => {}
        }
    }
}
