//! Making files: who may, and what owner and mode a new file gets.

use alloc::sync::Arc;

use husk_abi::linux::general;

use super::inotify::notify;
use super::path::Last;
use super::permission::{self, Access};
use super::{Create, FileKind, Inode, Location};
use crate::process::Credentials;
use crate::{Errno, Result, Thread};

/// What to make, as a program asked for it.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits; the umask has not been applied.
    pub mode: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: &'a [u8],
}

/// Checks that names in `directory` may change.
///
/// # Errors
/// `EROFS`, `EACCES`, `ENOTDIR`.
pub fn check_directory(credentials: &Credentials, directory: &Location) -> Result<()> {
    if directory.mount.is_read_only() {
        return Err(Errno::EROFS);
    }
    let attributes = directory.inode.rights();
    if attributes.kind != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    permission::check(credentials, &attributes, Access::WRITE | Access::EXECUTE)
}

/// What `new` becomes in `directory`: umask, owner, and what a set-group-ID directory passes on.
fn inherit<'a>(
    t: &Thread,
    credentials: &Credentials,
    directory: &Location,
    new: &New<'a>,
) -> Create<'a> {
    let parent = directory.inode.rights();
    let mut mode = new.mode;
    if new.kind != FileKind::Symlink {
        mode &= !t.fs().umask();
    }
    let mut gid = credentials.fsgid;
    if parent.mode & general::S_ISGID != 0 {
        gid = parent.gid;
        const GROUP_EXECUTE: u32 = general::S_ISGID | general::S_IXGRP;
        if new.kind == FileKind::Directory {
            mode |= general::S_ISGID;
        } else if mode & GROUP_EXECUTE == GROUP_EXECUTE
            && !credentials.in_group(gid)
            && !credentials.has(general::CAP_FSETID)
        {
            mode &= !general::S_ISGID;
        }
    }
    Create {
        kind: new.kind,
        mode,
        uid: credentials.fsuid,
        gid,
        rdev: new.rdev,
        target: new.target,
    }
}

/// Makes `name` in `directory`.
///
/// # Errors
/// As `open(2)` with `O_CREAT`, `mkdir(2)`, `mknod(2)`, `symlink(2)`.
pub fn create(
    t: &Thread,
    directory: &Location,
    name: &[u8],
    new: &New<'_>,
) -> Result<Arc<dyn Inode>> {
    let credentials = t.credentials();
    check_directory(&credentials, directory)?;
    let what = inherit(t, &credentials, directory, new);
    let inode = directory.inode.create(name, &what)?;
    notify::created(directory, name, new.kind);
    Ok(inode)
}

/// Makes a regular file without a name in the file system of `directory`.
///
/// # Errors
/// As `open(2)` with `O_TMPFILE`.
pub fn create_unnamed(
    t: &Thread,
    directory: &Location,
    mode: u32,
    linkable: bool,
) -> Result<Arc<dyn Inode>> {
    let credentials = t.credentials();
    check_directory(&credentials, directory)?;
    let new = New {
        kind: FileKind::Regular,
        mode,
        rdev: 0,
        target: &[],
    };
    let what = inherit(t, &credentials, directory, &new);
    directory.inode.create_unnamed(&what, linkable)
}

/// Makes the file a path's last component names; for the calls that refuse an existing one.
///
/// # Errors
/// `EEXIST` before anything else is checked, as on Linux; `ENOENT` for a file (not a directory) with a
/// trailing slash.
pub fn create_last(t: &Thread, dirfd: i32, path: &[u8], new: &New<'_>) -> Result<()> {
    let parent = super::path::parent_at(t, dirfd, path)?;
    let Last::Name(name) = &parent.last else {
        return Err(Errno::EEXIST);
    };
    match parent.directory.inode.lookup(name) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(error),
    }
    if parent.trailing_slash && new.kind != FileKind::Directory {
        return Err(Errno::ENOENT);
    }
    create(t, &parent.directory, name, new).map(drop)
}
