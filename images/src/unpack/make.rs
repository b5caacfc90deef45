//! Making files and giving them their attributes.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fsetxattr, futimens, lsetxattr, makedev, mknodat, openat, seek,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::UnpackError;
use super::name::Name;
use super::walk::Dir;
use crate::merged::{Xattrs, is_overlayfs, proc_path};
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

/// What a file is given besides its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) owner: Owner,
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
}

impl Attributes {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            owner: Owner {
                uid: entry.uid,
                gid: entry.gid,
            },
            mode: entry.mode,
            mtime: entry.mtime,
        }
    }
}

/// Gives a file what its entry says.
pub(super) fn file_attributes(
    file: &File,
    entry: &Entry,
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    apply(file, &Attributes::of(entry), &entry.xattrs, name, process)
}

/// Owner, mode, extended attributes and times of an open file or directory, in the order in which none undoes
/// another: `chown` clears setuid and capabilities. Gives the number of attributes left out.
pub(super) fn apply(
    fd: &impl AsFd,
    attributes: &Attributes,
    xattrs: &Xattrs,
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    let owner = attributes.owner;
    if owner != process {
        let (uid, gid) = owner.ids();
        fchown(fd, uid, gid).map_err(|e| owner_error(e, owner, name))?;
    }
    let mode = Mode::from_raw_mode(attributes.mode);
    fchmod(fd, mode).map_err(|e| name.failed("set the mode of", e.into()))?;
    let skipped = set_xattrs(xattrs, name, |key, value| {
        fsetxattr(fd, key, value, XattrFlags::empty())
    })?;
    futimens(fd, &times(attributes.mtime)).map_err(|e| name.failed("set the time of", e.into()))?;
    Ok(skipped)
}

/// All data of `from` into the empty file `to`, holes left as holes.
pub(super) fn copy_with_holes(from: &File, to: &File) -> io::Result<()> {
    let (mut reader, mut writer) = (from, to);
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        at = seek(from, SeekFrom::Hole(start))?;
        seek(from, SeekFrom::Start(start))?;
        seek(to, SeekFrom::Start(start))?;
        io::copy(&mut reader.by_ref().take(at - start), &mut writer)?;
    }
    Ok(())
}

/// A symbolic link, a device node or a FIFO.
pub(super) fn special(
    dir: &Dir,
    entry: &Entry,
    name: &Name<'_>,
    process: Owner,
) -> Result<u64, UnpackError> {
    match entry.kind {
        Kind::Symlink => symlink(dir, entry, name, process),
        _ => node(dir, entry, name, process),
    }
}

/// A symbolic link, its target verbatim.
fn symlink(dir: &Dir, entry: &Entry, name: &Name<'_>, process: Owner) -> Result<u64, UnpackError> {
    let base = name.base().unwrap_or_default();
    symlinkat(entry.link.as_slice(), &dir.fd, base)
        .map_err(|e| name.failed("create the symbolic link", e.into()))?;
    at_attributes(dir, entry, name, process)
}

/// A device node or a FIFO.
fn node(dir: &Dir, entry: &Entry, name: &Name<'_>, process: Owner) -> Result<u64, UnpackError> {
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
    let owner = Attributes::of(entry).owner;
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
    let path = proc_path(&dir.fd, base);
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
        // The first would make the host's overlayfs believe an image, the second relabels a host file.
        if is_overlayfs(key) || key.starts_with(b"security.selinux") {
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
