//! Extended attributes (`xattr(7)`).

use alloc::vec::Vec;

use husk_abi::linux::general;

use super::inotify::{Events, notify};
use super::permission::{self, Access};
use super::{FileKind, Location, Lookup, lookup_at};
use crate::syscall::{BufIn, BufOut, Fd, Int, Len, Path};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Who may use a name, by its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    User,
    Trusted,
    Security,
}

fn namespace(name: &[u8]) -> Result<Namespace> {
    let (space, rest) = if let Some(rest) = name.strip_prefix(b"user.") {
        (Namespace::User, rest)
    } else if let Some(rest) = name.strip_prefix(b"trusted.") {
        (Namespace::Trusted, rest)
    } else if let Some(rest) = name.strip_prefix(b"security.") {
        (Namespace::Security, rest)
    } else {
        // `system.` would be access control lists, which no file system here has.
        return Err(Errno::EOPNOTSUPP);
    };
    if rest.is_empty() {
        return Err(Errno::EINVAL);
    }
    Ok(space)
}

fn read_name(name: Path) -> Result<Vec<u8>> {
    let name = name
        .read_cstr(general::XATTR_NAME_MAX as usize + 1)
        .map_err(|error| {
            if error == Errno::ENAMETOOLONG {
                Errno::ERANGE
            } else {
                error
            }
        })?;
    if name.is_empty() {
        return Err(Errno::ERANGE);
    }
    Ok(name)
}

/// Checks that `t` may use `name` of the file.
fn check(t: &Thread, location: &Location, name: &[u8], access: Access) -> Result<()> {
    let writes = access == Access::WRITE;
    if writes && location.mount.is_read_only() {
        return Err(Errno::EROFS);
    }
    let credentials = t.credentials();
    let attributes = location.inode.attributes();
    match namespace(name)? {
        Namespace::Trusted if t.is_capable(general::CAP_SYS_ADMIN) => Ok(()),
        Namespace::Trusted if writes => Err(Errno::EPERM),
        Namespace::Trusted => Err(Errno::ENODATA),
        Namespace::Security if !writes => Ok(()),
        Namespace::Security => {
            let needed = if name == b"security.capability" {
                general::CAP_SETFCAP
            } else {
                general::CAP_SYS_ADMIN
            };
            if credentials.has(needed) {
                Ok(())
            } else {
                Err(Errno::EPERM)
            }
        }
        Namespace::User => {
            let is_directory = attributes.kind == FileKind::Directory;
            if attributes.kind != FileKind::Regular && !is_directory {
                return Err(if writes { Errno::EPERM } else { Errno::ENODATA });
            }
            if writes
                && is_directory
                && attributes.mode & general::S_ISVTX != 0
                && !permission::is_owner_or_capable(&credentials, &attributes)
            {
                return Err(Errno::EPERM);
            }
            permission::check(&credentials, &attributes, access)
        }
    }
}

fn set(
    t: &Thread,
    location: &Location,
    name: Path,
    value: BufIn,
    size: Len,
    flags: Int,
) -> SysResult {
    let flags = flags as u32;
    if flags & !(general::XATTR_CREATE | general::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = read_name(name)?;
    if size > general::XATTR_SIZE_MAX as usize {
        return Err(Errno::E2BIG);
    }
    let mut bytes = alloc::vec![0; size];
    value.read_bytes(&mut bytes)?;
    check(t, location, &name, Access::WRITE)?;
    location.inode.set_xattr(&name, Some(&bytes), flags)?;
    notify::location(location, Events::ATTRIB);
    Ok(0)
}

/// Gives `bytes` to a buffer of `size` bytes; a size of 0 asks for the length.
fn give(bytes: &[u8], buf: BufOut, size: Len) -> SysResult {
    if size != 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE);
        }
        buf.write_bytes(bytes)?;
    }
    Ok(bytes.len())
}

fn get(t: &Thread, location: &Location, name: Path, value: BufOut, size: Len) -> SysResult {
    let name = read_name(name)?;
    check(t, location, &name, Access::READ)?;
    give(&location.inode.xattr(&name)?, value, size)
}

fn list(t: &Thread, location: &Location, buf: BufOut, size: Len) -> SysResult {
    let sees_trusted = t.is_capable(general::CAP_SYS_ADMIN);
    let mut bytes = Vec::new();
    for name in location.inode.xattr_names()? {
        if sees_trusted || !name.starts_with(b"trusted.") {
            bytes.extend_from_slice(&name);
            bytes.push(0);
        }
    }
    give(&bytes, buf, size)
}

fn remove(t: &Thread, location: &Location, name: Path) -> SysResult {
    let name = read_name(name)?;
    check(t, location, &name, Access::WRITE)?;
    location.inode.set_xattr(&name, None, 0)?;
    notify::location(location, Events::ATTRIB);
    Ok(0)
}

fn at_path(t: &Thread, path: UserAddr, lookup: Lookup) -> Result<Location> {
    lookup_at(t, general::AT_FDCWD, &path.read_path()?, lookup)
}

fn at_fd(t: &Thread, fd: Fd) -> Result<Location> {
    Ok(t.file(fd)?.location(t.kernel))
}

/// `setxattr(2)`.
pub fn setxattr(
    t: &Thread,
    path: Path,
    name: Path,
    value: BufIn,
    size: Len,
    flags: Int,
) -> SysResult {
    set(
        t,
        &at_path(t, path, Lookup::FOLLOW)?,
        name,
        value,
        size,
        flags,
    )
}

/// `lsetxattr(2)`.
pub fn lsetxattr(
    t: &Thread,
    path: Path,
    name: Path,
    value: BufIn,
    size: Len,
    flags: Int,
) -> SysResult {
    set(
        t,
        &at_path(t, path, Lookup::empty())?,
        name,
        value,
        size,
        flags,
    )
}

/// `fsetxattr(2)`.
pub fn fsetxattr(t: &Thread, fd: Fd, name: Path, value: BufIn, size: Len, flags: Int) -> SysResult {
    set(t, &at_fd(t, fd)?, name, value, size, flags)
}

/// `getxattr(2)`.
pub fn getxattr(t: &Thread, path: Path, name: Path, value: BufOut, size: Len) -> SysResult {
    get(t, &at_path(t, path, Lookup::FOLLOW)?, name, value, size)
}

/// `lgetxattr(2)`.
pub fn lgetxattr(t: &Thread, path: Path, name: Path, value: BufOut, size: Len) -> SysResult {
    get(t, &at_path(t, path, Lookup::empty())?, name, value, size)
}

/// `fgetxattr(2)`.
pub fn fgetxattr(t: &Thread, fd: Fd, name: Path, value: BufOut, size: Len) -> SysResult {
    get(t, &at_fd(t, fd)?, name, value, size)
}

/// `listxattr(2)`.
pub fn listxattr(t: &Thread, path: Path, list_: BufOut, size: Len) -> SysResult {
    list(t, &at_path(t, path, Lookup::FOLLOW)?, list_, size)
}

/// `llistxattr(2)`.
pub fn llistxattr(t: &Thread, path: Path, list_: BufOut, size: Len) -> SysResult {
    list(t, &at_path(t, path, Lookup::empty())?, list_, size)
}

/// `flistxattr(2)`.
pub fn flistxattr(t: &Thread, fd: Fd, list_: BufOut, size: Len) -> SysResult {
    list(t, &at_fd(t, fd)?, list_, size)
}

/// `removexattr(2)`.
pub fn removexattr(t: &Thread, path: Path, name: Path) -> SysResult {
    remove(t, &at_path(t, path, Lookup::FOLLOW)?, name)
}

/// `lremovexattr(2)`.
pub fn lremovexattr(t: &Thread, path: Path, name: Path) -> SysResult {
    remove(t, &at_path(t, path, Lookup::empty())?, name)
}

/// `fremovexattr(2)`.
pub fn fremovexattr(t: &Thread, fd: Fd, name: Path) -> SysResult {
    remove(t, &at_fd(t, fd)?, name)
}
