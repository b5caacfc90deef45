//! What `open` makes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::linux::general;
use husk_hal::shared::{Shared, WeakShared};
use spin::Once;

use super::inotify::notify;
use super::internal::InternalFs;
use super::locks::InodeLocks;
use super::poll::{PollEvents, PollTable};
use super::sigio::{Band, LazyAsyncIo};
use super::{DirEntry, Inode, Location, Mount};
use crate::mm::Mappable;
use crate::sync::{Mutex, WaitQueue};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// The offset of reads and writes at a position that is kept elsewhere.
pub const OWN_POSITION: u64 = u64::MAX;

/// What an open file does. Blocking is the implementation's business: it honours `O_NONBLOCK` in
/// `file.flags()`, waits interruptibly, and returns `ERESTARTSYS` when a signal comes first.
pub trait FileOps: Send + Sync + core::fmt::Debug {
    /// Reads into `buf` at `offset` (ignored by files without positions, [`OWN_POSITION`] of one that is kept elsewhere); 0 is
    /// end of file.
    ///
    /// # Errors
    /// As `read(2)`.
    fn read(&self, _t: &Thread, _file: &File, _buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Writes from `buf` at `offset`; with `O_APPEND` the implementation finds the end itself, atomically, and
    /// `File` is told the new position by the return of [`FileOps::write`] plus [`FileOps::size`].
    ///
    /// # Errors
    /// As `write(2)`; a pipe without readers raises `SIGPIPE` itself.
    fn write(
        &self,
        _t: &Thread,
        _file: &File,
        _buf: &mut IoBuf<'_>,
        _offset: u64,
    ) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Whether the file has a position (`lseek(2)` works, `pread(2)` too); `ESPIPE` otherwise.
    fn is_seekable(&self) -> bool {
        false
    }

    /// Whether reads and writes move a position. Devices that can be sought without effect have none.
    fn has_position(&self) -> bool {
        self.is_seekable()
    }

    /// Moves a position that is kept elsewhere (`lseek(2)`), of a file that has none here; gives where it is then. Devices are
    /// sought without effect.
    ///
    /// # Errors
    /// As `lseek(2)`.
    fn seek(&self, _offset: i64, _whence: u32) -> Result<u64> {
        Ok(0)
    }

    /// Size in bytes, for `SEEK_END` and appending.
    fn size(&self) -> u64 {
        0
    }

    /// The next offset at or after `offset` with data, or with a hole (`SEEK_DATA`, `SEEK_HOLE`). A file
    /// that knows no holes is all data, with one at its end.
    ///
    /// # Errors
    /// `ENXIO` at or past the end.
    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64> {
        let size = self.size();
        if offset >= size {
            Err(Errno::ENXIO)
        } else {
            Ok(if hole { size } else { offset })
        }
    }

    /// Copies up to `len` bytes from `offset` on to `target` of the file `to`, without their passing through here; what
    /// a file system can that has both files. Arguments were checked.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if it cannot, so that the bytes must be read and written; as `copy_file_range(2)`.
    fn copy_range(
        &self,
        _t: &Thread,
        _offset: u64,
        _to: &File,
        _target: u64,
        _len: u64,
    ) -> Result<u64> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Readiness now; if `table` is given, also registers where changes will be announced.
    fn poll(&self, _t: &Thread, _file: &File, _table: Option<&mut PollTable<'_>>) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    /// Where the file wakes who waits for it, for signal-driven I/O; empty if it does not offer that.
    fn async_queues(&self) -> Vec<(Arc<WaitQueue>, Band)> {
        Vec::new()
    }

    /// Whether a wake-up there is news for who asked for signals.
    fn is_async_news(&self, _band: Band) -> bool {
        true
    }

    /// `ioctl(2)`.
    ///
    /// # Errors
    /// `ENOTTY` for requests it does not know.
    fn ioctl(&self, _t: &Thread, _file: &File, _request: u32, _arg: u64) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// Directory entries from `position` on, as [`Inode::read_dir`].
    ///
    /// # Errors
    /// `ENOTDIR`.
    fn read_dir(&self, _position: u64, _sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        Err(Errno::ENOTDIR)
    }

    /// Contents for `mmap(2)`.
    ///
    /// # Errors
    /// `ENODEV`.
    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }

    /// Whether `mmap(2)` of it gives anonymous memory (`/dev/zero`).
    fn is_zeros(&self) -> bool {
        false
    }

    /// The last descriptor of this open file was closed.
    fn released(&self) {}

    /// A descriptor of this open file was closed, and was not the last thing that holds it.
    fn descriptor_closed(&self) {}

    /// For callers that need a particular implementation back (pipes for splice, epoll, the like).
    fn as_any(&self) -> &dyn core::any::Any;
}

/// A reference to an open file, which every call that takes a descriptor counts.
pub type FileRef = Shared<File>;
/// A reference that does not keep the file open.
pub type WeakFile = WeakShared<File>;

/// An open file description: shared by the descriptors that dup and fork make.
#[derive(Debug)]
pub struct File {
    /// What it does.
    pub ops: Arc<dyn FileOps>,
    /// What it is.
    pub inode: Arc<dyn Inode>,
    /// Absolute path it was opened by, for `/proc/*/fd` and `/proc/*/maps`.
    pub path: Vec<u8>,
    /// The mount it was opened through; `None` if it lies in no mounted file system (pipes and the like).
    pub mount: Option<Arc<Mount>>,
    flags: AtomicU32,
    /// The position; held over a whole read or write, so that these are atomic against each other.
    pub position: Mutex<u64>,
    /// Set once it holds an advisory lock.
    pub(super) locks: Once<Arc<InodeLocks>>,
    /// Signal-driven I/O.
    pub(super) async_io: LazyAsyncIo,
}

impl File {
    /// An open file with `O_*` flags.
    #[must_use]
    pub fn new(ops: Arc<dyn FileOps>, inode: Arc<dyn Inode>, path: Vec<u8>, flags: u32) -> FileRef {
        Shared::new(Self {
            ops,
            inode,
            path,
            mount: None,
            flags: AtomicU32::new(flags),
            position: Mutex::new(0),
            locks: Once::new(),
            async_io: LazyAsyncIo::default(),
        })
    }

    /// An open file found by a path.
    #[must_use]
    pub fn opened(ops: Arc<dyn FileOps>, location: Location, flags: u32) -> FileRef {
        Shared::new(Self {
            ops,
            inode: location.inode,
            path: location.path,
            mount: Some(location.mount),
            flags: AtomicU32::new(flags),
            position: Mutex::new(0),
            locks: Once::new(),
            async_io: LazyAsyncIo::default(),
        })
    }

    /// Where it is, for walks that start at it and for magic links that lead to it.
    #[must_use]
    pub fn location(&self, kernel: &Kernel) -> Location {
        let mount = match &self.mount {
            Some(mount) => mount.clone(),
            None => kernel
                .fs
                .internal_mount(|| InternalFs::new(kernel.fs.new_device())),
        };
        Location {
            mount,
            inode: self.inode.clone(),
            path: self.path.clone(),
        }
    }

    /// Whether reading it updates the time of the last access (not with `O_NOATIME`, nor on a `noatime` mount).
    #[must_use]
    pub fn updates_atime(&self) -> bool {
        self.flags() & general::O_NOATIME == 0
            && self
                .mount
                .as_ref()
                .is_none_or(|mount| mount.flags() & (general::MS_NOATIME | general::MS_RDONLY) == 0)
    }

    /// Whether executing it may change ids and capabilities (not on a `nosuid` mount).
    #[must_use]
    pub fn allows_setuid(&self) -> bool {
        self.mount
            .as_ref()
            .is_none_or(|mount| mount.flags() & general::MS_NOSUID == 0)
    }

    /// Whether it may be mapped to be executed (not on a `noexec` mount; `mmap(2)`: `EPERM`).
    #[must_use]
    pub fn allows_exec(&self) -> bool {
        self.mount
            .as_ref()
            .is_none_or(|mount| mount.flags() & general::MS_NOEXEC == 0)
    }

    /// Reads into kernel memory at `offset`, up to the end of the file; for the kernel's own use. Returns the
    /// bytes read.
    ///
    /// # Errors
    /// As `pread(2)`.
    pub fn read_kernel(&self, t: &Thread, offset: u64, bytes: &mut [u8]) -> Result<usize> {
        let mut buf = IoBuf::kernel(bytes);
        while buf.remaining() > 0 {
            let at = offset + buf.done() as u64;
            if self.ops.read(t, self, &mut buf, at)? == 0 {
                break;
            }
        }
        Ok(buf.done())
    }

    /// `O_*` flags as `F_GETFL` gives them.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the flags (`F_SETFL` decides which may change).
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// Whether reads and writes must not block.
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.flags() & general::O_NONBLOCK != 0
    }

    /// The position, wherever it is kept.
    ///
    /// # Errors
    /// As `lseek(2)`.
    pub fn tell(&self) -> Result<u64> {
        if self.ops.has_position() {
            Ok(*self.position.lock())
        } else {
            self.ops.seek(0, general::SEEK_CUR)
        }
    }

    /// Moves the position, wherever it is kept.
    ///
    /// # Errors
    /// As `lseek(2)`.
    pub fn move_to(&self, position: u64) -> Result<()> {
        if self.ops.has_position() {
            *self.position.lock() = position;
            return Ok(());
        }
        let offset = i64::try_from(position).map_err(|_| Errno::EINVAL)?;
        self.ops.seek(offset, general::SEEK_SET).map(drop)
    }

    /// Whether it was opened with `O_PATH`: it names a file, but nothing can be done with the contents.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.flags() & general::O_PATH != 0
    }

    /// Whether it was opened for reading.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        matches!(
            self.flags() & general::O_ACCMODE,
            general::O_RDONLY | general::O_RDWR
        ) && self.flags() & general::O_PATH == 0
    }

    /// Whether it was opened for writing.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        matches!(
            self.flags() & general::O_ACCMODE,
            general::O_WRONLY | general::O_RDWR
        ) && self.flags() & general::O_PATH == 0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(locks) = self.locks.get() {
            locks.release_file(self);
        }
        notify::closed(self);
        self.ops.released();
    }
}
