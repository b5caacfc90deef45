//! A file of a tree of the host.

mod inode;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use husk_abi::boundary::fuse::Attr;
use husk_abi::linux::general;
use spin::Once;

use super::Shared;
use super::calls::{self, Entry};
use super::data::Data;
use super::names::{Answer, Names};
use crate::fs::pipe::Pipe;
use crate::fs::{Attributes, DirEntry, FileKind, Inode, SetAttributes, permission};
use crate::process::Credentials;
use crate::sync::{Mutex, SpinLock};
use crate::{Errno, Kernel, Result};

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
                // Of a tree that is ours alone nothing is news, as long as that is believed.
                if !shared.is_exclusive() || !node.is_believed() {
                    node.told_again(&entry.attr);
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

    /// What kind of file it is.
    pub(super) fn kind(&self) -> FileKind {
        self.kind
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
                self.text_changed(data, size.min(old)..size.max(old));
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
            self.told_again(&attr);
        }
    }

    /// Whether what is known of it is still good.
    fn is_believed(&self) -> bool {
        let until = self.meta.lock().until;
        until == u64::MAX || until > husk_hal::clock::now_ns()
    }

    /// The server told its attributes, of a file that others may have changed.
    fn told_again(&self, attr: &Attr) {
        let new = self.shared.attributes(attr);
        let old = self.meta.lock().attributes;
        if self.is_exclusive() && (new.mtime_ns, new.size) != (old.mtime_ns, old.size) {
            // What was read ahead is old.
            self.drop_buffer();
        }
        self.learned(attr);
    }

    /// Others may have changed it.
    pub(super) fn distrust(&self) {
        self.outdate();
        if let Content::Directory(directory) = &self.content {
            directory.names.lock().distrust();
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
