//! What a file system offers.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::fuse::{LockIn, LockOut};
use husk_abi::linux::general;

use super::{FileOps, Location};
use crate::mm::Mappable;
use crate::process::Credentials;
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
    /// None of these: event descriptors and the like, whose `S_IFMT` bits are 0.
    Anonymous,
}

impl FileKind {
    /// The kind in the `S_IFMT` bits of `mode`, if they are one.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & general::S_IFMT {
            general::S_IFREG => FileKind::Regular,
            general::S_IFDIR => FileKind::Directory,
            general::S_IFLNK => FileKind::Symlink,
            general::S_IFCHR => FileKind::CharDevice,
            general::S_IFBLK => FileKind::BlockDevice,
            general::S_IFIFO => FileKind::Fifo,
            general::S_IFSOCK => FileKind::Socket,
            _ => return None,
        })
    }

    /// Its `S_IFMT` bits.
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        match self {
            FileKind::Regular => general::S_IFREG,
            FileKind::Directory => general::S_IFDIR,
            FileKind::Symlink => general::S_IFLNK,
            FileKind::CharDevice => general::S_IFCHR,
            FileKind::BlockDevice => general::S_IFBLK,
            FileKind::Fifo => general::S_IFIFO,
            FileKind::Socket => general::S_IFSOCK,
            FileKind::Anonymous => 0,
        }
    }

    /// Its `DT_*` number in a directory listing.
    #[must_use]
    pub fn entry_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
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
    /// Its owner or group has no id in the container's user namespace: what stands for that here is nobody's, and no capability
    /// is about the file (user_namespaces(7)).
    pub is_foreign: bool,
}

/// The id that stands for one that is not in the container's user namespace.
const NOBODY: u32 = 65_534;

impl Attributes {
    /// Whether it is this user's.
    #[must_use]
    pub fn is_of(&self, uid: u32) -> bool {
        self.uid == uid && !(self.is_foreign && uid == NOBODY)
    }

    /// Whether its group is one of the caller's.
    #[must_use]
    pub fn is_in_group(&self, credentials: &Credentials) -> bool {
        credentials.in_group(self.gid) && !(self.is_foreign && self.gid == NOBODY)
    }

    /// Whether the caller has capability `cap` over it.
    #[must_use]
    pub fn is_under(&self, credentials: &Credentials, cap: u32) -> bool {
        !self.is_foreign && credentials.has(cap)
    }
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

    /// Attributes as far as it depends on them who may do what: kind, mode and owner. The others may be a little behind,
    /// where that is cheaper.
    fn rights(&self) -> Attributes {
        self.attributes()
    }

    /// The type alone: asked for at every step of a walk.
    fn kind(&self) -> FileKind {
        self.attributes().kind
    }

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

    /// Whether what the names in this directory lead to changes only by its own doing, of which it tells
    /// [`super::known::outdate`] when a name is removed or leads elsewhere.
    fn names_are_ours(&self) -> bool {
        false
    }

    /// Creates a name.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` (the directory was removed), `ENOSPC`, `EROFS`, `EPERM`.
    fn create(&self, _name: &[u8], _what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Makes a regular file without a name (`O_TMPFILE`); only if `linkable` it can be given one later.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the file system cannot; `ENOSPC`, `ENOENT`.
    fn create_unnamed(&self, _what: &Create<'_>, _linkable: bool) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
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
    /// with `flags`. The VFS holds the file system's rename lock, so no directory moves meanwhile, and has refused moves into
    /// a directory's own subtree and over an ancestor.
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

    /// For magic links such as `/proc/self/fd/N` and `/proc/self/exe`: the object itself, not a path. An open
    /// file's is [`super::File::location`].
    fn follow(&self, _thread: &Thread) -> Option<Result<Location>> {
        None
    }

    /// Opens it; `flags` are `O_*`. Truncation and creation were done by the VFS.
    ///
    /// # Errors
    /// `ENXIO`, `EINTR` (a FIFO), and the driver's own.
    fn open(self: Arc<Self>, thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>>;

    /// Reserves, zeroes or frees a range (`fallocate(2)`); `mode` is `FALLOC_FL_*`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the file system cannot; `ENOSPC`.
    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes what was written safe (`fsync(2)`); the attributes only as far as the data need them if `data_only`.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`: what writing back gave.
    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    /// Has what was written to the file begin its way to where it survives.
    ///
    /// # Errors
    /// As [`Inode::sync`].
    fn start_sync(&self) -> Result<()> {
        Ok(())
    }

    /// The value of an extended attribute (`xattr(7)`).
    ///
    /// # Errors
    /// `ENODATA`; `EOPNOTSUPP` if the file system has none.
    fn xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets (`flags` are `XATTR_*`) or removes an extended attribute.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `ENOSPC`, `EOPNOTSUPP`.
    fn set_xattr(&self, _name: &[u8], _value: Option<&[u8]>, _flags: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of its extended attributes.
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// The parent of a directory, if the file system keeps track of it (a removed directory's last one too);
    /// `None` for the root of the file system, and for file systems that do not: their directories never
    /// move, and the VFS goes by the path.
    fn parent(&self) -> Option<Arc<dyn Inode>> {
        None
    }

    /// The name of a directory in its [`Inode::parent`]; `None` once it is removed.
    fn name(&self) -> Option<Vec<u8>> {
        None
    }

    /// Its contents as memory can map them; `None` if it cannot be mapped.
    fn mappable(self: Arc<Self>) -> Option<Arc<dyn Mappable>> {
        None
    }

    /// Whether others lock it outside of the guest.
    fn is_locked_outside(&self) -> bool {
        false
    }

    /// Makes what `lock` says what the guest holds of the file's locks outside, or asks what is in the way of that.
    ///
    /// # Errors
    /// `EAGAIN` if somebody outside is in the way.
    fn lock_outside(&self, _lock: &LockIn) -> Result<Option<LockOut>> {
        Ok(None)
    }

    /// For file systems that need their own type back from an `Arc<dyn Inode>`.
    fn as_any(&self) -> &dyn core::any::Any;
}
