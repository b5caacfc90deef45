//! Directories: `getdents(2)`, `getcwd(2)`, `chdir(2)`, `chroot(2)`, `mkdir(2)`, `rmdir(2)`.

use alloc::vec::Vec;

use husk_abi::linux::general;

use super::create::{self, New};
use super::inotify::{Events, notify};
use super::link::{self, Victim};
use super::path::{Last, Lookup, lookup_at, parent_at};
use super::permission::{self, Access};
use super::{DirEntry, FileKind, Location};
use crate::syscall::{BufOut, DirFd, Fd, Len, Mode, Path};
use crate::{Errno, Result, SysResult, Thread};

/// Most bytes of entries one call gives: the buffer for them is the kernel's.
const MAX_BYTES: usize = 64 << 10;

/// Lists into a buffer of `count` bytes; `encode` appends one entry, or says that it has no room.
fn list(
    t: &Thread,
    fd: Fd,
    buf: BufOut,
    count: Len,
    encode: impl Fn(&mut Vec<u8>, usize, &DirEntry) -> bool,
) -> SysResult {
    let file = t.file(fd)?;
    if file.inode.kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let room = (count as u32 as usize).min(MAX_BYTES);
    let mut bytes = Vec::with_capacity(room);
    let mut position = file.position.lock();
    let mut next = *position;
    let mut full = false;
    file.ops.read_dir(*position, &mut |entry| {
        full = !encode(&mut bytes, room, &entry);
        if !full {
            next = entry.next;
        }
        !full
    })?;
    notify::file(&file, Events::ACCESS);
    if bytes.is_empty() {
        return if full { Err(Errno::EINVAL) } else { Ok(0) };
    }
    buf.write_bytes(&bytes)?;
    *position = next;
    Ok(bytes.len())
}

/// `getdents64(2)`.
pub fn getdents64(t: &Thread, fd: Fd, dirp: BufOut, count: Len) -> SysResult {
    list(t, fd, dirp, count, |bytes, room, entry| {
        const HEADER: usize = 19;
        let len = (HEADER + entry.name.len() + 1).next_multiple_of(8);
        if bytes.len() + len > room {
            return false;
        }
        let end = bytes.len() + len;
        bytes.extend_from_slice(&entry.ino.to_ne_bytes());
        bytes.extend_from_slice(&entry.next.to_ne_bytes());
        bytes.extend_from_slice(&(len as u16).to_ne_bytes());
        bytes.push(entry.kind.entry_type());
        bytes.extend_from_slice(&entry.name);
        bytes.resize(end, 0);
        true
    })
}

/// `getdents(2)`: the type is the record's last byte.
pub fn getdents(t: &Thread, fd: Fd, dirp: BufOut, count: Len) -> SysResult {
    list(t, fd, dirp, count, |bytes, room, entry| {
        const HEADER: usize = 18;
        let len = (HEADER + entry.name.len() + 2).next_multiple_of(8);
        if bytes.len() + len > room {
            return false;
        }
        let end = bytes.len() + len;
        bytes.extend_from_slice(&entry.ino.to_ne_bytes());
        bytes.extend_from_slice(&entry.next.to_ne_bytes());
        bytes.extend_from_slice(&(len as u16).to_ne_bytes());
        bytes.extend_from_slice(&entry.name);
        bytes.resize(end - 1, 0);
        bytes.push(entry.kind.entry_type());
        true
    })
}

/// The path of `location` as a process with root `root` sees it; one outside of it starts with
/// `(unreachable)`.
///
/// # Errors
/// `ENOENT` if the directory was removed.
pub fn visible_path(location: &Location, root: &Location) -> Result<Vec<u8>> {
    let path = location.current_path().ok_or(Errno::ENOENT)?;
    let top = root.current_path().ok_or(Errno::ENOENT)?;
    if top == b"/" {
        return Ok(path);
    }
    match path.strip_prefix(top.as_slice()) {
        Some(b"") => Ok(b"/".to_vec()),
        Some(rest) if rest.first() == Some(&b'/') => Ok(rest.to_vec()),
        _ => Ok([b"(unreachable)".as_slice(), &path].concat()),
    }
}

/// `getcwd(2)`.
pub fn getcwd(t: &Thread, buf: BufOut, size: Len) -> SysResult {
    let fs = t.fs();
    let mut path = visible_path(&fs.cwd(), &fs.root())?;
    path.push(0);
    if path.len() > size {
        return Err(Errno::ERANGE);
    }
    if path.len() > general::PATH_MAX as usize {
        return Err(Errno::ENAMETOOLONG);
    }
    buf.write_bytes(&path)?;
    Ok(path.len())
}

/// Checks that `t` may search `directory`.
fn check_search(t: &Thread, directory: &Location) -> Result<()> {
    let attributes = directory.inode.attributes();
    if attributes.kind != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    permission::check(&t.credentials(), &attributes, Access::EXECUTE)
}

/// Makes `path` the thread's working directory.
///
/// # Errors
/// As `chdir(2)`.
pub fn set_cwd(t: &Thread, path: &[u8]) -> Result<()> {
    let lookup = Lookup::FOLLOW | Lookup::DIRECTORY;
    let directory = lookup_at(t, general::AT_FDCWD, path, lookup)?;
    check_search(t, &directory)?;
    t.fs().set_cwd(directory);
    Ok(())
}

/// `chdir(2)`.
pub fn chdir(t: &Thread, path: Path) -> SysResult {
    set_cwd(t, &path.read_path()?)?;
    Ok(0)
}

/// `fchdir(2)`.
pub fn fchdir(t: &Thread, fd: Fd) -> SysResult {
    let directory = t.any_file(fd)?.location(t.kernel);
    check_search(t, &directory)?;
    t.fs().set_cwd(directory);
    Ok(0)
}

/// `chroot(2)`.
pub fn chroot(t: &Thread, path: Path) -> SysResult {
    let path = path.read_path()?;
    let lookup = Lookup::FOLLOW | Lookup::DIRECTORY;
    let directory = lookup_at(t, general::AT_FDCWD, &path, lookup)?;
    check_search(t, &directory)?;
    if !t.credentials().has(general::CAP_SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    t.fs().set_root(directory);
    Ok(0)
}

/// `mkdir(2)`.
pub fn mkdir(t: &Thread, path: Path, mode: Mode) -> SysResult {
    mkdirat(t, general::AT_FDCWD, path, mode)
}

/// `mkdirat(2)`.
pub fn mkdirat(t: &Thread, dirfd: DirFd, path: Path, mode: Mode) -> SysResult {
    let path = path.read_path()?;
    let new = New {
        kind: FileKind::Directory,
        mode: mode & 0o1777,
        rdev: 0,
        target: &[],
    };
    create::create_last(t, dirfd, &path, &new)?;
    Ok(0)
}

/// `rmdir(2)`.
pub fn rmdir(t: &Thread, path: Path) -> SysResult {
    remove_directory(t, general::AT_FDCWD, &path.read_path()?)?;
    Ok(0)
}

/// Removes the directory `path` (`rmdir(2)`, `unlinkat(2)` with `AT_REMOVEDIR`).
///
/// # Errors
/// As `rmdir(2)`.
pub fn remove_directory(t: &Thread, dirfd: i32, path: &[u8]) -> Result<()> {
    let parent = parent_at(t, dirfd, path)?;
    let name = match &parent.last {
        Last::Name(name) => name,
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    };
    if parent.directory.mount.is_read_only() {
        return Err(Errno::EROFS);
    }
    // Directories do not move or get mounted on meanwhile.
    let _tree = t.kernel.fs.tree.lock();
    let inode = parent.directory.inode.lookup(name)?;
    link::check_delete(t, &parent.directory, name, &inode, Victim::Directory)?;
    parent.directory.inode.rmdir(name)?;
    notify::removed(t, &parent.directory, name, &inode);
    Ok(())
}
