//! `stat(2)`, `statx(2)`, `statfs(2)`, `access(2)`, `readlink(2)`.

use alloc::sync::Arc;

use husk_abi::linux::general::{self, __kernel_fsid_t, statx_timestamp};

use super::open::at_lookup;
use super::path::{Lookup, inode_at, lookup_at, lookup_with};
use super::permission::{self, Access};
use super::{Attributes, FileKind, FileRef, FsStatistics, Location, Mount, devfs};
use crate::process::Credentials;
use crate::syscall::{AtFlags, BufOut, DirFd, Fd, Hex, Len, Mode, Path, Ptr};
use crate::user::{PathRoom, UserAddr};
use crate::{Errno, Result, SysResult, Thread};

const NS_PER_S: i64 = 1_000_000_000;

fn to_stat(a: &Attributes) -> general::stat {
    let seconds = |ns: i64| ns.div_euclid(NS_PER_S) as u64;
    let rest = |ns: i64| ns.rem_euclid(NS_PER_S) as u64;
    general::stat {
        st_dev: a.dev,
        st_ino: a.ino,
        st_nlink: u64::from(a.nlink),
        st_mode: a.kind.mode_bits() | a.mode,
        st_uid: a.uid,
        st_gid: a.gid,
        __pad0: 0,
        st_rdev: a.rdev,
        st_size: a.size as i64,
        st_blksize: i64::from(a.block_size),
        st_blocks: a.blocks as i64,
        st_atime: seconds(a.atime_ns),
        st_atime_nsec: rest(a.atime_ns),
        st_mtime: seconds(a.mtime_ns),
        st_mtime_nsec: rest(a.mtime_ns),
        st_ctime: seconds(a.ctime_ns),
        st_ctime_nsec: rest(a.ctime_ns),
        __unused: [0; 3],
    }
}

/// Reads a path that may be empty; NULL counts as empty with `AT_EMPTY_PATH` (since Linux 6.11).
fn read_path(path: Path, flags: AtFlags, room: &mut PathRoom) -> Result<&[u8]> {
    if path.is_null() && flags & general::AT_EMPTY_PATH != 0 {
        Ok(&[])
    } else {
        path.path_in(room)
    }
}

/// The open file a call with `AT_EMPTY_PATH` and an empty path is about, without walking.
fn descriptor_itself(
    t: &Thread,
    dirfd: DirFd,
    path: &[u8],
    flags: AtFlags,
) -> Result<Option<FileRef>> {
    if path.is_empty() && flags & general::AT_EMPTY_PATH != 0 && dirfd != general::AT_FDCWD {
        t.any_file(dirfd).map(Some)
    } else {
        Ok(None)
    }
}

/// `stat(2)`.
pub fn stat(t: &Thread, path: Path, statbuf: Ptr) -> SysResult {
    newfstatat(t, general::AT_FDCWD, path, statbuf, 0)
}

/// `lstat(2)`.
pub fn lstat(t: &Thread, path: Path, statbuf: Ptr) -> SysResult {
    newfstatat(
        t,
        general::AT_FDCWD,
        path,
        statbuf,
        general::AT_SYMLINK_NOFOLLOW,
    )
}

/// `fstat(2)`.
pub fn fstat(t: &Thread, fd: Fd, statbuf: Ptr) -> SysResult {
    let file = t.any_file(fd)?;
    statbuf.write(&to_stat(&file.inode.attributes()))?;
    Ok(0)
}

/// `newfstatat(2)`.
pub fn newfstatat(t: &Thread, dirfd: DirFd, path: Path, statbuf: Ptr, flags: AtFlags) -> SysResult {
    let lookup = at_lookup(flags & !general::AT_NO_AUTOMOUNT)?;
    let mut room = PathRoom::default();
    let path = read_path(path, flags, &mut room)?;
    let attributes = match descriptor_itself(t, dirfd, path, flags)? {
        Some(file) => file.inode.attributes(),
        None => inode_at(t, dirfd, path, lookup)?.attributes(),
    };
    statbuf.write(&to_stat(&attributes))?;
    Ok(0)
}

fn timestamp(ns: i64) -> statx_timestamp {
    statx_timestamp {
        tv_sec: ns.div_euclid(NS_PER_S),
        tv_nsec: ns.rem_euclid(NS_PER_S) as u32,
        __reserved: 0,
    }
}

fn to_statx(a: &Attributes, mount: Option<(u32, bool)>) -> general::statx {
    let device = |device: u64| {
        let (major, minor) = devfs::split(device);
        (major as u32, minor as u32)
    };
    let (rdev_major, rdev_minor) = device(a.rdev);
    let (dev_major, dev_minor) = device(a.dev);
    let (mount_id, is_mount_root) = mount.unwrap_or((0, false));
    let mut mask = general::STATX_BASIC_STATS;
    if mount.is_some() {
        mask |= general::STATX_MNT_ID;
    }
    general::statx {
        stx_mask: mask,
        stx_blksize: a.block_size,
        stx_attributes: if is_mount_root {
            u64::from(general::STATX_ATTR_MOUNT_ROOT)
        } else {
            0
        },
        stx_nlink: a.nlink,
        stx_uid: a.uid,
        stx_gid: a.gid,
        stx_mode: (a.kind.mode_bits() | a.mode) as u16,
        __spare0: [0],
        stx_ino: a.ino,
        stx_size: a.size,
        stx_blocks: a.blocks,
        stx_attributes_mask: u64::from(general::STATX_ATTR_MOUNT_ROOT),
        stx_atime: timestamp(a.atime_ns),
        stx_btime: timestamp(0),
        stx_ctime: timestamp(a.ctime_ns),
        stx_mtime: timestamp(a.mtime_ns),
        stx_rdev_major: rdev_major,
        stx_rdev_minor: rdev_minor,
        stx_dev_major: dev_major,
        stx_dev_minor: dev_minor,
        stx_mnt_id: u64::from(mount_id),
        stx_dio_mem_align: 0,
        stx_dio_offset_align: 0,
        stx_subvol: 0,
        stx_atomic_write_unit_min: 0,
        stx_atomic_write_unit_max: 0,
        stx_atomic_write_segments_max: 0,
        stx_dio_read_offset_align: 0,
        stx_atomic_write_unit_max_opt: 0,
        __spare2: [0],
        __spare3: [0; 8],
    }
}

/// `statx(2)`.
pub fn statx(
    t: &Thread,
    dirfd: DirFd,
    path: Path,
    flags: AtFlags,
    mask: Hex,
    statxbuf: Ptr,
) -> SysResult {
    const SYNC: u32 = general::AT_STATX_SYNC_TYPE;
    if mask & u64::from(general::STATX__RESERVED) != 0 || flags & SYNC == SYNC {
        return Err(Errno::EINVAL);
    }
    let lookup = at_lookup(flags & !(general::AT_NO_AUTOMOUNT | SYNC))?;
    let mut room = PathRoom::default();
    let path = read_path(path, flags, &mut room)?;
    let location = match descriptor_itself(t, dirfd, path, flags)? {
        Some(file) => file.location(t.kernel),
        None => lookup_at(t, dirfd, path, lookup)?,
    };
    let mount = (location.mount.id, location.is_mount_root());
    statxbuf.write(&to_statx(&location.inode.attributes(), Some(mount)))?;
    Ok(0)
}

/// `f_flags` of a mount, in `ST_*` bits.
fn statfs_flags(mount: &Mount) -> i64 {
    const ST_VALID: u32 = 0x20;
    const ST_RELATIME: u32 = 0x1000;
    // The low bits of MS_* and ST_* agree; the access time bits do not.
    const SAME: u32 =
        general::MS_RDONLY | general::MS_NOSUID | general::MS_NODEV | general::MS_NOEXEC;
    let flags = mount.flags();
    let mut bits = ST_VALID | flags & (SAME | general::MS_NOATIME | general::MS_NODIRATIME);
    if flags & general::MS_RELATIME != 0 {
        bits |= ST_RELATIME;
    }
    i64::from(bits)
}

fn write_statfs(buf: Ptr, s: &FsStatistics, dev: u64, flags: i64) -> SysResult {
    buf.write(&general::statfs {
        f_type: i64::from(s.magic),
        f_bsize: i64::from(s.block_size),
        f_blocks: s.blocks as i64,
        f_bfree: s.blocks_free as i64,
        f_bavail: s.blocks_available as i64,
        f_files: s.files as i64,
        f_ffree: s.files_free as i64,
        f_fsid: __kernel_fsid_t {
            val: [dev as i32, (dev >> 32) as i32],
        },
        f_namelen: i64::from(general::NAME_MAX),
        f_frsize: i64::from(s.block_size),
        f_flags: flags,
        f_spare: [0; 4],
    })?;
    Ok(0)
}

fn statfs_of(location: &Location, buf: Ptr) -> SysResult {
    let dev = location.inode.attributes().dev;
    let statistics = location.mount.fs.statistics();
    write_statfs(buf, &statistics, dev, statfs_flags(&location.mount))
}

/// `statfs(2)`.
pub fn statfs(t: &Thread, path: Path, buf: Ptr) -> SysResult {
    let path = path.read_path()?;
    let location = lookup_at(t, general::AT_FDCWD, &path, Lookup::FOLLOW)?;
    statfs_of(&location, buf)
}

/// `fstatfs(2)`.
pub fn fstatfs(t: &Thread, fd: Fd, buf: Ptr) -> SysResult {
    statfs_of(&t.any_file(fd)?.location(t.kernel), buf)
}

/// `access(2)`.
pub fn access(t: &Thread, path: Path, mode: Mode) -> SysResult {
    faccessat2(t, general::AT_FDCWD, path, mode, 0)
}

/// `faccessat(2)`, which as a system call has no flags.
pub fn faccessat(t: &Thread, dirfd: DirFd, path: Path, mode: Mode) -> SysResult {
    faccessat2(t, dirfd, path, mode, 0)
}

/// The credentials `access(2)` asks for: the real ids, with the capabilities such a process would have.
fn real_credentials(credentials: &Credentials) -> Arc<Credentials> {
    let mut real = credentials.clone();
    real.fsuid = real.uid;
    real.fsgid = real.gid;
    real.cap_effective = if real.uid == 0 { real.cap_permitted } else { 0 };
    Arc::new(real)
}

/// `faccessat2(2)`.
pub fn faccessat2(t: &Thread, dirfd: DirFd, path: Path, mode: Mode, flags: AtFlags) -> SysResult {
    if mode & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    let lookup = at_lookup(flags & !general::AT_EACCESS)?;
    let mut room = PathRoom::default();
    let path = read_path(path, flags, &mut room)?;
    let mut credentials = t.credentials();
    let location = if flags & general::AT_EACCESS == 0
        && (credentials.uid != credentials.fsuid
            || credentials.gid != credentials.fsgid
            || credentials.uid != 0
            || credentials.cap_effective != credentials.cap_permitted)
    {
        credentials = real_credentials(&credentials);
        lookup_with(t, dirfd, path, lookup, 0, Some(credentials.clone()))?
    } else {
        lookup_at(t, dirfd, path, lookup)?
    };
    let attributes = location.inode.attributes();
    let wanted = Access::from_bits_truncate(mode);
    let plain = matches!(
        attributes.kind,
        FileKind::Regular | FileKind::Directory | FileKind::Symlink
    );
    if wanted.contains(Access::EXECUTE)
        && attributes.kind == FileKind::Regular
        && location.mount.flags() & general::MS_NOEXEC != 0
    {
        return Err(Errno::EACCES);
    }
    permission::check(&credentials, &attributes, wanted)?;
    if wanted.contains(Access::WRITE) && plain && location.mount.is_read_only() {
        return Err(Errno::EROFS);
    }
    Ok(0)
}

/// `readlink(2)`.
pub fn readlink(t: &Thread, path: Path, buf: BufOut, bufsiz: Len) -> SysResult {
    readlinkat(t, general::AT_FDCWD, path, buf, bufsiz)
}

/// `readlinkat(2)`.
pub fn readlinkat(t: &Thread, dirfd: DirFd, path: Path, buf: BufOut, bufsiz: Len) -> SysResult {
    // The kernel takes an int.
    let size = usize::try_from(bufsiz as i32).map_err(|_| Errno::EINVAL)?;
    if size == 0 {
        return Err(Errno::EINVAL);
    }
    let mut room = PathRoom::default();
    let path = path.path_in(&mut room)?;
    // An empty path is the link an O_PATH descriptor is open on.
    let location = lookup_at(t, dirfd, path, Lookup::EMPTY)?;
    if path.is_empty() && (dirfd == general::AT_FDCWD || location.inode.kind() != FileKind::Symlink)
    {
        return Err(Errno::ENOENT);
    }
    if location.inode.kind() != FileKind::Symlink {
        return Err(Errno::EINVAL);
    }
    let target = location.inode.read_link(t)?;
    let len = target.len().min(size);
    UserAddr::write_bytes(buf, &target[..len])?;
    Ok(len)
}
