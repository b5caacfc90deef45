//! The file system of files that lie in none that is mounted: pipes, anonymous inodes.

use alloc::sync::Arc;

use super::{
    Attributes, DirFile, FileKind, FileOps, FileSystem, FsStatistics, Inode, SetAttributes,
};
use crate::{Errno, Result, Thread};

/// Linux's `PIPEFS_MAGIC`-like number for anonymous inodes (`ANON_INODE_FS_MAGIC`).
const ANON_INODE_FS_MAGIC: u32 = 0x0904_1934;

/// The file system; it has no names.
#[derive(Debug)]
pub(super) struct InternalFs {
    root: Arc<InternalRoot>,
}

/// Its root, an empty directory no path leads to.
#[derive(Debug)]
struct InternalRoot {
    dev: u64,
}

impl InternalFs {
    pub(super) fn new(dev: u64) -> Arc<Self> {
        Arc::new(Self {
            root: Arc::new(InternalRoot { dev }),
        })
    }
}

impl FileSystem for InternalFs {
    fn kind(&self) -> &'static str {
        "anon_inodefs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statistics(&self) -> FsStatistics {
        FsStatistics {
            magic: ANON_INODE_FS_MAGIC,
            block_size: 4096,
            ..FsStatistics::default()
        }
    }
}

impl Inode for InternalRoot {
    fn attributes(&self) -> Attributes {
        Attributes {
            is_foreign: false,
            dev: self.dev,
            ino: 1,
            kind: FileKind::Directory,
            mode: 0,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            block_size: 4096,
            blocks: 0,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
        }
    }

    fn set_attributes(&self, _change: &SetAttributes) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOENT)
    }

    fn open(self: Arc<Self>, _thread: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(self))
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
