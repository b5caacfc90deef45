//! Making files and giving them their attributes.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, futimens, lsetxattr, makedev, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::UnpackError;
use super::name::Name;
use super::walk::Dir;
use crate::tarball::{Entry, Kind};

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// Who owns the files this process makes.
    pub(super) fn of_process() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    fn ids(self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }
}

/// A new empty file. Never opens what exists.
pub(super) fn create(dir: &Dir, base: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&dir.fd, base, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(fd))
}

/// Owner, mode, extended attributes and times, in the order in which none undoes another: `chown`
/// clears setuid and capabilities. Gives the number of attributes left out.
pub(super) fn file_attributes(
    file: &File,
    entry: &Entry,
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    let (owner, mode) = (owner_of(entry), Mode::from_raw_mode(entry.mode));
    if owner != process {
        let (uid, gid) = owner.ids();
        fchown(file, uid, gid).map_err(|e| owner_error(e, owner, name))?;
    }
    fchmod(file, mode).map_err(|e| name.failed("set the mode of", e.into()))?;
    let skipped = set_xattrs(&entry.xattrs, name, |key, value| {
        fsetxattr(file, key, value, XattrFlags::empty())
    })?;
    futimens(file, &times(entry.mtime)).map_err(|e| name.failed("set the time of", e.into()))?;
    Ok(skipped)
}

/// The same for a directory, by an open handle.
pub(super) fn dir_attributes(
    fd: &OwnedFd,
    (owner, mode, mtime): (Owner, u32, (i64, u32)),
    xattrs: &[(Vec<u8>, Vec<u8>)],
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    if owner != process {
        let (uid, gid) = owner.ids();
        fchown(fd, uid, gid).map_err(|e| owner_error(e, owner, name))?;
    }
    let skipped = set_xattrs(xattrs, name, |key, value| {
        fsetxattr(fd, key, value, XattrFlags::empty())
    })?;
    fchmod(fd, Mode::from_raw_mode(mode)).map_err(|e| name.failed("set the mode of", e.into()))?;
    futimens(fd, &times(mtime)).map_err(|e| name.failed("set the time of", e.into()))?;
    Ok(skipped)
}

/// A symbolic link, its target verbatim.
pub(super) fn symlink(
    dir: &Dir,
    entry: &Entry,
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    let base = name.base().unwrap_or_default();
    symlinkat(entry.link.as_slice(), &dir.fd, base)
        .map_err(|e| name.failed("create the symbolic link", e.into()))?;
    at_attributes(dir, entry, name, process)
}

/// A device node or a FIFO.
pub(super) fn node(
    dir: &Dir,
    entry: &Entry,
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    let base = name.base().unwrap_or_default();
    let file_type = match entry.kind {
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let mode = Mode::from_raw_mode(entry.mode);
    let dev = makedev(entry.dev.0, entry.dev.1);
    mknodat(&dir.fd, base, file_type, mode, dev).map_err(|e| match e {
        Errno::PERM | Errno::ACCESS => UnpackError::Privilege {
            action: format!("make the device node {}:{}", entry.dev.0, entry.dev.1),
            entry: name.shown(),
            capability: "CAP_MKNOD",
        },
        e => name.failed("create the node", e.into()),
    })?;
    at_attributes(dir, entry, name, process)
}

/// Attributes of what cannot be opened.
fn at_attributes(
    dir: &Dir,
    entry: &Entry,
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    let base = name.base().unwrap_or_default();
    let owner = owner_of(entry);
    if owner != process {
        let (uid, gid) = owner.ids();
        chownat(&dir.fd, base, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| owner_error(e, owner, name))?;
    }
    if entry.kind != Kind::Symlink {
        // `fchmodat` follows links, but this name has just been made and is none.
        chmodat(
            &dir.fd,
            base,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        )
        .map_err(|e| name.failed("set the mode of", e.into()))?;
    }
    // There is no `setxattrat` on older kernels: the last component below the handle's /proc
    // name is the same file, and `lsetxattr` does not follow it.
    let mut path = format!("/proc/self/fd/{}/", dir.fd.as_raw_fd()).into_bytes();
    path.extend_from_slice(base);
    let skipped = set_xattrs(&entry.xattrs, name, |key, value| {
        lsetxattr(path.as_slice(), key, value, XattrFlags::empty())
    })?;
    utimensat(
        &dir.fd,
        base,
        &times(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(|e| name.failed("set the time of", e.into()))?;
    Ok(skipped)
}

/// Sets what is permitted; gives the number left out.
fn set_xattrs(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    name: &Name<'_>,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<u64, UnpackError> {
    let mut skipped = 0;
    for (key, value) in xattrs {
        // The first two would make the host's overlayfs believe an image, the last relabels a host file.
        let host_only = [
            &b"trusted.overlay."[..],
            b"user.overlay.",
            b"security.selinux",
        ];
        if host_only.iter().any(|prefix| key.starts_with(prefix)) {
            skipped += 1;
            continue;
        }
        match set(key, value) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => skipped += 1,
            Err(e) => return Err(name.failed("set an extended attribute of", e.into())),
        }
    }
    Ok(skipped)
}

pub(super) fn owner_of(entry: &Entry) -> Owner {
    Owner {
        uid: entry.uid,
        gid: entry.gid,
    }
}

fn owner_error(error: Errno, owner: Owner, name: &Name<'_>) -> UnpackError {
    match error {
        Errno::PERM => UnpackError::Privilege {
            action: format!("set the owner {}:{}", owner.uid, owner.gid),
            entry: name.shown(),
            capability: "CAP_CHOWN",
        },
        error => name.failed("set the owner of", error.into()),
    }
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.0,
        tv_nsec: mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
