//! Changing attributes and sizes: `chmod(2)`, `chown(2)`, `utimensat(2)`, `truncate(2)`, `fallocate(2)`,
//! `umask(2)`, and `fsync(2)` with its relatives.

use husk_abi::linux::general::{self, __kernel_timespec, timeval};

use super::inotify::{Events, notify};
use super::known;
use super::open::{self, at_lookup};
use super::path::{Lookup, lookup_at};
use super::permission::{self, Access};
use super::{Attributes, File, FileKind, Location, SetAttributes};
use crate::syscall::{AtFlags, DirFd, Fd, Hex, Int, Len, Mode, Off, Path, Ptr, Uid};
use crate::{Errno, Result, SysResult, Thread};

const NS_PER_S: i64 = 1_000_000_000;

fn check_writable_mount(location: &Location) -> Result<()> {
    if location.mount.is_read_only() {
        Err(Errno::EROFS)
    } else {
        Ok(())
    }
}

/// Changes attributes and tells who watches.
fn apply(location: &Location, change: &SetAttributes) -> Result<()> {
    location.inode.set_attributes(change)?;
    let is_right = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
    if is_right && location.inode.kind() != FileKind::Regular {
        known::outdate();
    }
    notify::changed(location, change);
    Ok(())
}

fn change_mode(t: &Thread, location: &Location, mode: Mode) -> SysResult {
    check_writable_mount(location)?;
    let credentials = t.credentials();
    let attributes = location.inode.rights();
    if attributes.kind == FileKind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    if !permission::is_owner_or_capable(&credentials, &attributes) {
        return Err(Errno::EPERM);
    }
    let mut mode = mode & 0o7777;
    let keeps_group_bit = attributes.is_in_group(&credentials)
        || attributes.is_under(&credentials, general::CAP_FSETID);
    if !keeps_group_bit {
        mode &= !general::S_ISGID;
    }
    apply(
        location,
        &SetAttributes {
            mode: Some(mode),
            ..SetAttributes::default()
        },
    )?;
    Ok(0)
}

/// `chmod(2)`.
pub fn chmod(t: &Thread, path: Path, mode: Mode) -> SysResult {
    fchmodat2(t, general::AT_FDCWD, path, mode, 0)
}

/// `fchmod(2)`.
pub fn fchmod(t: &Thread, fd: Fd, mode: Mode) -> SysResult {
    let file = t.file(fd)?;
    change_mode(t, &file.location(t.kernel), mode)
}

/// `fchmodat(2)`, which as a system call has no flags.
pub fn fchmodat(t: &Thread, dirfd: DirFd, path: Path, mode: Mode) -> SysResult {
    fchmodat2(t, dirfd, path, mode, 0)
}

/// `fchmodat2(2)`.
pub fn fchmodat2(t: &Thread, dirfd: DirFd, path: Path, mode: Mode, flags: AtFlags) -> SysResult {
    let lookup = at_lookup(flags)?;
    let location = lookup_at(t, dirfd, &path.read_path()?, lookup)?;
    change_mode(t, &location, mode)
}

fn change_owner(t: &Thread, location: &Location, owner: Uid, group: Uid) -> SysResult {
    const KEEP: u32 = u32::MAX;
    if owner != KEEP {
        t.kernel.check_uid(owner)?;
    }
    if group != KEEP {
        t.kernel.check_gid(group)?;
    }
    check_writable_mount(location)?;
    let credentials = t.credentials();
    let attributes = location.inode.rights();
    let owns = attributes.is_of(credentials.fsuid);
    let capable = attributes.is_under(&credentials, general::CAP_CHOWN);
    if owner != KEEP && !(owns && owner == attributes.uid) && !capable {
        return Err(Errno::EPERM);
    }
    let own_group = group == attributes.gid || credentials.in_group(group);
    if group != KEEP && !(owns && own_group) && !capable {
        return Err(Errno::EPERM);
    }
    let dropped = permission::set_id_bits(attributes.mode);
    let keeps_mode = attributes.kind == FileKind::Directory || dropped == 0;
    apply(
        location,
        &SetAttributes {
            uid: (owner != KEEP).then_some(owner),
            gid: (group != KEEP).then_some(group),
            mode: (!keeps_mode).then_some(attributes.mode & !dropped),
            ..SetAttributes::default()
        },
    )?;
    Ok(0)
}

/// `chown(2)`.
pub fn chown(t: &Thread, path: Path, owner: Uid, group: Uid) -> SysResult {
    fchownat(t, general::AT_FDCWD, path, owner, group, 0)
}

/// `lchown(2)`.
pub fn lchown(t: &Thread, path: Path, owner: Uid, group: Uid) -> SysResult {
    let flags = general::AT_SYMLINK_NOFOLLOW;
    fchownat(t, general::AT_FDCWD, path, owner, group, flags)
}

/// `fchown(2)`.
pub fn fchown(t: &Thread, fd: Fd, owner: Uid, group: Uid) -> SysResult {
    let file = t.file(fd)?;
    change_owner(t, &file.location(t.kernel), owner, group)
}

/// `fchownat(2)`.
pub fn fchownat(
    t: &Thread,
    dirfd: DirFd,
    path: Path,
    owner: Uid,
    group: Uid,
    flags: AtFlags,
) -> SysResult {
    let lookup = at_lookup(flags)?;
    let location = lookup_at(t, dirfd, &path.read_path()?, lookup)?;
    change_owner(t, &location, owner, group)
}

/// `umask(2)`.
pub fn umask(t: &Thread, mask: Mode) -> SysResult {
    Ok(t.fs().set_umask(mask) as usize)
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SetTime {
    Now,
    Keep,
    /// Nanoseconds since the epoch.
    To(i64),
}

impl SetTime {
    fn ns(self, now: i64) -> Option<i64> {
        match self {
            SetTime::Now => Some(now),
            SetTime::Keep => None,
            SetTime::To(ns) => Some(ns),
        }
    }
}

/// Access and modification time; `None` for both now.
type Times = Option<[SetTime; 2]>;

fn from_seconds(seconds: i64, ns: i64) -> SetTime {
    SetTime::To(seconds.saturating_mul(NS_PER_S).saturating_add(ns))
}

fn read_timespecs(times: Ptr) -> Result<Times> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    let Some(times) = times.read_opt::<[__kernel_timespec; 2]>()? else {
        return Ok(None);
    };
    let mut out = [SetTime::Now; 2];
    for (out, time) in out.iter_mut().zip(times) {
        *out = match time.tv_nsec {
            UTIME_NOW => SetTime::Now,
            UTIME_OMIT => SetTime::Keep,
            ns if (0..NS_PER_S).contains(&ns) => from_seconds(time.tv_sec, ns),
            _ => return Err(Errno::EINVAL),
        };
    }
    Ok(Some(out))
}

fn read_timevals(times: Ptr) -> Result<Times> {
    let Some(times) = times.read_opt::<[timeval; 2]>()? else {
        return Ok(None);
    };
    let mut out = [SetTime::Now; 2];
    for (out, time) in out.iter_mut().zip(times) {
        if !(0..1_000_000).contains(&time.tv_usec) {
            return Err(Errno::EINVAL);
        }
        *out = from_seconds(time.tv_sec, time.tv_usec * 1000);
    }
    Ok(Some(out))
}

fn change_times(t: &Thread, location: &Location, times: Times) -> SysResult {
    check_writable_mount(location)?;
    let credentials = t.credentials();
    let attributes = location.inode.rights();
    let is_owner = permission::is_owner_or_capable(&credentials, &attributes);
    let both_now = [SetTime::Now; 2];
    let times = times.unwrap_or(both_now);
    if !is_owner {
        if times != both_now {
            return Err(Errno::EPERM);
        }
        permission::check(&credentials, &attributes, Access::WRITE)?;
    }
    let now = super::anon::wall_ns();
    apply(
        location,
        &SetAttributes {
            atime_ns: times[0].ns(now),
            mtime_ns: times[1].ns(now),
            ..SetAttributes::default()
        },
    )?;
    Ok(0)
}

/// `utime(2)`.
pub fn utime(t: &Thread, path: Path, times: Ptr) -> SysResult {
    let times = times
        .read_opt::<[i64; 2]>()?
        .map(|times| times.map(|seconds| from_seconds(seconds, 0)));
    let path = path.read_path()?;
    let location = lookup_at(t, general::AT_FDCWD, &path, Lookup::FOLLOW)?;
    change_times(t, &location, times)
}

/// `utimes(2)`.
pub fn utimes(t: &Thread, path: Path, times: Ptr) -> SysResult {
    futimesat(t, general::AT_FDCWD, path, times)
}

/// `futimesat(2)`.
pub fn futimesat(t: &Thread, dirfd: DirFd, path: Path, times: Ptr) -> SysResult {
    let times = read_timevals(times)?;
    let location = if path.is_null() && dirfd != general::AT_FDCWD {
        t.file(dirfd)?.location(t.kernel)
    } else {
        lookup_at(t, dirfd, &path.read_path()?, Lookup::FOLLOW)?
    };
    change_times(t, &location, times)
}

/// `utimensat(2)`.
pub fn utimensat(t: &Thread, dirfd: DirFd, path: Path, times: Ptr, flags: AtFlags) -> SysResult {
    let times = read_timespecs(times)?;
    if times == Some([SetTime::Keep; 2]) {
        return Ok(0);
    }
    let location = if path.is_null() && dirfd != general::AT_FDCWD {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        t.file(dirfd)?.location(t.kernel)
    } else {
        let lookup = at_lookup(flags)?;
        lookup_at(t, dirfd, &path.read_path()?, lookup)?
    };
    change_times(t, &location, times)
}

/// Checks `RLIMIT_FSIZE` and resizes.
fn resize(t: &Thread, location: &Location, attributes: &Attributes, length: u64) -> SysResult {
    if length > attributes.size && length > 0 {
        // The limit is on the last byte.
        open::file_size_limit(t, length - 1)?;
    }
    apply(
        location,
        &SetAttributes {
            size: Some(length),
            mode: open::mode_after_write(attributes, &t.credentials()),
            ..SetAttributes::default()
        },
    )?;
    Ok(0)
}

/// `truncate(2)`.
pub fn truncate(t: &Thread, path: Path, length: Off) -> SysResult {
    let length = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
    let path = path.read_path()?;
    let location = lookup_at(t, general::AT_FDCWD, &path, Lookup::FOLLOW)?;
    let attributes = location.inode.attributes();
    match attributes.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    check_writable_mount(&location)?;
    permission::check(&t.credentials(), &attributes, Access::WRITE)?;
    // Opening it for writing is what finds out whether it is being executed.
    let _writer = location.inode.clone().open(t, general::O_WRONLY)?;
    resize(t, &location, &attributes, length)
}

/// `ftruncate(2)`.
pub fn ftruncate(t: &Thread, fd: Fd, length: Off) -> SysResult {
    let length = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
    let file = t.file(fd)?;
    let attributes = file.inode.attributes();
    if attributes.kind != FileKind::Regular || !file.is_writable() {
        return Err(Errno::EINVAL);
    }
    resize(t, &file.location(t.kernel), &attributes, length)
}

/// `fallocate(2)`.
pub fn fallocate(t: &Thread, fd: Fd, mode: Hex, offset: Off, len: Off) -> SysResult {
    let file = t.file(fd)?;
    let mode = mode as u32;
    let (Ok(offset), Ok(len @ 1..)) = (u64::try_from(offset), u64::try_from(len)) else {
        return Err(Errno::EINVAL);
    };
    const KNOWN: u32 = general::FALLOC_FL_KEEP_SIZE | general::FALLOC_FL_PUNCH_HOLE;
    if mode & !KNOWN != 0 || mode == general::FALLOC_FL_PUNCH_HOLE {
        return Err(Errno::EOPNOTSUPP);
    }
    if !file.is_writable() {
        return Err(Errno::EBADF);
    }
    match file.inode.kind() {
        FileKind::Regular => {}
        FileKind::Fifo => return Err(Errno::ESPIPE),
        FileKind::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::ENODEV),
    }
    let end = offset
        .checked_add(len)
        .filter(|end| i64::try_from(*end).is_ok());
    let end = end.ok_or(Errno::EFBIG)?;
    if mode & general::FALLOC_FL_KEEP_SIZE == 0 && end > file.ops.size() {
        open::file_size_limit(t, end - 1)?;
    }
    file.inode.allocate(mode, offset, len)?;
    notify::file(&file, Events::MODIFY);
    Ok(0)
}

/// Makes what was written to a file safe, if that makes sense for its kind.
fn sync_file(file: &File, data_only: bool) -> SysResult {
    match file.inode.kind() {
        FileKind::Regular | FileKind::Directory | FileKind::BlockDevice => {
            file.inode.sync(data_only)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `fsync(2)`.
pub fn fsync(t: &Thread, fd: Fd) -> SysResult {
    sync_file(&*t.file(fd)?, false)
}

/// `fdatasync(2)`.
pub fn fdatasync(t: &Thread, fd: Fd) -> SysResult {
    sync_file(&*t.file(fd)?, true)
}

/// `sync_file_range(2)`, for all of the file.
pub fn sync_file_range(t: &Thread, fd: Fd, offset: Off, nbytes: Off, flags: Hex) -> SysResult {
    const WAIT: u32 = general::SYNC_FILE_RANGE_WAIT_BEFORE | general::SYNC_FILE_RANGE_WAIT_AFTER;
    let file = t.file(fd)?;
    let flags = flags as u32;
    let is_known = flags & !(WAIT | general::SYNC_FILE_RANGE_WRITE) == 0;
    let is_range = offset >= 0 && nbytes >= 0 && offset.checked_add(nbytes).is_some();
    if !is_known || !is_range {
        return Err(Errno::EINVAL);
    }
    match file.inode.kind() {
        FileKind::Regular | FileKind::Directory | FileKind::BlockDevice | FileKind::Symlink => {}
        _ => return Err(Errno::ESPIPE),
    }
    if flags & WAIT != 0 {
        file.inode.sync(true)?;
    } else if flags != 0 {
        file.inode.start_sync()?;
    }
    Ok(0)
}

/// `sync(2)`.
pub fn sync(t: &Thread) -> SysResult {
    for mount in t.kernel.fs.mounts() {
        // As on Linux nobody is told.
        let _ = mount.fs.sync();
    }
    Ok(0)
}

/// `syncfs(2)`.
pub fn syncfs(t: &Thread, fd: Fd) -> SysResult {
    let file = t.file(fd)?;
    if let Some(mount) = &file.mount {
        mount.fs.sync()?;
    }
    Ok(0)
}

/// `posix_fadvise(2)`: all pages are in memory already.
pub fn fadvise64(t: &Thread, fd: Fd, _offset: Off, len: Off, advice: Int) -> SysResult {
    let file = t.file(fd)?;
    if file.inode.kind() == FileKind::Fifo {
        return Err(Errno::ESPIPE);
    }
    let known = 0..=general::POSIX_FADV_NOREUSE as i32;
    if len < 0 || !known.contains(&advice) {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// `readahead(2)`.
pub fn readahead(t: &Thread, fd: Fd, _offset: Off, _count: Len) -> SysResult {
    let file = t.file(fd)?;
    if !file.is_readable() {
        return Err(Errno::EBADF);
    }
    if file.inode.kind() != FileKind::Regular {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}
