//! The directories of the host that are served, and opening files below them without ever leaving them.
//!
//! Everything is opened one component at a time relative to a directory already held, never through a symbolic link and
//! never by `..`: what the guest can name is what lies in the tree. A procfs mounted there stays out of reach: through it the
//! VMM's own memory could be had. A file is held by an `O_PATH` descriptor, which does nothing to it; its contents are opened
//! from that, by way of `/proc/self/fd`, once it is known to be a regular file or a directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use husk_abi::boundary::fuse::{Attr, Validity, encode_dev};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

/// A tree as the plan names it.
#[derive(Clone, Debug)]
pub struct TreeSource {
    /// The directory, or file.
    pub path: PathBuf,
    /// The same, held: `path` is only what it is called then, it may have no path.
    pub held: Option<Arc<OwnedFd>>,
    /// Nothing in it may be changed.
    pub read_only: bool,
    /// Nobody else changes it: the guest may believe what it was told for ever.
    pub exclusive: bool,
}

/// A tree that is served.
#[derive(Debug)]
pub struct Tree {
    /// Its root, by `O_PATH`.
    pub root: OwnedFd,
    /// Nothing in it may be changed.
    pub read_only: bool,
    /// How long names and attributes are good.
    pub validity: Validity,
    /// It is an overlayfs: the first opening for writing may replace a file's pages.
    pub overlay: bool,
    /// Any request may take long: a network's or another process's file system.
    pub slow: bool,
    /// This process is in a user namespace, in which owners may have no id.
    has_strangers: bool,
    /// Devices seen, in the order the guest knows them by.
    devices: Mutex<Vec<(u32, u32)>>,
}

/// What makes two files the same: device, number, and time of birth where that does not change, because numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    device: (u32, u32),
    ino: u64,
    birth: (i64, u32),
}

/// Processes, the VMM among them, and the host's settings: never served.
const PROCFS: i64 = 0x9fa0;
const OVERLAYFS: i64 = 0x794c_7630;
const SLOW: [i64; 6] = [
    0x6969,      // NFS
    0x6573_5546, // FUSE
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
];

/// Who owns what has no owner in a user namespace (`kernel.overflowuid`, as Linux has it by default).
const NOBODY: u32 = 65_534;

/// How long the guest may believe what it was told of a tree of its own that others can reach.
const VISITED: Validity = Validity::Nanoseconds(1_000_000_000);

/// What is asked of every file.
pub const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl Tree {
    /// Opens what `source` names; its own symbolic links are followed, it is the user's. `has_strangers`: owners may have no
    /// id here.
    ///
    /// # Errors
    /// What opening gives; `EACCES` for what is on a procfs.
    pub fn open(source: &TreeSource, has_strangers: bool) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = match &source.held {
            Some(held) => rustix::io::fcntl_dupfd_cloexec(held, 0)?,
            None => rustix::fs::openat(CWD, &source.path, flags, Mode::empty())?,
        };
        let kind = filesystem(&root)?;
        if kind == PROCFS {
            return Err(Errno::ACCESS);
        }
        Ok(Self {
            root,
            read_only: source.read_only,
            // The guest also believes that what it asks of such a tree is done in order and soon.
            validity: match &source.held {
                _ if !source.exclusive || SLOW.contains(&kind) => Validity::Nanoseconds(0),
                Some(_) => Validity::Forever,
                // What has a path may be visited: engines copy files into a container's root.
                None => VISITED,
            },
            overlay: kind == OVERLAYFS,
            slow: SLOW.contains(&kind),
            has_strangers,
            devices: Mutex::new(Vec::new()),
        })
    }

    /// What identifies the file `stat` is of.
    pub fn key(&self, stat: &Statx) -> FileKey {
        // Overlayfs shows the upper file's time of birth after copying it up.
        let birth = if self.overlay || stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
            (0, 0)
        } else {
            (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)
        };
        FileKey {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            birth,
        }
    }

    /// `stat` as the guest is told it, of a file that `hold` holds by `O_PATH`.
    pub fn attr(&self, stat: &Statx, hold: impl FnOnce() -> Result<OwnedFd, Errno>) -> Attr {
        let device = {
            let key = (stat.stx_dev_major, stat.stx_dev_minor);
            let mut devices = self
                .devices
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let at = devices.iter().position(|device| *device == key);
            at.unwrap_or_else(|| {
                devices.push(key);
                devices.len() - 1
            })
        };
        let mut attr = attr_of(stat, u32::try_from(device).unwrap_or(0));
        if self.has_strangers && [attr.uid, attr.gid].contains(&NOBODY) && is_foreign(stat, hold) {
            attr.flags |= Attr::FOREIGN;
        }
        attr
    }

    /// `EROFS` if nothing may be changed.
    pub fn check_writable(&self) -> Result<(), Errno> {
        if self.read_only {
            Err(Errno::ROFS)
        } else {
            Ok(())
        }
    }
}

/// Whether it is not somebody's who has that very id. The kernel tells by what it lets this process do, which has every
/// capability there is over files.
fn is_foreign(stat: &Statx, hold: impl FnOnce() -> Result<OwnedFd, Errno>) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match kind(stat) {
        FileType::Directory | FileType::RegularFile => hold()
            .and_then(|file| rustix::fs::openat(CWD, &*magic_path(&file), flags, Mode::empty()))
            .is_err_and(|errno| matches!(errno, Errno::PERM | Errno::ACCESS)),
        // Opening others may do something; it is left to the kernel then.
        _ => false,
    }
}

/// `stat` as the guest is told it, of a file on its device number `device`.
pub fn attr_of(stat: &Statx, device: u32) -> Attr {
    Attr {
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: stat.stx_atime.tv_sec,
        mtime: stat.stx_mtime.tv_sec,
        ctime: stat.stx_ctime.tv_sec,
        atimensec: stat.stx_atime.tv_nsec,
        mtimensec: stat.stx_mtime.tv_nsec,
        ctimensec: stat.stx_ctime.tv_nsec,
        mode: u32::from(stat.stx_mode),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: encode_dev(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize: stat.stx_blksize,
        flags: Attr::device_flags(device),
    }
}

/// The file system a file is on, by its magic number.
fn filesystem(file: impl AsFd) -> Result<i64, Errno> {
    #[allow(clippy::unnecessary_cast, reason = "differs between targets")]
    rustix::fs::fstatfs(file).map(|stat| stat.f_type as i64)
}

/// Type of the file `stat` is of.
pub fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

/// Holds `name` of `directory`, whatever it is.
pub fn open_path(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// `ENOENT` if the file is on a procfs.
pub fn check_served(file: impl AsFd) -> Result<(), Errno> {
    match filesystem(file)? {
        PROCFS => Err(Errno::NOENT),
        _ => Ok(()),
    }
}

/// Attributes of a file that is held.
pub fn stat(file: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, WANTED)
}

/// Attributes of `name` in `directory`, not following it.
pub fn stat_at(directory: impl AsFd, name: &CStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(directory, name, flags, WANTED)
}

/// A path that leads to the very file that is held, for calls that take no `O_PATH` descriptor.
pub fn magic_path(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// Holds a file that is open already, by `O_PATH`.
pub fn held_again(file: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, &*magic_path(file), flags, Mode::empty())
}

/// Opens the contents of a regular file or directory that is held. `writable` counts for files only.
pub fn open_contents(file: impl AsFd, stat: &Statx, writable: bool) -> Result<OwnedFd, Errno> {
    let flags = match kind(stat) {
        FileType::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        FileType::RegularFile if writable => OFlags::RDWR,
        FileType::RegularFile => OFlags::RDONLY,
        _ => return Err(Errno::INVAL),
    } | OFlags::CLOEXEC
        | OFlags::NOCTTY;
    let path = magic_path(file);
    // The guest keeps access times itself.
    match rustix::fs::openat(CWD, &*path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(CWD, &*path, flags, Mode::empty()),
        other => other,
    }
}
