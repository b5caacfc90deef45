//! What the file calls tell when they have done something.
//!
//! Who calls these has done its work and holds no spin lock. As long as nobody watches, each costs two loads.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::watches::id;
use crate::fs::mount::{last_component, same_inode};
use crate::fs::{File, FileKind, Inode, Location, Mount, SetAttributes};
use crate::{Kernel, Thread};

bitflags::bitflags! {
    /// `IN_*` bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Events: u32 {
        /// Read, or executed.
        const ACCESS = general::IN_ACCESS;
        /// Written or truncated.
        const MODIFY = general::IN_MODIFY;
        /// Attributes changed, the number of links among them.
        const ATTRIB = general::IN_ATTRIB;
        /// Closed, was open for writing.
        const CLOSE_WRITE = general::IN_CLOSE_WRITE;
        /// Closed, was not.
        const CLOSE_NOWRITE = general::IN_CLOSE_NOWRITE;
        /// Opened.
        const OPEN = general::IN_OPEN;
        /// Renamed, seen from the old directory.
        const MOVED_FROM = general::IN_MOVED_FROM;
        /// Renamed, seen from the new directory.
        const MOVED_TO = general::IN_MOVED_TO;
        /// A name was made.
        const CREATE = general::IN_CREATE;
        /// A name was removed.
        const DELETE = general::IN_DELETE;
        /// The watched file is gone.
        const DELETE_SELF = general::IN_DELETE_SELF;
        /// The watched file was renamed.
        const MOVE_SELF = general::IN_MOVE_SELF;
        /// All of these: what a program can wait for.
        const ALL = general::IN_ALL_EVENTS;
        /// The watched file's file system was unmounted.
        const UNMOUNT = general::IN_UNMOUNT;
        /// Events were lost.
        const Q_OVERFLOW = general::IN_Q_OVERFLOW;
        /// The watch is gone.
        const IGNORED = general::IN_IGNORED;
        /// It happened to a directory.
        const ISDIR = general::IN_ISDIR;
        /// Only a directory may be watched.
        const ONLYDIR = general::IN_ONLYDIR;
        /// A symbolic link itself is watched.
        const DONT_FOLLOW = general::IN_DONT_FOLLOW;
        /// Nothing is told of files without names.
        const EXCL_UNLINK = general::IN_EXCL_UNLINK;
        /// Fails if the file is watched already.
        const MASK_CREATE = general::IN_MASK_CREATE;
        /// Adds to what an existing watch waits for.
        const MASK_ADD = general::IN_MASK_ADD;
        /// The first event ends the watch.
        const ONESHOT = general::IN_ONESHOT;
    }
}

/// `event`, marked if it happened to a directory.
fn marked(event: Events, kind: FileKind) -> Events {
    if kind == FileKind::Directory {
        event | Events::ISDIR
    } else {
        event
    }
}

/// Something happened to an open file.
#[inline]
pub fn file(file: &File, event: Events) {
    if let Some(mount) = &file.mount
        && mount.watches.wants(event)
    {
        location(&opened(file, mount), event);
    }
}

#[cold]
fn opened(file: &File, mount: &Arc<Mount>) -> Location {
    Location {
        mount: mount.clone(),
        inode: file.inode.clone(),
        path: file.path.clone(),
    }
}

/// Something happened to a file found by a path: its directory is told, and whoever watches itself.
pub fn location(at: &Location, event: Events) {
    let watches = &at.mount.watches;
    if !watches.wants(event) {
        return;
    }
    let attributes = at.inode.attributes();
    let event = marked(event, attributes.kind);
    if !at.is_mount_root()
        && let Ok(parent) = at.parent()
    {
        let name = at.inode.name();
        let name = name.as_deref().unwrap_or(last_component(&at.path));
        let in_place = parent
            .inode
            .lookup(name)
            .is_ok_and(|found| same_inode(&found, &at.inode));
        let unlinked = attributes.nlink == 0;
        // Neither: it was renamed since, and nobody knows where to.
        if in_place || unlinked {
            watches.emit(id(&*parent.inode), event, 0, name, unlinked);
        }
    }
    watches.emit((attributes.dev, attributes.ino), event, 0, b"", false);
}

/// The last reference to an open file is gone.
pub fn closed(file: &File) {
    let Some(mount) = &file.mount else { return };
    if !mount.watches.any() || file.is_path() {
        return;
    }
    let event = if file.is_writable() {
        Events::CLOSE_WRITE
    } else {
        Events::CLOSE_NOWRITE
    };
    self::file(file, event);
    mount.watches.closed(id(&*file.inode));
}

/// A name was made in `directory`.
pub fn created(directory: &Location, name: &[u8], kind: FileKind) {
    let watches = &directory.mount.watches;
    if watches.wants(Events::CREATE) {
        let event = marked(Events::CREATE, kind);
        watches.emit(id(&*directory.inode), event, 0, name, false);
    }
}

/// A file got one more name, in `directory`.
pub fn linked(directory: &Location, name: &[u8], inode: &Arc<dyn Inode>) {
    links_changed(directory, inode);
    created(directory, name, inode.kind());
}

fn links_changed(directory: &Location, inode: &Arc<dyn Inode>) {
    let watches = &directory.mount.watches;
    if watches.wants(Events::ATTRIB) {
        let event = marked(Events::ATTRIB, inode.kind());
        watches.emit(id(&**inode), event, 0, b"", false);
    }
}

/// `inode` lost its name in `directory`.
pub fn removed(t: &Thread, directory: &Location, name: &[u8], inode: &Arc<dyn Inode>) {
    let watches = &directory.mount.watches;
    if !watches.any() {
        return;
    }
    let kind = inode.kind();
    if kind != FileKind::Directory {
        links_changed(directory, inode);
    }
    lost_name(t, directory, inode);
    let event = marked(Events::DELETE, kind);
    watches.emit(id(&*directory.inode), event, 0, name, false);
}

/// Tells the watches of a file if it was its last name that went.
fn lost_name(t: &Thread, directory: &Location, inode: &Arc<dyn Inode>) {
    let watches = &directory.mount.watches;
    let attributes = inode.attributes();
    let id = (attributes.dev, attributes.ino);
    if watches.is_watched(id) && (attributes.nlink == 0 || attributes.kind == FileKind::Directory) {
        watches.doom(id, open_files(t.kernel, inode));
    }
}

/// How many open files refer to `inode`. Mappings of closed descriptors are not counted.
fn open_files(kernel: &Kernel, inode: &Arc<dyn Inode>) -> usize {
    let mut seen: Vec<*const File> = Vec::new();
    for thread in kernel.tasks.threads() {
        let Some(files) = thread.files_opt() else {
            continue;
        };
        for file in files
            .open_fds()
            .into_iter()
            .filter_map(|fd| files.get(fd).ok())
        {
            let at = crate::fs::FileRef::as_ptr(&file);
            if !seen.contains(&at) && same_inode(&file.inode, inode) {
                seen.push(at);
            }
        }
    }
    seen.len()
}

/// `moved` was renamed; `replaced` is what had the new name before.
pub fn renamed(
    t: &Thread,
    (from, old): (&Location, &[u8]),
    (to, new): (&Location, &[u8]),
    moved: &Arc<dyn Inode>,
    replaced: Option<&Arc<dyn Inode>>,
) {
    let watches = &from.mount.watches;
    if !watches.any() {
        return;
    }
    let kind = moved.kind();
    let cookie = watches.next_cookie();
    let event = marked(Events::MOVED_FROM, kind);
    watches.emit(id(&*from.inode), event, cookie, old, false);
    let event = marked(Events::MOVED_TO, kind);
    watches.emit(id(&*to.inode), event, cookie, new, false);
    if let Some(replaced) = replaced {
        links_changed(to, replaced);
    }
    watches.emit(id(&**moved), Events::MOVE_SELF, 0, b"", false);
    if let Some(replaced) = replaced {
        lost_name(t, to, replaced);
    }
}

/// Attributes were changed.
pub fn changed(at: &Location, change: &SetAttributes) {
    if !at.mount.watches.any() {
        return;
    }
    let mut event = Events::empty();
    event.set(
        Events::ATTRIB,
        change.uid.is_some()
            || change.gid.is_some()
            || change.mode.is_some()
            || (change.atime_ns.is_some() && change.mtime_ns.is_some()),
    );
    match (change.atime_ns.is_some(), change.mtime_ns.is_some()) {
        (true, false) => event |= Events::ACCESS,
        (false, true) => event |= Events::MODIFY,
        _ => {}
    }
    if change.size.is_some() {
        event |= Events::MODIFY;
    }
    if !event.is_empty() {
        location(at, event);
    }
}
