//! What a file system offers.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::FileOps;
use crate::mm::Mappable;
use crate::{Errno, Result, Thread};

/// Type of a file, as `S_IFMT` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "inode(7)'s terms")]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// Attributes of a file (`inode(7)`). Times are nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "stat(2)'s terms")]
pub struct Attributes {
    pub dev: u64,
    pub ino: u64,
    pub kind: FileKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub block_size: u32,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
}

/// A change of attributes; `None` leaves as is. Permission was checked by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "stat(2)'s terms")]
pub struct SetAttributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime_ns: Option<i64>,
    pub mtime_ns: Option<i64>,
    pub ctime_ns: Option<i64>,
}

/// What to create.
#[derive(Clone, Debug)]
pub struct Create<'a> {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, umask applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: &'a [u8],
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Position after this entry: where a later `getdents` goes on.
    pub next: u64,
    /// Inode number.
    pub ino: u64,
    /// Kind.
    pub kind: FileKind,
    /// Name.
    pub name: Vec<u8>,
}

/// A file in a file system. Names passed in are single components, not empty, not `.` or `..`.
///
/// Permission checks are the VFS's; an inode only refuses what its file system cannot do.
pub trait Inode: Send + Sync + core::fmt::Debug {
    /// Current attributes.
    fn attributes(&self) -> Attributes;

    /// Changes attributes; `ctime` is set by the inode unless given.
    ///
    /// # Errors
    /// `EROFS`, `EPERM` and what resizing gives.
    fn set_attributes(&self, change: &SetAttributes) -> Result<()>;

    /// Looks a name up.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Creates a name.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` (the directory was removed), `ENOSPC`, `EROFS`, `EPERM`.
    fn create(&self, _name: &[u8], _what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Adds a name for an existing file of the same file system.
    ///
    /// # Errors
    /// `EEXIST`, `EXDEV`, `EMLINK`, `EPERM`.
    fn link(&self, _name: &[u8], _to: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`.
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`.
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Moves `from` in this directory to `to` in `to_directory` (of the same file system) as `renameat2(2)`
    /// with `flags`. The VFS holds the file system's rename lock, so no directory moves meanwhile.
    ///
    /// # Errors
    /// As `rename(2)`.
    fn rename(
        &self,
        _from: &[u8],
        _to_directory: &Arc<dyn Inode>,
        _to: &[u8],
        _flags: u32,
    ) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Calls `sink` for each entry from `position` on (0 is the first) until it returns false. `.` and `..` are
    /// included.
    ///
    /// # Errors
    /// `ENOTDIR`.
    fn read_dir(&self, _position: u64, _sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Target of a symbolic link. `thread` is the reader: `/proc/self` depends on it.
    ///
    /// # Errors
    /// `EINVAL` if it is not one.
    fn read_link(&self, _thread: &Thread) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// For magic links such as `/proc/self/fd/N` and `/proc/self/exe`: the object itself, not a path.
    fn follow(&self, _thread: &Thread) -> Option<Result<Arc<dyn Inode>>> {
        None
    }

    /// Opens it; `flags` are `O_*`. Truncation and creation were done by the VFS.
    ///
    /// # Errors
    /// `ENXIO`, `EINTR` (a FIFO), and the driver's own.
    fn open(self: Arc<Self>, thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>>;

    /// Its contents as memory can map them; `None` if it cannot be mapped.
    fn mappable(self: Arc<Self>) -> Option<Arc<dyn Mappable>> {
        None
    }

    /// For file systems that need their own type back from an `Arc<dyn Inode>`.
    fn as_any(&self) -> &dyn core::any::Any;
}
