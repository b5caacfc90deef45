//! Names: `link(2)`, `symlink(2)`, `mknod(2)`, `unlink(2)`, `rename(2)`.

use alloc::sync::Arc;

use husk_abi::linux::general;

use super::create::{self, New};
use super::inotify::notify;
use super::mount::same_inode;
use super::path::{Last, Lookup, Parent, lookup_at, parent_at};
use super::permission::{self, Access};
use super::{Attributes, FileKind, Inode, Location, dir};
use crate::process::Credentials;
use crate::syscall::{AtFlags, DirFd, Hex, Mode, Path};
use crate::{Errno, Result, SysResult, Thread};

/// What a call removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A directory: anything else is `ENOTDIR`.
    Directory,
    /// Not a directory: one is `EISDIR`.
    File,
}

/// Checks that the name `name` of `inode` in `directory` may go.
///
/// # Errors
/// `EACCES`, `EPERM` (sticky directory), `ENOTDIR`, `EISDIR`, `EBUSY` (something is mounted there).
pub fn check_delete(
    t: &Thread,
    directory: &Location,
    name: &[u8],
    inode: &Arc<dyn Inode>,
    victim: Victim,
) -> Result<()> {
    let credentials = t.credentials();
    let parent = directory.inode.rights();
    permission::check(&credentials, &parent, Access::WRITE | Access::EXECUTE)?;
    permission::check_sticky(&credentials, &parent, &inode.rights())?;
    match (inode.kind() == FileKind::Directory, victim) {
        (false, Victim::Directory) => return Err(Errno::ENOTDIR),
        (true, Victim::File) => return Err(Errno::EISDIR),
        _ => {}
    }
    if directory.mount.mounted_at(name, inode).is_some() {
        return Err(Errno::EBUSY);
    }
    Ok(())
}

/// `unlink(2)`.
pub fn unlink(t: &Thread, path: Path) -> SysResult {
    remove_file(t, general::AT_FDCWD, &path.read_path()?)?;
    Ok(0)
}

/// `unlinkat(2)`.
pub fn unlinkat(t: &Thread, dirfd: DirFd, path: Path, flags: AtFlags) -> SysResult {
    if flags & !general::AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path()?;
    if flags & general::AT_REMOVEDIR != 0 {
        dir::remove_directory(t, dirfd, &path)?;
    } else {
        remove_file(t, dirfd, &path)?;
    }
    Ok(0)
}

fn remove_file(t: &Thread, dirfd: i32, path: &[u8]) -> Result<()> {
    let parent = parent_at(t, dirfd, path)?;
    let Last::Name(name) = &parent.last else {
        return Err(Errno::EISDIR);
    };
    if parent.directory.mount.is_read_only() {
        return Err(Errno::EROFS);
    }
    let inode = parent.directory.inode.lookup(name)?;
    if parent.trailing_slash {
        return Err(if inode.kind() == FileKind::Directory {
            Errno::EISDIR
        } else {
            Errno::ENOTDIR
        });
    }
    check_delete(t, &parent.directory, name, &inode, Victim::File)?;
    parent.directory.inode.unlink(name)?;
    notify::removed(t, &parent.directory, name, &inode);
    Ok(())
}

/// `symlink(2)`.
pub fn symlink(t: &Thread, target: Path, linkpath: Path) -> SysResult {
    symlinkat(t, target, general::AT_FDCWD, linkpath)
}

/// `symlinkat(2)`.
pub fn symlinkat(t: &Thread, target: Path, newdirfd: DirFd, linkpath: Path) -> SysResult {
    let target = target.read_path()?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = linkpath.read_path()?;
    let new = New {
        kind: FileKind::Symlink,
        mode: 0o777,
        rdev: 0,
        target: &target,
    };
    create::create_last(t, newdirfd, &path, &new)?;
    Ok(0)
}

/// `mknod(2)`.
pub fn mknod(t: &Thread, path: Path, mode: Mode, dev: Hex) -> SysResult {
    mknodat(t, general::AT_FDCWD, path, mode, dev)
}

/// `mknodat(2)`.
pub fn mknodat(t: &Thread, dirfd: DirFd, path: Path, mode: Mode, dev: Hex) -> SysResult {
    let kind = match mode & general::S_IFMT {
        0 => FileKind::Regular,
        general::S_IFDIR => return Err(Errno::EPERM),
        _ => FileKind::from_mode(mode).ok_or(Errno::EINVAL)?,
    };
    if kind == FileKind::Symlink {
        return Err(Errno::EINVAL);
    }
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let path = path.read_path()?;
    if is_device && !t.is_capable(general::CAP_MKNOD) {
        // Linux finds out first whether the name is free.
        let parent = parent_at(t, dirfd, &path)?;
        return Err(match parent.last {
            Last::Name(name) if parent.directory.inode.lookup(&name).is_err() => Errno::EPERM,
            _ => Errno::EEXIST,
        });
    }
    let new = New {
        kind,
        mode: mode & 0o7777,
        // The system call's device number has 32 bits, in the encoding the 64-bit one extends.
        rdev: if is_device { dev & 0xffff_ffff } else { 0 },
        target: &[],
    };
    create::create_last(t, dirfd, &path, &new)?;
    Ok(0)
}

/// `link(2)`.
pub fn link(t: &Thread, oldpath: Path, newpath: Path) -> SysResult {
    linkat(t, general::AT_FDCWD, oldpath, general::AT_FDCWD, newpath, 0)
}

/// `fs.protected_hardlinks`: who does not own a file links it only if it is a plain one they can read and
/// write.
fn check_protected(credentials: &Credentials, file: &Attributes) -> Result<()> {
    if permission::is_owner_or_capable(credentials, file) {
        return Ok(());
    }
    let safe = file.kind == FileKind::Regular
        && permission::set_id_bits(file.mode) == 0
        && permission::check(credentials, file, Access::READ | Access::WRITE).is_ok();
    if safe { Ok(()) } else { Err(Errno::EPERM) }
}

/// `linkat(2)`.
pub fn linkat(
    t: &Thread,
    olddirfd: DirFd,
    oldpath: Path,
    newdirfd: DirFd,
    newpath: Path,
    flags: AtFlags,
) -> SysResult {
    if flags & !(general::AT_SYMLINK_FOLLOW | general::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let credentials = t.credentials();
    let mut lookup = Lookup::empty();
    lookup.set(Lookup::FOLLOW, flags & general::AT_SYMLINK_FOLLOW != 0);
    lookup.set(
        Lookup::EMPTY,
        flags & general::AT_EMPTY_PATH != 0 && credentials.has(general::CAP_DAC_READ_SEARCH),
    );
    let old = lookup_at(t, olddirfd, &oldpath.read_path()?, lookup)?;
    let parent = parent_at(t, newdirfd, &newpath.read_path()?)?;
    let Last::Name(name) = &parent.last else {
        return Err(Errno::EEXIST);
    };
    match parent.directory.inode.lookup(name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) if parent.trailing_slash => return Err(Errno::ENOENT),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(error),
    }
    if parent.directory.mount.is_read_only() {
        return Err(Errno::EROFS);
    }
    if !Arc::ptr_eq(&old.mount, &parent.directory.mount) {
        return Err(Errno::EXDEV);
    }
    let attributes = old.inode.attributes();
    check_protected(&credentials, &attributes)?;
    create::check_directory(&credentials, &parent.directory)?;
    if attributes.kind == FileKind::Directory {
        return Err(Errno::EPERM);
    }
    parent.directory.inode.link(name, &old.inode)?;
    notify::linked(&parent.directory, name, &old.inode);
    Ok(0)
}

/// `rename(2)`.
pub fn rename(t: &Thread, oldpath: Path, newpath: Path) -> SysResult {
    renameat2(t, general::AT_FDCWD, oldpath, general::AT_FDCWD, newpath, 0)
}

/// `renameat(2)`.
pub fn renameat(
    t: &Thread,
    olddirfd: DirFd,
    oldpath: Path,
    newdirfd: DirFd,
    newpath: Path,
) -> SysResult {
    renameat2(t, olddirfd, oldpath, newdirfd, newpath, 0)
}

/// `renameat2(2)`.
pub fn renameat2(
    t: &Thread,
    olddirfd: DirFd,
    oldpath: Path,
    newdirfd: DirFd,
    newpath: Path,
    flags: Hex,
) -> SysResult {
    const KNOWN: u32 = general::RENAME_NOREPLACE | general::RENAME_EXCHANGE;
    let flags = flags as u32;
    // RENAME_WHITEOUT is for union file systems' own use and needs their support.
    if flags & !KNOWN != 0 || flags & KNOWN == KNOWN {
        return Err(Errno::EINVAL);
    }
    let oldpath = oldpath.read_path()?;
    let newpath = newpath.read_path()?;
    let old = parent_at(t, olddirfd, &oldpath)?;
    let new = parent_at(t, newdirfd, &newpath)?;
    move_name(t, &old, &new, flags)?;
    Ok(0)
}

/// Whether `place` is `directory` or lies below it, in the same mount.
fn lies_in(place: &Location, directory: &Arc<dyn Inode>) -> bool {
    let mut at = place.clone();
    loop {
        if same_inode(&at.inode, directory) {
            return true;
        }
        if at.is_mount_root() {
            return false;
        }
        match at.parent() {
            Ok(parent) => at = parent,
            Err(_) => return false,
        }
    }
}

fn move_name(t: &Thread, old: &Parent, new: &Parent, flags: u32) -> Result<()> {
    let exchange = flags & general::RENAME_EXCHANGE != 0;
    let no_replace = flags & general::RENAME_NOREPLACE != 0;
    if !Arc::ptr_eq(&old.directory.mount, &new.directory.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name(from) = &old.last else {
        return Err(Errno::EBUSY);
    };
    let Last::Name(to) = &new.last else {
        return Err(if no_replace {
            Errno::EEXIST
        } else {
            Errno::EBUSY
        });
    };
    if old.directory.mount.is_read_only() {
        return Err(Errno::EROFS);
    }
    let (from_directory, to_directory) = (&old.directory.inode, &new.directory.inode);
    let _tree = t.kernel.fs.tree.lock();
    let moved = from_directory.lookup(from)?;
    let replaced = match to_directory.lookup(to) {
        Ok(_) if no_replace => return Err(Errno::EEXIST),
        Ok(inode) => Some(inode),
        Err(Errno::ENOENT) if exchange => return Err(Errno::ENOENT),
        Err(Errno::ENOENT) => None,
        Err(error) => return Err(error),
    };
    let is_directory = moved.kind() == FileKind::Directory;
    let not_directory = |inode: &Arc<dyn Inode>| inode.kind() != FileKind::Directory;
    if (!is_directory && (old.trailing_slash || (!exchange && new.trailing_slash)))
        || (exchange && new.trailing_slash && replaced.as_ref().is_some_and(not_directory))
    {
        return Err(Errno::ENOTDIR);
    }
    if is_directory && lies_in(&new.directory, &moved) {
        return Err(Errno::EINVAL);
    }
    if let Some(replaced) = &replaced
        && !not_directory(replaced)
        && lies_in(&old.directory, replaced)
    {
        return Err(if exchange {
            Errno::EINVAL
        } else {
            Errno::ENOTEMPTY
        });
    }
    if let Some(replaced) = &replaced
        && same_inode(&moved, replaced)
    {
        return Ok(());
    }
    let victim_kind = |directory: bool| {
        if directory {
            Victim::Directory
        } else {
            Victim::File
        }
    };
    check_delete(t, &old.directory, from, &moved, victim_kind(is_directory))?;
    match &replaced {
        Some(victim) => {
            let as_directory = if exchange {
                victim.kind() == FileKind::Directory
            } else {
                is_directory
            };
            check_delete(t, &new.directory, to, victim, victim_kind(as_directory))?;
        }
        None => create::check_directory(&t.credentials(), &new.directory)?,
    }
    // A directory that moves to another parent has its `..` changed.
    if !same_inode(from_directory, to_directory) {
        let changed = |inode: &Arc<dyn Inode>| -> Result<()> {
            let attributes = inode.attributes();
            if attributes.kind == FileKind::Directory {
                permission::check(&t.credentials(), &attributes, Access::WRITE)?;
            }
            Ok(())
        };
        changed(&moved)?;
        if exchange && let Some(replaced) = &replaced {
            changed(replaced)?;
        }
    }
    from_directory.rename(from, to_directory, to, flags)?;
    let (old, new) = (
        (&old.directory, from.as_slice()),
        (&new.directory, to.as_slice()),
    );
    let overwritten = replaced.as_ref().filter(|_| !exchange);
    notify::renamed(t, old, new, &moved, overwritten);
    if exchange && let Some(replaced) = &replaced {
        notify::renamed(t, new, old, replaced, None);
    }
    Ok(())
}
